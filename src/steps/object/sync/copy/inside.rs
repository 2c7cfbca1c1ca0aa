//! A copy that the service makes within itself: nothing is sent.
//!
//! In one request as long as the service takes that, in parts above. Where it refuses, the object is sent after all, and
//! so are all that follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::carry::Tags;
use super::{Copied, Job, MOST_PARTS, Origin, PART, Stop, Transfer, WHOLE, condition, width};
use crate::error::StepError;
use crate::stores::bucket::{BucketError, Carry, CopyFrom};
use crate::stores::{Facts, Store};

/// The most that S3 copies in one request.
const LARGEST_S3: u64 = 5 << 30;
/// The same of Azure.
const LARGEST_AZURE: u64 = 256 << 20;
/// Of more parts than these, each is made larger.
const MANY_PARTS: u64 = 64;
/// But no larger than this: a request has to end while somebody waits for it.
const LARGE_PART: u64 = 512 << 20;

/// Who copies between places of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerSide {
    /// The service itself, where it can.
    #[default]
    Auto,
    /// This machine: every object is read and sent.
    Never,
}

impl ServerSide {
    fn allows(self, source: &Store, target: &Store) -> Result<(), &'static str> {
        target.copies_from(source)?;
        if self == Self::Never { Err("`server_side: never`") } else { Ok(()) }
    }

    /// What a plan says of it, when both places are buckets.
    pub fn way(self, source: &Store, target: &Store) -> Option<String> {
        source.bucket().and(target.bucket())?;
        Some(match self.allows(source, target) {
            Ok(()) => "copied inside the service".to_owned(),
            Err(why) => format!("sent through this machine: {why}"),
        })
    }
}

/// The size of the parts in which an object is copied.
pub fn copied_part_size(size: u64) -> u64 {
    let mut part = PART;
    while (size.div_ceil(part) > MANY_PARTS && part < LARGE_PART) || size.div_ceil(part) > MOST_PARTS {
        part *= 2;
    }
    part
}

/// Whether and how the service copies between the two places of a step.
pub struct Inside {
    /// Until it has refused.
    is_open: AtomicBool,
    /// The largest object for one request.
    most: AtomicU64,
}

impl Inside {
    pub fn new(server_side: ServerSide, source: &Store, target: &Store) -> Self {
        let most = if target.scheme() == "azblob" { LARGEST_AZURE } else { LARGEST_S3 };
        Self { is_open: AtomicBool::new(server_side.allows(source, target).is_ok()), most: AtomicU64::new(most) }
    }

    /// Whether it copies this object.
    pub fn takes(&self, source: &Store, key: &str) -> bool {
        let can_copy = || source.bucket().is_none_or(|bucket| bucket.can_copy(&source.whole_key(key)));
        self.is_open.load(Ordering::Relaxed) && can_copy()
    }
}

impl Transfer {
    /// The service has refused: this object and all that follow are sent.
    pub(super) fn send_from_now_on(&self, error: &StepError) {
        if self.inside.is_open.swap(false, Ordering::Relaxed) {
            let cause = error.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
            let label = self.target.label();
            let text = format!(
                "the service does not copy to `{label}` by itself, objects are sent from now on: {}{cause}",
                error.message
            );
            self.warn(text);
        }
    }

    pub(super) async fn inside(self: &Arc<Self>, job: &Job, origin: &Origin) -> Result<Copied, Stop> {
        let (key, size) = (&job.listed.key, origin.facts.size);
        let ended = match (self.source.bucket(), &self.into) {
            (Some(from), Some(_)) => {
                let if_match = origin.facts.etag.clone();
                let from = CopyFrom { bucket: from.name().to_owned(), key: self.source.whole_key(key), if_match };
                self.inside_bucket(job, origin, from).await
            }
            _ => self.inside_plain(key, origin).await.map(|is| (is, size)),
        };
        let (is, size) = ended?;
        if size > WHOLE {
            self.less_wanted(width(job.listed.facts.size));
        }
        self.arrived(key, size, is, None, true).await
    }

    /// What OpenDAL copies.
    async fn inside_plain(&self, key: &str, origin: &Origin) -> Result<Facts, Stop> {
        let (from, to) = (self.source.path(key)?, self.target.path(key)?);
        let room = self.room(0).await?;
        let copied = self.target.operator().copy(&from, &to).await.map_err(|error| self.not_written(key, error))?;
        // A verification takes a place of its own.
        drop(room);
        if !Origin::look(&self.source, key).await?.facts.agree(&origin.facts) {
            return Err(Stop::Changed);
        }
        self.count(origin.facts.size);
        Ok(Facts::of(&copied))
    }

    /// One request, or parts where that is too much for one. Gives what is there, and its size.
    async fn inside_bucket(self: &Arc<Self>, job: &Job, origin: &Origin, from: CopyFrom) -> Result<(Facts, u64), Stop> {
        let bucket = self.into.clone().expect("the caller has seen it");
        let (key, size) = (&job.listed.key, origin.facts.size);
        if size <= self.inside.most.load(Ordering::Relaxed) {
            let whole_key = self.target.whole_key(key);
            let storage_class = self.carriage.class(job.listed.storage_class.as_deref());
            let carry = Carry::Kept { storage_class, tags: self.carriage.tags() != Tags::No };
            let room = self.room(0).await?;
            if !self.inside.is_open.load(Ordering::Relaxed) {
                // Another has been refused while this one waited.
                return Err(Stop::Refused(StepError::permanent("the service does not copy by itself")));
            }
            let copied = bucket.copy(&from, &whole_key, carry, &condition(job)).await;
            drop(room);
            match copied {
                Ok(is) => {
                    // Some services take no notice of the source's condition: then it is what is there now, or nothing good.
                    let is_whole = is.size == size || Origin::look(&self.source, key).await?.facts.size == is.size;
                    if !is_whole {
                        return Err(Stop::Changed);
                    }
                    self.count(is.size);
                    let size = is.size;
                    return Ok((is, size));
                }
                Err(BucketError::Missing) => return Err(Stop::Gone),
                Err(BucketError::Changed) => return self.who_changed(key, origin).await.map(|is| (is, size)),
                // It may be too much for one request of this service.
                Err(BucketError::Refused(_)) if size > WHOLE => {}
                Err(BucketError::Refused(error)) => return Err(Stop::Refused(error)),
                Err(error) => return Err(self.not_put(key, error)),
            }
        }
        let (is, _) = self.in_parts(job, origin.clone(), bucket, Some(from)).await?;
        self.inside.most.fetch_min(size - 1, Ordering::Relaxed);
        Ok((is, size))
    }

    /// A condition did not hold: the source is another, or the target. An answer that was lost looks like that too: then
    /// the target has what was to be copied.
    async fn who_changed(&self, key: &str, origin: &Origin) -> Result<Facts, Stop> {
        let now = Origin::look(&self.source, key).await?;
        if !now.facts.agree(&origin.facts) {
            return Err(Stop::Changed);
        }
        let there = match Origin::look(&self.target, key).await {
            Ok(there) => there,
            Err(Stop::Gone) => return Err(self.not_put(key, BucketError::Changed)),
            Err(stop) => return Err(stop),
        };
        let is_it = there.facts.size == origin.facts.size
            && self.hash_of(&self.source, &now).await? == self.hash_of(&self.target, &there).await?;
        if is_it { Ok(there.facts) } else { Err(self.not_put(key, BucketError::Changed)) }
    }
}
