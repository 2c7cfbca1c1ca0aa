//! A large object into a bucket: parts side by side, each written down as it arrives.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::task::AbortOnDropHandle;

use super::super::hash::{self, PartHash};
use super::super::ledger::{Line, Unfinished};
use super::super::uploads;
use super::inside::copied_part_size;
use super::{Job, Origin, Stop, Transfer, condition, part_size};
use crate::error::StepError;
use crate::stores::bucket::{Bucket, BucketError, CopyFrom, Part};
use crate::stores::{Facts, Store};

/// Parts of one object that may wait for a place at once.
const IN_LINE: usize = 64;
/// How often an upload is brought to its end whose parts the service has not as they were sent.
const ROUNDS: u32 = 3;

/// What has arrived of an upload, by the parts' numbers.
type Arrived = BTreeMap<u32, (Part, Option<PartHash>)>;

/// One upload in parts, shared by the tasks of its parts.
struct Upload {
    transfer: Arc<Transfer>,
    bucket: Arc<dyn Bucket>,
    origin: Origin,
    /// The name below the place, and in the bucket.
    key: String,
    whole_key: String,
    id: String,
    part: u64,
    /// Where the service copies the parts from. `None`: they are sent.
    from: Option<CopyFrom>,
    /// Bytes of it that count as moved.
    counted: AtomicU64,
}

impl Transfer {
    pub(super) async fn in_parts(
        self: &Arc<Self>,
        job: &Job,
        origin: Origin,
        bucket: Arc<dyn Bucket>,
        from: Option<CopyFrom>,
    ) -> Result<(Facts, Option<String>), Stop> {
        let key = job.listed.key.clone();
        let whole_key = self.target.whole_key(&key);
        let part = if from.is_some() { copied_part_size(origin.facts.size) } else { part_size(origin.facts.size) };
        // An upload takes its properties when it begins or ends, not from what is read in between.
        let now = Origin::look_for_tags(&self.source, &key, self.carriage.tags()).await?;
        if !now.facts.agree(&origin.facts) {
            return Err(Stop::Changed);
        }
        let modified = now.facts.modified;
        let properties = now.tagged(&self.source, self.carriage.tags()).await?;
        let properties = self.carriage.carry(&key, properties, modified)?.properties;
        let earlier = self.take_up(&key, &origin.facts, part, &*bucket).await?;
        let (id, mut done) = if let Some(unfinished) = earlier {
            (unfinished.id, unfinished.parts)
        } else {
            let id = bucket.begin(&whole_key, &properties).await.map_err(|error| self.not_put(&key, error))?;
            let line = Line::Upload { key: key.clone(), id: id.clone(), part, of: origin.facts.clone() };
            self.ledger.tell(&line).map_err(Stop::Step)?;
            (id, BTreeMap::new())
        };
        let (size, condition) = (origin.facts.size, condition(job));
        let all = u32::try_from(size.div_ceil(part)).unwrap_or(u32::MAX);
        // What an earlier attempt has sent has arrived.
        let resumed: u64 = done.values().map(|(is, _)| is.size).sum();
        self.moved.fetch_add(resumed, Ordering::Relaxed);
        if from.is_none() {
            self.less_wanted(done.len() as u64);
        }
        let (transfer, counted) = (self.clone(), AtomicU64::new(resumed));
        let upload = Arc::new(Upload { transfer, bucket: bucket.clone(), origin, key, whole_key, id, part, from, counted });
        let mut rounds = 0;
        loop {
            let missing: Vec<u32> = (1..=all).filter(|number| !done.contains_key(number)).collect();
            let sent = async {
                upload.send_all(missing, &mut done).await?;
                if upload.is_of_one(&self.source).await? { Ok(()) } else { Err(Stop::Changed) }
            };
            if let Err(stop) = sent.await {
                return Err(upload.stop(stop).await);
            }
            let parts: Vec<Part> = done.values().map(|(is, _)| is.clone()).collect();
            rounds += 1;
            match bucket.complete(&upload.whole_key, &upload.id, &properties, &parts, &condition).await {
                // Some services answer the end of an upload with another `ETag` than they tell ever after: what undo and
                // later runs will see is what counts.
                Ok(is) => {
                    self.see_tags(&properties, &*bucket);
                    let hashes = done.into_values().map(|(_, hash)| hash).collect::<Option<Vec<_>>>();
                    return Ok((Facts { etag: None, ..is }, hashes.map(|hashes| hash::of_parts(&hashes))));
                }
                // The lines that come now count in place of those that are there.
                Err(BucketError::Parts(numbers)) if rounds < ROUNDS => upload.forget(&numbers, &mut done),
                // Whatever the service still has of it is of no use.
                Err(BucketError::Missing | BucketError::Parts(_)) => return Err(upload.stop(Stop::NoUpload).await),
                Err(error @ BucketError::Changed) => {
                    let stop = self.not_put(&upload.key, error);
                    return Err(upload.stop(stop).await);
                }
                Err(error) => return Err(self.not_put(&upload.key, error)),
            }
        }
    }

    /// The upload that an earlier attempt has left of this very object; those of others are thrown away.
    async fn take_up(&self, key: &str, of: &Facts, part: u64, bucket: &dyn Bucket) -> Result<Option<Unfinished>, Stop> {
        let mut found = None;
        for unfinished in self.take_unfinished(key) {
            let is_same = unfinished.part == part && unfinished.of.agree(of) && unfinished.of.etag == of.etag;
            if is_same && found.is_none() {
                found = Some(unfinished);
            } else {
                uploads::drop_one(bucket, &self.target, key, &unfinished.id).await.map_err(Stop::Step)?;
                self.ledger.tell(&Line::Dropped { key: key.to_owned(), id: unfinished.id }).map_err(Stop::Step)?;
            }
        }
        Ok(found)
    }

