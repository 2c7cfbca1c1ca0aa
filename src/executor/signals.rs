//! What a step tells while it works: masked and throttled here, once for all types.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;

use super::MAX_OUTPUT;
use super::attempt::conceal_all;
use super::logs::StepLog;
use super::samples::Sampler;
use super::session::Session;
use super::tasks::Outbox;
use crate::engine::{Event, StepPath};
use crate::error::StepError;
use crate::steps::{LogStream, Progress, Signals};

/// Observers hear of progress no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

pub(super) struct StepSignals {
    session: Arc<Session>,
    step: StepPath,
    attempt: u32,
    /// `None` while nothing may be written: in `inspect` and in a plan.
    outbox: Option<Outbox>,
    /// Whether the work is an undo: `attempt` counts those.
    is_undo: bool,
    log: StepLog,
    warnings: AtomicU32,
    /// Whether it was told that it must not pass its pivot.
    is_refused: AtomicBool,
    movement: Mutex<Movement>,
    /// Of an attempt that acts, and of no undo.
    sampler: Mutex<Option<(tokio::time::Instant, Sampler)>>,
}

struct Movement {
    last: Progress,
    /// When something moved last, on the monotonic clock.
    moved: tokio::time::Instant,
    shown: Option<tokio::time::Instant>,
}

impl StepSignals {
    pub(super) fn new(session: Arc<Session>, step: StepPath, attempt: u32, outbox: Option<Outbox>, is_undo: bool) -> Arc<Self> {
        let log = StepLog::new(session.clone(), step.clone(), attempt);
        let movement = Movement { last: Progress::default(), moved: tokio::time::Instant::now(), shown: None };
        Arc::new(Self {
            session,
            step,
            attempt,
            outbox,
            is_undo,
            log,
            warnings: AtomicU32::new(0),
            is_refused: AtomicBool::new(false),
            movement: Mutex::new(movement),
            sampler: Mutex::default(),
        })
    }

    /// Keeps what it says of its progress for a picture.
    pub(super) fn sample(&self) {
        let Some(dir) = self.session.dir.as_ref() else { return };
        let sampler = Sampler::new(dir, &self.step, self.attempt, self.session.clock.now());
        *self.sampler.lock().unwrap_or_else(PoisonError::into_inner) = Some((tokio::time::Instant::now(), sampler));
    }

    pub(super) fn warnings(&self) -> u32 {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Whether the run was stopping when it wanted to pass its pivot: what it fails with then is its stop.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    /// How long nothing has moved.
    pub(super) fn idle(&self) -> Duration {
        self.movement().moved.elapsed()
    }

    /// The attempt is over: nothing is held back any more.
    pub(super) fn finish(&self) {
        self.log.flush();
        let last = {
            let movement = self.movement();
            (movement.last != Progress::default()).then(|| movement.last.clone())
        };
        if let (Some(last), Some(_)) = (last, &self.outbox) {
            self.show(&last);
            if let Some((from, sampler)) = self.sampler.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                sampler.finish(&last, from.elapsed());
            }
        }
    }

    fn movement(&self) -> std::sync::MutexGuard<'_, Movement> {
        self.movement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, progress: &Progress) {
        for observer in &self.session.observers {
            observer.progress(&self.step, self.attempt, progress);
        }
    }
}

impl Signals for StepSignals {
    fn progress(&self, mut progress: Progress) {
        progress.message = progress.message.map(|message| self.session.vault.mask(&message));
        let now = tokio::time::Instant::now();
        let (is_shown, moved) = {
            let mut movement = self.movement();
            // Saying the same again is no progress: a step that only repeats itself is idle.
            if movement.last == progress {
                return;
            }
            movement.moved = now;
            let moved = progress.bytes.unwrap_or(0).saturating_sub(movement.last.bytes.unwrap_or(0));
            movement.last = progress.clone();
            let is_due = movement.shown.is_none_or(|shown| now - shown >= PROGRESS_EVERY);
            if is_due {
                movement.shown = Some(now);
            }
            (is_due && self.outbox.is_some(), moved)
        };
        if moved > 0 && self.outbox.is_some() && !self.is_undo {
            self.session.meters.moved(&self.step, moved);
        }
        if is_shown {
            self.show(&progress);
            if let Some((from, sampler)) = self.sampler.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                sampler.take(&progress, now - *from);
            }
        }
    }

    fn checkpoint(&self, token: Value) -> BoxFuture<'_, Result<(), StepError>> {
        async move {
            let Some(outbox) = &self.outbox else { return Ok(()) };
            // A step that goes on from a token it did not write would leave things out and report success.
            let token = conceal_all(&self.session.vault, &token).ok_or_else(|| {
                StepError::permanent("a checkpoint holds a secret in a form that cannot be had back from the journal")
                    .help("names and places that a step remembers cannot hold secrets in disguise: rename, or leave them out")
            })?;
            let size = token.to_string().len();
            if size > MAX_OUTPUT {
                return Err(StepError::permanent(format!("a checkpoint of {size} bytes is too large for the journal"))
                    .help("this is a fault of the step type: checkpoints are limited to 256 KiB"));
            }
            self.movement().moved = tokio::time::Instant::now();
            let event = Event::Checkpoint { step: self.step.clone(), attempt: self.attempt, token };
            if outbox.write(event).await { Ok(()) } else { Err(StepError::transient("the run's session has ended")) }
        }
        .boxed()
    }

    fn pass_pivot(&self) -> BoxFuture<'_, Result<(), StepError>> {
        async move {
            let (Some(outbox), false) = (&self.outbox, self.is_undo) else {
                return Err(StepError::permanent("only an attempt passes a pivot").help("this is a fault of the step type"));
            };
            let event = Event::PivotPassed { step: self.step.clone(), attempt: self.attempt };
            match outbox.ask(event).await {
                Some(true) => Ok(()),
                Some(false) => {
                    self.is_refused.store(true, Ordering::Relaxed);
                    Err(StepError::transient("the run was told to stop before the step had passed its pivot"))
                }
                None => Err(StepError::transient("the run's session has ended")),
            }
        }
        .boxed()
    }

    fn ready(&self) {
        if let Some(outbox) = &self.outbox {
            outbox.tell(Event::Ready { step: self.step.clone(), attempt: self.attempt });
        }
    }

    fn warn(&self, text: &str) {
        self.warnings.fetch_add(1, Ordering::Relaxed);
        self.log.line(LogStream::Ferry, &format!("warning: {text}"));
    }

    fn log(&self, stream: LogStream, line: &str) {
        // A program that prints lives; what ferry itself says of a step proves nothing.
        if stream != LogStream::Ferry {
            self.movement().moved = tokio::time::Instant::now();
        }
        self.log.line(stream, line);
    }
}
