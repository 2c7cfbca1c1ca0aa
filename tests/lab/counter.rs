//! A service that counts: each line on a connection is answered by the next number. And a client who asks all the time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Machine, until};

/// Its own address, which goes with it.
pub const ADDRESS: &str = "10.77.0.99";
/// Its port.
pub const PORT: u16 = 7000;
/// The file with its number.
pub const PID_FILE: &str = "/run/counter.pid";

/// A daemon: a session of its own, no descriptor of whoever started it, a number that is free elsewhere. Arguments: address,
/// port, MB of memory that no page of is like another, and how many MB of it a thread writes to in a second. Each question reads a page and writes to it, and is not answered by a
/// number when the page is another.
const SERVICE: &str = r"
import os, socket, struct, sys, threading, time
open('/proc/sys/kernel/ns_last_pid', 'w').write('5000')
if os.fork(): os._exit(0)
os.setsid(); os.closerange(0, 1024)
os.open('/dev/null', os.O_RDWR); os.dup(0); os.dup(0)
pages = int(sys.argv[3]) * 256
memory = bytearray(pages * 4096)
for p in range(0, pages, 256): memory[p * 4096:(p + 256) * 4096] = os.urandom(1 << 20)
for p in range(pages): struct.pack_into('<Q', memory, p * 4096, p)
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(5)
def dirty(rate):
    at = 0
    while True:
        for _ in range(rate * 256 // 100): at = (at + 1) % pages; memory[at * 4096 + 100] = at & 255
        time.sleep(0.01)
if len(sys.argv) > 4: threading.Thread(target=dirty, args=(int(sys.argv[4]),), daemon=True).start()
with open('/run/counter.pid', 'w') as f: f.write(str(os.getpid()))
count = 0
while True:
    try:
        c, _ = s.accept(); c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while c.recv(1):
            count += 1; page = count * 7919 % pages
            if struct.unpack_from('<Q', memory, page * 4096)[0] != page: c.sendall(b'wrong memory\n')
            struct.pack_into('<Q', memory, page * 4096 + 8, count); c.sendall(b'%d\n' % count)
    except ConnectionError: pass
";

/// Starts the service on a host, with its address.
pub fn start(host: &Machine, megabytes: u32) {
    start_busy(host, megabytes, "");
}

/// The same; `dirties` is how many MB of its memory it writes to in a second.
pub fn start_busy(host: &Machine, megabytes: u32, dirties: &str) {
    assert!(
        std::path::Path::new("/usr/local/sbin/criu").exists() || std::path::Path::new("/usr/sbin/criu").exists(),
        "criu is missing: run scripts/install-parts.sh criu"
    );
    std::fs::write(host.path("/srv/counter.py"), SERVICE).expect("written");
    host.says(&format!("ip addr add {ADDRESS}/32 dev eth0; python3 /srv/counter.py {ADDRESS} {PORT} {megabytes} {dirties}"));
    until("the service has started", || host.path(PID_FILE).exists().then_some(()));
}

/// Lets CRIU have pipes as long as it needs them for post-copy, where not even root may pass the machine's limit.
pub fn long_pipes() {
    let limit = "/proc/sys/fs/pipe-max-size";
    let now: u64 = std::fs::read_to_string(limit).expect("Linux").trim().parse().expect("a number");
    if now < 4 << 20 {
        std::fs::write(limit, "4194304").expect("root may set it");
    }
}

/// Whether the service is there and frozen.
pub fn is_frozen(host: &Machine) -> bool {
    let state = host.says("sed -n 's/^State:.\\(.\\).*/\\1/p' /proc/$(cat /run/counter.pid)/status 2>/dev/null || true");
    state.eq_ignore_ascii_case("t")
}

/// One question on a connection of its own.
pub fn ask() -> u64 {
    until("the service answers anew", || {
        let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::new(10, 77, 0, 99), PORT).into(), Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"x").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        line.trim().parse().ok()
    })
}

/// Whether the service runs on the host.
pub fn runs(host: &Machine) -> bool {
    host.running("/srv/counter.py") > 0
}

/// One client on one connection, who asks every 2 ms. It panics when an answer is not the next number, or does not come.
pub struct Asker {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Asker {
    /// Begins to ask.
    pub fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until_over = over.clone();
        // The thread is in the lab's network, as the one that starts it.
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect((ADDRESS, PORT)).expect("the service accepts");
            stream.set_nodelay(true).expect("a TCP stream");
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a TCP stream");
            let mut lines = BufReader::new(stream.try_clone().expect("a TCP stream")).lines();
            let (mut asked, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
            while !until_over.load(Ordering::Relaxed) {
                stream.write_all(b"x").expect("the connection holds");
                asked += 1;
                let answer: u64 = lines.next().expect("an answer").expect("the connection holds").parse().expect("a number");
                assert_eq!(answer, asked, "each is answered once");
                longest = longest.max(last.elapsed());
                last = Instant::now();
                std::thread::sleep(Duration::from_millis(2));
            }
            (asked, longest)
        });
        Self { over, thread }
    }

    /// Ends, and says how many answers came and how long the longest took to come.
    pub fn stop(self) -> (u64, Duration) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("each question was answered once, in order, on one connection")
    }
}
