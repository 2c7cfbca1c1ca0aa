//! The watch: from the first good answers until the duty is done and good answers have come after it.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::client::{Answer, Asker, Client, Kind};
use super::record::{Record, Seen, reason};
use super::terms::Terms;
use crate::error::{ErrorClass, StepError};
use crate::steps::{Progress, StepContext};
use crate::units::Span;

/// Good answers in a row by which a kind of client is ready.
const FIRST: u64 = 3;
/// How often the record is written and progress told.
const NOTED_EVERY: Duration = Duration::from_secs(1);
/// It is not looked more often than this whether the first answers take too long.
const SHORTEST: Duration = Duration::from_millis(10);
/// How long good answers are waited for once the duty is done. The executor waits half a minute for the whole step.
const PATIENCE: Duration = Duration::from_secs(15);

/// A probe at work.
pub(in crate::steps) struct Watch<'a> {
    ctx: &'a StepContext,
    terms: &'a Terms,
    record: Record,
    /// When this attempt began to watch, on the monotonic clock; until then answers only show who is ready.
    began: Option<Duration>,
    /// When the duty was done.
    over: Option<Duration>,
    /// The wall-clock time of the moment 0 of the monotonic clock.
    wall: jiff::Timestamp,
    in_row: [(Kind, u64); 2],
    last_error: Option<StepError>,
}

impl<'a> Watch<'a> {
    /// Goes on with what earlier attempts have seen.
    pub(in crate::steps) fn new(ctx: &'a StepContext, terms: &'a Terms) -> Self {
        let record = Record::load(&ctx.scratch).unwrap_or_else(|error| {
            ctx.warn(format!("what an earlier attempt has seen cannot be read, and counts no more: {error}"));
            Record::default()
        });
        let now = ctx.clock.now();
        let wall = now.checked_sub(ctx.clock.monotonic()).unwrap_or(now);
        let in_row = [(Kind::Kept, 0), (Kind::Fresh, 0)];
        Self { ctx, terms, record, began: None, over: None, wall, in_row, last_error: None }
    }

    /// Watches to the end, whatever is seen; whether that may be is for [`Terms::hold`] to say.
    pub(in crate::steps) async fn run<C: Client>(mut self, client: &C) -> Result<Seen, StepError> {
        self.terms.check()?;
        let (sender, answers) = unbounded_channel();
        let asker = Asker { client, clock: self.ctx.clock.clone(), at_most: self.terms.at_most.0, answers: sender };
        let (kept, fresh) = (self.terms.every(Kind::Kept), self.terms.every(Kind::Fresh));
        let asking = async {
            tokio::join!(
                async {
                    match kept {
                        Some(every) => asker.kept(every).await,
                        None => std::future::pending().await,
                    }
                },
                async {
                    match fresh {
                        Some(every) => asker.fresh(every).await,
                        None => std::future::pending().await,
                    }
                },
            )
        };
        let ended = tokio::select! {
            ended = self.follow(answers) => ended,
            _ = asking => Ok(()),
        };
        if let Some(began) = self.began {
            let now = self.ctx.clock.monotonic();
            self.record.close(now);
            self.record.watched(now.saturating_sub(began));
            self.record.save(&self.ctx.scratch).await?;
        }
        ended.map(|()| self.record.seen())
    }

    async fn follow(&mut self, mut answers: UnboundedReceiver<Answer>) -> Result<(), StepError> {
        let started = self.ctx.clock.monotonic();
        let mut noting = tokio::time::interval(NOTED_EVERY.min(self.terms.ready_within.0).max(SHORTEST));
        noting.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.ctx.cancel.cancelled() => return Err(self.ctx.stopped()),
                () = self.ctx.over.cancelled(), if self.over.is_none() && self.began.is_some() => self.is_over(),
                Some(answer) = answers.recv() => self.take(answer)?,
                _ = noting.tick() => self.note(started).await?,
            }
            if self.has_ended() {
                return Ok(());
            }
        }
    }

    fn is_over(&mut self) {
        self.over = Some(self.ctx.clock.monotonic());
        self.record.is_over();
    }

    fn take(&mut self, answer: Answer) -> Result<(), StepError> {
        if self.began.is_some() {
            self.record.note(&answer, self.wall, &self.ctx.vault);
        } else if answer.result.is_ok() {
            self.record.await_next(answer.kind, answer.came);
        }
        for (kind, in_row) in &mut self.in_row {
            if *kind == answer.kind {
                *in_row = if answer.result.is_ok() { *in_row + 1 } else { 0 };
            }
        }
        if let Err(error) = answer.result {
            // What no waiting helps is told at once, as long as nobody counts on the probe.
            if self.began.is_none() && error.class != ErrorClass::Transient {
                return Err(error);
            }
            self.last_error = Some(error);
        }
        let is_ready = |(kind, in_row): &(Kind, u64)| *in_row >= FIRST || !self.terms.clients.contains(kind);
        if self.began.is_none() && self.in_row.iter().all(is_ready) {
            self.began = Some(self.ctx.clock.monotonic());
            self.record.begin(self.ctx.clock.now());
            self.ctx.ready();
        }
        Ok(())
    }

    async fn note(&mut self, started: Duration) -> Result<(), StepError> {
        let now = self.ctx.clock.monotonic();
        let said = |last: &Option<StepError>| {
            last.as_ref().map(|error| format!(": {}", reason(error, &self.ctx.vault))).unwrap_or_default()
        };
        let title = &self.terms.title;
        if self.began.is_none() {
            if now.saturating_sub(started) < self.terms.ready_within.0 {
                let message = format!("waits for the first good answers{}", said(&self.last_error));
                self.ctx.progress(Progress { message: Some(message), ..Progress::default() });
                return Ok(());
            }
            let class = self.last_error.as_ref().map_or(ErrorClass::Transient, |error| error.class);
            let within = self.terms.ready_within;
            let message = format!("{title} gave no {FIRST} good answers in a row within {within}{}", said(&self.last_error));
            return Err(StepError::new(class, message)
                .help("see whether a client can use it now; a watch that begins with errors would show nothing"));
        }
        if let Some(over) = self.over
            && now.saturating_sub(over) > PATIENCE
        {
            let message =
                format!("{title} gives no good answers since the step that was watched is over{}", said(&self.last_error));
            return Err(StepError::transient(message)
                .help("see why clients get no answer; the next attempt goes on with what was seen so far"));
        }
        self.record.save(&self.ctx.scratch).await?;
        let (good, errors, longest) = self.record.sums();
        let message = format!("{good} good answers, longest gap {}", Span(longest));
        self.ctx.progress(Progress { errors: Some(errors), message: Some(message), ..Progress::default() });
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        let Some(began) = self.began else { return false };
        if self.over.is_none()
            && self.terms.lasts.is_some_and(|lasts| self.ctx.clock.monotonic().saturating_sub(began) >= lasts.0)
        {
            self.is_over();
        }
        self.over.is_some() && self.terms.clients.iter().all(|kind| self.record.after(*kind) >= self.terms.after)
    }
}
