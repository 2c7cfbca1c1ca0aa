//! `ferry resume`: takes a run up again.

use std::path::PathBuf;

use serde_json::json;

use super::drive::{Drive, Waiting};
use super::ending::Asked;
use super::{Context, Exit, Fault, block_on, by};
use crate::engine::{Accept, StepPath};
use crate::executor::{self, EditTable, Executor};
use crate::report;

/// Take a run up again: failed, paused, cancelled, waiting, or left by a dead runner
///
/// Completed steps do not run again. An interrupted step goes on from its last checkpoint. With `--pipeline` the run takes
/// the edited text: steps not yet run take it; what changes completed steps is refused by name until `--accept` says
/// what is meant.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry resume last\n  ferry resume 0199c4 --pipeline shop.yaml\n  \
    ferry resume last --pipeline shop.yaml --accept copy=keep --accept users=undo-first\n\n\
    JSON: as `ferry run`; with --pipeline first {\"type\": \"edit\", \"table\": {\"run\", \"differences\": [{\"step\",\n      \
    \"kind\": {\"change\"}, \"needs_accept\", \"accepted\", \"was\", \"becomes\"}]}}.")]
pub struct Resume {
    /// The run
    run: String,
    /// The edited pipeline
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pipeline: Option<PathBuf>,
    /// What is meant for a completed step that changed: it counts as done (keep), runs again on top of what it did
    /// (rerun), or is undone first (undo-first); may be given many times
    #[arg(long, value_name = "STEP=keep|rerun|undo-first", value_parser = accept, requires = "pipeline")]
    accept: Vec<(String, Accept)>,
    /// Only this step and what it needs
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Go on without asking when the pipeline was edited. Never answers an approval step
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

fn accept(text: &str) -> Result<(String, Accept), String> {
    let wrong = || "write `STEP=keep`, `STEP=rerun` or `STEP=undo-first`".to_owned();
    // Keys of instances may hold `=`: the answer is behind the last one.
    let (step, word) = text.rsplit_once('=').ok_or_else(wrong)?;
    let accept = match word {
        "keep" => Accept::Keep,
        "rerun" => Accept::Rerun,
        "undo-first" => Accept::UndoFirst,
        _ => return Err(wrong()),
    };
    Ok((step.to_owned(), accept))
}

/// The path of a step that was named by its path, or by the path with the keys as they were given.
fn meant(name: &str, table: &EditTable) -> StepPath {
    let is_exact = table.differences.iter().any(|one| one.change.step.as_str() == name);
    let found = table.differences.iter().find(|one| !is_exact && one.change.step.unescaped() == name);
    found.map_or_else(|| StepPath::from(name), |one| one.change.step.clone())
}

impl Resume {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let journal = context.journal_to_write()?;
        let run = journal.find_run(&self.run)?;
        let mut how = executor::Resume { until: self.until, ..executor::Resume::default() };
        if let Some(file) = self.pipeline {
            let loaded = context.load(&file, registry.catalogue())?;
            let executor = Executor::new(journal.clone(), registry.clone(), by());
            let mut table = block_on(executor.compare(&run, &file, &loaded))??;
            how.accept = self.accept.into_iter().map(|(name, accept)| (meant(&name, &table), accept)).collect();
            for difference in &mut table.differences {
                difference.accepted = how.accept.get(&difference.change.step).copied();
            }
            if context.out.json {
                context.out.json_line(&json!({ "type": "edit", "table": table }))?;
            } else {
                context.out.note(&report::edit::text(&table));
            }
            let is_open = table.open().next().is_some();
            if !is_open && !table.differences.is_empty() && !self.yes && context.can_ask() && !Context::ask("go on with it?") {
                return Err(Fault::wrong("nothing was done"));
            }
            how.pipeline = Some((file, loaded));
        }
        let drive = Drive::new(context, journal, registry).waiting(self.waiting).ends_with(super::sync::table);
        let id = run.clone();
        drive.carry(&run, Asked::Forward, async move |executor| executor.resume(&id, how).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_stands_behind_the_last_equals_sign() {
        assert_eq!(accept("a[k=v]=undo-first"), Ok(("a[k=v]".to_owned(), Accept::UndoFirst)));
        assert!(accept("a=b").is_err() && accept("a").is_err());
    }
}
