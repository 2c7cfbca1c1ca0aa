//! `ferry plan`: what a run would do. Looks at the real world, changes nothing.

use std::path::PathBuf;

use serde_json::json;

use super::load::Given;
use super::{Context, Exit, Fault, block_on};
use crate::executor;
use crate::report;

/// Look at everything a run would touch, read-only, and say what each step would do
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exit status 2 when something is in the way of a run.\n\nExamples:\n  ferry plan shop.yaml\n  \
    ferry plan shop.yaml -i bucket=uploads --json | jq '.bytes'\n\n\
    JSON: {\"pipeline\", \"inputs\", \"steps\": [{\"step\", \"uses\", \"needs\", \"state\": \"ready|later|skipped|group|approval|failed\",\n      \
    \"half\": \"before|pivot|after|finally\", \"pivot_inside\", \"undo\", \"preview\": {\"does\", \"undo\", \"already_done\", \"bytes\", \"objects\",\n      \
    \"warnings\"}, \"waits_for\", \"failure\", \"is_blocking\", \"question\"}], \"has_pivot\", \"bytes\", \"objects\", \"ok\"}")]
pub struct Plan {
    /// The pipeline
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    given: Given,
}

impl Plan {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let loaded = context.load(&self.file, registry.catalogue())?;
        let given = self.given.values()?;
        let plan = block_on(executor::plan(&registry, &self.file, &loaded, &given))??;
        let ok = plan.blocking().next().is_none();
        if context.out.json {
            let mut document = serde_json::to_value(&plan).map_err(std::io::Error::other)?;
            document["ok"] = json!(ok);
            context.out.document(&document)?;
        } else {
            context.out.text(&report::plan::text(&plan, context.out.style()))?;
        }
        Ok(if ok { Exit::Succeeded } else { Exit::Wrong })
    }
}
