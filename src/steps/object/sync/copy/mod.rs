//! The copy of one object: read, hashed, written, checked before it becomes visible, written down before and after.
//!
//! Small objects are one request to either side. Large ones go to buckets in parts, side by side, each written down as
//! it arrives, so that no life of the runner sends a part twice; elsewhere in pieces, one behind the other.

mod again;
mod inside;
mod origin;
mod parts;
mod stream;
mod whole;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use inside::ServerSide;
pub use origin::Origin;

use self::inside::Inside;
use super::ObjectSync;
use super::carry::Carriage;
use super::ledger::{Ledger, Line, Unfinished};
use super::level::{Gate, Place};
use super::limits::{Mode, Verify};
use super::pace::Pace;
use crate::error::StepError;
use crate::stores::bucket::{Bucket, BucketError, Condition};
use crate::stores::{Facts, Kind, Listed, Store};

/// The unit in which memory is counted.
const UNIT: u64 = 64 << 10;
/// Bytes of bodies that may be in memory at once.
const MEMORY: u64 = 192 << 20;
/// An object up to this size is one request to either side.
const WHOLE: u64 = 16 << 20;
/// The smallest part of a large object; parts are powers of two times this.
const PART: u64 = 8 << 20;
/// Services take 10,000 parts of an object at most.
const MOST_PARTS: u64 = 10_000;
/// The largest object for a store that takes it only in one piece.
const LARGEST_WHOLE: u64 = 2 << 30;
/// How often an object that changes while it is copied is begun anew.
const CHANGES: u32 = 2;
/// How often an object is begun anew whose upload the service has thrown away.
const UPLOADS: u32 = 3;

/// An object to be copied.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where its name stands in the order of the names.
    pub number: u64,
    /// What the source lists.
    pub listed: Listed,
    /// What the target lists by that name.
    pub there: Option<Listed>,
    /// What was there before the step, when that is more than the listing tells.
    pub was: Option<Facts>,
    /// Whether an earlier attempt has created what is there.
    pub is_ours: bool,
}

/// What all copies of a step share.
pub struct Transfer {
    pub source: Store,
    pub target: Store,
    pub into: Option<Arc<dyn Bucket>>,
    pub ledger: Ledger,
    pub pace: Pace,
    pub gate: Arc<Gate>,
    /// Told when the step stops: copies end at the next piece.
    pub stop: CancellationToken,
    pub verify: Verify,
    /// Whether the source is to go in the end.
    pub is_move: bool,
    /// Whether contents are compared by reading both sides, whatever is listed.
    pub reads_both: bool,
    /// What an earlier attempt had sent in parts.
    pub unfinished: Mutex<BTreeMap<String, Vec<Unfinished>>>,
    /// Bytes that have arrived so far, for progress.
    pub moved: AtomicU64,
    /// Requests that have ended.
    pub ends: AtomicU64,
    /// Places that the copies under way can make use of.
    pub wanted: AtomicU64,
    /// Whether and how the service copies within itself.
    inside: Inside,
    /// How what is kept with objects gets there.
    pub carriage: Carriage,
    /// What was said once and for all.
    warned: Mutex<HashSet<&'static str>>,
    /// What the person should know, until it is said.
    warnings: Mutex<Vec<String>>,
    memory: Arc<Semaphore>,
    is_apart: OnceCell<()>,
    /// Folders of the target that were seen to be no links.
    pub real_folders: Mutex<HashSet<String>>,
}

/// How the copy of one object ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    /// It is at the target.
    There {
        /// Bytes.
        bytes: u64,
        /// What the target has.
        is: Facts,
        /// The object at the source that was copied.
        of: Facts,
        /// Of what was sent. Unknown when the service copied within itself.
        blake3: Option<String>,
        /// Whether the service copied it within itself.
        is_inside: bool,
    },
    /// It is no longer at the source.
    Gone,
}

/// Why a copy did not go on.
#[derive(Debug)]
pub enum Stop {
    /// This object cannot be copied; others can.
    Object(StepError),
    /// There is no point in going on.
    Step(StepError),
    /// The source is not what it was when the copy began.
    Changed,
    /// It is no longer at the source.
    Gone,
    /// The upload in parts is gone: the service or a person has thrown it away.
    NoUpload,
    /// The service does not copy it within itself.
    Refused(StepError),
}

