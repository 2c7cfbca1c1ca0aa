//! One look, one attempt or one undo of one step: makes the step, gives it its context, tells how it ended.

use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::MAX_OUTPUT;
use super::guard::{End, Limits};
use super::render::host_of;
use super::resolve::permanent;
use super::session::Session;
use super::signals::StepSignals;
use super::surroundings::Surroundings;
use super::tasks::Outbox;
use crate::engine::{Event, Outcome, StepPath, Timeout};
use crate::error::Failure;
use crate::secret::{Vault, map_strings, sanitize};
use crate::steps::{Attempt, DynStep, Preview, StepContext};

/// What `inspect` may leave, in bytes of JSON: a file's former content may be in it.
const MAX_BEFORE: usize = 4 << 20;

/// A step that is worked on, with all that the work needs. Owns everything, so that it can move to any task.
pub(super) struct Work {
    pub(super) session: Arc<Session>,
    pub(super) around: Surroundings,
    pub(super) step: StepPath,
    /// Which of its inspections the work is about, counted from 0.
    pub(super) inspection: usize,
    /// The rendered configuration (`render::config`), marks in place of secrets.
    pub(super) config: Value,
    /// Counts from 1; 0 while the world is only looked at.
    pub(super) number: u32,
    pub(super) interrupted: bool,
    pub(super) past_pivot: bool,
    pub(super) checkpoint: Option<Value>,
    pub(super) timeout: Timeout,
    /// Whether it must not be repeated unasked.
    pub(super) asks: bool,
    pub(super) outbox: Option<Outbox>,
    /// Fired when the run wants it to stop.
    pub(super) cancel: CancellationToken,
    /// Fired when a background step has done its duty.
    pub(super) over: CancellationToken,
}

impl Work {
    fn signals(&self, is_undo: bool) -> Arc<StepSignals> {
        StepSignals::new(self.session.clone(), self.step.clone(), self.number, self.outbox.clone(), is_undo)
    }

    /// What the step is given. The journal has marks in its checkpoint where there were secrets; the step gets back what
    /// it wrote.
    fn context(&self, signals: &Arc<StepSignals>, stop: &CancellationToken) -> Result<StepContext, Failure> {
        let session = &self.session;
        let checkpoint = self.checkpoint.as_ref().map(|token| reveal_all(&session.vault, token)).transpose()?;
        Ok(StepContext {
            attempt: Attempt {
                run: session.run.clone(),
                step: self.step.to_string(),
                number: self.number,
                interrupted: self.interrupted,
                past_pivot: self.past_pivot,
                checkpoint,
                host: host_of(&self.config),
            },
            depth: session.depth,
            cancel: stop.clone(),
            over: self.over.clone(),
            base: self.around.base.clone(),
            clock: session.clock.clone(),
            hosts: self.around.hosts.clone(),
            stores: self.around.stores.clone(),
            vault: session.vault.clone(),
            http: session.http.clone(),
            signals: signals.clone(),
            scratch: session.scratch(&self.step, self.inspection),
        })
    }

