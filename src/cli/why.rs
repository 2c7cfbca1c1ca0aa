//! `ferry why`: why a step ran, ran again, was skipped, or waits.

use super::project::{read_history, step_named};
use super::{Context, Exit, Fault};
use crate::report::why;

/// Say why a step ran, ran again, was skipped, or waits, with the values behind it
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  ferry why last cutover\n  ferry why 0199c4 'uploads[invoices]'\n  ferry why last replica/base\n\n\
    JSON: {\"step\", \"state\", \"answer\", \"waits\": {\"kind\", \"on\", \"since\", \"until\"}, \"because\": [{\"at\", \"what\"}], \"help\"}"
)]
pub struct Why {
    /// The run
    run: String,
    /// The step: `id`, `id[key]` of a `for_each`, `id/inner` of a pipeline used as a step
    step: String,
}

impl Why {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let (records, history) = read_history(&context.journal()?, &self.run)?;
        let why = why::why(&history, &records, &step_named(&history.engine, &self.step))
            .map_err(|message| Fault::wrong(message).help(format!("`ferry show {}` lists its steps", history.run())))?;
        if context.out.json {
            context.out.document(&why.to_json())?;
        } else {
            context.out.text(&why.text(jiff::Timestamp::now(), context.out.style()))?;
        }
        Ok(Exit::Succeeded)
    }
}
