//! `object.compare`: proves that two places hold the same objects, or says where they differ.

use std::path::Path;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::content::{self, Object};
use super::filter::Filter;
use super::merge::pairs;
use super::objects;
use super::same::{Answer, Rule};
use super::sync::is_copied;
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::steps::{Preview, Progress, Step, StepContext};
use crate::stores::{Kind, Listed, Store};

/// How many differences fit into the outputs; all of them are in a file.
const SHOWN: usize = 100;
/// Objects whose contents are read at once.
const AT_ONCE: usize = 8;

/// Proves that two places hold the same objects, and fails when they do not.
///
/// Every name that the filters let through must be at both places with the same size and the same content. Contents
/// count as the same when both stores list the same MD5. Where only one lists it, the other's content is read; where one has
/// the `ETag` of an object that was sent in parts, the other's is read and that put together from it, as far as the size of
/// the parts can be found; else both are read and their SHA-256 is compared. `by: size` and `by: mtime` prove less and say so. The outputs show the first 100 differences; the whole
/// list is `differences.jsonl` in the step's folder of the run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::unsafe_derive_deserialize, reason = "the `unsafe` is inside tokio's macros and touches no field")]
pub struct ObjectCompare {
    /// One place: `store:prefix/`, a URL, or a directory.
    #[schemars(extend("format" = "place"))]
    pub from: String,
    /// The other.
    #[schemars(extend("format" = "place"))]
    pub to: String,
    /// Only names that match one of these.
    #[serde(default)]
    pub include: Vec<String>,
    /// No names that match one of these. Wins over `include`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What is compared besides names and sizes.
    #[serde(default)]
    pub by: Rule,
    /// Whether differences make the step fail. With `fail: false` it succeeds, and they are in its outputs.
    #[serde(default = "yes")]
    pub fail: bool,
    /// Two places without any object are no failure.
    #[serde(default)]
    pub allow_empty: bool,
}

fn yes() -> bool {
    true
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The name.
    pub key: String,
    /// What differs.
    pub what: What,
    /// What either side has: `5 B at from, 7 B at to`.
    #[serde(default)]
    pub why: String,
}

/// In what two places differ about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is only at `from`.
    Missing,
    /// It is only at `to`.
    Extra,
    /// It has another size.
    Size,
    /// It has another content.
    Content,
    /// It is older at `to`: nothing but times was compared.
    Time,
}

impl What {
    fn told(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Extra => "is only there",
            Self::Size => "has another size",
            Self::Content => "has another content",
            Self::Time => "is older",
        }
    }
}

/// What listings have shown to differ.
fn listed_difference(by: Rule, key: &str, from: &Listed, to: &Listed) -> Difference {
    let md5s = from.md5.as_ref().zip(to.md5.as_ref());
    let (what, why) = match md5s {
        _ if from.kind != to.kind => (What::Content, "one is an object, the other stands for a folder".to_owned()),
        _ if from.facts.size != to.facts.size => {
            (What::Size, format!("{} bytes at from, {} at to", from.facts.size, to.facts.size))
        }
        Some((a, b)) if by != Rule::Mtime => (What::Content, format!("MD5 {a} at from, {b} at to")),
        _ if by == Rule::Mtime => {
            let time = |listed: &Listed| listed.facts.modified.map_or_else(|| "no time".to_owned(), |time| time.to_string());
            (What::Time, format!("{} at from, {} at to", time(from), time(to)))
        }
        _ => (What::Content, "not both list an MD5".to_owned()),
    };
    Difference { key: key.to_owned(), what, why }
}

