//! `ferry diff`: what differs between two runs.

use super::project::read_history;
use super::{Context, Exit, Fault};
use crate::report::diff;

/// Say what differs between two runs: inputs, texts, steps, durations, outputs
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Exit status 0 whether or not they differ.\n\nExamples:\n  ferry diff 0199c4 last\n  ferry diff 0199c4 0199d0 --json | jq '.steps'\n\n\
    JSON: {\"runs\": [{\"run\", \"pipeline\", \"status\", \"worked_ms\"}], \"inputs\": [CHANGE], \"texts\": [{\"path\", \"lines\"}],\n      \
    \"steps\": [{\"step\", \"states\", \"attempts\", \"worked_ms\", \"with\": [CHANGE], \"outputs\": [CHANGE]}], \"same_steps\"}\n      \
    CHANGE: {\"place\", \"first\", \"second\"}; pairs are first run, second run."
)]
pub struct Diff {
    /// A run
    #[arg(value_name = "RUN")]
    first: String,
    /// Another
    #[arg(value_name = "RUN")]
    second: String,
}

impl Diff {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let journal = context.journal()?;
        let (_, first) = read_history(&journal, &self.first)?;
        let (_, second) = read_history(&journal, &self.second)?;
        let diff = diff::diff(&first, &second);
        if context.out.json {
            context.out.document(&diff.to_json())?;
        } else if diff.is_empty() {
            context.out.text("the runs do not differ")?;
        } else {
            context.out.text(&diff.text(context.out.style()))?;
        }
        Ok(Exit::Succeeded)
    }
}