/// How it ended badly.
#[derive(Debug)]
pub enum Trouble {
    /// This object cannot be copied; others can.
    Object(StepError),
    /// There is no point in going on.
    Step(StepError),
}

/// The size of the parts of an object: a power of two, so that each part is a subtree of the hash.
pub fn part_size(size: u64) -> u64 {
    let mut part = PART;
    while size.div_ceil(part) > MOST_PARTS {
        part *= 2;
    }
    part
}

/// How many requests at once the copy of an object of this size can make use of.
pub fn width(size: u64) -> u64 {
    if size <= WHOLE { 1 } else { size.div_ceil(part_size(size)) }
}

/// A part of an object on its way: its place among the requests, and its memory.
struct Room {
    _place: Place,
    _memory: OwnedSemaphorePermit,
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Object(error) | Stop::Refused(error) => Self::Object(error),
            Stop::Step(error) => Self::Step(error),
            Stop::Changed | Stop::Gone => {
                Self::Step(StepError::transient("an object was changed or deleted while it was read").help("try again"))
            }
            Stop::NoUpload => Self::Step(StepError::transient("the upload of an object is gone").help("try again")),
        }
    }
}

impl Transfer {
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        source: Store,
        target: Store,
        ledger: Ledger,
        pace: Pace,
        gate: Arc<Gate>,
        stop: CancellationToken,
        verify: Verify,
        config: &ObjectSync,
        unfinished: BTreeMap<String, Vec<Unfinished>>,
    ) -> Self {
        let into = target.bucket();
        let inside = Inside::new(config.server_side, &source, &target);
        let carriage = Carriage::new(&source, &target, config.tags, config.storage_class.clone());
        let is_move = config.mode == Mode::Move;
        let memory = Arc::new(Semaphore::new(usize::try_from(MEMORY / UNIT).unwrap_or(usize::MAX)));
        let (unfinished, is_apart) = (Mutex::new(unfinished), OnceCell::new());
        let (moved, ends, wanted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self {
            source,
            target,
            into,
            ledger,
            pace,
            gate,
            stop,
            verify,
            is_move,
            reads_both: false,
            unfinished,
            moved,
            ends,
            wanted,
            inside,
            carriage,
            warned: Mutex::default(),
            warnings: Mutex::default(),
            memory,
            is_apart,
            real_folders: Mutex::default(),
        }
    }

    /// How often either side has put a request off so far.
    pub fn refused(&self) -> u64 {
        let from = self.source.bucket().map_or(0, |bucket| bucket.throttled());
        from + self.into.as_ref().map_or(0, |bucket| bucket.throttled())
    }

    /// Sees that an object which is about to be deleted is none of the source's: a store may be reached by names that
    /// do not look alike (an address, a proxy, another account). Asked once.
    pub async fn sees_no_source(&self, key: &str, there: &Facts) -> Result<(), StepError> {
        let is_seen = self.is_apart.get_or_try_init(|| async {
            let seen = self.source.seen_from(&self.target, key).await?;
            let at_once = |seen: &Facts| {
                let both = seen.modified.zip(there.modified);
                both.is_none_or(|(a, b)| a.as_second().abs_diff(b.as_second()) <= 1)
            };
            if !seen.is_some_and(|seen| seen.agree(there) && at_once(&seen)) {
                return Ok(());
            }
            let (source, target) = (self.source.label(), self.target.label());
            let message = format!("`{key}` in `{target}`, about to be deleted, is also seen by way of `{source}`");
            Err(StepError::needs_person(format!("{message}: both seem to be one store, and the places lie within one another"))
                .help("nothing was deleted; give the target a prefix of its own, or leave `mode` out"))
        });
        is_seen.await.map(drop)
    }

    /// Copies an object.
    pub async fn copy(self: &Arc<Self>, job: &Job) -> Result<Copied, Trouble> {
        let key = &job.listed.key;
        let (mut changes, mut uploads) = (0, 0);
        let mut origin = None;
        loop {
            let opened = match origin.take() {
                Some(origin) => Ok(origin),
                None if changes == 0 && uploads == 0 => Origin::open(&self.source, &job.listed, self.carriage.tags()).await,
                None => Origin::look(&self.source, key).await.map(|origin| origin.asking(self.carriage.tags())),
            };
            let ended = match opened {
                Ok(opened) => {
                    let from = opened.facts.clone();
                    self.once(job, opened).await.map(|copied| (copied, from))
                }
                Err(stop) => Err(stop),
            };
            match ended {
                Ok((mut copied, from)) => {
                    if let Copied::There { of, .. } = &mut copied {
                        if self.is_move {
                            let line = Line::From { key: key.clone(), of: from.clone(), changed: job.listed.changed };
                            self.ledger.tell(&line).map_err(Trouble::Step)?;
                        }
                        *of = from;
                    }
                    return Ok(copied);
                }
                Err(Stop::Object(error) | Stop::Refused(error)) => return Err(Trouble::Object(error)),
                Err(Stop::Step(error)) => return Err(Trouble::Step(error)),
                Err(Stop::Gone) => return self.gone(key).await,
                Err(Stop::NoUpload) if uploads + 1 < UPLOADS => {
                    uploads += 1;
                    self.warn(format!("the upload of `{key}` to `{}` is gone: it is begun anew", self.target.label()));
                }
                Err(Stop::NoUpload) => {
                    let message = format!("the upload of `{key}` to `{}` is gone, {UPLOADS} times", self.target.label());
                    return Err(Trouble::Step(
                        StepError::transient(message).help("see whether a rule of the bucket throws unfinished uploads away"),
                    ));
                }
                Err(Stop::Changed) if changes + 1 < CHANGES => changes += 1,
                Err(Stop::Changed) => {
                    let message = format!("`{key}` in `{}` changed while it was copied, twice", self.source.label());
                    return Err(Trouble::Object(
                        StepError::transient(message).help("stop what writes to it, then resume; or leave it out with `exclude`"),
                    ));
                }
            }
        }
    }

    async fn once(self: &Arc<Self>, job: &Job, origin: Origin) -> Result<Copied, Stop> {
        let key = &job.listed.key;
        let size = origin.facts.size;
        if job.listed.kind == Kind::Marker && (self.into.is_none() || self.source.bucket().is_none()) {
            return self.mark(job).await;
        }
        if !self.target.abilities().streams && self.into.is_none() && size > LARGEST_WHOLE {
            let label = self.target.label();
            return Err(Stop::Object(
                StepError::permanent(format!("`{key}` is too large for `{label}`, which takes an object only in one piece"))
                    .help("leave it out with `exclude`, or copy to another kind of store"),
            ));
        }
        if self.inside.takes(&self.source, key) {
            match self.inside(job, &origin).await {
                Err(Stop::Refused(error)) => self.send_from_now_on(&error),
                ended => return ended,
            }
        }
        let (is, blake3) = match &self.into {
            Some(bucket) if size <= WHOLE => self.whole(job, &origin, &**bucket).await.map(|(is, blake3)| (is, Some(blake3)))?,
            Some(bucket) => self.in_parts(job, origin, bucket.clone(), None).await?,
            None => self.stream(job, &origin).await.map(|(is, blake3)| (is, Some(blake3)))?,
        };
        self.arrived(key, size, is, blake3, false).await
    }

    /// Sees that the target has the object, whole, and writes that down.
    async fn arrived(
        &self,
        key: &str,
        size: u64,
        mut is: Facts,
        blake3: Option<String>,
        is_inside: bool,
    ) -> Result<Copied, Stop> {
        if is.etag.is_none() {
            let seen = self.target.stat(key).await?.ok_or_else(|| {
                Stop::Step(StepError::transient(format!("`{key}` was written to `{}` and is not there", self.target.label())))
            })?;
            is = seen;
            if is.size != size {
                return Err(Stop::Step(StepError::transient(format!(
                    "`{key}` was written to `{}` with {size} bytes and is there with {}",
                    self.target.label(),
                    is.size
                ))));
            }
        }
        is.size = size;
        self.ledger.tell(&Line::Done { key: key.to_owned(), is: is.clone(), blake3: blake3.clone() }).map_err(Stop::Step)?;
        if self.verify.takes(key) {
            self.check(key, blake3.as_deref()).await?;
        }
        Ok(Copied::There { bytes: size, is, of: Facts::default(), blake3, is_inside })
    }

    /// An empty object whose name ends with `/`.
    async fn mark(&self, job: &Job) -> Result<Copied, Stop> {
        if job.there.is_none() {
            let key = &job.listed.key;
            let path = self.target.path(key)?;
            let made = self.target.operator().create_dir(&path).await;
            made.map_err(|error| self.not_written(key, error))?;
            let line = Line::Done { key: key.clone(), is: Facts::default(), blake3: None };
            self.ledger.tell(&line).map_err(Stop::Step)?;
        }
        Ok(Copied::There { bytes: 0, is: Facts::default(), of: Facts::default(), blake3: None, is_inside: false })
    }

    /// Waits for a place among the requests, and for memory.
    async fn room(&self, bytes: u64) -> Result<Room, Stop> {
        let units = u32::try_from(bytes.min(MEMORY).div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        let both = async {
            let place = self.gate.enter().await;
            let memory = self.memory.clone().acquire_many_owned(units).await.expect("the semaphore is never closed");
            Room { _place: place, _memory: memory }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Self::stopped()),
            room = both => Ok(room),
        }
    }

    fn stopped() -> Stop {
        Stop::Step(StepError::transient("stopped on request"))
    }

    /// Does something unless the step is told to stop.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Self::stopped()),
            done = work => done,
        }
    }

    fn count(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    /// Has it said to the person, once.
    fn warn(&self, text: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// The same, and never again.
    fn warn_once(&self, what: &'static str, text: impl FnOnce() -> String) {
        if self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(what) {
            self.warn(text());
        }
    }

    /// What is to be said to the person.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_unfinished(&self, key: &str) -> Vec<Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or_default()
    }

    /// It was listed and is not found: deleted meanwhile, or known by a name that does not lead there.
    async fn gone(&self, key: &str) -> Result<Copied, Trouble> {
        let before = key.rfind('/').map(|at| key[..=at].to_owned());
        if self.source.abilities().is_flat {
            return Ok(Copied::Gone);
        }
        let mut listing = self.source.list(before.as_deref());
        while let Some(listed) = listing.next().await.map_err(Trouble::Step)? {
            if listed.key == key {
                return Err(Trouble::Object(
                    StepError::permanent(format!("`{key}` is listed in `{}` but not found by that name", self.source.label()))
                        .help("its name holds bytes that are lost on the way (not UTF-8, or white space at its end): rename it, or leave it out with `exclude`"),
                ));
            }
            if listed.key.as_str() > key {
                break;
            }
        }
        Ok(Copied::Gone)
    }

    fn not_written(&self, key: &str, error: opendal::Error) -> Stop {
        crate::stores::classify(&format!("cannot write `{key}` to `{}`", self.target.label()), error).into()
    }

    fn not_put(&self, key: &str, error: BucketError) -> Stop {
        let doing = format!("cannot write `{key}` to `{}`", self.target.label());
        match error {
            BucketError::Failed(error) | BucketError::Refused(error) => {
                let message = format!("{doing}: {}", error.message);
                StepError { message, ..error }.into()
            }
            error @ BucketError::Parts(_) => Stop::Step(error.into_step(&doing)),
            BucketError::Changed => Stop::Object(
                StepError::needs_person(format!("{doing}: somebody else has written it since it was listed"))
                    .help("see who else writes there; resume to look again, it is then overwritten if it differs"),
            ),
            BucketError::Missing => Stop::Step(
                StepError::permanent(format!("{doing}: the bucket is gone")).help("see that the bucket is there, then resume"),
            ),
        }
    }
}

/// What must hold at the target when the object becomes visible: nobody else has written there since it was listed.
fn condition(job: &Job) -> Condition {
    match job.there.as_ref().map(|there| there.facts.etag.clone()) {
        None => Condition::Absent,
        Some(Some(etag)) => Condition::Still(etag),
        Some(None) => Condition::None,
    }
}
