//! A new PostgreSQL cluster in a moment: `initdb` runs once on a machine, and every cluster begins as a copy.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Machine;

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

/// One of PostgreSQL's programs as the servers' user, on a host.
fn there(host: &Machine, program: &str) -> Command {
    let mut command = host.enter_as("postgres", HOME);
    command.arg(programs().0.join(program));
    command
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("setpriv is part of util-linux");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lays a new cluster at `to` on a host, with an identity of its own. It is stopped.
pub fn lay(host: &Machine, sample: Sample, to: &str) {
    let template = template(host, sample);
    let data = host.path(to);
    fs::create_dir_all(data.parent().expect("it is not the root")).expect("a folder");
    assert!(!data.exists(), "{to} is there already");
    succeeds(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(template).arg(&data));
    rename(&data, rand::random());
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

/// The template, made if nobody has made it yet; on a host, as what is made there is gone when the test is killed.
fn template(host: &Machine, sample: Sample) -> PathBuf {
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
        let new = format!("{HOME}/template-{scale}");
        make(host, sample, &new);
        let beside = parts.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&beside);
        succeeds(Command::new("cp").args(["-a", "--sparse=always", "--"]).arg(host.path(&new)).arg(&beside));
        fs::remove_dir_all(host.path(&new)).expect("removed");
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

/// The servers' user's home.
pub const HOME: &str = "/var/lib/postgresql";

/// Changes with the code below.
const RECIPE: u32 = 3;

/// The first words to every cluster: a line each.
const BASE: &str = "alter role postgres password 'postgres-secret-canary'\n\
    create role app login password 'app-secret-canary'\n\
    create database app owner app\n";

/// The realistic schema.
const SHOP: &str = include_str!("shop.sql");

fn make(host: &Machine, sample: Sample, to: &str) {
    let Sample::Full(scale) = sample else {
        let mut initdb = there(host, "initdb");
        initdb.args(["--no-sync", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8"]);
        succeeds(initdb.args(["--auth-local=peer", "--auth-host=scram-sha-256", "-D", to]));
        // A server of one session, which listens nowhere.
        let mut single = there(host, "postgres");
        single.args(["--single", "-F", "-c", "log_min_messages=error", "-D", to, "postgres"]);
        let mut single = single.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        single.stdin.take().expect("a pipe").write_all(BASE.as_bytes()).expect("it reads");
        assert!(single.wait().expect("it ends").success());
        // One segment instead of several, and a small one to copy: it has holes.
        return succeeds(there(host, "pg_resetwal").args(["-f", to]));
    };
    lay(host, Sample::Empty, to);
    let settings = format!("-F -k {to} -c listen_addresses= -c wal_level=minimal -c max_wal_senders=0");
    succeeds(there(host, "pg_ctl").args(["-D", to, "-l", &format!("{to}/log"), "-s", "-w", "-o", &settings, "start"]));
    let bench = format!("-i -q -I dtGvp -s {scale} -h {to} -U postgres app");
    succeeds(there(host, "pgbench").args(bench.split(' ')).env("PGOPTIONS", "-c role=app"));
    let file = host.path(to).join("shop.sql");
    fs::write(&file, SHOP).expect("written");
    let mut shop = there(host, "psql");
    shop.args(["-Xq", "-v", &format!("scale={scale}"), "-h", to, "-d", "app", "-f", &format!("{to}/shop.sql")]);
    succeeds(shop.env("PGOPTIONS", "-c role=app"));
    succeeds(there(host, "pg_ctl").args(["-D", to, "-s", "-w", "-m", "fast", "stop"]));
    for left in ["shop.sql", "log"] {
        fs::remove_file(host.path(to).join(left)).expect("removed");
    }
    succeeds(there(host, "pg_resetwal").args(["-f", to]));
}
