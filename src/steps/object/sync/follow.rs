//! `follow`: pass after pass, until the step that it serves is over, or until the target has caught up.
//!
//! Each pass is a whole sync. It writes a manifest of its own beside the last one's, and takes over from there what this
//! step has sent before; at its end the new one takes the old one's name. So there is always a whole one by the known name.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::ledger::{self, Line};
use super::manifest::{self, Manifest};
use super::uploads;
use super::window::Token;
use super::work::Work;
use crate::error::{ErrorClass, StepError};
use crate::steps::Progress;
use crate::steps::object::objects;
use crate::units::Span;

/// How long what is under way may take once the step is told that its duty is done. The executor waits half a minute.
const LAST_COPIES: Duration = Duration::from_secs(15);

/// How a sync follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// From the beginning of one pass to that of the next, at least. `10s` unless given.
    #[serde(default = "ten_seconds")]
    pub every: Span,
    /// The step ends by itself once a pass took no longer than this, from the beginning of its listing to its last object:
    /// the target is no further behind than that. Unless it is given, the step goes on until the one under
    /// `background: { until: … }` is over.
    #[serde(default)]
    pub until_lag: Option<Span>,
}

fn ten_seconds() -> Span {
    Span(Duration::from_secs(10))
}

/// Whether a sync follows, and how: `true`, the lag with which it ends, or a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Follow {
    /// With or without.
    Flag(bool),
    /// `until_lag`.
    Lag(Span),
    /// In this way.
    Way(Way),
}

impl Default for Follow {
    fn default() -> Self {
        Self::Flag(false)
    }
}

impl Follow {
    /// How it follows, if it does.
    pub fn way(self) -> Option<Way> {
        match self {
            Self::Flag(false) => None,
            Self::Flag(true) => Some(Way { every: ten_seconds(), until_lag: None }),
            Self::Lag(lag) => Some(Way { every: ten_seconds(), until_lag: Some(lag) }),
            Self::Way(way) => Some(way),
        }
    }

    /// What a plan says of it.
    pub fn told(self) -> Option<String> {
        let way = self.way()?;
        let until = match way.until_lag {
            Some(lag) => format!("until it is no more than {lag} behind"),
            None => "until the step that it serves is over".to_owned(),
        };
        Some(format!("then follows, with a pass every {}, {until}", way.every))
    }
}

/// Ends the change from one manifest to the next in which an earlier attempt has died.
pub fn end_turn(scratch: &Path, token: &mut Token) -> Result<(), StepError> {
    if token.is_turning {
        manifest::turn(scratch, token.manifest)?;
        token.next_pass();
    }
    Ok(())
}

