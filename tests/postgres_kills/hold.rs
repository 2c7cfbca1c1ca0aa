//! What holds a cutover at a certain point, so that a kill, a cut or a cancel meets it there and nowhere else.

use std::io::Write as _;
use std::process::{Child, Stdio};

use crate::journey::Journey;
use crate::lab::postgres::Cluster;
use crate::lab::template::programs;
use crate::lab::{Machine, until};

/// Either.
pub enum Held<'a> {
    Transaction(Transaction),
    Still(Still<'a>),
}

impl From<Transaction> for Held<'_> {
    fn from(held: Transaction) -> Self {
        Self::Transaction(held)
    }
}

impl<'a> From<Still<'a>> for Held<'a> {
    fn from(held: Still<'a>) -> Self {
        Self::Still(held)
    }
}

/// A client in the middle of a transaction: no pause comes to its end before it does.
pub struct Transaction(Child);

impl Transaction {
    /// Begins one by this way, and has written a row.
    pub fn begin(url: &str, row: &str) -> Self {
        let mut psql = std::process::Command::new("setpriv");
        psql.args(["--pdeathsig", "KILL"]).arg(programs().0.join("psql")).args(["-XAtq", url]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("psql is there");
        let order = format!("begin; insert into ledger values ('held', {row});\n\\echo begun\n");
        psql.stdin.as_mut().expect("a pipe").write_all(order.as_bytes()).expect("it listens");
        let mut said = [0; 5];
        std::io::Read::read_exact(psql.stdout.as_mut().expect("a pipe"), &mut said).expect("it has begun");
        Self(psql)
    }

    /// Commits it. Whether that was acknowledged.
    pub fn commit(mut self) -> bool {
        let mut input = self.0.stdin.take().expect("a pipe");
        let _ = input.write_all(b"commit;\n\\echo done\n");
        drop(input);
        let mut said = String::new();
        let _ = std::io::Read::read_to_string(self.0.stdout.as_mut().expect("a pipe"), &mut said);
        said.contains("done")
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cluster<'_> {
    /// Sends a signal to the process of the server whose title ends or begins so. Its number, if there is one.
    pub fn signal(&self, title: &str, signal: &str) -> Option<String> {
        let first = self.process().expect("it runs");
        let said = self.host.inside(&format!(
            "p=$(pgrep -P {first} -f '^postgres: ({title}|.* {title}( |$))' | head -n 1); [ -n \"$p\" ] && kill -{signal} $p && echo $p"
        ));
        let process = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        (!process.is_empty()).then_some(process)
    }
}

/// A process that stands still until this is dropped.
pub struct Still<'a> {
    host: &'a Machine,
    process: String,
}

impl<'a> Still<'a> {
    /// Of a server: the process that this is the title of, `startup` or `walreceiver`.
    pub fn of(cluster: &Cluster<'a>, title: &str) -> Self {
        let process = until("it has such a process", || cluster.signal(title, "STOP"));
        Self { host: cluster.host, process }
    }

    /// The pooler.
    pub fn pooler(journey: &Journey<'a>) -> Self {
        let host = journey.pooler.host;
        let process = host.says("cat /run/postgresql/pgbouncer.pid");
        host.says(&format!("kill -STOP {process}"));
        Self { host, process }
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        // It may be gone by now.
        self.host.inside(&format!("kill -CONT {}", self.process));
    }
}

/// The SSH sessions of a host that are open now, as its processes.
pub fn sessions(host: &Machine) -> Vec<String> {
    let said = host.says("pgrep -P $(pgrep -o -x sshd) || true");
    said.split_whitespace().map(str::to_owned).collect()
}

/// Sends a signal to processes of a host; some may be gone.
pub fn signal(host: &Machine, processes: &[String], signal: &str) {
    host.inside(&format!("kill -{signal} {}", processes.join(" ")));
}
