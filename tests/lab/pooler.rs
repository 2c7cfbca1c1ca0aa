//! PgBouncer on a host of the lab.

use super::template::{APP, HOME, POSTGRES};
use super::{Lab, Machine, tls, until};

/// Its folder, as Debian has it: `pgbouncer.ini` and `userlist.txt`.
pub const INSIDE: &str = "/etc/pgbouncer";
const LOG: &str = "/var/log/postgresql/pgbouncer.log";
const PID: &str = "/run/postgresql/pgbouncer.pid";
const SOCKET: &str = "/run/postgresql";
/// Where clients come.
pub const PORT: u16 = 6432;
/// Who may use the admin console, and the password.
pub const OPERATOR: (&str, &str) = ("operator", "operator-secret-canary");

/// Who comes beside the application, and so has a pool of their own; the password.
pub const PROBER: (&str, &str) = ("prober", "prober-secret-canary");

/// A pooler: transaction pooling for the database `app`, with scram and TLS for those who want it.
pub struct Pooler<'a> {
    /// Where it is.
    pub host: &'a Machine,
}

impl Lab {
    /// A pooler on this host that leads to a server there.
    pub fn pooler(&self, host: &str, server: &str, port: u16) -> Pooler<'_> {
        assert!(std::path::Path::new("/usr/sbin/pgbouncer").exists(), "pgbouncer is missing: run scripts/install-parts.sh lab");
        self.certify();
        let pooler = Pooler { host: self.host(host) };
        let folder = pooler.host.path(INSIDE);
        std::fs::create_dir_all(&folder).expect("a new folder");
        let line = |(name, password): (&str, &str)| format!("\"{name}\" \"{password}\"\n");
        let users = [APP, OPERATOR, PROBER, ("postgres", POSTGRES)].map(line).concat();
        std::fs::write(folder.join("userlist.txt"), users).expect("written");
        pooler.points_at(server, port);
        pooler.host.owns(INSIDE);
        // The same folder by another name, as some systems have it.
        pooler.host.says("ln -sfn postgresql /run/pgbouncer");
        pooler.start();
        pooler
    }
}

impl Pooler<'_> {
    /// Starts it and waits until it answers.
    pub fn start(&self) {
        let mut command = self.host.enter_as("postgres", HOME);
        command.args(["pgbouncer", "-q", "-d", &format!("{INSIDE}/pgbouncer.ini")]);
        assert!(command.status().expect("nsenter is part of util-linux").success(), "{}", self.log());
        let address = (self.host.address.as_str(), PORT);
        until("the pooler listens", || std::net::TcpStream::connect(address).ok());
    }

    /// Kills it.
    pub fn kill(&self) {
        self.host.says(&format!("p=$(cat {PID}); kill -KILL $p; while kill -0 $p 2>/dev/null; do sleep 0.01; done"));
    }

    /// Its settings from now on; it does not know yet.
    pub fn points_at(&self, server: &str, port: u16) {
        let ini = format!(
            "[databases]\napp = host={server} port={port} dbname=app\n\n[pgbouncer]\nlisten_addr = *\nlisten_port = {PORT}\n\
             unix_socket_dir = {SOCKET}\npidfile = {PID}\nlogfile = {LOG}\nauth_type = scram-sha-256\n\
             auth_file = {INSIDE}/userlist.txt\nadmin_users = {}\npool_mode = transaction\nmax_client_conn = 200\n\
             default_pool_size = 10\nserver_login_retry = 1\nquery_wait_timeout = 120\nignore_startup_parameters = extra_float_digits\n\
             client_tls_sslmode = allow\nclient_tls_key_file = {1}/server.key\nclient_tls_cert_file = {1}/server.crt\n\
             server_tls_sslmode = prefer\n",
            OPERATOR.0,
            tls::INSIDE
        );
        let file = self.host.path(INSIDE).join("pgbouncer.ini");
        std::fs::write(file, ini).expect("written");
    }

    /// What its console answers.
    pub fn admin(&self, command: &str) -> String {
        self.console("-XAt", command)
    }

    /// One column of its table of pools, for the database `app`, added up.
    pub fn pool(&self, column: &str) -> u64 {
        let text = self.console("-XA", "show pools");
        let mut rows = text.lines().map(|line| line.split('|').collect::<Vec<_>>());
        let at = rows.next().and_then(|names| names.iter().position(|name| *name == column)).expect("such a column");
        rows.filter(|row| row[0] == "app").map(|row| row[at].parse::<u64>().expect("a number")).sum()
    }

    fn console(&self, form: &str, command: &str) -> String {
        let mut psql = self.host.enter_as("postgres", HOME);
        psql.args(["psql", form, "-h", SOCKET, "-p", &PORT.to_string(), "-U", OPERATOR.0]);
        psql.args(["-d", "pgbouncer", "-c", command]).env("PGPASSWORD", OPERATOR.1);
        let output = psql.output().expect("nsenter is part of util-linux");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// How clients are told of it.
    pub fn url(&self) -> String {
        format!("postgresql://{}:{}@{}:{PORT}/app", APP.0, APP.1, self.host.address)
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.host.path(LOG)).unwrap_or_default()
    }
}