    pub(super) fn less_wanted(&self, places: u64) {
        let _ = self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |wanted| Some(wanted.saturating_sub(places)));
    }
}

impl Upload {
    /// Sends these parts, side by side.
    async fn send_all(self: &Arc<Self>, numbers: Vec<u32>, done: &mut Arrived) -> Result<(), Stop> {
        let mut sent = futures::stream::iter(numbers)
            .map(|number| {
                let upload = self.clone();
                async move {
                    // Where one fails the others end with it: an upload that is thrown away must get no more parts.
                    let task = AbortOnDropHandle::new(tokio::spawn(async move { upload.send(number).await }));
                    task.await.unwrap_or_else(|error| {
                        Err(Stop::Step(StepError::permanent("a part could not be sent: a bug of ferry").cause(error)))
                    })
                }
            })
            .buffer_unordered(IN_LINE);
        while let Some((is, hash)) = sent.try_next().await? {
            done.insert(is.number, (is, hash));
        }
        Ok(())
    }

    /// The service has not these parts.
    fn forget(&self, numbers: &[u32], done: &mut Arrived) {
        for number in numbers {
            let Some((is, _)) = done.remove(number) else { continue };
            self.uncount(is.size);
            if self.from.is_none() {
                self.transfer.wanted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn count(&self, bytes: u64) {
        self.counted.fetch_add(bytes, Ordering::Relaxed);
        self.transfer.count(bytes);
    }

    fn uncount(&self, bytes: u64) {
        self.counted.fetch_sub(bytes, Ordering::Relaxed);
        self.transfer.moved.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn range(&self, number: u32) -> Range<u64> {
        let start = u64::from(number - 1) * self.part;
        start..(start + self.part).min(self.origin.facts.size)
    }

    /// Whether all parts are of one object. Those that were read were read under that condition; some services take no
    /// notice of it when they copy.
    async fn is_of_one(&self, source: &Store) -> Result<bool, Stop> {
        if self.from.is_none() {
            return Ok(self.origin.is_still(source).await);
        }
        Ok(Origin::look(source, &self.key).await?.facts.agree(&self.origin.facts))
    }

    async fn send(&self, number: u32) -> Result<(Part, Option<PartHash>), Stop> {
        let transfer = &self.transfer;
        let range = self.range(number);
        if let Some(from) = &self.from {
            return self.copy(from, range, number).await;
        }
        let bytes = range.end - range.start;
        let _room = transfer.room(bytes).await?;
        transfer.pace.pay(bytes).await;
        let (body, _) = transfer.unless_stopped(self.origin.read(&transfer.source, Some(range.clone()))).await?;
        let hash = PartHash::of(&body, range.start);
        let put = async {
            match self.bucket.put_part(&self.whole_key, &self.id, number, body).await {
                Err(BucketError::Missing) => Err(Stop::NoUpload),
                put => put.map_err(|error| transfer.not_put(&self.key, error)),
            }
        };
        // A part that is cut off is not part of anything.
        let is = transfer.unless_stopped(put).await?;
        let line = Line::Part { key: self.key.clone(), id: self.id.clone(), is: is.clone(), hash: Some(hash.to_hex()) };
        transfer.ledger.tell(&line).map_err(Stop::Step)?;
        self.count(bytes);
        transfer.less_wanted(1);
        Ok((is, Some(hash)))
    }

    /// The service copies the part within itself.
    async fn copy(&self, from: &CopyFrom, range: Range<u64>, number: u32) -> Result<(Part, Option<PartHash>), Stop> {
        let transfer = &self.transfer;
        let bytes = range.end - range.start;
        let _room = transfer.room(0).await?;
        let copy = async {
            match self.bucket.copy_part(from, range, &self.whole_key, &self.id, number).await {
                Ok(is) => Ok(is),
                Err(BucketError::Refused(error)) => Err(Stop::Refused(error)),
                Err(BucketError::Changed) => Err(Stop::Changed),
                // Either the source is gone, or the upload.
                Err(BucketError::Missing) => match Origin::look(&transfer.source, &self.key).await {
                    Ok(_) => Err(Stop::NoUpload),
                    Err(stop) => Err(stop),
                },
                Err(error) => Err(transfer.not_put(&self.key, error)),
            }
        };
        let is = transfer.unless_stopped(copy).await?;
        let line = Line::Part { key: self.key.clone(), id: self.id.clone(), is: is.clone(), hash: None };
        transfer.ledger.tell(&line).map_err(Stop::Step)?;
        self.count(bytes);
        Ok((is, None))
    }

    /// Keeps what has arrived for the next attempt when it can be of use, else throws it away.
    async fn stop(&self, stop: Stop) -> Stop {
        if matches!(stop, Stop::Step(_)) {
            return stop;
        }
        let dropped = uploads::drop_one(&*self.bucket, &self.transfer.target, &self.key, &self.id).await;
        if dropped.is_ok() || matches!(stop, Stop::NoUpload) {
            let line = Line::Dropped { key: self.key.clone(), id: self.id.clone() };
            let _ = self.transfer.ledger.tell(&line);
        }
        if matches!(stop, Stop::NoUpload | Stop::Changed) {
            // All of it is sent anew.
            let counted = self.counted.swap(0, Ordering::Relaxed);
            self.transfer.moved.fetch_sub(counted, Ordering::Relaxed);
            if self.from.is_none() {
                self.transfer.wanted.fetch_add(counted.div_ceil(self.part), Ordering::Relaxed);
            }
        }
        stop
    }
}