impl Work<'_> {
    /// One pass after the other.
    pub(super) async fn follow(&mut self, way: Way) -> Result<(), StepError> {
        let mut is_ready = self.window.token.pass > 0;
        if is_ready {
            self.ctx.ready();
        }
        loop {
            self.begin_pass().await?;
            self.one_pass().await?;
            if self.is_cut {
                self.end_cut().await?;
            } else {
                self.end_pass();
            }
            let (lag, has_failed) = (self.lag, self.failure_count > 0);
            self.turn().await?;
            if self.is_cut {
                return Ok(());
            }
            if !has_failed {
                if !is_ready {
                    self.ctx.ready();
                }
                is_ready = true;
                if way.until_lag.is_some_and(|most| lag <= most.0) {
                    return Ok(());
                }
            }
            if !self.next_is_due(way.every.0).await? {
                return Ok(());
            }
        }
    }

    /// A pass begins, or goes on after an interruption.
    pub(super) async fn begin_pass(&mut self) -> Result<(), StepError> {
        let now = self.ctx.clock.now();
        let token = &mut self.window.token;
        token.began.get_or_insert(now);
        if token.after.is_none() && !token.is_deleting {
            (token.done.objects, token.done.skipped, token.done.left_out) = (0, 0, 0);
        }
        self.began_at = self.ctx.clock.monotonic();
        if token.pass > 0 {
            let number = token.pass;
            self.copies = Some(manifest::copies(&self.ctx.scratch)?);
            self.transfer.ledger.intend(&[Line::Pass { number }]).await?;
        }
        Ok(())
    }

    /// A pass is over, whole.
    pub(super) fn end_pass(&mut self) {
        let now = self.ctx.clock.now();
        let token = &mut self.window.token;
        let began = token.began.unwrap_or(now);
        token.done.passes += 1;
        if self.failure_count > 0 {
            return;
        }
        self.lag = Duration::try_from(now.duration_since(began)).unwrap_or_default();
        token.done.lag = Span(self.lag).to_string();
        if token.found == 0 {
            token.done.equal_at = Some(began.to_string());
        }
    }

    /// What could not be copied in this pass is looked at again in the next one, as long as it may pass.
    pub(super) fn failures_may_pass(&mut self) -> bool {
        let may_pass = self.config.follow.way().is_some()
            && self.troubles == 0
            && self.failures.iter().all(|error| error.class == ErrorClass::Transient);
        if may_pass && let Some(first) = self.failures.first() {
            let count = objects(self.failure_count);
            self.window.token.done.warnings += 1;
            self.ctx.warn(format!("{count} could not be copied in this pass and wait for the next one: {}", first.message));
        }
        may_pass
    }

    /// Whether a pass may be left before its end: there is a whole one before it.
    pub(super) fn may_be_cut(&self) -> bool {
        !self.is_cut && self.window.token.pass > 0 && self.config.follow.way().is_some()
    }

    /// The duty is done in mid-pass: what is under way is ended, and no more is begun.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.is_listed = true;
        self.last_at = self.ctx.clock.monotonic() + LAST_COPIES;
    }

    /// Whether what is under way takes too long.
    pub(super) fn is_late(&self) -> bool {
        self.is_cut && self.ctx.clock.monotonic() >= self.last_at
    }

    /// The manifest of a pass that was cut: new as far as it came, the last one's behind that.
    async fn end_cut(&mut self) -> Result<(), StepError> {
        self.window.give_up()?;
        if let Some(copies) = self.copies.take().filter(|_| !self.window.token.is_deleting) {
            for named in copies {
                self.window.manifest.push(&named?.entry().line())?;
            }
        }
        // Nobody goes on with these.
        let Some(bucket) = self.transfer.target.bucket() else { return Ok(()) };
        self.transfer.ledger.flush().await?;
        let told = ledger::read(&self.ctx.scratch, &self.transfer.target, None, None).await?.unwrap_or_default();
        for (key, unfinished) in told.unfinished {
            for upload in unfinished {
                uploads::drop_one(&*bucket, &self.transfer.target, &key, &upload.id).await?;
                self.transfer.ledger.tell(&Line::Dropped { key: key.clone(), id: upload.id })?;
            }
        }
        Ok(())
    }

    /// The manifest of this pass takes the place of the last one's.
    async fn turn(&mut self) -> Result<(), StepError> {
        self.window.give_up()?;
        self.window.manifest.settle()?;
        if self.window.token.pass > 0 {
            self.window.token.is_turning = true;
            self.save().await?;
            manifest::turn(&self.ctx.scratch, self.window.token.manifest)?;
        }
        self.window.token.next_pass();
        self.window.manifest = Manifest::open(&self.ctx.scratch, self.window.token.pass, 0)?;
        self.earlier.clear();
        self.copies = None;
        self.failures.clear();
        self.failure_count = 0;
        self.save().await
    }

    /// Waits for the next pass. False: the duty is done.
    async fn next_is_due(&self, every: Duration) -> Result<bool, StepError> {
        let due = self.began_at + every;
        loop {
            let left = due.saturating_sub(self.ctx.clock.monotonic());
            if self.ctx.over.is_cancelled() || left.is_zero() {
                return Ok(!self.ctx.over.is_cancelled());
            }
            let done = &self.window.token.done;
            self.ctx.progress(Progress {
                bytes: Some(done.bytes),
                objects: Some(done.copied),
                message: Some(format!("{} passes, {} behind; the next in {}", done.passes, done.lag, Span(left))),
                ..Progress::default()
            });
            tokio::select! {
                biased;
                () = self.ctx.cancel.cancelled() => return Err(self.ctx.stopped()),
                () = self.ctx.over.cancelled() => return Ok(false),
                () = tokio::time::sleep(left.min(Duration::from_secs(1))) => {}
            }
        }
    }
}