    fn limits<'a>(&'a self, stop: &'a CancellationToken, signals: &'a StepSignals) -> Limits<'a> {
        Limits {
            cancel: &self.cancel,
            stop,
            timeout: &self.timeout,
            asks: self.asks,
            grace: self.session.settings.grace,
            signals,
        }
    }

    fn make(&self, body: &Value) -> Result<Box<dyn DynStep>, Failure> {
        let uses = body.get("uses").and_then(Value::as_str).unwrap_or_default();
        let with = body.get("with").unwrap_or(&Value::Null);
        if let Some(missing) = self.session.missing_in(with) {
            return Err(missing);
        }
        self.session.registry.make(uses, with).map_err(|error| self.session.vault.mask_failure(&error))
    }

    /// Whether the type takes the configuration.
    pub(super) fn is_well_made(&self) -> Result<(), Failure> {
        self.make(&self.config).map(drop)
    }

    /// What the step sees of the world, as the journal keeps it.
    pub(super) async fn inspect(&self) -> Result<Value, Failure> {
        let step = self.make(&self.config)?;
        let (signals, told) = (self.signals(false), self.cancel.child_token());
        let context = self.context(&signals, &told)?;
        let end = self.limits(&told, &signals).guard(step.inspect(&context)).await;
        signals.finish();
        let seen = match end {
            End::Done(Ok(seen)) => seen,
            End::Done(Err(error)) => return Err(self.session.vault.mask_failure(&error)),
            End::Stopped => return Err(self.session.vault.mask_failure(&context.stopped())),
        };
        self.keep(&seen)
    }

    /// What can be seen of a step whose configuration is not whole yet.
    pub(super) async fn foresee(&self) -> Result<Vec<String>, Failure> {
        let (signals, told) = (self.signals(false), self.cancel.child_token());
        let context = self.context(&signals, &told)?;
        let uses = self.config.get("uses").and_then(Value::as_str).unwrap_or_default();
        let with = self.config.get("with").unwrap_or(&Value::Null);
        let vault = &self.session.vault;
        let end = self.limits(&told, &signals).guard(self.session.registry.foresee(uses, with, &context)).await;
        signals.finish();
        match end {
            End::Done(Ok(warnings)) => Ok(warnings.iter().map(|warning| vault.mask(warning)).collect()),
            End::Done(Err(error)) => Err(vault.mask_failure(&error)),
            End::Stopped => Err(vault.mask_failure(&context.stopped())),
        }
    }

    /// Undo gets back exactly what was seen, so what is kept has to be that, secrets aside.
    fn keep(&self, seen: &Value) -> Result<Value, Failure> {
        let Some(kept) = conceal_all(&self.session.vault, seen) else {
            return Err(permanent(
                "what is there now holds a secret in a form that cannot be put back from the journal",
                "move it away, or say `undo: skip` and take the secret out of what is there",
            ));
        };
        let size = kept.to_string().len();
        if size > MAX_BEFORE {
            return Err(permanent(
                format!("what is there now takes {size} bytes to remember, too many for the journal"),
                "move it away first: what undo needs is limited to 4 MiB",
            ));
        }
        Ok(kept)
    }

    /// What a plan tells, of the world as `inspect` saw it.
    pub(super) fn preview(&self, before: &Value) -> Result<Preview, Failure> {
        let vault = &self.session.vault;
        let seen = reveal_all(vault, before)?;
        let preview = self.make(&self.config)?.preview(&seen).map_err(|error| vault.mask_failure(&error))?;
        Ok(Preview {
            does: vault.mask(&preview.does),
            undo: vault.mask(&preview.undo),
            warnings: preview.warnings.iter().map(|warning| vault.mask(warning)).collect(),
            ..preview
        })
    }

    /// An attempt, from its intent to its end.
    pub(super) async fn attempt(self, before: Value) -> Event {
        let outcome = self.try_attempt(before).await;
        Event::AttemptEnded { step: self.step, attempt: self.number, outcome }
    }

    async fn try_attempt(&self, before: Value) -> Outcome {
        let intent = Event::AttemptStarted { step: self.step.clone(), attempt: self.number };
        // Told to stop before the intent is on disk: it never started, and there is nothing to undo.
        if self.cancel.is_cancelled() || !self.write(intent).await {
            return Outcome::Stopped;
        }
        let (signals, told) = (self.signals(false), self.cancel.child_token());
        let prepared = self
            .make(&self.config)
            .and_then(|step| Ok((step, reveal_all(&self.session.vault, &before)?, self.context(&signals, &told)?)));
        let (step, before, context) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return Outcome::Failed { failure },
        };
        signals.sample();
        let end = self.limits(&told, &signals).guard(step.run(&context, &before)).await;
        signals.finish();
        match end {
            End::Done(Ok(output)) => self.succeeded(&output, signals.warnings()),
            _ if signals.is_refused() => Outcome::Stopped,
            other => self.not_succeeded(other),
        }
    }

    fn succeeded(&self, output: &Value, warnings: u32) -> Outcome {
        // Later steps are to get what this one left, and not something like it. What could forge a mark is taken out.
        let clean = map_strings(output, &|text| sanitize(text).into_owned());
        let Some(output) = conceal_all(&self.session.vault, &clean) else {
            return Outcome::Failed { failure: permanent("its outputs cannot be had back", "this is a bug of ferry") };
        };
        self.session.meters.ended(&self.step);
        let size = output.to_string().len();
        if size > MAX_OUTPUT {
            let failure = permanent(
                format!("its outputs take {size} bytes, more than the {MAX_OUTPUT} that the journal takes"),
                "write large data to a file or a store and leave its place as the output",
            );
            return Outcome::Failed { failure };
        }
        Outcome::Succeeded { output, warnings }
    }

    fn not_succeeded<T>(&self, end: End<T>) -> Outcome {
        match end {
            End::Done(Err(error)) if !self.cancel.is_cancelled() => {
                Outcome::Failed { failure: self.session.vault.mask_failure(&error) }
            }
            _ => Outcome::Stopped,
        }
    }

    /// An undo, from its intent to its end. `custom` is the body that the pipeline gives in place of the type's own.
    pub(super) async fn undo(self, before: Value, custom: Option<Value>) -> Event {
        let outcome = self.try_undo(before, custom).await;
        Event::UndoEnded { step: self.step, attempt: self.number, outcome }
    }

    async fn try_undo(&self, before: Value, custom: Option<Value>) -> Outcome {
        let intent = Event::UndoStarted { step: self.step.clone(), attempt: self.number };
        if self.cancel.is_cancelled() || !self.write(intent).await {
            return Outcome::Stopped;
        }
        let body = custom.as_ref().unwrap_or(&self.config);
        let (signals, told) = (self.signals(true), self.cancel.child_token());
        let prepared = self
            .make(body)
            .and_then(|step| Ok((step, reveal_all(&self.session.vault, &before)?, self.context(&signals, &told)?)));
        let (step, before, context) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return Outcome::Failed { failure },
        };
        let work = async {
            if custom.is_none() {
                return step.undo(&context, &before).await;
            }
            let seen = step.inspect(&context).await?;
            step.run(&context, &seen).await.map(drop)
        };
        let end = self.limits(&told, &signals).guard(work).await;
        signals.finish();
        match end {
            End::Done(Ok(())) => Outcome::Succeeded { output: Value::Null, warnings: signals.warnings() },
            other => self.not_succeeded(other),
        }
    }

    async fn write(&self, event: Event) -> bool {
        match &self.outbox {
            Some(outbox) => outbox.write(event).await,
            None => false,
        }
    }
}

/// A value as the journal may keep it, marks in place of secrets; `None` when the value could not be had back from that.
pub(super) fn conceal_all(vault: &Vault, value: &Value) -> Option<Value> {
    let kept = vault.conceal(value);
    (reveal_all(vault, &kept).ok().as_ref() == Some(value)).then_some(kept)
}

/// A value with every mark replaced by its secret: for a step, in memory.
fn reveal_all(vault: &Vault, value: &Value) -> Result<Value, Failure> {
    vault
        .reveal_value(value)
        .map_err(|unknown| permanent(unknown.to_string(), "what the journal keeps of the step holds it: make it available again"))
}
