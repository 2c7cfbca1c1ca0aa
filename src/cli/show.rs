//! `ferry show`: the story of a run.

use super::project::read_history;
use super::{Context, Exit, Fault};
use crate::report::summary;

/// Tell the story of a run: its steps, attempts, failures, and who did what
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  ferry show last\n  ferry show 0199c4\n  ferry show last --json | jq '.steps[] | select(.state == \"failed\")'\n\n\
    JSON: {\"run\", \"pipeline\", \"status\", \"is_live\", \"is_interrupted\", \"is_past_pivot\", \"pivot\": {\"step\", \"at\"}, \"by\",\n      \
    \"started\", \"ended\", \"worked_ms\", \"inputs\", \"sessions\": [{\"from\", \"to\", \"status\"}], \"said\": [{\"at\", \"by\", \"what\", \"step\"}], \"left_behind\", \"stuck\",\n      \
    \"steps\": [{\"step\", \"name\", \"uses\", \"state\", \"is_group\", \"is_finally\", \"attempts\", \"interruptions\", \"warnings\", \"worked_ms\",\n      \
    \"tries\": [{\"number\", \"undo\", \"from\", \"to\", \"took_ms\", \"outcome\", \"failure\", \"checkpoints\"}], \"reason\", \"failure\",\n      \
    \"undo_failure\", \"output\", \"digest\"}]}"
)]
pub struct Show {
    /// The run
    run: String,
}

impl Show {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let (_, history) = read_history(&context.journal()?, &self.run)?;
        if context.out.json {
            context.out.document(&summary::to_json(&history))?;
        } else {
            context.out.text(&summary::text(&history, context.out.style()))?;
        }
        Ok(Exit::Succeeded)
    }
}
