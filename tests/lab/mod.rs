//! A lab: test hosts on one machine, each with its own network, processes, mounts, name, users, folders and sshd.
//!
//! The thread that builds a lab enters a network of its own, whose bridge joins the hosts: all addresses are the same in
//! every lab, and labs that run side by side never meet. What a lab has started is killed with the thread that built
//! it, however that ends; namespaces, links and mounts go with their last process. Needs root.
#![allow(dead_code, reason = "each test binary uses some of it")]

pub mod container;
pub mod counter;
pub mod ledger;
pub mod link;
pub mod load;
pub mod pooler;
pub mod postgres;
pub mod proxy;
pub mod template;
pub mod tls;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ferry::hosts::{Patience, SshHost, Target};
use link::{Link, Weather};
use nix::sched::{CloneFlags, unshare};

/// The first three numbers of every address.
const NET: &str = "10.77.0";

/// Where programs are looked for inside.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Folders of a host that are no bind mounts of its folder.
const APART: [&str; 6] =
    ["/var/lib/postgresql", "/etc/postgresql", "/var/log/postgresql", "/etc/pgbouncer", "/etc/haproxy", "/run"];

/// Runs inside a host, as its first process. `$1` is the host's folder, `$2` its name, `$3` its address. It is bash,
/// which reaps orphans while it reads.
const INIT: &str = r#"
set -eu
H=$1; LAB=$4 # and $5, where databases lie
mount --make-rprivate /
hostname "$2"
for f in passwd group shadow hosts; do mount --bind "$H/etc/$f" "/etc/$f"; done
mount --bind "$H/ssh" /etc/ssh
mount --bind "$H/root" /root
mount --bind "$H/home" /home
mount --bind "$H/srv" /srv
if [ -d /etc/sudoers.d ]; then mount --bind "$H/sudoers.d" /etc/sudoers.d; fi
mount -t tmpfs tmpfs /run; mkdir -p /run/sshd /run/lock
# What a killed server leaves there.
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
if command -v podman >/dev/null; then mkdir -p /var/lib/containers; mount -t tmpfs tmpfs /var/lib/containers; fi
mkdir -p /var/lib/postgresql
if id postgres >/dev/null 2>&1; then
  for d in /var/lib/postgresql /etc/postgresql /var/log/postgresql /etc/pgbouncer /etc/haproxy; do
    if [ -d "$d" ]; then mount -t tmpfs -o mode=755,uid=postgres,gid=postgres tmpfs "$d"; fi
  done
  if [ "$5" = disk ]; then mount --bind "$H/postgresql" /var/lib/postgresql; chown postgres:postgres /var/lib/postgresql; fi
  install -d -o postgres -g postgres -m 2775 /run/postgresql
fi
mount --bind "$H/tmp" /tmp; chmod 1777 /tmp
# The other hosts' folders, and the keys of the one who tests, are nobody's business here.
if [ -d "$LAB" ]; then mount -t tmpfs tmpfs "$LAB"; fi
ip link set lo up
read -r go
ip link set eth0 up
ip addr add "$3/24" dev eth0
ip route add default via 10.77.0.1
/usr/sbin/sshd -D -e -f /etc/ssh/sshd_config </dev/null >/etc/ssh/log 2>&1 &
cd /
echo ready
while read -r line; do :; done
"#;

/// A lab.
pub struct Lab {
    hosts: Vec<Machine>,
    folder: tempfile::TempDir,
    _broom: Broom,
}

/// A process that hears the end of its input when the test was killed, and removes the lab's folder.
struct Broom(Child);

impl Drop for Broom {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of its hosts.
pub struct Machine {
    /// Its name, also in the lab's SSH configuration.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The link between it and the bridge, at the bridge's end.
    pub link: String,
    folder: PathBuf,
    init: Child,
    /// Its first process, as seen from outside.
    pid: u32,
    _stdin: ChildStdin,
    slow: OnceLock<Link>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process of a process namespace takes all others with it.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

impl Lab {
    /// Hosts of these names, at 10.77.0.10, .20, .30 and so on; this thread is at 10.77.0.1 from now on, and so is all
    /// that it starts. Their databases are in memory: what waits for the disk waits for nothing.
    pub fn new(names: &[&str]) -> Self {
        Self::build(names, "memory")
    }

    /// The same with databases on the disk.
    pub fn on_disk(names: &[&str]) -> Self {
        Self::build(names, "disk")
    }

