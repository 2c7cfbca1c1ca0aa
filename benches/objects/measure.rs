//! One whole process, measured: wall clock, CPU time and peak memory as the system accounts them to it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// Run a program and write what it used to a file
#[derive(Debug, clap::Args)]
pub struct Measure {
    /// The file
    #[arg(long)]
    out: PathBuf,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// What a process used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Used {
    /// Wall-clock seconds.
    pub wall: f64,
    /// Seconds of user and system time, children's included.
    pub cpu: f64,
    /// The largest resident set of any of its processes, in MB.
    pub peak: f64,
}

/// Runs in a process of its own: what the system says of "children" is then this one child and what it waited for.
pub fn run(measure: &Measure) -> std::io::Result<ExitCode> {
    let started = Instant::now();
    let status = Command::new(&measure.command[0]).args(&measure.command[1..]).stdin(Stdio::null()).status()?;
    let wall = started.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6;
    // Linux counts `ru_maxrss` in KiB.
    let peak = usage.max_rss() as f64 * 1024.0 / 1e6;
    std::fs::write(&measure.out, serde_json::to_vec(&Used { wall, cpu, peak })?)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures a command. Its environment and folder are kept; what it says goes to a file and is shown when it fails.
pub fn measure(command: &Command, scratch: &Path) -> Result<Used, String> {
    let (out, log) = (scratch.join("used.json"), scratch.join("said.log"));
    let mut wrapped = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    wrapped.arg("measure").arg("--out").arg(&out).arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    let file = std::fs::File::create(&log).map_err(|error| error.to_string())?;
    let same = file.try_clone().map_err(|error| error.to_string())?;
    let status = wrapped.current_dir(scratch).stdin(Stdio::null()).stdout(file).stderr(same).status();
    if !status.is_ok_and(|status| status.success()) {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let from = said.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
        return Err(format!("{command:?} failed:\n{}", &said[from..]));
    }
    let text = std::fs::read(&out).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
