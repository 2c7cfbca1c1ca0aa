//! `ferry cancel`: stops a run; it can be resumed.

use serde_json::json;

use super::drive::Drive;
use super::{Context, Exit, Fault, block_on, by};
use crate::journal::Request;

/// Stop a run: running steps write a checkpoint, `finally` runs, and it can be resumed
///
/// Returns as soon as the runner has been asked; `ferry show RUN` and the runner itself say when it has stopped. With
/// `--wait` it stays until then.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry cancel last\n  ferry cancel last --wait\n  ferry cancel 0199c4\n\n\
    JSON: {\"run\", \"asked\": true, \"live\"}\n      \
    When no runner is at work (the run waits for a person), the run is cancelled here: JSON lines as `ferry run`.")]
pub struct Cancel {
    /// The run
    run: String,
    /// Stay until it has stopped
    #[arg(long)]
    wait: bool,
}
