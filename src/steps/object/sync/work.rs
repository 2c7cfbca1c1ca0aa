//! The work of a sync: pairs come in, intentions are written down in groups, copies run side by side, and a marker
//! follows behind which all is done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::task::{JoinHandle, JoinSet};

use super::copy::{Copied, Job, Transfer, Trouble, width};
use super::failures::there_is_no_point;
use super::ledger::{self, Ledger, Moved, Told, Touched};
use super::level::Level;
use super::limits::{Mode, Verify};
use super::manifest::{Copies, Entry, Manifest};
use super::pace::Pace;
use super::plan::SyncBefore;
use super::task::{Ended, Task, note, work_on};
use super::window::{Done, Token, Window};
use super::{ObjectSync, SyncOutput, follow, last_look, uploads};
use crate::error::{ErrorClass, StepError};
use crate::steps::object::filter::Filter;
use crate::steps::object::merge::pairs;
use crate::steps::object::objects;
use crate::steps::object::same::Rule;
use crate::steps::{Progress, StepContext};
use crate::stores::Store;

/// How often a marker is saved while it moves.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// How often the level is looked at. A second or two is all that many syncs take: a tenth more at half of the right level
/// would be seen.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long copies that are told to stop may take to clean up.
const TIME_TO_STOP: Duration = Duration::from_secs(5);
/// How many names may be known beyond the marker: one slow object must not make memory grow with all behind it.
const WINDOW: usize = 20_000;
/// How many pairs are taken from the listings at once.
const PAIRS: usize = 256;
/// How many decided names may wait for their turn.
const WAITING: usize = 2048;
/// So many objects may fail for a reason that may pass before the store is taken to be down: one alone, at which a server
/// stumbles every time, must not keep all others from being copied.
const MOST_TROUBLES: usize = 3;
/// What a request weighs beside its bytes, in the measure of what is moved.
const REQUEST: u64 = 128 << 10;

/// Whether so many objects may be deleted; `others` are those at the target that stay.
pub fn may_delete(config: &ObjectSync, extra: u64, others: u64, target: &Store) -> Result<(), StepError> {
    let Some(most) = config.max_delete.filter(|most| extra > most.of(extra + others)) else { return Ok(()) };
    let message = format!("would delete {} in `{}`, and `max_delete` is {most}", objects(extra), target.label());
    Err(StepError::permanent(message).help("see that `from` is the right place; if it is, raise `max_delete`"))
}

/// Intentions that are being written down, and the tasks that wait for that. A task of its own: it holds the ledger, and
/// goes on while this one waits for the ledger too.
type Noting = JoinHandle<(Vec<Task>, Result<(), StepError>)>;

pub(super) struct Work<'a> {
    pub(super) config: &'a ObjectSync,
    pub(super) ctx: &'a StepContext,
    filter: &'a Filter,
    pub(super) transfer: Arc<Transfer>,
    level: Level,
    /// What an earlier attempt did beyond the marker.
    pub(super) earlier: BTreeMap<String, Touched>,
    /// What an earlier attempt of a move was about to delete at the source.
    pub(super) removed: BTreeMap<String, Moved>,
    /// What the manifest names: of the pass before, or of what is deleted at the source.
    pub(super) copies: Option<Copies>,
    /// The first of what a move leaves at the source.
    pub(super) kept: Vec<String>,
    pub(super) window: Window,
    /// Decided, not written down yet.
    pub(super) decided: VecDeque<Task>,
    noting: Option<Noting>,
    /// Written down, waiting for a place.
    pub(super) ready: VecDeque<Task>,
    tasks: JoinSet<Ended>,
    /// What is to be copied, as far as the listings have come.
    pub(super) found: (u64, u64),
    pub(super) is_listed: bool,
    /// When this pass began in this process.
    pub(super) began_at: Duration,
    /// How long the last pass took.
    pub(super) lag: Duration,
    /// The duty of a sync that follows ended in mid-pass.
    pub(super) is_cut: bool,
    /// Until when what is under way is waited for then.
    pub(super) last_at: Duration,
    saved: Option<String>,
    saved_at: Duration,
    pub(super) failures: Vec<StepError>,
    pub(super) failure_count: u64,
    /// How many of them may pass.
    pub(super) troubles: usize,
}

