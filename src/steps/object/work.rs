//! The work of a sync: pairs come in, copies run side by side, and a marker follows behind which all is done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::ledger::{self, Ledger, Line, Touched};
use super::merge::{Pair, pairs};
use super::objects;
use super::pace::Pace;
use super::plan::{SyncBefore, is_copied};
use super::same::{Answer, checksum};
use super::sync::{ObjectSync, SyncOutput};
use super::transfer::{Copied, Transfer, Trouble};
use crate::error::{ErrorClass, StepError};
use crate::steps::{Progress, StepContext};
use crate::stores::{Kind, Store};

/// How often a marker is saved while it moves.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// How long copies that are told to stop may take to clean up.
const TIME_TO_STOP: Duration = Duration::from_secs(5);
/// How many names may be known beyond the marker: one slow object must not make memory grow with all behind it.
const WINDOW: usize = 20_000;
/// With more objects than this that cannot be copied, something else is wrong.
const MOST_FAILURES: u64 = 100;

/// The progress token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Token {
    /// All names up to this one are done.
    after: Option<String>,
    /// What was done up to there.
    #[serde(flatten)]
    done: SyncOutput,
    /// Objects only at the target, up to there.
    extra: u64,
    /// Everything is copied; `after` is about the deletions.
    is_deleting: bool,
}

/// What was done about one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Copied { bytes: u64, is_overwrite: bool },
    Skipped,
    Deleted,
    Gone,
    LeftOut,
    Extra,
    Nothing,
}

impl Token {
    fn add(&mut self, done: Done) {
        match done {
            Done::Copied { bytes, is_overwrite } => {
                self.done.objects += 1;
                self.done.copied += 1;
                self.done.bytes += bytes;
                self.done.overwritten += u64::from(is_overwrite);
            }
            Done::Skipped => {
                self.done.objects += 1;
                self.done.skipped += 1;
            }
            Done::Gone => {
                self.done.objects += 1;
                self.done.gone += 1;
            }
            Done::Deleted => self.done.deleted += 1,
            Done::LeftOut => self.done.left_out += 1,
            Done::Extra => self.extra += 1,
            Done::Nothing => {}
        }
    }
}

/// Names in order, some done and some not: what is done before the first that is not can be forgotten.
#[derive(Default)]
struct Window {
    token: Token,
    first: u64,
    names: VecDeque<(String, Option<Done>)>,
}

impl Window {
    fn push(&mut self, key: String, done: Option<Done>) -> u64 {
        self.names.push_back((key, done));
        let number = self.first + self.names.len() as u64 - 1;
        self.advance();
        number
    }

    fn finish(&mut self, number: u64, done: Done) {
        let at = usize::try_from(number - self.first).expect("a number that was given out is in the window");
        self.names[at].1 = Some(done);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some((key, Some(done))) = self.names.front() {
            self.token.add(*done);
            self.token.after = Some(key.clone());
            self.names.pop_front();
            self.first += 1;
        }
    }
}

pub fn too_many_to_delete(count: u64, most: u64, label: &str) -> StepError {
    StepError::permanent(format!("would delete {} in `{label}`, and `max_delete` is {most}", objects(count)))
        .help("see that `from` is the right place; if it is, raise `max_delete`")
}

type Task<'a> = BoxFuture<'a, (u64, String, Result<Done, Trouble>)>;

struct Work<'a> {
    config: &'a ObjectSync,
    ctx: &'a StepContext,
    before: &'a SyncBefore,
    filter: &'a Filter,
    transfer: &'a Transfer,
    /// What an earlier attempt did beyond the marker.
    earlier: BTreeMap<String, Touched>,
    window: Window,
    saved: Option<String>,
    saved_at: Duration,
    failures: Vec<StepError>,
    failure_count: u64,
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
    let token: Token = ctx.checkpoint().unwrap_or_default();
    let earlier = match ctx.attempt.number {
        0 | 1 => None,
        _ => ledger::read(&ctx.scratch, token.after.as_deref().filter(|_| !token.is_deleting)).await?,
    };
    let ledger = Ledger::open(&ctx.scratch, target.label()).await?;
    let transfer = Transfer::new(
        source.clone(),
        target.clone(),
        ledger,
        Pace::new(config.bandwidth),
        ctx.cancel.child_token(),
        config.verify,
    );
    transfer.moved.store(token.done.bytes, Ordering::Relaxed);
    let mut work = Work {
        config,
        ctx,
        before,
        filter,
        transfer: &transfer,
        earlier: earlier.unwrap_or_default(),
        window: Window { token, ..Window::default() },
        saved: None,
        saved_at: ctx.clock.monotonic(),
        failures: Vec::new(),
        failure_count: 0,
    };
    let result = work.all().await;
    // What was done is told to the next attempt, also when this one failed.
    let flushed = transfer.ledger.flush().await;
    let saved = work.save().await;
    result?;
    flushed?;
    saved?;
    Ok(work.window.token.done)
}