    fn build(names: &[&str], databases: &'static str) -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "the lab makes namespaces, links and mounts: run its tests as root");
        for program in ["/usr/sbin/sshd", "/usr/bin/ssh"] {
            assert!(Path::new(program).exists(), "{program} is missing: run scripts/install-parts.sh sshd");
        }
        unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own for this thread");
        run("ip", "link set lo up");
        run("ip", "link add lab type bridge");
        run("ip", &format!("addr add {NET}.1/24 dev lab"));
        run("ip", "link set lab up");
        let folder = tempfile::Builder::new().prefix("ferry-lab-").tempdir().expect("a folder");
        make_key(&folder.path().join("key"), "lab");
        let mut broom = Command::new("sh");
        broom.args(["-c", "read -r over; rm -rf -- \"$1\"", "broom"]).arg(folder.path()).process_group(0);
        broom.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let broom = Broom(broom.spawn().expect("a shell"));
        let mut lab = Self { hosts: Vec::new(), folder, _broom: broom };
        let known: Vec<_> = names.iter().enumerate().map(|(at, name)| format!("{} {name}\n", address(at))).collect();
        let known = known.concat();
        for (at, name) in names.iter().enumerate() {
            let machine = lab.machine(name, at, &known, databases);
            lab.hosts.push(machine);
        }
        lab.write_client();
        lab
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> &Machine {
        self.hosts.iter().find(|host| host.name == name).expect("a host of this lab")
    }

    /// The lab's own folder: keys, the SSH configuration, what tests put there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A host as ferry sees it, with this user logging in.
    pub fn target(&self, user: &str, name: &str) -> Target {
        let config = self.folder.path().join("config").to_string_lossy().into_owned();
        Target { config: Some(config), ..Target::new(format!("{user}@{name}")) }
    }

    /// The same, ready for use, with little patience.
    pub fn ssh(&self, user: &str, name: &str) -> SshHost {
        SshHost::with_patience(name, self.target(user, name), patience())
    }

    /// The hosts of a pipeline: these of the lab, root logging in.
    pub fn yaml(&self, names: &[&str]) -> String {
        let config = self.folder.path().join("config");
        let line = |name: &&str| format!("  {name}: {{ ssh: {name}, user: root, config: \"{}\" }}\n", config.display());
        names.iter().map(line).fold("hosts:\n".to_owned(), |all, line| all + &line)
    }

    fn machine(&self, name: &str, at: usize, known: &str, databases: &str) -> Machine {
        let folder = self.folder.path().join(name);
        let address = address(at);
        prepare(&folder, name, known, &self.folder.path().join("key.pub"));
        let mut init = Command::new("setpriv");
        init.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork"]);
        init.args(["--kill-child", "--mount-proc", "bash", "-c", INIT, "init"]);
        init.arg(&folder).arg(name).arg(&address).arg(self.folder.path()).arg(databases);
        let mut init = init
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv and unshare are part of util-linux");
        let mut stdin = init.stdin.take().expect("a pipe");
        let link = format!("to{}", at + 1);
        let pid = until("the host has its namespaces", || {
            let pid = children(init.id()).first().copied()?;
            // Before it has its own network, the link would come to the wrong one.
            let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            (network(&pid.to_string())? != network("thread-self")?).then_some(pid)
        });
        run("ip", &format!("link add {link} type veth peer name eth0 netns {pid}"));
        run("ip", &format!("link set {link} master lab"));
        run("ip", &format!("link set {link} up"));
        stdin.write_all(b"go\n").expect("it listens");
        let mut said = String::new();
        BufReader::new(init.stdout.take().expect("a pipe")).read_line(&mut said).expect("it answers");
        assert_eq!(said, "ready\n", "the host did not start");
        let machine = Machine { name: name.to_owned(), address, link, folder, init, pid, _stdin: stdin, slow: OnceLock::new() };
        until("sshd listens", || std::net::TcpStream::connect((machine.address.as_str(), 22)).ok());
        machine
    }

    fn write_client(&self) {
        let lab = self.folder.path().display();
        let mut config = format!(
            "Host *\n  IdentityFile {lab}/key\n  UserKnownHostsFile {lab}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        );
        let mut known = String::new();
        for host in &self.hosts {
            let _ = writeln!(config, "Host {}\n  HostName {}", host.name, host.address);
            let _ = writeln!(known, "{0},[{0}]:2222 {1}", host.address, host.key());
        }
        std::fs::write(self.folder.path().join("config"), config).expect("written");
        std::fs::write(self.folder.path().join("known_hosts"), known).expect("written");
    }
}

impl Machine {
    /// Its public host key.
    pub fn key(&self) -> String {
        std::fs::read_to_string(self.folder.join("ssh/host.pub")).expect("it has one").trim().to_owned()
    }

    /// Where a file of the host lies for the one who tests: below `/srv`, `/home`, `/root`, `/tmp`, `/run` or one of
    /// the folders of PostgreSQL, PgBouncer and HAProxy there.
    pub fn path(&self, inside: &str) -> PathBuf {
        if APART.iter().any(|folder| inside.starts_with(folder)) {
            return PathBuf::from(format!("/proc/{}/root{inside}", self.pid));
        }
        self.folder.join(inside.trim_start_matches('/'))
    }

    /// Runs a line of shell inside, past SSH.
    pub fn inside(&self, line: &str) -> Output {
        self.enter().args(["sh", "-c", line]).stdin(Stdio::null()).output().expect("nsenter is part of util-linux")
    }

    /// A command that runs inside: the program and its arguments are still to be said.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid"]);
        command
    }

    /// The same as another user, in the root folder and with nothing in its environment but what a login has.
    pub fn enter_as(&self, user: &str, home: &str) -> Command {
        let mut command = self.enter();
        command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "env", "-C", "/"]);
        command.env_clear().env("PATH", PATH).env("HOME", home).env("USER", user).env("LANG", "C.UTF-8");
        command.stdin(Stdio::null());
        command
    }

