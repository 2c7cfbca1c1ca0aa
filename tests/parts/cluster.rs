//! A PostgreSQL server on a free port of 127.0.0.1, and PgBouncer in front of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Server, folder as parts, free_port};

/// The database that every cluster has, its owner and the owner's password.
pub const APP: (&str, &str) = ("app", "app-secret-canary");
/// The password of `postgres`.
pub const POSTGRES: &str = "postgres-secret-canary";

/// The first words to every cluster: a line each.
const FIRST: &str = "alter role postgres password 'postgres-secret-canary'\n\
    create role app login password 'app-secret-canary'\n\
    create database app owner app\n";

/// The folder of the newest server's programs.
pub fn programs() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = folders.filter_map(|folder| folder.file_name().to_string_lossy().parse::<u32>().ok()).max();
    let newest = newest.expect("PostgreSQL is missing: run scripts/install-parts.sh lab");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// A new cluster to copy, made once on a machine.
fn template() -> PathBuf {
    let version = programs().parent().and_then(Path::file_name).expect("a version").to_string_lossy().into_owned();
    let (name, all) = (format!("postgres-{version}-local"), parts());
    std::fs::create_dir_all(&all).expect("a folder for parts");
    let made = all.join(&name);
    let lock = std::fs::File::create(all.join(format!("{name}.lock"))).expect("a lock");
    lock.lock().expect("it can be waited for");
    if made.exists() {
        return made;
    }
    let work = folder();
    let data = make(&work);
    let beside = all.join(format!("{name}.new"));
    let _ = std::fs::remove_dir_all(&beside);
    succeeds(Command::new("cp").args(["-a", "--sparse=always", "--"]).arg(&data).arg(&beside));
    std::fs::rename(beside, &made).expect("renamed");
    made
}

/// A new cluster in a folder, with an identity of its own.
fn make(work: &tempfile::TempDir) -> PathBuf {
    succeeds(Command::new("chown").arg("postgres").arg(work.path()));
    let data = work.path().join("data");
    let mut initdb = as_postgres(programs().join("initdb"));
    initdb.args(["--no-sync", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=md5"]);
    let words = work.path().join("password");
    std::fs::write(&words, POSTGRES).expect("written");
    succeeds(initdb.args(["--pwfile"]).arg(words).arg("-D").arg(&data));
    // A server of one session, which listens nowhere.
    let mut single = as_postgres(programs().join("postgres"));
    single.args(["--single", "-F", "-c", "log_min_messages=error", "-D"]).arg(&data).arg("postgres");
    let mut single = single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    single.stdin.take().expect("a pipe").write_all(FIRST.as_bytes()).expect("it reads");
    assert!(single.wait().expect("it ends").success());
    data
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("the program is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits for something.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A cluster with a database `app`. Its passwords are of the old kind: a login by the new one takes tens of milliseconds where
/// nothing is optimized. It goes away with this value.
pub struct Cluster {
    server: Option<Server>,
    /// Where it listens, now and after it was started again.
    pub port: u16,
    data: PathBuf,
    _folder: tempfile::TempDir,
}

/// A folder that the servers' user may look into.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    folder
}

/// A program of the servers' user. It dies with the thread that starts it.
fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program.as_ref());
    command
}

impl Cluster {
    /// A new one, running, with these lines in its configuration.
    pub fn new(lines: &str) -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        succeeds(Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(template()).arg(data));
        Self::at(folder, lines)
    }

    /// The same, which is no relative of any other: the others are copies of one.
    pub fn fresh(lines: &str) -> Self {
        let folder = folder();
        make(&folder);
        Self::at(folder, lines)
    }

    /// The same as a standby that follows this one.
    pub fn standby(&self, lines: &str) -> Self {
        let folder = folder();
        succeeds(Command::new("chown").arg("postgres").arg(folder.path()));
        let source = format!("host=127.0.0.1 port={} user=postgres password={POSTGRES}", self.port);
        let mut copy = as_postgres(programs().join("pg_basebackup"));
        copy.arg("-D").arg(folder.path().join("data")).args(["-X", "stream", "-c", "fast", "-R", "-d", &source]);
        succeeds(&mut copy);
        Self::at(folder, lines)
    }

    fn at(folder: tempfile::TempDir, lines: &str) -> Self {
        let (data, port) = (folder.path().join("data"), free_port());
        let configuration = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\nhot_standby = on\n\
             wal_level = logical\nmax_connections = 60\nshared_buffers = 16MB\njit = off\nhuge_pages = off\n\
             max_wal_size = 256MB\npassword_encryption = md5\n{lines}\n",
            data.display()
        );
        let path = data.join("postgresql.auto.conf");
        let former = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(path, former + &configuration).expect("written");
        let access = "local all all trust\nhost all all 127.0.0.1/32 md5\nhost replication all 127.0.0.1/32 md5\n";
        std::fs::write(data.join("pg_hba.conf"), access).expect("written");
        let mut cluster = Self { server: None, port, data, _folder: folder };
        cluster.start();
        cluster
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        let _ = std::fs::remove_file(self.data.join("postmaster.pid"));
        let mut command = as_postgres(programs().join("postgres"));
        command.arg("-D").arg(&self.data);
        self.server = Some(Server::on(self.port, command));
        until("the server is ready", || {
            let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
            text.lines().nth(7)?.starts_with("ready").then_some(())
        });
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.server = None;
        // Its children end when they see that it is gone; who starts it again has to wait for the last of them.
        let id = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let memory = id.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned);
        until("its children are gone", || {
            let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
            let attached = segments.lines().skip(1).find_map(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                (Some(columns[1]) == memory.as_deref()).then(|| columns[6] != "0")
            });
            (attached != Some(true)).then_some(())
        });
    }

    /// What statements answer in `app` as `postgres`: columns parted by `|`, rows by line ends.
    pub fn sql(&self, statements: &str) -> String {
        self.asked("app", statements).unwrap_or_else(|said| panic!("{statements}: {said}"))
    }

    /// The same in a database of this name; or what went wrong.
    pub fn asked(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-p", &self.port.to_string()]);
        let output =
            psql.arg("-h").arg(&self.data).args(["-c", statements]).stdin(Stdio::null()).output().expect("psql is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Cluster {
    /// Runs a file of statements in `app`.
    pub fn file(&self, path: &str, arguments: &[&str]) {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "app", "-p", &self.port.to_string()]);
        succeeds(psql.arg("-h").arg(&self.data).args(arguments).args(["-f", path]).stdin(Stdio::null()));
    }
}

