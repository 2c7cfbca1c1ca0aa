//! Round after round, each entrant once: what disturbs the machine disturbs all of them alike.

use std::path::PathBuf;

use super::jobs::{self, Job};
use super::measure::{Used, measure};
use super::peers::{self, Entrant, Tool};
use super::place::{self, End, Listing, Place, Settings};
use super::{say, table};

/// Run the rounds and print the table
#[derive(Debug, clap::Args)]
pub struct Run {
    /// How many rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only this job; may be given many times
    #[arg(long, value_name = "JOB")]
    job: Vec<String>,
    /// Only this tool; may be given many times
    #[arg(long, value_enum)]
    tool: Vec<Tool>,
    /// ETags of the target are numbers and not MD5; rclone is told not to compare them
    #[arg(long)]
    cheap_etags: bool,
    /// The share of the objects that is used, in percent: a quick look
    #[arg(long, default_value_t = 100)]
    share: u64,
    /// Also write the table to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// An entrant and its runs.
pub struct Runs {
    /// Who.
    pub entrant: Entrant,
    /// What each run used, and the CPU seconds of the servers meanwhile.
    pub used: Vec<(Used, f64)>,
}

impl Runs {
    /// The median of one measure.
    pub fn median(&self, of: impl Fn(&(Used, f64)) -> f64) -> f64 {
        let mut values: Vec<f64> = self.used.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            count => f64::midpoint(values[(count - 1) / 2], values[count / 2]),
        }
    }
}

/// Runs what was asked for.
pub fn run(run: &Run) -> Result<(), String> {
    let tools = if run.tool.is_empty() { Tool::ALL.to_vec() } else { run.tool.clone() };
    let versions: Vec<String> = tools.iter().map(|tool| tool.version()).collect::<Result<_, _>>()?;
    let jobs = jobs::all(run.share);
    if let Some(unknown) = run.job.iter().find(|name| !jobs.iter().any(|job| job.name == **name)) {
        let names: Vec<_> = jobs.iter().map(|job| job.name).collect();
        return Err(format!("there is no job `{unknown}`: {}", names.join(", ")));
    }
    let mut text = format!("{}\n\n{}", versions.join("; "), table::HEAD);
    for job in jobs
        .iter()
        .filter(|job| if run.job.is_empty() { !job.is_named_only() } else { run.job.iter().any(|name| name == job.name) })
    {
        say(&job.title);
        text.push_str(&table::rows(job, &rounds(run, job, &tools)?));
        // What there is so far is worth something when a later job fails.
        if let Some(out) = &run.out {
            std::fs::write(out, &text).map_err(|error| format!("{}: {error}", out.display()))?;
        }
    }
    #[expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
    {
        println!("{text}");
    }
    Ok(())
}

fn rounds(run: &Run, job: &Job, tools: &[Tool]) -> Result<Vec<Runs>, String> {
    let settings =
        Settings { latency: job.latency, rate: job.rate, cheap_etags: run.cheap_etags, drain: true, ..Settings::default() };
    let source = End::source(job, &settings)?;
    let from = place::list(&source.place).map_err(|error| error.to_string())?;
    let mut all: Vec<Runs> = peers::entrants(job, tools).into_iter().map(|entrant| Runs { entrant, used: Vec::new() }).collect();
    // A re-run that finds nothing to do needs a target that the same tool has filled.
    let mut filled = Vec::new();
    if job.is_unchanged {
        for runs in &all {
            let target = End::target(job, &settings)?;
            once(run, &runs.entrant, job, &source.place, &target.place, &from)?;
            filled.push(target);
        }
    }
    for round in 0..run.rounds {
        for (at, runs) in all.iter_mut().enumerate() {
            // One object after the other takes its time, and varies little.
            if runs.entrant.tool == Tool::Boto3 && round > 0 {
                continue;
            }
            let fresh;
            let target = if let Some(target) = filled.get(at) {
                target
            } else {
                fresh = End::target(job, &settings)?;
                &fresh
            };
            let before = source.cpu() + target.cpu();
            let used = once(run, &runs.entrant, job, &source.place, &target.place, &from)?;
            let servers = source.cpu() + target.cpu() - before;
            let Used { wall, cpu, peak } = used;
            let (label, flags) = (&runs.entrant.label, runs.entrant.flags.join(" "));
            say(&format!("  {label:<20} {wall:8.2} s {cpu:8.2} s CPU {peak:7.0} MB, servers {servers:.2} s CPU  {flags}"));
            runs.used.push((used, servers));
        }
        if round == 0 {
            keep_best(&mut all);
        }
    }
    Ok(all)
}

/// Of the variants of one tool only the fastest goes on.
fn keep_best(all: &mut Vec<Runs>) {
    let wall = |runs: &Runs| runs.median(|(used, _)| used.wall);
    let mut best: Vec<(String, f64)> = Vec::new();
    for runs in all.iter().filter(|runs| runs.entrant.is_variant) {
        match best.iter_mut().find(|(label, _)| *label == runs.entrant.label) {
            Some((_, known)) => *known = known.min(wall(runs)),
            None => best.push((runs.entrant.label.clone(), wall(runs))),
        }
    }
    all.retain(|runs| {
        let known = best.iter().find(|(label, _)| *label == runs.entrant.label);
        !runs.entrant.is_variant || known.is_none_or(|(_, best)| wall(runs) <= *best)
    });
}

/// One whole run of one tool; the target is looked at afterwards.
fn once(run: &Run, entrant: &Entrant, job: &Job, from: &Place, to: &Place, expected: &Listing) -> Result<Used, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut command = peers::command(entrant, job.is_large(), from, to, scratch.path()).map_err(|error| error.to_string())?;
    if run.cheap_etags && entrant.tool == Tool::Rclone {
        command.args(["--s3-use-multipart-etag=false", "--ignore-checksum"]);
    }
    let used = measure(&command, scratch.path())?;
    let found = place::list(to).map_err(|error| error.to_string())?;
    match place::compare(expected, &found, !run.cheap_etags) {
        None => Ok(used),
        Some(wrong) => Err(format!("{}: {} left a target that is not whole: {wrong}", job.title, entrant.label)),
    }
}
