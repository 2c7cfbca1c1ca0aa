//! Real servers for tests: S3 (rclone, Garage), WebDAV (rclone), Azure Blob (azurite), SFTP (sshd), each on a free port
//! of 127.0.0.1, each ended when its value is dropped or when the test process dies.
//!
//! A part that is missing is a loud skip, and a failure where `CI=true`. `scripts/install-parts.sh` installs them.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::print_stderr, reason = "a skip has to be loud")]

pub mod cluster;
pub mod fault;
pub mod scene;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where `scripts/install-parts.sh` puts them.
pub fn folder() -> PathBuf {
    if let Some(parts) = std::env::var_os("FERRY_PARTS") {
        return parts.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    cache.join("ferry/parts")
}

/// Says loudly that a test is skipped; fails where nothing may be skipped.
pub fn missing<T>(part: &str) -> Option<T> {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{part} is missing: run scripts/install-parts.sh");
    eprintln!("\n!!! SKIPPED: {part} is missing. Run scripts/install-parts.sh\n");
    None
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// A running server. Ended with SIGKILL on drop; and by the kernel when the test process dies without a drop.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
    /// What it keeps. Removed on drop.
    pub data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Starts a program that listens on this port and waits until it accepts. That it dies with this process is its own
    /// command's matter.
    pub fn on(port: u16, mut command: Command) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(data.path().join(LOG)).expect("a log");
        let error = log.try_clone().expect("the same log");
        let mut child = command.stdin(Stdio::null()).stdout(log).stderr(error).spawn().expect("the program is there");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || std::fs::read_to_string(data.path().join(LOG)).unwrap_or_default();
            assert!(child.try_wait().is_ok_and(|ended| ended.is_none()), "it ended: {}", said());
            assert!(start.elapsed() < Duration::from_secs(30), "it does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, port, data }
    }

    /// Starts `program` so that it dies with this process, and waits until its port accepts. The port may be taken by
    /// another between the choice and the start: then another port is tried.
    fn start(data: tempfile::TempDir, command: &dyn Fn(u16, &Path) -> Command) -> Self {
        let mut said = String::new();
        for _ in 0..5 {
            let port = free_port();
            let wanted = command(port, data.path());
            // A server that keeps running after the test was killed would be found by nobody.
            let mut guarded = Command::new("setpriv");
            guarded.args(["--pdeathsig", "KILL"]).arg(wanted.get_program()).args(wanted.get_args());
            for (name, value) in wanted.get_envs() {
                if let Some(value) = value {
                    guarded.env(name, value);
                }
            }
            let log = std::fs::File::create(data.path().join(LOG)).expect("a log");
            let error = log.try_clone().expect("the same log");
            let mut child =
                guarded.stdin(Stdio::null()).stdout(log).stderr(error).spawn().expect("setpriv is part of util-linux");
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(30) {
                // Another's server on the same port accepts too: only a child that still runs is the one.
                let has_ended = child.try_wait().is_ok_and(|ended| ended.is_some());
                if !has_ended && TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, port, data };
                }
                if has_ended {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
            said = std::fs::read_to_string(data.path().join(LOG)).unwrap_or_default();
        }
        panic!("the server did not start: {said}");
    }
}

/// What a server says, in a file of its data folder.
const LOG: &str = ".server.log";

/// The keys of the S3 servers.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// The key's name.
    pub id: &'static str,
    /// Its secret.
    pub secret: &'static str,
}

/// The first S3 server's keys.
pub const OLD: Keys = Keys { id: "OLDACCESSKEY0001", secret: "old-secret-0001-canary" };
/// The second S3 server's keys.
pub const NEW: Keys = Keys { id: "NEWACCESSKEY0002", secret: "new-secret-0002-canary" };

/// The program.
pub fn rclone() -> Option<PathBuf> {
    let program = folder().join("venv/bin/rclone");
    if program.exists() { Some(program) } else { missing("rclone") }
}

