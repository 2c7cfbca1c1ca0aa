//! Uploads in parts that were begun and are not to be ended.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Told, Touched};
use crate::error::StepError;
use crate::stores::Store;
use crate::stores::bucket::{Bucket, BucketError};

/// Throws one upload away.
pub async fn drop_one(bucket: &dyn Bucket, target: &Store, key: &str, id: &str) -> Result<(), StepError> {
    let doing = format!("cannot throw away the unfinished upload of `{key}` in `{}`", target.label());
    bucket.abort(&target.whole_key(key), id).await.map_err(|error| error.into_step(&doing))
}

/// Throws away what a dead runner had begun and could not write down any more: uploads to names that the ledger says were
/// about to be written. Those with an id that is known, and those of others, stay.
pub async fn drop_strays(bucket: &dyn Bucket, target: &Store, told: &Told) -> Result<(), StepError> {
    if told.touched.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<&str> = told.unfinished.values().flatten().map(|upload| upload.id.as_str()).collect();
    let is_begun = |touched: &BTreeMap<String, Touched>, key: &str| {
        touched.get(key).is_some_and(|touched| touched.left.is_none() && !touched.is_deleted)
    };
    let doing = format!("cannot list the unfinished uploads in `{}`", target.label());
    let uploads = match bucket.uploads(target.prefix()).await {
        // Some servers say so where there are none.
        Err(BucketError::Missing) => return Ok(()),
        uploads => uploads.map_err(|error| error.into_step(&doing))?,
    };
    for upload in uploads {
        let Some(key) = upload.key.strip_prefix(target.prefix()) else { continue };
        if !known.contains(upload.id.as_str()) && is_begun(&told.touched, key) {
            drop_one(bucket, target, key, &upload.id).await?;
        }
    }
    Ok(())
}
