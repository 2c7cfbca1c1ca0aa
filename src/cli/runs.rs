//! `ferry runs`: the list of runs.

use std::fmt::Write as _;

use serde_json::json;

use super::{Context, Exit, Fault};
use crate::engine::RunStatus;
use crate::executor::fold_run;
use crate::journal::RunSummary;
use crate::units::Span;

/// List the runs, the newest first
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  ferry runs\n  ferry runs --status failed\n  ferry runs --json | jq -r '.runs[0].id'\n\n\
    JSON: {\"runs\": [{\"id\", \"pipeline\", \"status\", \"started\", \"ended\", \"by\", \"live\"}]}\n      \
    `live` says whether a runner is at work on it."
)]
pub struct Runs {
    /// Only runs of this status: `running`, `waiting`, `paused`, `failed`, `rolled_back`, …
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only runs of the pipeline of this name
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// At most this many
    #[arg(short = 'n', long, default_value_t = 50, value_name = "COUNT")]
    limit: usize,
}

impl Runs {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let status = self.status.as_deref().map(status_named).transpose()?;
        let journal = context.journal()?;
        let mut runs = journal.runs()?;
        // The list is written when a session begins and ends. Whether a run at work waits for a person, its events say.
        for run in runs.iter_mut().filter(|run| run.live && run.status == RunStatus::Running) {
            run.status = fold_run(&journal, &run.id)?.0.status();
        }
        if let Some(status) = status {
            runs.retain(|run| run.status == status);
        }
        if let Some(pipeline) = &self.pipeline {
            runs.retain(|run| run.pipeline == *pipeline);
        }
        runs.truncate(self.limit);
        if context.out.json {
            context.out.document(&json!({ "runs": runs }))?;
        } else {
            context.out.text(&table(&runs))?;
        }
        Ok(Exit::Succeeded)
    }
}

/// The status of this name; an unknown one is a slip, not an empty list.
fn status_named(text: &str) -> Result<RunStatus, Fault> {
    let wanted = text.replace('-', "_");
    RunStatus::ALL.into_iter().find(|status| status_text(*status) == wanted).ok_or_else(|| {
        let known: Vec<String> = RunStatus::ALL.into_iter().map(|status| format!("`{}`", status_text(status))).collect();
        Fault::wrong(format!("`{text}` is not a status of a run")).help(format!("the statuses are {}", known.join(", ")))
    })
}

fn status_text(status: RunStatus) -> String {
    serde_json::to_value(status).ok().and_then(|status| status.as_str().map(str::to_owned)).unwrap_or_default()
}

fn table(runs: &[RunSummary]) -> String {
    if runs.is_empty() {
        return "no runs\n".to_owned();
    }
    let name = runs.iter().map(|run| run.pipeline.chars().count()).max().unwrap_or(0).clamp(8, 32);
    let mut text = String::new();
    for run in runs {
        let status = match (status_text(run.status).as_str(), run.live) {
            // The journal cannot know that its writer died; the lease does.
            (status @ ("running" | "rolling_back"), false) => format!("{} (dead)", status.replace('_', " ")),
            (status, _) => status.replace('_', " "),
        };
        let took = run.ended.and_then(|ended| std::time::Duration::try_from(ended.duration_since(run.started)).ok());
        let took = took.map(|took| Span(took).to_string()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{}  {:name$}  {:<16} {}  {:>7}  {}",
            run.id,
            run.pipeline,
            status,
            run.started.strftime("%Y-%m-%d %H:%M:%SZ"),
            took,
            run.by
        );
    }
    text
}
