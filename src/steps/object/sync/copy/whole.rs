//! A small object into a bucket: one request to read it, one to write it.

use super::super::hash;
use super::{Job, Origin, Stop, Transfer, condition};
use crate::stores::Facts;
use crate::stores::bucket::{Bucket, BucketError, Condition, Properties};

impl Transfer {
    pub(super) async fn whole(&self, job: &Job, origin: &Origin, bucket: &dyn Bucket) -> Result<(Facts, String), Stop> {
        let size = origin.facts.size;
        let _room = self.room(size).await?;
        self.pace.pay(size).await;
        let (body, properties) = self.unless_stopped(origin.read(&self.source, None)).await?;
        let blake3 = hash::of(&body);
        if !origin.is_still(&self.source).await {
            return Err(Stop::Changed);
        }
        let key = self.target.whole_key(&job.listed.key);
        let properties = properties.unwrap_or_else(|| origin.properties.clone());
        let properties = self.carriage.carry(&job.listed.key, properties, origin.facts.modified)?.properties;
        // Once begun it is ended: whether an object that is cut off in mid-request arrives, nobody knows.
        let is = match bucket.put(&key, &properties, body, &condition(job)).await {
            Ok(is) => is,
            Err(BucketError::Changed) => self.is_mine(job, bucket, &key, &blake3).await?,
            Err(error) => return Err(self.not_put(&job.listed.key, error)),
        };
        self.see_tags(&properties, bucket);
        self.count(size);
        Ok((is, blake3))
    }

    /// A service that keeps no tags says so to the first that come, and gets none from then on.
    pub(super) fn see_tags(&self, properties: &Properties, bucket: &dyn Bucket) {
        if !properties.tags.is_empty() && !bucket.can().tags {
            let label = self.target.label();
            self.warn_once("tags", || format!("`{label}` keeps no tags: objects arrive there without them"));
        }
    }

    /// A request whose answer was lost is repeated by the client, and then finds what it has itself written.
    async fn is_mine(&self, job: &Job, bucket: &dyn Bucket, key: &str, blake3: &str) -> Result<Facts, Stop> {
        let key_below = &job.listed.key;
        let there = bucket.get(key, None, None).await.map_err(|error| self.not_put(key_below, error))?;
        if hash::of(&there.body) == blake3 {
            return Ok(there.head.facts);
        }
        debug_assert!(condition(job) != Condition::None);
        Err(self.not_put(key_below, BucketError::Changed))
    }
}
