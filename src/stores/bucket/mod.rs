//! Buckets asked directly: S3-compatible services and Azure Blob, where OpenDAL hides what a copy needs.
//!
//! In: the options of a store, by OpenDAL's names and with OpenDAL's meaning. Out: a [`Bucket`], whose keys are whole
//! and go out exactly as they are (`a//b`, `/lead`, `a/../b`, control characters), whose uploads have ids that outlive
//! the process, and whose writes carry checksums. Single requests are repeated here as [`Patience`] says; what finally
//! fails has its class by the same table as everything else (`classify`). Never here: a decision about what is copied.

mod address;
mod azblob;
mod buffer;
mod checksum;
mod credential;
mod header;
mod repeat;
mod s3;
mod transport;
mod types;
mod xml;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

pub use checksum::{Checksum, ChecksumKind};
pub use types::{
    BucketError, Can, Carry, Circle, Condition, CopyFrom, Entry, Got, Head, Page, PageQuery, Part, Properties, Upload,
};

use super::{Facts, Patience};
use crate::error::StepError;

/// What a request to a bucket gives.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, BucketError>>;

/// One bucket or container, asked directly. Keys are whole, with the place's prefix.
pub trait Bucket: Send + Sync {
    /// One page of a listing in the service's order.
    fn list(&self, query: PageQuery) -> Answer<'_, Page>;

    /// What the service says of an object. An answer without a body does not tell a missing bucket from a missing object:
    /// both are `Missing` in S3.
    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head>;

    /// An object, or a range of its bytes, read whole; `head.facts.size` is the whole object's size. With `if_match`
    /// only the object that has this `ETag`. A body that comes whole and with a checksum is held against it.
    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>, if_match: Option<&'a str>) -> Answer<'a, Got>;

    /// The tags of an object. Asked for apart: see [`Head::tags`].
    fn tags<'a>(&'a self, key: &'a str) -> Answer<'a, std::collections::BTreeMap<String, String>>;

    /// Writes an object in one request.
    fn put<'a>(&'a self, key: &'a str, properties: &'a Properties, body: Bytes, condition: &'a Condition) -> Answer<'a, Facts>;

    /// Begins an upload in parts; gives its id. A later process may go on with it. Azure takes the properties when the
    /// upload is completed.
    fn begin<'a>(&'a self, key: &'a str, properties: &'a Properties) -> Answer<'a, String>;

    /// Sends one part, numbered from 1. A part that is sent again replaces the first. `Missing`: the upload is gone.
    fn put_part<'a>(&'a self, key: &'a str, upload: &'a str, number: u32, body: Bytes) -> Answer<'a, Part>;

    /// Makes the object of these parts, in the order of their numbers. `Missing`: the upload is gone, and the object
    /// that is there is not known to be the one that it made. `Parts`: these are to be sent again.
    fn complete<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        properties: &'a Properties,
        parts: &'a [Part],
        condition: &'a Condition,
    ) -> Answer<'a, Facts>;

    /// Throws an upload away; none there is no error. In Azure there is nothing to do: blocks expire after seven days.
    fn abort<'a>(&'a self, key: &'a str, upload: &'a str) -> Answer<'a, ()>;

    /// The uploads that were begun below this prefix and are neither completed nor thrown away. In Azure only those of
    /// names that have no blob yet.
    fn uploads<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Upload>>;

    /// Deletes objects, many with one request where the service can; gives those that are still there. None there is
    /// no error.
    fn delete<'a>(&'a self, keys: &'a [String]) -> Answer<'a, Vec<(String, StepError)>>;

    /// Deletes an object if it still has this `ETag`; else `Changed`. A service that does not know the condition deletes it
    /// in any case: look first.
    fn delete_if<'a>(&'a self, key: &'a str, etag: &'a str) -> Answer<'a, ()>;

    /// Copies inside the service, in one request: at most 5 GiB; in Azure at most 256 MiB when properties are kept. The
    /// result is looked at: two requests. `Missing`: there is no such source; `Changed`: it is not the one of
    /// `from.if_match`, or `condition` fails; `Refused`: the service does not copy, or not this much at once.
    fn copy<'a>(&'a self, from: &'a CopyFrom, key: &'a str, carry: Carry<'a>, condition: &'a Condition) -> Answer<'a, Facts>;

    /// Whether the service can name this key as the source of a copy.
    fn can_copy(&self, key: &str) -> bool;

    /// Copies a range of another object into a part of an upload, inside the service.
    fn copy_part<'a>(
        &'a self,
        from: &'a CopyFrom,
        range: Range<u64>,
        key: &'a str,
        upload: &'a str,
        number: u32,
    ) -> Answer<'a, Part>;

    /// How often the service asked for fewer requests so far (429, 503, `SlowDown`).
    fn throttled(&self) -> u64;

    /// What the service can do, as far as it is known by now.
    fn can(&self) -> Can;

    /// The bucket's or container's name, as [`CopyFrom::bucket`] takes it.
    fn name(&self) -> &str;
}

/// The bucket behind these options. `None` for other schemes, and for what only OpenDAL understands.
pub(super) fn open(
    scheme: &str,
    options: &[(String, String)],
    patience: &Patience,
) -> Result<Option<Arc<dyn Bucket>>, StepError> {
    match scheme {
        "s3" => Ok(s3::S3::open(options, patience)?.map(|bucket| Arc::new(bucket) as Arc<dyn Bucket>)),
        "azblob" => Ok(azblob::Azblob::open(options, patience)?.map(|bucket| Arc::new(bucket) as Arc<dyn Bucket>)),
        _ => Ok(None),
    }
}

/// The buckets or containers of the service behind these options.
pub(super) async fn buckets(
    scheme: &str,
    options: &[(String, String)],
    patience: &Patience,
) -> Result<Vec<super::Bucket>, StepError> {
    let found = match scheme {
        "s3" => s3::S3::service(options, patience)?.buckets().await,
        "azblob" => azblob::Azblob::service(options, patience)?.containers().await,
        _ => {
            return Err(StepError::permanent("the buckets of Google Cloud Storage cannot be listed without their project")
                .help("name the bucket: `gs://bucket/prefix/`; `gcloud storage ls` lists those of a project"));
        }
    };
    found.map_err(|error| error.into_step("cannot list the buckets"))
}
