//! Runs that are measured, and the table of them.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// What a run used.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Seconds of the clock.
    pub wall: f64,
    /// Seconds of the processors, where all of its processes are known.
    pub cpu: Option<f64>,
}

/// Runs a command, which has to succeed.
pub fn timed(command: &mut Command) -> Used {
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it is known");
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
    };
    let (before, start) = (cpu(), Instant::now());
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let ended = child.wait_with_output().expect("it ends");
    let wall = start.elapsed().as_secs_f64();
    assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
    Used { wall, cpu: Some(cpu() - before) }
}

/// One thing done in two ways.
pub struct Row {
    what: String,
    peer: String,
    aim: String,
    ours: Vec<Used>,
    theirs: Vec<Used>,
    /// What else there is to say.
    pub note: String,
}

impl Row {
    /// What ferry does, what the other does, and what the ratio is to be.
    pub fn new(what: &str, peer: &str, aim: &str) -> Self {
        let (what, peer, aim) = (what.to_owned(), peer.to_owned(), aim.to_owned());
        Self { what, peer, aim, ours: Vec::new(), theirs: Vec::new(), note: String::new() }
    }

    /// One round.
    pub fn add(&mut self, ours: Used, theirs: Used) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }
}

/// Medians, and how fast ferry is as a share of the other.
pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| what | ferry s (CPU) | peer | its s (CPU) | speed to the peer's (in each round) | aim | |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let median = |values: Vec<f64>| {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let shown = |used: &[Used]| {
        let wall = median(used.iter().map(|used| used.wall).collect());
        let cpu: Option<Vec<f64>> = used.iter().map(|used| used.cpu).collect();
        cpu.map_or_else(|| format!("{wall:.2}"), |cpu| format!("{wall:.2} ({:.2})", median(cpu)))
    };
    for row in rows {
        let ratios: Vec<f64> = row.ours.iter().zip(&row.theirs).map(|(ours, theirs)| theirs.wall / ours.wall).collect();
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {:.2} ({}) | {} | {} |",
            row.what,
            shown(&row.ours),
            row.peer,
            shown(&row.theirs),
            median(ratios),
            each.join(", "),
            row.aim,
            row.note
        );
    }
    table
}