impl<'a> Work<'a> {
    async fn all(&mut self) -> Result<(), StepError> {
        if !self.window.token.is_deleting {
            self.pass(false).await?;
            self.nothing_failed()?;
            if self.window.token.done.objects == 0 && !self.config.allow_empty {
                return Err(StepError::permanent(format!("there is no object to copy at `{}`", self.transfer.source.label())).help(
                    "correct `from` (or `include` and `exclude`); if a source without objects is expected, say `allow_empty: true`",
                ));
            }
            if !self.config.delete || self.window.token.extra == 0 {
                return Ok(());
            }
            if let Some(most) = self.config.max_delete.filter(|most| self.window.token.extra > *most) {
                return Err(too_many_to_delete(self.window.token.extra, most, self.transfer.target.label()));
            }
            self.window.token.is_deleting = true;
            self.window.token.after = None;
            self.save().await?;
        }
        self.pass(true).await?;
        self.nothing_failed()
    }

    fn nothing_failed(&self) -> Result<(), StepError> {
        let Some(first) = self.failures.first() else { return Ok(()) };
        let messages: Vec<&str> = self.failures.iter().take(5).map(|error| error.message.as_str()).collect();
        let rest = self.failure_count - messages.len() as u64;
        let rest = if rest > 0 { format!("; and {rest} more, named in the step's log") } else { String::new() };
        let is_passing = self.failures.iter().all(|error| error.class == ErrorClass::Transient);
        let class = if is_passing { ErrorClass::Transient } else { ErrorClass::Permanent };
        let message = format!("{} could not be copied: {}{rest}", objects(self.failure_count), messages.join("; "));
        let error = StepError::new(class, message);
        Err(match &first.help {
            Some(help) => error.help(help.clone()),
            None => error,
        })
    }

    /// One walk over both listings from behind the marker.
    async fn pass(&mut self, is_deleting: bool) -> Result<(), StepError> {
        let mut pairs = pairs(&self.transfer.source, &self.transfer.target, self.window.token.after.as_deref(), self.filter);
        let mut tasks: FuturesUnordered<Task<'a>> = FuturesUnordered::new();
        let mut tick = tokio::time::interval(TELL_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let most = self.config.concurrency.max(1) as usize;
        let mut is_listed = false;
        let result = loop {
            if is_listed && tasks.is_empty() {
                break Ok(());
            }
            if tasks.is_empty() && self.window.names.len() >= WINDOW {
                // All that is left in the window are names that could not be copied.
                break self.nothing_failed();
            }
            let has_room = !is_listed && tasks.len() < most && self.window.names.len() < WINDOW;
            let step = tokio::select! {
                biased;
                () = self.ctx.cancel.cancelled() => Err(self.ctx.stopped()),
                Some(ended) = tasks.next(), if !tasks.is_empty() => self.ended(ended),
                _ = tick.tick() => self.tell().await,
                pair = pairs.next(), if has_room => match pair {
                    None => {
                        is_listed = true;
                        Ok(())
                    }
                    Some(Err(error)) => Err(error),
                    Some(Ok(pair)) => {
                        let task = if is_deleting { self.deletion(pair) } else { self.copy(pair) };
                        tasks.extend(task);
                        Ok(())
                    }
                },
            };
            if let Err(error) = step {
                break Err(error);
            }
        };
        if result.is_err() {
            // Copies in progress take back what nobody shall see; those that have just ended still count.
            self.transfer.stop.cancel();
            let _ = tokio::time::timeout(TIME_TO_STOP, async {
                while let Some((number, _, outcome)) = tasks.next().await {
                    if let Ok(done) = outcome {
                        self.window.finish(number, done);
                    }
                }
            })
            .await;
        }
        result
    }

    fn ended(&mut self, (number, key, outcome): (u64, String, Result<Done, Trouble>)) -> Result<(), StepError> {
        match outcome {
            Ok(done) => {
                if done == Done::Gone {
                    self.window.token.done.warnings += 1;
                    self.ctx.warn(format!("`{key}` disappeared from `{}` before it was copied", self.transfer.source.label()));
                }
                self.window.finish(number, done);
                Ok(())
            }
            // The marker stays in front of it, so that the next attempt sees it again.
            Err(Trouble::Object(error)) => {
                self.fail(error);
                if self.failure_count >= MOST_FAILURES { self.nothing_failed() } else { Ok(()) }
            }
            Err(Trouble::Step(error)) => Err(error),
        }
    }

    fn fail(&mut self, error: StepError) {
        self.ctx.log(format!("failed: {}", error.message));
        self.failure_count += 1;
        if self.failures.len() < 20 {
            self.failures.push(error);
        }
    }

    /// Decides about one name; a task when there is something to be done.
    fn copy(&mut self, pair: Pair) -> Option<Task<'a>> {
        let Pair { key, source, target } = pair;
        let Some(listed) = source else {
            let is_extra = target.is_some_and(|target| target.kind.is_object());
            self.window.push(key, Some(if is_extra { Done::Extra } else { Done::Nothing }));
            return None;
        };
        match is_copied(&self.transfer.source, &self.transfer.target, &listed) {
            Ok(true) => {}
            Ok(false) => {
                let is_left_out = listed.kind.is_left_out();
                if is_left_out {
                    self.window.token.done.warnings += 1;
                    let what = if listed.kind == Kind::Link { "a symbolic link" } else { "neither a file nor a folder" };
                    self.ctx.warn(format!("`{key}` is {what} and is left out"));
                }
                self.window.push(key, Some(if is_left_out { Done::LeftOut } else { Done::Nothing }));
                return None;
            }
            Err(error) => {
                self.window.push(key, None);
                self.fail(error);
                return None;
            }
        }
        let answer = target.as_ref().map_or(Answer::Different, |there| self.config.compare.of_copy(&listed, there));
        if answer == Answer::Same {
            let mine = self.earlier.remove(&key).filter(|touched| !touched.is_deleted);
            let there = target.as_ref().map(|there| &there.facts);
            let done = match mine.zip(there) {
                Some((touched, there)) if touched.is_ours(there) => {
                    let bytes = listed.facts.size;
                    self.transfer.moved.fetch_add(bytes, Ordering::Relaxed);
                    Done::Copied { bytes, is_overwrite: touched.was.is_some() }
                }
                _ => Done::Skipped,
            };
            self.window.push(key, Some(done));
            return None;
        }
        let is_ours = self.earlier.remove(&key).is_some_and(|touched| touched.was.is_none());
        let number = self.window.push(key.clone(), None);
        let transfer = self.transfer;
        let task = async move {
            if answer == Answer::Read {
                let quiet = |_| {};
                let (a, b) = tokio::join!(checksum(&transfer.source, &key, &quiet), checksum(&transfer.target, &key, &quiet));
                match (a, b) {
                    (Ok(a), Ok(b)) if a == b => return (number, key, Ok(Done::Skipped)),
                    (Ok(_), Ok(_)) => {}
                    (Err(error), _) | (_, Err(error)) => return (number, key, Err(error.into())),
                }
            }
            let outcome = transfer.copy(&listed, target.as_ref()).await.map(|copied| match copied {
                Copied::There(bytes) => Done::Copied { bytes, is_overwrite: target.is_some() && !is_ours },
                Copied::Gone => Done::Gone,
            });
            (number, key, outcome)
        };
        Some(task.boxed())
    }

