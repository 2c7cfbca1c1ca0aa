//! Containers of Podman on the lab's hosts: the service that counts, and one that appends the time to an object every second.

use std::process::Command;

use super::counter::{ADDRESS, PORT};
use super::{Machine, until};

/// Answers each byte on a connection with the next number. Arguments: address, port, MB of memory that no page of is like
/// another.
const COUNTER: &str = r"
import os, socket, sys
memory = [os.urandom(1 << 20) for _ in range(int(sys.argv[3]))]
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(5)
count = 0
while True:
    c, _ = s.accept(); c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while c.recv(1): count += 1; c.sendall(b'%d\n' % count)
    c.close()
";

/// Every second, appends the time to a record that it has in memory, and writes that to an object. Arguments: the S3 server,
/// a key and its secret, the address to come from.
const CLOCK: &str = r"
import datetime, hashlib, hmac, http.client, sys, time
server, key, secret, here = sys.argv[1:5]
def put(body):
    now = datetime.datetime.utcnow().strftime('%Y%m%dT%H%M%SZ'); day = now[:8]
    digest, names = hashlib.sha256(body).hexdigest(), 'host;x-amz-content-sha256;x-amz-date'
    asked = f'PUT\n/box/clock.txt\n\nhost:{server}\nx-amz-content-sha256:{digest}\nx-amz-date:{now}\n\n{names}\n{digest}'
    scope = f'{day}/us-east-1/s3/aws4_request'
    text = f'AWS4-HMAC-SHA256\n{now}\n{scope}\n' + hashlib.sha256(asked.encode()).hexdigest()
    sign = ('AWS4' + secret).encode()
    for part in (day, 'us-east-1', 's3', 'aws4_request', text): sign = hmac.new(sign, part.encode(), hashlib.sha256).digest()
    by = f'AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={sign.hex()}'
    c = http.client.HTTPConnection(server, timeout=10, source_address=(here, 0))
    c.request('PUT', '/box/clock.txt', body, {'x-amz-content-sha256': digest, 'x-amz-date': now, 'Authorization': by})
    answer = c.getresponse(); answer.read(); c.close()
    if answer.status != 200: print(answer.status, answer.reason, flush=True)
record, due = b'', time.time()
while True:
    record += b'%.3f\n' % time.time()
    try: put(record)
    except Exception as error: print(error, flush=True)
    due += 1; time.sleep(max(0, due - time.time()))
";

/// Makes the image of all containers here on the first of these hosts, and brings it to the others. What it has of programs is
/// mounted from the host.
pub fn image(hosts: &[&Machine]) {
    for program in ["podman", "runc"] {
        let found = Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin command -v {program}")]).output();
        assert!(found.is_ok_and(|found| found.status.success()), "{program} is missing: run scripts/install-parts.sh podman");
    }
    let (first, others) = hosts.split_first().expect("a host");
    std::fs::create_dir_all(first.path("/srv/image/srv")).expect("a folder");
    for (name, text) in [("counter.py", COUNTER), ("clock.py", CLOCK)] {
        std::fs::write(first.path("/srv/image/srv").join(name), text).expect("written");
    }
    first.says(
        "cd /srv/image && mkdir usr etc proc sys dev tmp run root && for d in bin sbin lib lib64; do ln -s usr/$d $d; done
        echo root:x:0:0::/root:/bin/sh >etc/passwd; tar -cf ../image.tar . && podman import -q ../image.tar box && podman save -q box -o ../box.tar",
    );
    for host in others {
        std::fs::copy(first.path("/srv/box.tar"), host.path("/srv/box.tar")).expect("a copy");
        host.says("podman load -q -i /srv/box.tar");
    }
}

/// Starts a container on a host. `words` are options of `podman run`, then a script of the image and its arguments behind `--`.
pub fn run(host: &Machine, name: &str, options: &str, script: &str) {
    let network = if options.contains("--network") { "" } else { "--network host" };
    host.says(&format!(
        "podman --runtime runc run -d --name {name} {network} --log-driver k8s-file -v /usr:/usr:ro {options} localhost/box python3 /srv/{script}"
    ));
}

/// Starts the service that counts on a host, with its address.
pub fn count(host: &Machine, megabytes: u32) {
    host.says(&format!("ip addr add {ADDRESS}/32 dev eth0"));
    run(host, "counter", "", &format!("counter.py {ADDRESS} {PORT} {megabytes}"));
    until("the container listens", || std::net::TcpStream::connect((ADDRESS, PORT)).ok());
}

/// What podman says of its containers there: `name state`, one each line.
pub fn all(host: &Machine) -> String {
    host.says(
        "ids=$(podman ps --all --quiet); [ -z \"$ids\" ] || podman inspect --type container --format '{{.Name}} {{.State.Status}}' $ids | sort",
    )
}

/// Removes all containers, and with them what they leave in the machine's cgroups.
pub fn clean(hosts: &[&Machine]) {
    for host in hosts {
        host.says("podman rm --all --force --time 0 >/dev/null");
    }
}
