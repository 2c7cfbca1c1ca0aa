//! `ferry sync`: one object sync without writing a pipeline, run through the engine, so that it can be resumed.

mod end;
mod flags;

use serde_json::json;

pub(super) use self::end::table;
use self::flags::Flags;
use super::drive::Drive;
use super::fault::Detail;
use super::places::{Known, PLACES};
use super::{Context, Exit, Fault, block_on};
use crate::executor::{self, ExecutorError, NewRun};
use crate::report;
use crate::steps::Depth;

/// Copy what differs from one place to another, as a run of one `object.sync` step
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!(
    "{PLACES}\n\n\
    Examples:\n  ferry sync ./uploads s3://acme-uploads/2026/\n  ferry sync s3://old/ gs://new/ --exclude '**/*.tmp' --plan\n  \
    ferry sync --rclone-remote old: --rclone-remote new: old:bucket/2026 new:bucket/2026 --verify\n  \
    ferry sync --file shop.yaml old:uploads/ ./uploads --bandwidth 08:00-18:00=50MB/s --bandwidth otherwise=1GB/s\n  \
    ferry resume last\n\nJSON: as `ferry run`; with --plan as `ferry plan`."
))]
pub struct Sync {
    /// Where the objects are
    from: String,
    /// Where they go
    to: String,
    /// Show what would be done, and do nothing
    #[arg(short = 'n', long, visible_alias = "dry-run")]
    plan: bool,
    #[command(flatten)]
    known: Known,
    #[command(flatten, next_help_heading = "Keys of object.sync")]
    flags: Flags,
}

impl Sync {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        self.flags.check()?;
        let registry = crate::steps::builtin();
        let places = [("from", self.from.as_str()), ("to", self.to.as_str())];
        let made = self.known.pipeline(context, registry.catalogue(), "object.sync", &places, self.flags.0)?;
        let mut new = NewRun::new(&made.path, made.loaded, made.inputs);
        let depth = if self.plan { Depth::Thorough } else { Depth::Brief };
        let plan = block_on(executor::preflight(&registry, &mut new, depth))??;
        let ok = plan.blocking().next().is_none();
        if self.plan {
            if context.out.json {
                let mut document = serde_json::to_value(&plan).map_err(std::io::Error::other)?;
                document["ok"] = json!(ok);
                context.out.document(&document)?;
            } else {
                context.out.text(&report::plan::text(&plan, context.out.style()))?;
            }
            return Ok(if ok { Exit::Succeeded } else { Exit::Wrong });
        }
        // Of one step there is no more to tell than why it cannot begin.
        if let Some(failure) = plan.blocking().find_map(|step| step.failure.clone()) {
            let value = serde_json::to_value(&plan).unwrap_or_default();
            let detail = Some(Box::new(Detail { text: String::new(), name: "plan", value }));
            return Err(Fault { detail, ..Fault::failure(failure) });
        }
        if !ok {
            return Err(ExecutorError::Preflight(Box::new(plan)).into());
        }
        let journal = context.journal_for(&made.path)?;
        Drive::new(context, journal, registry).ends_with(table).start(new)
    }
}