    fn deletion(&mut self, pair: Pair) -> Option<Task<'a>> {
        let Pair { key, source, target } = pair;
        let Some(there) = target.filter(|there| source.is_none() && there.kind.is_object()) else {
            self.window.push(key, Some(Done::Nothing));
            return None;
        };
        let number = self.window.push(key.clone(), None);
        let transfer = self.transfer;
        let task = async move {
            let outcome = async {
                let seen = if transfer.target.abilities().versions { transfer.target.stat(&key).await? } else { None };
                let was = seen.as_ref().map_or_else(|| there.facts.clone(), crate::stores::Facts::of);
                transfer.ledger.intend(&Line::Delete { key: key.clone(), was }).await.map_err(Trouble::Step)?;
                transfer.target.remove(&key).await?;
                Ok(Done::Deleted)
            }
            .await;
            (number, key, outcome)
        };
        Some(task.boxed())
    }

    async fn tell(&mut self) -> Result<(), StepError> {
        let in_window = self.window.names.iter().filter(|(_, done)| matches!(done, Some(Done::Copied { .. }))).count() as u64;
        let copied = self.window.token.done.copied + in_window;
        let moved = self.transfer.moved.load(Ordering::Relaxed);
        self.ctx.progress(Progress {
            bytes: Some(moved),
            bytes_total: Some(self.before.bytes.max(moved)),
            objects: Some(copied),
            objects_total: Some((self.before.create + self.before.overwrite).max(copied)),
            message: self.window.token.is_deleting.then(|| format!("{} deleted", objects(self.window.token.done.deleted))),
        });
        if self.ctx.clock.monotonic().saturating_sub(self.saved_at) >= SAVE_EVERY && self.saved != self.window.token.after {
            self.save().await?;
        }
        Ok(())
    }

    async fn save(&mut self) -> Result<(), StepError> {
        self.ctx.save(&self.window.token).await?;
        self.saved.clone_from(&self.window.token.after);
        self.saved_at = self.ctx.clock.monotonic();
        Ok(())
    }
}
