//! `object.list`: what lies at a place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filter::Filter;
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::steps::{Preview, Progress, Step, StepContext};

/// Outputs stay below 256 KiB; so many bytes of names fit.
const NAMES: usize = 150 << 10;

/// Lists the objects of a place: how many, how many bytes, and the names of the first.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectList {
    /// The place: `store:prefix/`, a URL, or a directory.
    #[schemars(extend("format" = "place"))]
    pub from: String,
    /// Only names that match one of these.
    #[serde(default)]
    pub include: Vec<String>,
    /// No names that match one of these. Wins over `include`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How many names the outputs hold at most. All objects are counted in any case.
    #[serde(default = "thousand")]
    pub limit: u64,
}

fn thousand() -> u64 {
    1000
}

/// What lies there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListOutput {
    /// How many objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The names of the first, in byte order.
    pub names: Vec<String>,
    /// Whether `names` holds all of them.
    pub is_complete: bool,
}

impl Step for ObjectList {
    const TYPE: &'static str = "object.list";
    const EXAMPLE: &'static str = "\
id: pictures
uses: object.list
with:
  from: old:uploads/
  include: ['*.jpg']
  limit: 10
";

    type Before = ();
    type Output = ListOutput;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<(), StepError> {
        Filter::new(&self.include, &self.exclude)?;
        let place = ctx.stores.open(&self.from, &ctx.base)?;
        place.must_exist().await?;
        place.list(None).next().await.map(|_| ())
    }

    fn preview(&self, (): &()) -> Preview {
        Preview { does: format!("lists `{}`", self.from), undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<ListOutput, StepError> {
        let filter = Filter::new(&self.include, &self.exclude)?;
        let place = ctx.stores.open(&self.from, &ctx.base)?;
        place.must_exist().await?;
        let mut listing = place.list(None);
        let mut output = ListOutput { is_complete: true, ..ListOutput::default() };
        let mut room = NAMES;
        loop {
            let listed = tokio::select! {
                biased;
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
                listed = listing.next() => listed?,
            };
            let Some(listed) = listed else { break };
            if listed.kind.is_left_out() || !filter.passes(&listed.key) {
                continue;
            }
            output.objects += 1;
            output.bytes += listed.facts.size;
            if output.is_complete && output.names.len() as u64 <= self.limit && listed.key.len() + 4 <= room {
                room -= listed.key.len() + 4;
                output.names.push(listed.key);
            } else {
                output.is_complete = false;
            }
            if output.names.len() as u64 > self.limit {
                output.names.pop();
                output.is_complete = false;
            }
            if output.objects.is_multiple_of(1000) {
                ctx.progress(Progress { objects: Some(output.objects), ..Progress::default() });
            }
        }
        Ok(output)
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
