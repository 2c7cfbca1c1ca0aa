//! `ferry resume`: takes a run up again.

use std::path::PathBuf;

use super::drive::{Drive, Waiting};
use super::{Context, Exit, Fault};
use crate::engine::{Accept, StepPath};

/// Take a run up again: failed, paused, cancelled, waiting, or left by a dead runner
///
/// Completed steps do not run again. An interrupted step goes on from its last checkpoint. With `--pipeline` the run takes
/// the edited text: steps not yet run take it; what changes completed steps is refused by name until `--accept` says
/// what is meant.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry resume last\n  ferry resume 0199c4 --pipeline shop.yaml\n  \
    ferry resume last --pipeline shop.yaml --accept copy=keep --accept users=undo-first\n\nJSON: as `ferry run`.")]
pub struct Resume {
    /// The run
    run: String,
    /// The edited pipeline
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pipeline: Option<PathBuf>,
    /// What is meant for a completed step that changed: it counts as done (keep), runs again on top of what it did
    /// (rerun), or is undone first (undo-first); may be given many times
    #[arg(long, value_name = "STEP=keep|rerun|undo-first", value_parser = accept, requires = "pipeline")]
    accept: Vec<(StepPath, Accept)>,
    /// Only this step and what it needs
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Go on without asking when the pipeline was edited. Never answers an approval step
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

fn accept(text: &str) -> Result<(StepPath, Accept), String> {
    let wrong = || "write `STEP=keep`, `STEP=rerun` or `STEP=undo-first`".to_owned();
    // Keys of instances may hold `=`: the answer is behind the last one.
    let (step, word) = text.rsplit_once('=').ok_or_else(wrong)?;
    let accept = match word {
        "keep" => Accept::Keep,
        "rerun" => Accept::Rerun,
        "undo-first" => Accept::UndoFirst,
        _ => return Err(wrong()),
    };
    Ok((StepPath::from(step), accept))
}