/// Brings the target to where the source is.
pub async fn sync(
    config: &ObjectSync,
    ctx: &StepContext,
    before: &SyncBefore,
    source: &Store,
    target: &Store,
    filter: &Filter,
) -> Result<SyncOutput, StepError> {
    let mut token: Token = ctx.checkpoint().unwrap_or_default();
    if token.mode != config.mode {
        // The pipeline was edited meanwhile: what the other mode was about to delete is none of this one's business.
        token = Token { mode: config.mode, ledger: token.ledger, ..Token::default() };
    }
    follow::end_turn(&ctx.scratch, &mut token)?;
    let told = match ctx.attempt.number {
        0 | 1 => None,
        _ => {
            let after = token.after.as_deref().filter(|_| !token.is_deleting);
            ledger::read(&ctx.scratch, target, after, token.vouches()).await?
        }
    };
    let told = told.unwrap_or_default();
    if let Some(bucket) = target.bucket() {
        uploads::drop_strays(&*bucket, target, &told).await?;
    }
    let Told { touched, unfinished, removed, .. } = told;
    let ledger = Ledger::open(&ctx.scratch, target.label(), target.whereabouts()).await?;
    // Before anything is written: from now on a ledger that is not there is one that was lost.
    token.ledger = ledger.on_disk().await;
    ctx.save(&token).await?;
    let manifest = Manifest::open(&ctx.scratch, token.pass, token.manifest)?;
    let level = Level::new(config.concurrency, ctx.clock.monotonic());
    // What the only copy goes to must have said what has arrived.
    let is_unproven = config.mode == Mode::Move && target.bucket().is_none();
    let verify = if is_unproven { Verify::Full } else { config.verify };
    let mut transfer = Transfer::new(
        source.clone(),
        target.clone(),
        ledger,
        Pace::new(config.bandwidth.clone()),
        level.gate().clone(),
        ctx.cancel.child_token(),
        verify,
        config,
        unfinished,
    );
    transfer.reads_both = config.compare == Rule::Checksum;
    transfer.moved.store(token.done.bytes, Ordering::Relaxed);
    let mut work = Work {
        config,
        ctx,
        filter,
        transfer: Arc::new(transfer),
        level,
        earlier: touched,
        removed,
        copies: None,
        kept: Vec::new(),
        found: (before.create + before.overwrite, before.bytes),
        window: Window::new(token, manifest),
        decided: VecDeque::new(),
        noting: None,
        ready: VecDeque::new(),
        tasks: JoinSet::new(),
        is_listed: false,
        began_at: ctx.clock.monotonic(),
        lag: Duration::ZERO,
        is_cut: false,
        last_at: Duration::ZERO,
        saved: None,
        saved_at: ctx.clock.monotonic(),
        failures: Vec::new(),
        failure_count: 0,
        troubles: 0,
    };
    let result = work.all().await;
    work.warn();
    // What was done is told to the next attempt, also when this one failed.
    let flushed = work.transfer.ledger.flush().await;
    let saved = work.save().await;
    result?;
    flushed?;
    saved?;
    work.end()
}