/// What a comparison saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct CompareOutput {
    /// Whether both places hold the same.
    pub identical: bool,
    /// Objects at `from`.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many were compared by reading contents: of one side where the other lists an MD5, or the `ETag` of parts whose
    /// size can be found; else of both.
    pub read: u64,
    /// How many names differ. When there is any, the step fails unless `fail: false`.
    pub different: u64,
    /// How many of them are only at `from`.
    pub missing: u64,
    /// How many of them are only at `to`.
    pub extra: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl ObjectCompare {
    /// Both places. A copy of nothing makes no folder at the target: only the source has to be there.
    async fn places(&self, ctx: &StepContext) -> Result<(Store, Store), StepError> {
        let (source, target) = (ctx.stores.open(&self.from, &ctx.base)?, ctx.stores.open(&self.to, &ctx.base)?);
        source.must_exist().await?;
        target.must_be_no_file().await?;
        if source.is_same_place(&target).await {
            let message =
                format!("`{}` and `{}` are one place: to compare it with itself proves nothing", source.label(), target.label());
            return Err(StepError::permanent(message).help("correct `from` or `to`"));
        }
        Ok((source, target))
    }

    async fn compare(&self, ctx: &StepContext, source: &Store, target: &Store) -> Result<CompareOutput, StepError> {
        let filter = Filter::new(&self.include, &self.exclude)?;
        let mut output = CompareOutput::default();
        let mut list = List::new(&ctx.scratch).await?;
        let mut pairs = pairs(source, target, None, &filter);
        let bytes_read = std::sync::atomic::AtomicU64::new(0);
        let mut reading = FuturesUnordered::new();
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
        let mut is_listed = false;
        while !(is_listed && reading.is_empty()) {
            let has_room = !is_listed && reading.len() < AT_ONCE;
            let difference = tokio::select! {
                biased;
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
                Some(read) = reading.next(), if !reading.is_empty() => {
                    let read: Result<Option<Difference>, StepError> = read;
                    read?
                }
                _ = tick.tick() => {
                    let bytes = bytes_read.load(std::sync::atomic::Ordering::Relaxed);
                    ctx.progress(Progress { objects: Some(output.objects), bytes: Some(bytes), ..Progress::default() });
                    None
                }
                pair = pairs.try_next(), if has_room => match pair? {
                    None => {
                        is_listed = true;
                        None
                    }
                    Some(pair) => {
                        for (store, listed) in [(source, &pair.source), (target, &pair.target)] {
                            if let Some(listed) = listed.as_ref().filter(|listed| listed.kind == Kind::BadName) {
                                store.usable(listed)?;
                            }
                        }
                        // Folders' own markers say nothing about contents where the other side has real folders.
                        let source_counts = pair.source.as_ref().is_some_and(|listed| match listed.kind {
                            Kind::Marker => is_copied(source, target, listed).unwrap_or(true),
                            _ => true,
                        });
                        let target_counts = pair.target.as_ref().is_some_and(|listed| match listed.kind {
                            Kind::Marker => is_copied(target, source, listed).unwrap_or(true),
                            _ => true,
                        });
                        if source_counts {
                            output.objects += 1;
                            output.bytes += pair.source.as_ref().map_or(0, |listed| listed.facts.size);
                        }
                        let alone = |what, listed: &Listed| {
                            let why = format!("{} bytes", listed.facts.size);
                            Some(Difference { key: pair.key.clone(), what, why })
                        };
                        match (&pair.source, &pair.target) {
                            (Some(listed), Some(there)) => match self.by.of_proof(listed, there) {
                                Answer::Same => None,
                                Answer::Different => Some(listed_difference(self.by, &pair.key, listed, there)),
                                Answer::Read | Answer::Ask => {
                                    output.read += 1;
                                    let (listed, there) = (listed.clone(), there.clone());
                                    let (bytes_read, reads_both) = (&bytes_read, self.by == Rule::Checksum);
                                    reading.push(async move {
                                        let count = |bytes| { bytes_read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed); };
                                        let from = Object { store: source, listed: &listed };
                                        let to = Object { store: target, listed: &there };
                                        let found = content::compare(from, to, reads_both, &count).await?;
                                        let side = if found.is_both { "both sides were read" } else { "one side was read" };
                                        let (what, why) = (What::Content, side.to_owned());
                                        Ok((!found.is_same).then(|| Difference { key: listed.key.clone(), what, why }))
                                    }.boxed());
                                    None
                                }
                            },
                            (Some(listed), None) if source_counts => alone(What::Missing, listed),
                            (None, Some(there)) if target_counts => alone(What::Extra, there),
                            _ => None,
                        }
                    }
                },
            };
            if let Some(difference) = difference {
                list.add(&difference).await?;
                output.different += 1;
                output.missing += u64::from(difference.what == What::Missing);
                output.extra += u64::from(difference.what == What::Extra);
                if output.differences.len() < SHOWN {
                    output.differences.push(difference);
                }
            }
        }
        list.close().await?;
        output.identical = output.different == 0;
        Ok(output)
    }
}

