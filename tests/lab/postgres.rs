//! PostgreSQL clusters on the lab's hosts: one starts in a moment, from a template.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use super::template::{self, HOME, Sample, programs};
use super::{Lab, Machine, tls, until};

/// How a cluster's files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// All in the data directory `/var/lib/postgresql/data`, started by `pg_ctl`.
    #[default]
    Plain,
    /// Debian's: data in `/var/lib/postgresql/15/main`, configuration in `/etc/postgresql/15/main`, started by
    /// `pg_ctlcluster`.
    Debian,
}

/// What a cluster is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its files are.
    pub layout: Layout,
    /// Where it listens.
    pub port: u16,
    /// What it holds.
    pub sample: Sample,
    /// Whether it waits for the disk. A killed server loses nothing without it, a machine that loses its power does.
    pub fsync: bool,
    /// More lines of its configuration.
    pub lines: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { layout: Layout::default(), port: 5432, sample: Sample::default(), fsync: false, lines: Vec::new() }
    }
}

impl Settings {
    /// The same with the sample data.
    pub fn full(scale: u32) -> Self {
        Self { sample: Sample::Full(scale), ..Self::default() }
    }

    /// The same with Debian's layout.
    pub fn debian() -> Self {
        Self { layout: Layout::Debian, ..Self::default() }
    }
}

/// Small, as many run at once; and ready for replicas of both kinds and for `pg_rewind`.
const CONFIGURATION: &str = "listen_addresses = '*'\nmax_connections = 60\nshared_buffers = 16MB\n\
    wal_level = logical\nwal_log_hints = on\nmax_wal_senders = 12\nmax_replication_slots = 12\nwal_keep_size = 256MB\n\
    min_wal_size = 32MB\nmax_wal_size = 512MB\nwal_retrieve_retry_interval = 200ms\nhot_standby = on\n\
    password_encryption = scram-sha-256\nhuge_pages = off\njit = off\nlog_line_prefix = '%m [%p] %q%u@%d '\n\
    log_timezone = UTC\nssl = on\nssl_ca_file = ''\n";

/// Who may come: nobody for replication yet.
const ACCESS: &str = "local all postgres peer\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
    host all all 10.77.0.0/24 scram-sha-256\n";

/// A cluster, or the place of one that is still to come.
pub struct Cluster<'a> {
    /// Where it is.
    pub host: &'a Machine,
    /// Where it listens.
    pub port: u16,
    /// How its files lie.
    pub layout: Layout,
    /// Its data directory, as it is called on its host.
    pub data: String,
    /// Where its configuration is, as it is called on its host.
    pub configuration: String,
}

impl Lab {
    /// A new cluster on this host, running.
    pub fn cluster(&self, host: &str, settings: &Settings) -> Cluster<'_> {
        let cluster = self.place(host, settings);
        let configuration = cluster.host.path(&cluster.configuration);
        template::lay(cluster.host, settings.sample, &cluster.data);
        if settings.layout == Layout::Debian {
            // It takes what is there for its own.
            let version = programs().1;
            cluster.host.says("chown postgres:postgres /var/lib/postgresql/*");
            cluster.host.says(&format!("pg_createcluster --port {} {version} main", settings.port));
        }
        let mut lines = CONFIGURATION.to_owned();
        let _ = writeln!(lines, "port = {}\nfsync = {}", settings.port, settings.fsync);
        let _ = writeln!(lines, "ssl_cert_file = '{0}/server.crt'\nssl_key_file = '{0}/server.key'", tls::INSIDE);
        for line in &settings.lines {
            let _ = writeln!(lines, "{line}");
        }
        let main = std::fs::OpenOptions::new().append(true).open(configuration.join("postgresql.conf"));
        main.and_then(|mut file| file.write_all(lines.as_bytes())).expect("it has one");
        std::fs::write(configuration.join("pg_hba.conf"), ACCESS).expect("written");
        cluster.start();
        cluster
    }

    /// Where a cluster may come to be on this host: programs, certificates and folders, and nothing in them.
    pub fn place(&self, host: &str, settings: &Settings) -> Cluster<'_> {
        let (host, version) = (self.host(host), programs().1);
        self.certify();
        let (data, configuration) = match settings.layout {
            Layout::Plain => ("/var/lib/postgresql/data".to_owned(), "/var/lib/postgresql/data".to_owned()),
            Layout::Debian => (format!("/var/lib/postgresql/{version}/main"), format!("/etc/postgresql/{version}/main")),
        };
        Cluster { host, port: settings.port, layout: settings.layout, data, configuration }
    }
}

