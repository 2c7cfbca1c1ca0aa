//! A new PostgreSQL cluster in a moment: `initdb` runs once on a machine, and every cluster begins as a copy.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::until;

/// The database and its owner that every cluster has, and the owner's password.
pub const APP: (&str, &str) = ("app", "app-secret-canary");
/// The password of `postgres`, for those who come by network.
pub const POSTGRES: &str = "postgres-secret-canary";

/// What a cluster holds from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sample {
    /// An empty database `app`.
    #[default]
    Empty,
    /// The tables of `pgbench` at this scale, and the shop of `shop.sql` at the same.
    Full(u32),
}

/// Where the newest server's programs are, and its major version.
pub fn programs() -> &'static (PathBuf, u32) {
    static FOUND: OnceLock<(PathBuf, u32)> = OnceLock::new();
    FOUND.get_or_init(|| {
        let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
        let versions = folders.filter_map(|folder| folder.file_name().to_string_lossy().parse::<u32>().ok());
        let newest = versions.filter(|version| bin(*version).join("initdb").exists()).max();
        let newest = newest.expect("PostgreSQL is missing: run scripts/install-parts.sh lab");
        (bin(newest), newest)
    })
}

fn bin(version: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))
}

/// A program as the servers' user, on this machine itself. It dies with the thread that starts it.
fn local(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    command.arg(programs().0.join(program)).current_dir("/").env_clear();
    command.env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").stdin(Stdio::null());
    command
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("setpriv is part of util-linux");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lays a new cluster at `to`, with an identity of its own. It is stopped, and whose it is is the caller's matter.
pub fn lay(sample: Sample, to: &Path) {
    let template = template(sample);
    fs::create_dir_all(to.parent().expect("it is not the root")).expect("a folder");
    assert!(!to.exists(), "{} is there already", to.display());
    succeeds(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(template).arg(to));
    rename(to, rand::random());
}

/// Gives a stopped cluster another identity, as copies must not take each other for relatives. (`pg_resetwal` cannot.)
fn rename(data: &Path, identity: u64) {
    let file = data.join("global/pg_control");
    let mut control = fs::read(&file).expect("it is there");
    let crc = |control: &[u8]| {
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, control);
        u32::try_from(sum).expect("32 bits").to_le_bytes()
    };
    // Its length differs from version to version; where the checksum of all before it stands, it ends.
    let end = (64..1024).step_by(4).find(|end| control[*end..*end + 4] == crc(&control[..*end])).expect("a checksum");
    control[..8].copy_from_slice(&identity.to_le_bytes());
    let sum = crc(&control[..end]);
    control[end..end + 4].copy_from_slice(&sum);
    fs::write(file, control).expect("written");
    for entry in fs::read_dir(data.join("pg_wal")).expect("a folder").filter_map(Result::ok) {
        if entry.path().is_file() {
            // Behind magic, flags, timeline, address and length, in the first page's header.
            let segment = File::options().write(true).open(entry.path()).expect("it is there");
            segment.write_all_at(&identity.to_le_bytes(), 24).expect("written");
        }
    }
}

/// The template, made if nobody has made it yet.
fn template(sample: Sample) -> PathBuf {
    let version = Command::new(programs().0.join("postgres")).arg("--version").output().expect("it runs").stdout;
    let version = String::from_utf8_lossy(&version).split_whitespace().nth(2).expect("a version").to_owned();
    let scale = if let Sample::Full(scale) = sample { scale } else { 0 };
    // Whoever changes what a template holds gets another.
    let mut recipe = DefaultHasher::new();
    (RECIPE, BASE, SHOP).hash(&mut recipe);
    let name = format!("postgres-{version}-{:08x}-{scale}", recipe.finish() >> 32);
    let parts = parts();
    fs::create_dir_all(&parts).expect("a folder for parts");
    let (folder, lock) = (parts.join(&name), parts.join(format!("{name}.lock")));
    if folder.exists() {
        return folder;
    }
    let lock = File::create(lock).expect("a lock");
    lock.lock().expect("it can be waited for");
    if !folder.exists() {
        // Not below the parts: the servers' user may not look into another's home.
        let work = tempfile::Builder::new().prefix("ferry-lab-template-").tempdir().expect("a folder");
        let new = work.path().join("data");
        succeeds(Command::new("chown").arg("postgres").arg(work.path()));
        make(sample, &new);
        let beside = parts.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&beside);
        succeeds(Command::new("cp").args(["-a", "--sparse=always", "--"]).arg(&new).arg(&beside));
        fs::rename(beside, &folder).expect("renamed");
    }
    folder
}

/// Where tests keep what is made once: beside the servers that `scripts/install-parts.sh` installs.
fn parts() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    variable("FERRY_PARTS").unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        cache.unwrap_or_else(|| "/tmp".into()).join("ferry/parts")
    })
}

/// Changes with the code below.
const RECIPE: u32 = 2;

/// The first words to every cluster: a line each.
const BASE: &str = "alter role postgres password 'postgres-secret-canary'\n\
    create role app login password 'app-secret-canary'\n\
    create database app owner app\n";

/// The realistic schema.
const SHOP: &str = "";

fn make(sample: Sample, to: &Path) {
    let Sample::Full(scale) = sample else {
        let mut initdb = local("initdb");
        initdb.args(["--no-sync", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args(["--auth-local=peer", "--auth-host=scram-sha-256", "-D"]);
        succeeds(initdb.arg(to));
        // A server of one session, which listens nowhere.
        let mut single = local("postgres");
        let single = single.args(["--single", "-F", "-c", "log_min_messages=error", "-D"]).arg(to).arg("postgres");
        let mut single = single.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        single.stdin.take().expect("a pipe").write_all(BASE.as_bytes()).expect("it reads");
        assert!(single.wait().expect("it ends").success());
        // One segment instead of several, and a small one to copy: it has holes.
        succeeds(local("pg_resetwal").arg("-f").arg(to));
        return;
    };
    lay(Sample::Empty, to);
    let (folder, process) = (to.display().to_string(), to.join("postmaster.pid"));
    let mut server = local("postgres");
    server.args(["-F", "-D", &folder, "-k", &folder, "-c", "listen_addresses="]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = server.spawn().expect("it starts");
    until("the server is ready", || fs::read_to_string(&process).ok()?.lines().nth(7)?.starts_with("ready").then_some(()));
    let bench = format!("-i -q -I dtGvp -s {scale} -h {folder} -U postgres app");
    succeeds(local("pgbench").args(bench.split(' ')).env("PGOPTIONS", "-c role=app"));
    let mut shop = local("psql");
    shop.env("PGOPTIONS", "-c role=app");
    shop.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", &format!("scale={scale}"), "-h", &folder, "-d", "app", "-c", SHOP]);
    succeeds(&mut shop);
    succeeds(Command::new("kill").args(["-INT", &server.id().to_string()]));
    assert!(server.wait().expect("it ends").success());
}