/// The whole list of differences, in a file.
struct List {
    file: tokio::io::BufWriter<tokio::fs::File>,
}

fn unwritable(error: std::io::Error) -> StepError {
    StepError::permanent("cannot write the list of differences").cause(error).help("see that there is room in the run's folder")
}

impl List {
    async fn new(scratch: &Path) -> Result<Self, StepError> {
        tokio::fs::create_dir_all(scratch).await.map_err(unwritable)?;
        let file = tokio::fs::File::create(scratch.join("differences.jsonl")).await.map_err(unwritable)?;
        Ok(Self { file: tokio::io::BufWriter::new(file) })
    }

    async fn add(&mut self, difference: &Difference) -> Result<(), StepError> {
        let mut line = serde_json::to_vec(difference).expect("a difference has only strings for keys");
        line.push(b'\n');
        self.file.write_all(&line).await.map_err(unwritable)
    }

    async fn close(mut self) -> Result<(), StepError> {
        self.file.flush().await.map_err(unwritable)
    }
}

impl Step for ObjectCompare {
    const TYPE: &'static str = "object.compare";
    const EXAMPLE: &'static str = "\
id: same
uses: object.compare
with:
  from: old:uploads/
  to: new:uploads/
";

    type Before = ();
    type Output = CompareOutput;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<(), StepError> {
        Filter::new(&self.include, &self.exclude)?;
        let (source, target) = self.places(ctx).await?;
        // One entry of each shows that both can be listed.
        for place in [source, target] {
            place.list(None).next().await?;
        }
        Ok(())
    }

    fn preview(&self, (): &()) -> Preview {
        let how = match self.by {
            Rule::Auto => "by size and content",
            Rule::Size => "by size alone",
            Rule::Etag => "by size and listed MD5",
            Rule::Mtime => "by size and time",
            Rule::Checksum => "by reading all contents",
        };
        Preview {
            does: format!("compares `{}` with `{}` {how}", self.from, self.to),
            undo: "nothing to undo".to_owned(),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<CompareOutput, StepError> {
        let (source, target) = self.places(ctx).await?;
        let output = self.compare(ctx, &source, &target).await?;
        if output.objects == 0 && output.different == 0 && !self.allow_empty {
            return Err(StepError::permanent(format!(
                "there is no object to compare at `{}` nor at `{}`",
                source.label(),
                target.label()
            ))
            .help("correct `from` and `to`; if two empty places are expected, say `allow_empty: true`"));
        }
        if output.identical || !self.fail {
            return Ok(output);
        }
        let first: Vec<String> = output
            .differences
            .iter()
            .take(5)
            .map(|difference| format!("`{}` {}", difference.key, difference.what.told()))
            .collect();
        let rest = output.different - first.len() as u64;
        let rest = if rest == 0 { String::new() } else { format!(", and {rest} more") };
        Err(StepError::permanent(format!(
            "`{}` differs from `{}` in {} ({} missing, {} extra, {} different): {}{rest}",
            target.label(),
            source.label(),
            objects(output.different),
            output.missing,
            output.extra,
            output.different - output.missing - output.extra,
            first.join(", ")
        ))
        .help(format!(
            "copy again with `object.sync`; all differences are in `{}`",
            ctx.scratch.join("differences.jsonl").display()
        )))
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