    /// What a line of shell prints inside.
    pub fn says(&self, line: &str) -> String {
        let output = self.inside(line);
        assert!(output.status.success(), "`{line}` on {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// How many processes inside have this in their arguments.
    pub fn running(&self, text: &str) -> usize {
        let line = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done";
        let output = self.inside(line);
        String::from_utf8_lossy(&output.stdout).lines().filter(|process| process.contains(text)).count()
    }

    /// What its link is like from now on. Connections live through the change.
    pub fn weather(&self, weather: Weather) {
        let link = self.slow.get_or_init(|| {
            // Not from /sys, which is the machine's own here: neighbours would go on to send to the old one for ten seconds.
            let mac = self.says("ip -o link show eth0 | sed 's/.*ether //; s/ .*//'");
            run("ip", &format!("link del {}", self.link));
            let link = Link::new(self.pid, &self.link);
            let address = &self.address;
            self.says(&format!(
                "ip link set eth0 address {mac} && ip addr add {address}/24 dev eth0 && ip link set eth0 up && ip route add default via {NET}.1"
            ));
            run("ip", &format!("link set {} master lab", self.link));
            run("ip", &format!("link set {} up", self.link));
            link
        });
        link.is(weather);
    }

    /// Its first process, as seen from outside.
    pub fn process(&self) -> u32 {
        self.pid
    }

    /// Pulls the cable.
    pub fn cut(&self) {
        run("ip", &format!("link set {} down", self.link));
    }

    /// Puts it in again.
    pub fn mend(&self) {
        run("ip", &format!("link set {} up", self.link));
    }
}

/// For tests: a broken connection is noticed soon.
pub fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(4),
        beat: Duration::from_secs(1),
        silence: Duration::from_secs(6),
        grace: Duration::from_secs(2),
        ..Patience::default()
    }
}

/// The address of a lab's host, counted from nought.
fn address(at: usize) -> String {
    format!("{NET}.{}", (at + 1) * 10)
}

/// What a host finds in its own folders. `known` are the lab's names.
fn prepare(folder: &Path, name: &str, known: &str, key: &Path) {
    let new = |path: &str| std::fs::create_dir_all(folder.join(path)).expect("a new folder");
    for path in ["etc", "ssh", "root", "home/ada", "home/bob", "srv", "tmp", "postgresql", "sudoers.d"] {
        new(path);
    }
    let write = |path: &str, text: &str| std::fs::write(folder.join(path), text).expect("written");
    let system = |path: &str| std::fs::read_to_string(format!("/etc/{path}")).unwrap_or_default();
    let users = "ada:x:4001:4001::/home/ada:/bin/bash\nbob:x:4002:4002::/home/bob:/bin/sh\n";
    write("etc/passwd", &format!("{}{users}", system("passwd")));
    write("etc/group", &format!("{}ada:x:4001:\nbob:x:4002:\n", system("group")));
    write("etc/shadow", &format!("{}ada:*:19000:0:99999:7:::\nbob:*:19000:0:99999:7:::\n", system("shadow")));
    write("etc/hosts", &format!("127.0.0.1 localhost\n{known}"));
    // Ada may become bob, and nobody else.
    write("sudoers.d/lab", "ada ALL=(bob) NOPASSWD: ALL\n");
    let chmod = |path: &str, mode| std::fs::set_permissions(folder.join(path), PermissionsExt::from_mode(mode)).expect("mine");
    chmod("sudoers.d/lab", 0o440);
    chmod("root", 0o700);
    for (path, id) in [("home/ada", 4001), ("home/bob", 4002)] {
        std::os::unix::fs::chown(folder.join(path), Some(id), Some(id)).expect("root may");
        chmod(path, 0o700);
    }
    make_key(&folder.join("ssh/host"), name);
    std::fs::copy(key, folder.join("ssh/authorized_keys")).expect("copied");
    write(
        "ssh/sshd_config",
        "HostKey /etc/ssh/host\nAuthorizedKeysFile /etc/ssh/authorized_keys\nStrictModes no\nPidFile none\nUsePAM no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\nPermitRootLogin prohibit-password\n\
         AllowTcpForwarding yes\nAllowStreamLocalForwarding yes\nMaxStartups 64:30:128\n",
    );
}

/// A key pair without a passphrase.
pub fn make_key(file: &Path, comment: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(file);
    assert!(command.stdin(Stdio::null()).status().expect("ssh-keygen comes with openssh-client").success());
}

/// Runs a program of this machine in this thread's network.
pub fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is missing ({error}): run scripts/install-parts.sh lab"));
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Watches until there is something.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
