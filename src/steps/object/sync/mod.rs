//! `object.sync`: makes the objects of one place be at another.
//!
//! In: two places. Out: counts, and in the step's folder a manifest (what is there now) and a ledger (what was done, for
//! undo and for the next attempt). Never here: a temporary copy of an object; a change that was not written down before.

mod carry;
mod copy;
mod decide;
mod failures;
mod follow;
mod hash;
mod last_look;
mod ledger;
mod left;
mod level;
mod limits;
mod manifest;
mod pace;
mod plan;
mod put_back;
mod removal;
#[cfg(test)]
mod slow_disk;
mod task;
mod told;
mod undo;
mod uploads;
mod window;
mod work;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::carry::{StorageClass, Tags};
use self::copy::ServerSide;
use self::follow::Follow;
pub use self::left::{Left, left};
use self::limits::{Bandwidth, MaxDelete, Mode, Verify, Versions};
pub use self::plan::{SyncBefore, is_copied};
use super::filter::Filter;
use super::same::Rule;
use crate::catalogue::{Background, Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::steps::{Depth, Preview, Step, StepContext};
use crate::stores::Store;

/// Copies the objects of one place to another: what differs, and nothing else.
///
/// From any kind of store to any other. Objects are never stored in between, and many are under way at once; large ones
/// go to buckets in parts, side by side. Content type, metadata, tags, storage class and the times of files are carried
/// where both sides have them, and a plan says what is not; an object that changes while it is copied is copied once more, then named as a failure. What somebody else has written to the
/// target since it was listed is not overwritten, where the store can tell.
/// Nothing is deleted unless `mode` says so. Names that one of the stores cannot hold are refused by name:
/// by a plan, or by the step, which then fails after everything else was copied. A source without any object is a failure
/// unless `allow_empty: true`; a folder that does not exist always is.
///
/// Where the target takes two names for one (a file system without upper and lower case, a server that changes accents),
/// a last listing finds that and the step fails by name. Nothing is written through a link inside the target.
///
/// `mode: move` deletes an object at the source only when it is still the one that was copied, and its copy is known to be
/// whole: written by this step, or with the MD5 that both sides list, or read on both sides. What goes to a store that holds
/// no checksum against it is read again. What somebody has written to the source meanwhile is left alone, and told.
///
/// A manifest names every object that is at the target in the end, with the BLAKE3 of what was sent.
///
/// After an interruption the step goes on behind its last checkpoint, inside a large object too: a part that has arrived
/// is not sent again. Undo deletes what the step created (in a directory, its folders too, once they are empty), throws
/// unfinished uploads away, and does nothing else: what someone else has changed since stays. What was overwritten or
/// deleted is restored where the store keeps versions. Where it keeps none, or someone else has changed an object since,
/// undo does all else, names what is left and fails. Undo of a move puts the objects back at the source first, and deletes
/// no copy before they are there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-endless" = { "key": "follow", "unless": "until_lag" }))]
#[schemars(extend("x-formerly" = { "delete": "`delete: true` is now `mode: mirror`, and `delete: false` is what happens without `mode`" }))]
pub struct ObjectSync {
    /// Where the objects are: `store:prefix/`, a URL such as `s3://bucket/prefix/`, or a directory.
    #[schemars(extend("format" = "place"))]
    pub from: String,
    /// Where they shall be.
    #[schemars(extend("format" = "place"))]
    pub to: String,
    /// Only names that match one of these: `*.jpg` (the last part of a name), `2024/**` (the whole name), `logs/` (all
    /// below it).
    #[serde(default)]
    pub include: Vec<String>,
    /// No names that match one of these. Wins over `include`. What is left out is not deleted at the target either.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// When an object at the target counts as the same. The default compares sizes, and the MD5 that both stores list
    /// or else the times.
    #[serde(default)]
    pub compare: Rule,
    /// What becomes of objects that are only at one side: `copy` deletes nothing, `mirror` deletes at the target what is not
    /// at the source, `move` deletes at the source what is at the target; both after everything was copied.
    #[serde(default)]
    pub mode: Mode,
    /// Which versions are copied, where the source keeps more than one: `current`. `all` is not built yet, and refused by a
    /// plan and before a run.
    #[serde(default)]
    pub versions: Versions,
    /// With `mode: mirror`: fails before it deletes more than this many objects, or than this part of those at the target:
    /// `1%`.
    #[serde(default)]
    pub max_delete: Option<MaxDelete>,
    /// Goes on after the first pass, and copies what changes: `true` until the step under `background: { until: … }` is
    /// over, `5s` (or `{ until_lag: 5s }`) until a pass took no longer than that; `{ every: 1m }` begins a pass no oftener. The steps
    /// behind it may start after the first pass. Not with `mode: move`.
    #[serde(default)]
    pub follow: Follow,
    /// Reads copied objects again at the target and compares their BLAKE3 with that of what was sent: `full` (or true), or
    /// a part of them, `sample 5%`.
    #[serde(default)]
    pub verify: Verify,
    /// Where objects go when both places are in one service and are reached with the same key. `auto`: the service copies
    /// them within itself, whatever their size, and nothing is sent; where it refuses, they are sent after all, with a
    /// warning. The BLAKE3 of such objects is not known. `never`: they are read and sent by this machine.
    #[serde(default)]
    pub server_side: ServerSide,
    /// Whether tags are carried between buckets. `auto`: those of objects that are said to have some, each for a request
    /// more. `true`: every object is asked for its tags, where the service does not say which have some.
    #[serde(default)]
    pub tags: Tags,
    /// The storage class that objects get. `keep`: the one they have; in another kind of service the one most like it
    /// (`STANDARD_IA` and `ONEZONE_IA` are `Cool`, `GLACIER_IR` is `Cold`, `GLACIER` and `DEEP_ARCHIVE` are `Archive`), else
    /// the target's default. `default`: that one. A class: this one. Or a table from the source's classes to one of these:
    /// `{ STANDARD_IA: Cool, GLACIER: default, otherwise: keep }`.
    #[serde(default)]
    pub storage_class: StorageClass,
    /// How many requests are under way at once. Unless it is given, the step finds it: it rises as long as that moves
    /// more, and falls when a store asks for fewer requests. Memory is bounded apart from this.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: Option<u32>,
    /// At most this much: `50MB/s`, or by hours of the local time: `{ '08:00-18:00': 50MB/s, otherwise: 500MB/s }`. Nothing
    /// means as fast as it goes.
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    /// A source without any object is no failure. A folder that is not there still is.
    #[serde(default)]
    pub allow_empty: bool,
}

/// What a sync did, over all its attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncOutput {
    /// Objects at the source.
    pub objects: u64,
    /// Objects copied.
    pub copied: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// How many of the copied the service copied within itself: they were not sent through this machine.
    #[serde(default)]
    pub copied_inside: u64,
    /// Bytes of those.
    #[serde(default)]
    pub bytes_inside: u64,
    /// Objects that were there already.
    pub skipped: u64,
    /// How many of the copied replaced another object.
    pub overwritten: u64,
    /// Objects deleted: with `mode: mirror` at the target, with `mode: move` at the source.
    pub deleted: u64,
    /// Objects that `mode: move` has left at the source, because somebody has written to them since they were listed.
    #[serde(default)]
    pub kept: u64,
    /// Objects that disappeared from the source before they were copied.
    pub gone: u64,
    /// Entries that are neither files nor folders and were left out.
    pub left_out: u64,
    /// How many of the copied were read again at the target and found to be what was sent.
    #[serde(default)]
    pub verified: u64,
    /// Warnings given.
    pub warnings: u64,
    /// How often both places were walked through, whole. 1 unless it follows.
    #[serde(default)]
    pub passes: u64,
    /// The beginning of the last pass that found nothing to do: then both sides were equal. Nothing, if none did.
    #[serde(default)]
    pub equal_at: Option<String>,
    /// How long the last whole pass took, from the beginning of its listing to its last object: the target was no further
    /// behind than this at its end.
    #[serde(default)]
    pub lag: String,
    /// The most requests that were under way at once.
    #[serde(default)]
    pub concurrency: u64,
    /// The manifest: a file of JSON lines, compressed with Zstandard, that names every object that is at the target now,
    /// with its size, its `ETag` there and, if this step sent it, the BLAKE3 of its content.
    #[serde(default)]
    pub manifest: String,
    /// The SHA-256 of the manifest's text: `zstdcat manifest.jsonl.zst | sha256sum`.
    #[serde(default)]
    pub manifest_sha256: String,
}