impl Cluster<'_> {
    /// Its host's address.
    pub fn address(&self) -> &str {
        &self.host.address
    }

    /// How `psql` and others are told of it when they come by network as the owner of `app`.
    pub fn url(&self) -> String {
        let (app, password) = template::APP;
        format!("postgresql://{app}:{password}@{}:{}/app", self.address(), self.port)
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) {
        // Its own waiting looks ten times a second.
        let (log, version) = (self.log_file(), programs().1);
        let mut how = vec!["-D", &self.data, "-l", &log, "-W", "-s", "start"];
        // What `pg_ctlcluster` does, which then waits for two seconds.
        let options = format!(
            "-c config_file={}/postgresql.conf -c external_pid_file=/run/postgresql/{version}-main.pid",
            self.configuration
        );
        if self.layout == Layout::Debian {
            how.extend(["-o", &options]);
        }
        let stale = self.process();
        self.must("pg_ctl", &how);
        let file = self.host.path(&self.data).join("postmaster.pid");
        until("the cluster is ready", || {
            let text = std::fs::read_to_string(&file).ok()?;
            (self.process() != stale && text.lines().nth(7)?.starts_with("ready")).then_some(())
        });
    }

    /// The server's first process, as its host counts.
    pub fn process(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.host.path(&self.data).join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.process().is_some_and(|process| self.host.inside(&format!("kill -0 {process}")).status.success())
    }

    /// Ends it cleanly, clients or not.
    pub fn stop(&self) {
        let process = self.process().expect("it runs");
        self.host.says(&format!("kill -INT {process}"));
        self.gone(process);
    }

    /// Kills all of its processes at once.
    pub fn kill(&self) {
        let process = self.process().expect("it runs");
        self.host.says(&format!("kill -STOP {process}; kill -KILL $(pgrep -P {process}) {process}"));
        self.gone(process);
    }

    /// Waits until the process of this number is gone.
    fn gone(&self, process: u32) {
        until("the cluster has ended", || (!self.host.inside(&format!("kill -0 {process}")).status.success()).then_some(()));
    }

    /// Runs one of PostgreSQL's programs on its host as the servers' user.
    pub fn program(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = self.host.enter_as("postgres", HOME);
        command.arg(programs().0.join(name)).args(arguments).output().expect("nsenter is part of util-linux")
    }

    /// The same; it has to succeed. What it printed.
    pub fn must(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.program(name, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?} on {}: {said}{}", self.host.name, self.log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What statements answer in the database `app`, as `postgres`: columns parted by `|`, rows by line ends.
    pub fn sql(&self, statements: &str) -> String {
        self.asked("app", statements).unwrap_or_else(|said| panic!("{statements}: {said}"))
    }

    /// The same in a database of this name; or what went wrong.
    pub fn asked(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut command = self.host.enter_as("postgres", HOME);
        command.args(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-", "-p", &self.port.to_string(), "-d", database]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = command.spawn().expect("nsenter is part of util-linux");
        // It may have ended before it has read anything: then it says why.
        let _ = psql.stdin.take().expect("a pipe").write_all(statements.as_bytes());
        let output = psql.wait_with_output().expect("it ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Whether it is a standby.
    pub fn is_in_recovery(&self) -> bool {
        self.sql("select pg_is_in_recovery()") == "t"
    }

    /// A file of its configuration, as those who test see it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.host.path(&self.configuration).join(name)
    }

    /// The end of what it has said.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.host.path(&self.log_file())).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().fold(String::new(), |all, line| all + "\n" + line)
    }

    fn log_file(&self) -> String {
        match self.layout {
            Layout::Plain => "/var/lib/postgresql/log".to_owned(),
            Layout::Debian => format!("/var/log/postgresql/postgresql-{}-main.log", programs().1),
        }
    }
}
