//! `object.delete`: deletes the objects of a place.

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filter::Filter;
use super::{objects, some};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::steps::{Preview, Progress, Step, StepContext};
use crate::stores::{Kind, Place, Store};
use crate::units::ByteSize;

/// Objects deleted at once.
const AT_ONCE: usize = 16;

/// Deletes the objects of a place. It cannot be undone: it has to stand behind the pivot or say `undo: skip`.
///
/// A place without a prefix is a whole bucket, and is refused without `everything: true`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectDelete {
    /// The place: `store:prefix/` or a URL.
    #[schemars(extend("format" = "place"))]
    pub from: String,
    /// Only names that match one of these.
    #[serde(default)]
    pub include: Vec<String>,
    /// No names that match one of these. Wins over `include`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Says that a place without a prefix is meant.
    #[serde(default)]
    pub everything: bool,
}

/// What is there to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteBefore {
    /// How many objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first few names.
    pub first: Vec<String>,
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeleteOutput {
    /// How many objects the last attempt deleted.
    pub deleted: u64,
}

impl ObjectDelete {
    fn place(&self, ctx: &StepContext) -> Result<Store, StepError> {
        let place = ctx.stores.open(&self.from, &ctx.base)?;
        // A store whose own root is a folder has a prefix of its own, but `store:` still names all of it.
        let is_bare = matches!(Place::parse(&self.from)?, Place::Named { prefix, .. } if prefix.is_empty());
        if (place.is_everything() || is_bare) && !self.everything {
            return Err(StepError::permanent(format!("`{}` has no prefix: that is everything in the store", place.label()))
                .help("add a prefix, such as `store:uploads/`; if everything is meant, say `everything: true`"));
        }
        Ok(place)
    }
}

impl Step for ObjectDelete {
    const TYPE: &'static str = "object.delete";
    const EXAMPLE: &'static str = "\
id: clean
uses: object.delete
undo: skip
with:
  from: old:uploads/tmp/
";

    type Before = DeleteBefore;
    type Output = DeleteOutput;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Impossible, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<DeleteBefore, StepError> {
        let filter = Filter::new(&self.include, &self.exclude)?;
        let place = self.place(ctx)?;
        place.must_be_no_file().await?;
        let mut before = DeleteBefore::default();
        let mut listing = place.list(None);
        while let Some(listed) = listing.next().await? {
            if listed.kind.is_left_out() || !filter.passes(&listed.key) {
                continue;
            }
            place.usable(&listed)?;
            before.objects += 1;
            before.bytes += listed.facts.size;
            if before.first.len() < 5 {
                before.first.push(listed.key);
            }
        }
        Ok(before)
    }

    fn preview(&self, before: &DeleteBefore) -> Preview {
        let mut warnings = Vec::new();
        let mut does = format!("deletes nothing: there is no object at `{}`", self.from);
        if before.objects > 0 {
            does = format!("deletes {}, {}, at `{}`", objects(before.objects), ByteSize(before.bytes), self.from);
            warnings.push(format!("deletes {}", some(&before.first, before.objects)));
        }
        Preview {
            does,
            undo: "cannot be undone".to_owned(),
            already_done: before.objects == 0,
            bytes: None,
            objects: None,
            warnings,
        }
    }

    async fn run(&self, ctx: &StepContext, before: &DeleteBefore) -> Result<DeleteOutput, StepError> {
        let filter = Filter::new(&self.include, &self.exclude)?;
        let place = self.place(ctx)?;
        let mut output = DeleteOutput::default();
        // The listing goes through to the end before the next page is asked for: deleting what is listed moves no page.
        let mut entries = futures::stream::try_unfold(place.list(None), |mut listing| async move {
            Ok::<_, StepError>(listing.next().await?.map(|listed| (listed, listing)))
        })
        .boxed();
        let mut tasks = FuturesUnordered::new();
        let mut is_listed = false;
        while !(is_listed && tasks.is_empty()) {
            tokio::select! {
                biased;
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
                Some(ended) = tasks.next(), if !tasks.is_empty() => {
                    let ended: Result<(), StepError> = ended;
                    ended?;
                    output.deleted += 1;
                    let total = Some(before.objects.max(output.deleted));
                    ctx.progress(Progress { objects: Some(output.deleted), objects_total: total, ..Progress::default() });
                }
                entry = entries.next(), if !is_listed && tasks.len() < AT_ONCE => match entry {
                    None => is_listed = true,
                    Some(listed) => {
                        let listed = listed?;
                        if !listed.kind.is_left_out() && filter.passes(&listed.key) {
                            place.usable(&listed)?;
                            let place = &place;
                            tasks.push(async move { place.remove(&listed.key).await }.boxed());
                        }
                    }
                },
            }
        }
        // Seen, not believed.
        let mut listing = place.list(None);
        while let Some(listed) = listing.next().await? {
            if listed.kind == Kind::Object && filter.passes(&listed.key) {
                return Err(StepError::transient(format!("`{}` is still at `{}`", listed.key, place.label()))
                    .help("see who else writes there"));
            }
        }
        Ok(output)
    }

    async fn undo(&self, _: &StepContext, _: &DeleteBefore) -> Result<(), StepError> {
        Err(StepError::permanent("deleted objects cannot be brought back")
            .help("say `undo: skip`, or restore them from a backup"))
    }
}