impl Work<'_> {
    fn end(self) -> Result<SyncOutput, StepError> {
        let mut done = self.window.token.done;
        let manifest = match self.config.follow.way() {
            Some(_) => Manifest::open_whole(&self.ctx.scratch)?,
            None => self.window.manifest,
        };
        let (path, digest) = manifest.finish()?;
        done.manifest = path.display().to_string();
        done.manifest_sha256 = digest;
        done.concurrency = self.level.highest() as u64;
        Ok(done)
    }

    async fn all(&mut self) -> Result<(), StepError> {
        if let Some(way) = self.config.follow.way() {
            return self.follow(way).await;
        }
        self.begin_pass().await?;
        self.one_pass().await?;
        self.end_pass();
        Ok(())
    }

    /// All that is copied, and then all that is deleted.
    pub(super) async fn one_pass(&mut self) -> Result<(), StepError> {
        if !self.window.token.is_deleting {
            self.found = (self.window.token.done.copied, self.window.token.done.bytes);
            self.pass(false).await?;
            if self.is_cut {
                return Ok(());
            }
            if self.failure_count > 0 {
                // Nothing is deleted before everything is copied.
                return if self.failures_may_pass() { Ok(()) } else { self.nothing_failed() };
            }
            let is_empty = self.window.token.done.objects == 0 && self.removed.is_empty();
            if is_empty && !self.config.allow_empty {
                return Err(StepError::permanent(format!("there is no object to copy at `{}`", self.transfer.source.label())).help(
                    "correct `from` (or `include` and `exclude`); if a source without objects is expected, say `allow_empty: true`",
                ));
            }
            // A store that keeps names as they are shows what it was given; what only speaks like one (a gateway in front
            // of files) may not.
            let is_kept = self.transfer.target.abilities().is_flat && !self.window.token.is_odd;
            if self.window.token.found > 0 && !is_kept {
                self.window.manifest.flush()?;
                last_look::all_are_there(self.ctx, &self.transfer.target, self.window.manifest.path()).await?;
            }
            match self.config.mode {
                Mode::Copy => return Ok(()),
                Mode::Mirror if self.window.token.extra == 0 => return Ok(()),
                Mode::Mirror => {
                    let (extra, others) = (self.window.token.extra, self.window.token.done.objects);
                    may_delete(self.config, extra, others, &self.transfer.target)?;
                }
                Mode::Move => {}
            }
            self.window.token.is_deleting = true;
            self.window.token.after = None;
            self.save().await?;
        }
        if self.config.mode == Mode::Move {
            return self.remove().await;
        }
        self.pass(true).await?;
        self.nothing_failed()
    }

    /// One walk over both listings from behind the marker.
    pub(super) async fn pass(&mut self, is_deleting: bool) -> Result<(), StepError> {
        let listed = pairs(&self.transfer.source, &self.transfer.target, self.window.token.after.as_deref(), self.filter);
        let mut listed = listed.ready_chunks(PAIRS);
        let mut tick = tokio::time::interval(TELL_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        for interval in [&mut tick, &mut look] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        self.is_listed = false;
        let result = loop {
            if self.is_cut {
                (self.decided, self.ready) = (VecDeque::new(), VecDeque::new());
            }
            self.proceed();
            let is_idle = self.tasks.is_empty() && self.noting.is_none();
            if self.is_late() {
                self.stop().await;
                break Ok(());
            }
            if self.is_listed && is_idle {
                break Ok(());
            }
            if is_idle && self.failure_count > 0 && self.window.len() >= WINDOW {
                // All that is left in the window are names that could not be copied.
                break self.nothing_failed();
            }
            let waiting = self.decided.len() + self.ready.len();
            let has_room = !self.is_listed && waiting < WAITING && self.window.len() < WINDOW;
            let step = tokio::select! {
                biased;
                () = self.ctx.cancel.cancelled() => Err(self.ctx.stopped()),
                () = self.ctx.over.cancelled(), if self.may_be_cut() => {
                    self.cut();
                    Ok(())
                }
                noted = async { self.noting.as_mut().expect("it is there").await }, if self.noting.is_some() => {
                    self.noting = None;
                    match noted {
                        Ok((tasks, noted)) => {
                            self.ready.extend(tasks);
                            noted
                        }
                        Err(error) => Err(StepError::permanent("the ledger could not be written: a bug of ferry").cause(error)),
                    }
                }
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => match ended {
                    Ok(ended) => self.ended(ended),
                    Err(error) => Err(StepError::permanent("a copy ended badly: a bug of ferry").cause(error)),
                },
                _ = look.tick() => {
                    self.look();
                    Ok(())
                }
                _ = tick.tick() => self.tell().await,
                pairs = listed.next(), if has_room => match pairs {
                    None => {
                        self.is_listed = true;
                        Ok(())
                    }
                    Some(pairs) => pairs.into_iter().try_for_each(|pair| self.decide(pair?, is_deleting)),
                },
            };
            if let Err(error) = step {
                break Err(error);
            }
        };
        if result.is_err() {
            self.stop().await;
        }
        result
    }

    /// Copies in progress take back what nobody shall see; those that have just ended still count.
    async fn stop(&mut self) {
        self.transfer.stop.cancel();
        (self.decided, self.ready, self.noting) = (VecDeque::new(), VecDeque::new(), None);
        let _ = tokio::time::timeout(TIME_TO_STOP, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok(ended @ (Ended::Copied { .. } | Ended::Deleted { .. } | Ended::Kept { .. })) = ended {
                    let _ = self.ended(ended);
                }
            }
        })
        .await;
        self.tasks.shutdown().await;
    }

    /// Writes down what is decided, and starts what is written down.
    fn proceed(&mut self) {
        if self.noting.is_none() && !self.decided.is_empty() {
            let tasks: Vec<Task> = self.decided.drain(..).collect();
            self.noting = Some(tokio::spawn(note(self.transfer.clone(), tasks)));
        }
        // A few more than there are places: whether anybody waits for one is what the level looks at.
        let limit = self.level.gate().limit() as u64;
        while self.transfer.wanted.load(Ordering::Relaxed) < limit + limit.div_ceil(4) {
            let Some(task) = self.ready.pop_front() else { break };
            let transfer = self.transfer.clone();
            let places = match &task {
                Task::Copy(job) => width(job.listed.facts.size),
                _ => 1,
            };
            transfer.wanted.fetch_add(places, Ordering::Relaxed);
            self.tasks.spawn(async move {
                let is_in_parts = places > 1;
                let ended = work_on(&transfer, task).await;
                let left = if is_in_parts && matches!(ended, Ended::Copied { .. }) { 0 } else { places };
                let less = |wanted: u64| Some(wanted.saturating_sub(left));
                let _ = transfer.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
                ended
            });
        }
    }

    fn ended(&mut self, ended: Ended) -> Result<(), StepError> {
        match ended {
            Ended::Same(job) => {
                let entry = self.there_already(&job.listed, job.there.as_ref());
                self.window.finish(job.number, Done::Skipped, Some(&entry))
            }
            Ended::Differs(job) => {
                self.find(&job);
                self.decided.push_back(Task::Copy(job));
                Ok(())
            }
            Ended::Copied { job, copied: Copied::Gone } => {
                self.window.token.done.warnings += 1;
                let label = self.transfer.source.label();
                self.ctx.warn(format!("`{}` disappeared from `{label}` before it was copied", job.listed.key));
                self.window.finish(job.number, Done::Gone, None)
            }
            Ended::Copied { job, copied: Copied::There { bytes, is, of, blake3, is_inside } } => {
                let key = job.listed.key.as_str();
                let (blake3, etag) = (blake3.as_deref(), is.etag.as_deref());
                let sides = self.sides(&job.listed, &of, &is);
                let entry = Entry { key, size: bytes, blake3, etag, md5: None, copied: true, sides };
                let is_overwrite = job.there.is_some() && !job.is_ours;
                // Of what has no content there is nothing to read again.
                let is_verified = self.config.verify.takes(key) && (bytes > 0 || blake3.is_some());
                self.window.finish(job.number, Done::Copied { bytes, is_overwrite, is_inside, is_verified }, Some(&entry))
            }
            Ended::Deleted { number } => self.window.finish(number, Done::Deleted, None),
            Ended::Kept { number, key } => {
                self.is_kept(&key);
                self.window.finish(number, Done::Kept, None)
            }
            // The marker stays in front of it, so that the next attempt sees it again.
            Ended::Failed { key, trouble: Trouble::Object(error) } => {
                self.window.forget(&key);
                self.fail(error);
                there_is_no_point(self)
            }
            Ended::Failed { trouble: Trouble::Step(error), .. }
                if error.class == ErrorClass::Transient && self.troubles < MOST_TROUBLES =>
            {
                self.troubles += 1;
                self.fail(error);
                Ok(())
            }
            Ended::Failed { key, trouble: Trouble::Step(error) } => {
                self.ctx.log(format!("stopped at `{key}`: {}", error.message));
                Err(error)
            }
        }
    }

    pub(super) fn find(&mut self, job: &Job) {
        self.found.0 += 1;
        self.found.1 += job.listed.facts.size;
    }

    /// What copies want to have said.
    fn warn(&mut self) {
        for text in self.transfer.take_warnings() {
            self.window.token.done.warnings += 1;
            self.ctx.warn(text);
        }
    }

    fn look(&mut self) {
        let transfer = &self.transfer;
        let (moved, ends) = (transfer.moved.load(Ordering::Relaxed), transfer.ends.load(Ordering::Relaxed));
        self.level.look(self.ctx.clock.monotonic(), moved + ends * REQUEST, ends, transfer.refused());
    }

    async fn tell(&mut self) -> Result<(), StepError> {
        self.warn();
        let moved = self.transfer.moved.load(Ordering::Relaxed);
        let now = self.ctx.clock.monotonic();
        let copied = self.window.copied();
        let message = if self.window.token.is_deleting {
            Some(format!("{} deleted", objects(self.window.token.done.deleted)))
        } else {
            let pass = self.window.token.pass;
            let pass = (pass > 0).then(|| format!("pass {}", pass + 1));
            let listing = (!self.is_listed).then(|| "still listing".to_owned());
            [pass, listing].into_iter().flatten().reduce(|a, b| format!("{a}, {b}"))
        };
        self.ctx.progress(Progress {
            bytes: Some(moved),
            bytes_total: Some(self.found.1.max(moved)),
            objects: Some(copied),
            objects_total: Some(self.found.0.max(copied)),
            errors: Some(self.failure_count),
            at_once: Some(self.level.gate().limit() as u64),
            message,
        });
        if now.saturating_sub(self.saved_at) >= SAVE_EVERY && self.saved != self.window.token.after {
            self.save().await?;
        }
        Ok(())
    }

    pub(super) async fn save(&mut self) -> Result<(), StepError> {
        self.window.token.manifest = self.window.manifest.flush()?;
        self.window.token.ledger = self.transfer.ledger.on_disk().await;
        self.window.token.failed = self.failure_count;
        self.ctx.save(&self.window.token).await?;
        self.saved.clone_from(&self.window.token.after);
        self.saved_at = self.ctx.clock.monotonic();
        Ok(())
    }
}
