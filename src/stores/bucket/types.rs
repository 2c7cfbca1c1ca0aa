//! What goes into a [`Bucket`](super::Bucket) and what comes out.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::Facts;
use super::checksum::Checksum;
use crate::error::StepError;

/// Why a request gave nothing.
#[derive(Debug)]
pub enum BucketError {
    /// There is no such object; for the requests of an upload, no such upload.
    Missing,
    /// The condition does not hold: the object is not the one that was meant, or is there although it should not be.
    Changed,
    /// The service does not copy this within itself, or not for this key: the object can still be sent. Only copies
    /// give it.
    Refused(StepError),
    /// The service has not these parts of the upload as it said it had: the others can stay. Only `complete` gives it.
    Parts(Vec<u32>),
    /// Everything else, with its class.
    Failed(StepError),
}

impl From<StepError> for BucketError {
    fn from(error: StepError) -> Self {
        Self::Failed(error)
    }
}

impl BucketError {
    /// The failure as a step tells it. `doing` says what was being done: ``cannot read `a` ``.
    pub fn into_step(self, doing: &str) -> StepError {
        match self {
            Self::Missing => StepError::permanent(format!("{doing}: there is nothing by that name"))
                .help("check the store, its bucket and the prefix"),
            Self::Changed => StepError::needs_person(format!("{doing}: it was changed meanwhile"))
                .help("see who else writes here, then resume"),
            Self::Parts(numbers) => {
                StepError::transient(format!("{doing}: {} of its parts are not there as they were sent", numbers.len()))
                    .help("try again: they are sent again then")
            }
            Self::Failed(error) | Self::Refused(error) => error,
        }
    }
}

/// The places at which a listing was told to go on, as long as it gets nowhere: one that comes back is a loop.
#[derive(Debug, Default)]
pub struct Circle(HashSet<String>);

impl Circle {
    /// Sees a page's `next`; `is_further`: the page had what was not seen before. False: it goes round in a circle.
    pub fn goes_on(&mut self, next: &str, is_further: bool) -> bool {
        if is_further {
            self.0.clear();
        }
        self.0.insert(next.to_owned())
    }

    /// What to say then.
    pub fn failure(label: &str) -> StepError {
        StepError::permanent(format!("`{label}` is not listed to its end: its pages go round in a circle"))
            .help("see the store's log: it says that there is more, and gives what it gave before")
    }
}

/// What page of a listing is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// Only keys that start with this.
    pub prefix: String,
    /// Only keys behind this one. Ignored with `token`.
    pub start_after: Option<String>,
    /// Where the page before ended: its `next`.
    pub token: Option<String>,
    /// Whether keys are cut at the first `/` behind the prefix: what lies deeper shows up as one of `prefixes`.
    pub delimiter: bool,
    /// How many entries at most. 0: as many as the service gives at once.
    pub most: u32,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub entries: Vec<Entry>,
    /// With `delimiter`: what the deeper keys begin with, `/` at the end.
    pub prefixes: Vec<String>,
    /// There is more: the `token` of the next page.
    pub next: Option<String>,
}

/// An object in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its whole key.
    pub key: String,
    /// Its state.
    pub facts: Facts,
    /// The MD5 of its content as hexadecimal digits, when the service tells it.
    pub md5: Option<String>,
    /// Where it is kept: `GLACIER`; Azure's access tier. `None`: `STANDARD`, or the account's default.
    pub storage_class: Option<String>,
}

/// What is kept with an object besides its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`, as it was written. Azure has no such property and drops it.
    pub expires: Option<String>,
    /// The storage class, or Azure's access tier. `None`: the store's default.
    pub storage_class: Option<String>,
    /// Names and values of the user's own. Values that are not plain ASCII travel as RFC 2047 words and come back as
    /// they were.
    pub user: BTreeMap<String, String>,
    /// Tags. An answer does not hold them: see [`Head::tags`].
    pub tags: BTreeMap<String, String>,
}

/// What the service says of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Its state. The size is the whole object's.
    pub facts: Facts,
    /// What is kept with it, but not its tags.
    pub properties: Properties,
    /// The MD5 of its content as hexadecimal digits, when the service tells it.
    pub md5: Option<String>,
    /// The checksum that the service keeps with it.
    pub checksum: Option<Checksum>,
    /// How many parts it was made of, when its `ETag` says so.
    pub parts: Option<u32>,
    /// How many tags it has, as far as the key may know. More than 0: [`Bucket::tags`](super::Bucket::tags) gives them.
    pub tags: u32,
}

/// An object's content, or a range of it.
#[derive(Debug, Clone)]
pub struct Got {
    /// What the service said of the object.
    pub head: Head,
    /// The bytes. Their number is what was announced.
    pub body: Bytes,
}

/// What an object that the service copies within itself gets beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry<'a> {
    /// What the source has.
    Kept {
        /// But this storage class. `None`: the store's default.
        storage_class: Option<&'a str>,
        /// And its tags only if this is so.
        tags: bool,
    },
    /// This, in place of what the source has.
    Replaced(&'a Properties),
}

/// When a write may happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    #[default]
    None,
    /// When there is no such object yet.
    Absent,
    /// When the object still has this `ETag`.
    Still(String),
}

/// A part that was sent. It goes into a checkpoint, and from there into `complete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// As the service gives it; for Azure the block's id.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// The checksum that the service said it has found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

/// An unfinished upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The key that it is to make.
    pub key: String,
    /// Its id.
    pub id: String,
    /// When it was begun, where the service tells it.
    pub started: Option<jiff::Timestamp>,
}

/// The source of a copy inside the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFrom {
    /// Its bucket or container: [`Bucket::name`](super::Bucket::name).
    pub bucket: String,
    /// Its whole key.
    pub key: String,
    /// The `ETag` it must have.
    pub if_match: Option<String>,
}

/// What a bucket can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Can {
    /// Whether it answers to conditions of writes. True until it has refused one: a service that ignores them without
    /// a word is not known.
    pub conditions: bool,
    /// Whether it copies from other buckets of the same service and account without sending.
    pub copies_across: bool,
    /// Whether it keeps tags.
    pub tags: bool,
    /// Whether a listing can start behind a key.
    pub starts_after: bool,
    /// How many objects one `delete` request takes.
    pub deletes_at_once: usize,
}