impl ObjectSync {
    fn filter(&self) -> Result<Filter, StepError> {
        Filter::new(&self.include, &self.exclude)
    }

    fn source(&self, ctx: &StepContext) -> Result<Store, StepError> {
        ctx.stores.open(&self.from, &ctx.base)
    }

    async fn refuse_overlap(source: &Store, target: &Store) -> Result<(), StepError> {
        if source.overlaps(target).await {
            return Err(StepError::permanent(format!("`{}` and `{}` lie within one another", source.label(), target.label()))
                .help("a copy would read what it writes: give the target a prefix of its own"));
        }
        Ok(())
    }
}

impl Step for ObjectSync {
    const TYPE: &'static str = "object.sync";
    const EXAMPLE: &'static str = "\
id: uploads
uses: object.sync
with:
  from: old:uploads/
  to: new:uploads/
  exclude: ['*.tmp']
";

    const BACKGROUND: Background = Background::ReadyWhenSaid;

    type Before = SyncBefore;
    type Output = SyncOutput;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<SyncBefore, StepError> {
        if self.versions == Versions::All {
            return Err(StepError::permanent(
                "`versions: all` is not built yet: only the current version of an object is copied",
            )
            .help("take it out to copy current versions; older ones are copied with the provider's own tools"));
        }
        if self.mode == Mode::Move && self.follow.way().is_some() {
            return Err(StepError::permanent("`follow` keeps two places equal, and `mode: move` empties one of them")
                .help("follow with `mode: copy` or `mode: mirror`, and move what is left in a later step"));
        }
        let (source, target) = (self.source(ctx)?, ctx.stores.open(&self.to, &ctx.base)?);
        Self::refuse_overlap(&source, &target).await?;
        source.must_exist().await?;
        target.must_be_no_file().await?;
        let filter = self.filter()?;
        let mut before = match ctx.depth {
            Depth::Thorough => plan::look(&source, &target, &filter, self).await?,
            Depth::Brief => plan::glance(&source, &target).await?,
        };
        before.folders = target.missing_on_the_way().await;
        if self.mode == Mode::Mirror {
            work::may_delete(self, before.extra, before.objects, &target)?;
        }
        Ok(before)
    }

    fn preview(&self, before: &SyncBefore) -> Preview {
        plan::preview(before, self)
    }

    async fn run(&self, ctx: &StepContext, before: &SyncBefore) -> Result<SyncOutput, StepError> {
        let source = self.source(ctx)?;
        // A folder that has gone since is not an empty one: a mirror of it would empty the target.
        source.must_exist().await?;
        let target = ctx.stores.open_to_write(&self.to, &ctx.base, &ctx.idempotence_key())?;
        Self::refuse_overlap(&source, &target).await?;
        // An earlier attempt's runner may have died in the middle of a file.
        target.clear_unfinished(&ctx.idempotence_key()).await;
        let result = work::sync(self, ctx, before, &source, &target, &self.filter()?).await;
        target.clear_unfinished(&ctx.idempotence_key()).await;
        result
    }

    async fn undo(&self, ctx: &StepContext, before: &SyncBefore) -> Result<(), StepError> {
        let target = ctx.stores.open(&self.to, &ctx.base)?;
        // First: a folder with a file in it that is not whole is not empty.
        target.clear_unfinished(&ctx.idempotence_key()).await;
        undo::undo(self, ctx, &target, before.folders).await
    }
}
