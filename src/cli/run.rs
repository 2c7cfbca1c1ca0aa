//! `ferry run`: runs a pipeline.

use std::path::PathBuf;

use clap::ValueEnum;

use super::drive::{Drive, Waiting};
use super::load::Given;
use super::{Context, Exit, Fault, block_on};
use crate::engine::OnFailure;
use crate::executor::{self, ExecutorError, NewRun};
use crate::report;
use crate::steps::Depth;

/// Run a pipeline
///
/// Everything is looked at first, as `ferry plan` does, and nothing starts when something is found wrong. On a terminal
/// the plan is shown and a yes is asked for, unless `--yes` says it. Approval steps are always asked for.
///
/// Ctrl-C once cancels: running steps write a checkpoint, `finally` runs. Twice ends at once. Both can be resumed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry run pipelines/shop.yaml -i bucket=uploads\n  \
    ferry run shop.yaml --inputs prod.yaml --on-failure rollback --yes\n  ferry run shop.yaml --until replica\n\n\
    JSON lines: {\"type\": \"record\", \"run\", \"seq\", \"at\", \"event\", …}: each event of the journal; \"dropped\" if it came too late;\n  \
    {\"type\": \"progress\", \"step\", \"attempt\", \"bytes\", \"bytes_total\", \"objects\", \"objects_total\", \"message\"};\n  \
    {\"type\": \"log\", \"step\", \"stream\", \"line\"};\n  \
    last {\"type\": \"result\", \"run\", \"status\", \"exit\", \"steps\": {\"done\", \"total\"}, \"failures\": [{\"step\", \"state\",\n  \
    \"attempts\", \"failure\"}], \"waiting\": [{\"step\", \"message\"}], \"left_behind\": [STEP], \"outputs\"}.")]
pub struct Run {
    /// The pipeline
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    given: Given,
    /// What a failed step does to the run, whatever the pipeline says
    #[arg(long, value_enum, value_name = "WHAT")]
    on_failure: Option<Policy>,
    /// Start without asking. Never answers an approval step
    #[arg(short, long)]
    yes: bool,
    /// Only this step and what it needs; `ferry resume` does the rest
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// What a failed step does to the run.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Policy {
    /// Start nothing new, stay resumable.
    Stop,
    /// Undo everything the run started, unless the pivot has started.
    Rollback,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let loaded = context.load(&self.file, registry.catalogue())?;
        let given = self.given.values()?;
        loaded.pipeline.inputs(&given).map_err(Fault::problems)?;
        let mut new = NewRun::new(&self.file, loaded, given);
        new.until = self.until;
        new.on_failure = self.on_failure.map(|policy| match policy {
            Policy::Stop => OnFailure::Stop,
            Policy::Rollback => OnFailure::Rollback,
        });
        // Only what is shown is worth a look at whole buckets.
        let is_shown = !self.yes && context.can_ask();
        let depth = if is_shown { Depth::Thorough } else { Depth::Brief };
        let plan = block_on(executor::preflight(&registry, &mut new, depth))??;
        let is_blocked = plan.blocking().next().is_some();
        if is_shown {
            context.out.note(&report::plan::text(&plan, context.out.style()));
            if is_blocked {
                return Err(Fault::said(Exit::Wrong));
            }
            if !Context::ask("start?") {
                return Err(Fault::wrong("nothing was started"));
            }
        } else if is_blocked {
            return Err(ExecutorError::Preflight(Box::new(plan)).into());
        }
        // Nothing was created so far: a run that is refused leaves no journal behind.
        let journal = context.journal_for(&self.file)?;
        Drive::new(context, journal, registry).waiting(self.waiting).start(new)
    }
}
