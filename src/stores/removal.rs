//! An object deleted only as long as it is the one that was meant.

use super::bucket::BucketError;
use super::classify::{classify, is_missing};
use super::store::{Facts, Store};
use crate::error::StepError;

/// How a deletion that depends on the object's state ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is not there any more: deleted now, or before by someone else.
    Gone,
    /// It is another object than the one that was meant, and stays.
    Changed,
}

impl Store {
    /// Deletes an object if it still is this one. It is looked at first; where the service takes a condition, that
    /// decides, elsewhere there are some milliseconds in between.
    pub async fn remove_if(&self, key: &str, was: &Facts) -> Result<Removed, StepError> {
        let Some(now) = self.stat(key).await? else { return Ok(Removed::Gone) };
        if !was.is_surely(&now) {
            return Ok(Removed::Changed);
        }
        let doing = format!("cannot delete `{key}` in `{}`", self.label());
        if let Some(bucket) = self.bucket()
            && let Some(etag) = &now.etag
        {
            return match bucket.delete_if(&self.whole_key(key), etag).await {
                Ok(()) | Err(BucketError::Missing) => Ok(Removed::Gone),
                Err(BucketError::Changed) => Ok(Removed::Changed),
                Err(error) => Err(error.into_step(&doing)),
            };
        }
        match self.operator().delete(&self.path(key)?).await {
            Ok(()) => Ok(Removed::Gone),
            Err(error) if is_missing(&error) => Ok(Removed::Gone),
            Err(error) => Err(classify(&doing, error)),
        }
    }

    /// Brings a file to disk, with its name: what relies on it may be deleted then. Services do that before they answer.
    pub async fn settle(&self, key: &str) -> Result<(), StepError> {
        if self.scheme() != "fs" {
            return Ok(());
        }
        let path = std::path::PathBuf::from(format!("/{}{key}", self.prefix()));
        let settled = tokio::task::spawn_blocking(move || {
            std::fs::File::open(&path)?.sync_all()?;
            path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
        });
        settled.await.map_err(std::io::Error::other).and_then(|settled| settled).map_err(|error| {
            StepError::transient(format!("cannot bring `{key}` in `{}` to disk", self.label()))
                .cause(error)
                .help("see that the disk is well and that the file can be read")
        })
    }
}
