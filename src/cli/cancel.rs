//! `ferry cancel`: stops a run; it can be resumed.

use serde_json::json;

use super::drive::{Drive, until_free};
use super::ending::Asked;
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

impl Cancel {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let journal = context.journal_to_write()?;
        let run = journal.find_run(&self.run)?;
        if journal.holder(&run)?.is_none() {
            let id = run.clone();
            let drive = Drive::new(context, journal, crate::steps::builtin());
            return drive.carry(&run, Asked::Cancel, async move |executor| executor.cancel(&id).await);
        }
        block_on(async {
            journal.put(&run, &Request::Cancel { by: by() }).await?;
            if self.wait { until_free(&journal, &run).await } else { Ok(()) }
        })??;
        if context.out.json {
            context.out.document(&json!({ "run": run, "asked": true, "live": journal.holder(&run)?.is_some() }))?;
        } else {
            let word = if self.wait { "has stopped" } else { "was asked to stop" };
            context.out.text(&format!("run {run} {word}"))?;
            context.out.note(&format!("`ferry resume {run}` goes on with it"));
        }
        Ok(Exit::Succeeded)
    }
}
