//! Clients that write all the time, and what they saw of it: `pgbench` from the test's own place in the lab's network.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::template::programs;
use super::{Lab, until};

/// Clients at work. They are killed when this is dropped or the test dies.
pub struct Load {
    /// The process.
    pub child: Child,
    folder: tempfile::TempDir,
}

/// What they saw.
#[derive(Debug)]
pub struct Figures {
    /// Transactions whose commit was acknowledged: each has left a row in `pgbench_history`.
    pub acknowledged: u64,
    /// Transactions that were given up after all tries.
    pub failed: u64,
    /// Tries after the first.
    pub retried: u64,
    /// Clients that went away after an error.
    pub aborted: usize,
    /// Transactions in a second.
    pub rate: f64,
    /// For how long, at most, a client waited from one acknowledged commit to the next.
    pub gap: Duration,
    /// All that was said.
    pub text: String,
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    /// So many clients with the usual transactions of `pgbench`, until they are stopped. They need its tables.
    /// `more` are further options: `--max-tries=10`, `--rate=200`.
    pub fn load(&self, url: &str, clients: u32, more: &[&str]) -> Load {
        let folder = tempfile::Builder::new().prefix("load-").tempdir_in(self.folder()).expect("a folder");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(programs().0.join("pgbench"));
        command.args(["-n", "-T", "3600", "-l", "--log-prefix=each", "--verbose-errors", "-c", &clients.to_string()]);
        command.args(more).arg(url).current_dir(folder.path()).stdin(Stdio::null());
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).expect("a file");
        let child = command.stdout(file("out")).stderr(file("err")).spawn().expect("setpriv is part of util-linux");
        Load { child, folder }
    }
}

impl Load {
    /// Waits until there are fifty more transactions: `done` counts them, the rows of `pgbench_history` for one.
    pub fn under_way(&mut self, mut done: impl FnMut() -> u64) {
        let before = done();
        until("the clients write", || {
            assert!(self.runs(), "the clients are gone: {}", self.said());
            (done() > before + 50).then_some(())
        });
    }

    /// Whether any of them is at work.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Ends it in good order: transactions that are under way come to their end.
    pub fn stop(mut self) -> Figures {
        // What its own clock sends it when the time is over.
        let _ = Command::new("kill").args(["-ALRM", &self.child.id().to_string()]).status();
        until("the clients have ended", || self.child.try_wait().ok().flatten());
        let text = self.said();
        let number = |what: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(what));
            line.and_then(|rest| rest.trim().split(['/', ' ', '(']).next()?.parse::<f64>().ok())
        };
        let acknowledged = number("number of transactions actually processed:").unwrap_or_else(|| panic!("no figures: {text}"));
        let whole = |what: &str| number(what).map_or(0, |number| format!("{number}").parse().expect("whole"));
        Figures {
            acknowledged: format!("{acknowledged}").parse().expect("whole"),
            failed: whole("number of failed transactions:"),
            retried: whole("total number of retries:"),
            aborted: text.matches(" aborted ").count(),
            rate: number("tps =").unwrap_or_default(),
            gap: self.gap(),
            text,
        }
    }

    fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("out") + &read("err")
    }

    fn gap(&self) -> Duration {
        let mut last: HashMap<String, Duration> = HashMap::new();
        let mut longest = Duration::ZERO;
        for entry in std::fs::read_dir(self.folder.path()).expect("a folder").filter_map(Result::ok) {
            if !entry.file_name().to_string_lossy().starts_with("each") {
                continue;
            }
            for line in std::fs::read_to_string(entry.path()).expect("readable").lines() {
                // Client, number, time it took, script, seconds, microseconds.
                let fields: Vec<&str> = line.split(' ').collect();
                let [client, _, took, _, seconds, micros, ..] = fields[..] else { continue };
                if took.parse::<u64>().is_err() {
                    continue;
                }
                let number = |text: &str| text.parse::<u64>().expect("a number");
                let at = Duration::from_secs(number(seconds)) + Duration::from_micros(number(micros));
                if let Some(before) = last.insert(client.to_owned(), at) {
                    longest = longest.max(at.saturating_sub(before));
                }
            }
        }
        longest
    }
}