/// What rclone says when it is asked like this, with no configuration but what its arguments hold.
pub fn ask_rclone(args: &[&str]) -> Option<String> {
    let said = Command::new(rclone()?).env("RCLONE_CONFIG", "/dev/null").args(args).output().expect("rclone runs");
    assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
    Some(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// The bucket `box` of an S3 server, as rclone is told of it.
pub fn rclone_s3(port: u16, keys: Keys) -> String {
    let (id, secret) = (keys.id, keys.secret);
    format!(":s3,provider=Other,access_key_id={id},secret_access_key={secret},endpoint='http://127.0.0.1:{port}':box/")
}

/// The container `box` of azurite, as rclone is told of it.
pub fn rclone_azure(server: &Server) -> String {
    let endpoint = format!("http://127.0.0.1:{}/{AZURE_ACCOUNT}", server.port);
    format!(":azureblob,account={AZURE_ACCOUNT},key='{AZURE_KEY}',endpoint='{endpoint}':box/")
}

/// An S3 server with one bucket `box`.
pub fn s3(keys: Keys) -> Option<Server> {
    s3_with(&[keys])
}

/// The same for several keys.
pub fn s3_with(all: &[Keys]) -> Option<Server> {
    s3_on(None, all)
}

/// The same, reached by this address of this machine too.
pub fn s3_on(address: Option<&str>, all: &[Keys]) -> Option<Server> {
    let program = rclone()?;
    let data = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(data.path().join("box")).expect("a bucket");
    Some(Server::start(data, &|port, data| {
        let mut command = Command::new(&program);
        command.args(["serve", "s3"]);
        for keys in all {
            command.arg("--auth-key").arg(format!("{},{}", keys.id, keys.secret));
        }
        command.args(["--addr", &format!("127.0.0.1:{port}"), "--config", "/dev/null", "--vfs-cache-mode", "off"]);
        if let Some(address) = address {
            command.args(["--addr", &format!("{address}:{port}")]);
        }
        command.arg(data);
        command
    }))
}

/// Garage's keys: it takes no others than of this form.
pub const GARAGE_OLD: Keys =
    Keys { id: "GK0000000000000000000000a1", secret: "00ca9a4700ca9a4700ca9a4700ca9a4700ca9a4700ca9a4700ca9a4700ca9a47" };
/// Another server's.
pub const GARAGE_NEW: Keys =
    Keys { id: "GK0000000000000000000000b2", secret: "01ca9a4701ca9a4701ca9a4701ca9a4701ca9a4701ca9a4701ca9a4701ca9a47" };

/// A Garage server of one node, with one bucket `box`.
pub fn garage(keys: Keys) -> Option<Server> {
    let program = folder().join("bin/garage");
    if !program.exists() {
        return missing("garage");
    }
    Some(Server::start(tempfile::tempdir().expect("a directory"), &|port, data| {
        let config = format!(
            "metadata_dir = \"{0}/meta\"\ndata_dir = \"{0}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{1}\"\nrpc_public_addr = \"127.0.0.1:{1}\"\nrpc_secret = \"{2}\"\n\
             [s3_api]\ns3_region = \"us-east-1\"\napi_bind_addr = \"127.0.0.1:{port}\"\n",
            data.display(),
            free_port(),
            "5e".repeat(32),
        );
        std::fs::write(data.join("garage.toml"), config).expect("written");
        let mut command = Command::new(&program);
        command.arg("-c").arg(data.join("garage.toml")).args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_ACCESS_KEY", keys.id).env("GARAGE_DEFAULT_SECRET_KEY", keys.secret);
        command.env("GARAGE_DEFAULT_BUCKET", "box").env("RUST_LOG", "garage=warn");
        command
    }))
}

/// Another bucket of a Garage server, for the same key.
pub fn garage_bucket(server: &Server, keys: Keys, name: &str) {
    for args in
        [["bucket", "create", name].as_slice(), &["bucket", "allow", "--read", "--write", "--owner", name, "--key", keys.id]]
    {
        let mut command = Command::new(folder().join("bin/garage"));
        let said = command.arg("-c").arg(server.data.path().join("garage.toml")).args(args).output().expect("garage runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}

/// A WebDAV server.
pub fn webdav() -> Option<Server> {
    let program = rclone()?;
    Some(Server::start(tempfile::tempdir().expect("a directory"), &|port, data| {
        let mut command = Command::new(&program);
        command.args(["serve", "webdav", "--user", "me", "--pass", "webdav-secret-canary", "--config", "/dev/null"]);
        command.args(["--addr", &format!("127.0.0.1:{port}")]).arg(data);
        command
    }))
}

/// The name of azurite's account.
pub const AZURE_ACCOUNT: &str = "ferrytest";
/// Its key.
pub const AZURE_KEY: &str = "ZmVycnktdGVzdC1henVyZS1rZXktY2FuYXJ5LTAwMDE=";

/// An Azure Blob server. It has no container yet.
pub fn azure() -> Option<Server> {
    let program = folder().join("azurite/node_modules/.bin/azurite-blob");
    if !program.exists() {
        return missing("azurite");
    }
    Some(Server::start(tempfile::tempdir().expect("a directory"), &|port, data| {
        let mut command = Command::new(&program);
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--silent", "--skipApiVersionCheck"]);
        command.arg("--location").arg(data);
        command.env("AZURITE_ACCOUNTS", format!("{AZURE_ACCOUNT}:{AZURE_KEY}"));
        command
    }))
}

/// An SSH server that serves SFTP to the user who runs the tests. Its data folder holds `key` (the user's), and `files`.
pub fn sftp() -> Option<Server> {
    sftp_by("")
}

/// The same for files of at most so many bytes: a write behind that is answered as one to a full disk is.
pub fn sftp_with_room_for(bytes: u64) -> Option<Server> {
    // What would end the server at such a write is ignored, so that it answers.
    sftp_by(&format!("trap '' XFSZ\nulimit -f {}\n", bytes / 512))
}

/// `first` is done before the server of the files begins.
fn sftp_by(first: &str) -> Option<Server> {
    if !Path::new("/usr/sbin/sshd").exists() || !Path::new("/usr/lib/openssh/sftp-server").exists() {
        return missing("openssh-server");
    }
    let data = tempfile::tempdir().expect("a directory");
    for key in ["host", "key"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(data.path().join(key))
            .stdin(Stdio::null())
            .status()
            .expect("ssh-keygen comes with openssh-client");
        assert!(made.success());
    }
    std::fs::create_dir(data.path().join("files")).expect("a folder");
    let script = data.path().join("sftp");
    std::fs::write(&script, format!("#!/bin/sh\n{first}exec /usr/lib/openssh/sftp-server\n")).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it may run");
    // sshd as root insists on this folder.
    let _ = std::fs::create_dir_all("/run/sshd");
    Some(Server::start(data, &|port, data| {
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/key.pub\nStrictModes no\n\
             PidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxSessions 64\nMaxStartups 64:30:128\nSubsystem sftp {0}/sftp\n",
            data.display()
        );
        std::fs::write(data.join("sshd_config"), config).expect("written");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(data.join("sshd_config"));
        command
    }))
}