/// PgBouncer in transaction mode.
pub struct Bouncer {
    _server: Server,
    /// Where it listens.
    pub port: u16,
    folder: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    /// In front of this server.
    pub fn new(server: u16) -> Self {
        let (folder, port) = (folder(), free_port());
        let line = |(name, password): (&str, &str)| format!("\"{name}\" \"{password}\"\n");
        std::fs::write(folder.path().join("users"), [APP, ("postgres", POSTGRES)].map(line).concat()).expect("written");
        write_ini(folder.path(), port, server);
        let mut command = as_postgres("/usr/sbin/pgbouncer");
        command.arg("-q").arg(folder.path().join("ini"));
        let server = Server::on(port, command);
        Self { _server: server, port, folder: folder.path().to_owned(), _folder: folder }
    }

    /// Leads to this server once it has been told `reload`.
    pub fn points_at(&self, server: u16) {
        write_ini(&self.folder, self.port, server);
    }

    /// An order to its console.
    pub fn order(&self, order: &str) {
        let mut psql = Command::new("psql");
        psql.env("PGPASSWORD", POSTGRES).args(["-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-d", "pgbouncer"]);
        let said = psql.args(["-p", &self.port.to_string(), "-c", order]).stdin(Stdio::null()).output().expect("psql is there");
        assert!(said.status.success(), "{order}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

fn write_ini(folder: &Path, port: u16, server: u16) {
    let ini = format!(
        "[databases]\napp = host=127.0.0.1 port={server} dbname=app\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = md5\nauth_file = {}/users\nadmin_users = postgres\npool_mode = transaction\n\
         max_client_conn = 200\ndefault_pool_size = 8\nserver_login_retry = 1\nignore_startup_parameters = extra_float_digits\n",
        folder.display()
    );
    std::fs::write(folder.join("ini"), ini).expect("written");
}
