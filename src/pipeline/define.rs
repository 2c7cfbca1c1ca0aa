//! The engine's view of a pipeline: ids, edges, policies, every default filled in and nothing to render.

use std::time::Duration;

use serde_json::Value;

use super::model::{Defaults, Pipeline, RetrySpec, StepSpec, TimeoutSpec};
use crate::catalogue::{Interrupted, Kind, Pivot, Undo};
use crate::engine::{BackgroundDef, Body, Definition, Retry, StepDef, StepPath, Timeout, UndoDef};
use crate::units::Span as Time;

/// How many steps are at work at once unless the pipeline says.
pub(crate) const MAX_PARALLEL: u32 = 8;
/// How long a step waits for a lock that another run holds, unless it says so itself.
const LOCK_WAIT: Duration = Duration::from_hours(1);
/// How long the `finally` steps may take together unless the pipeline says.
pub(crate) const FINALLY_BUDGET: Duration = Duration::from_mins(10);

/// A step found by its path in a run.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// The step as it was written.
    pub step: &'a StepSpec,
    /// The pipeline it stands in: its inputs, stores and hosts are what its templates see.
    pub pipeline: &'a Pipeline,
    /// Whether it stands under `finally`.
    pub is_finally: bool,
    /// The pipelines around it, outermost first, `pipeline` last.
    pub chain: Vec<&'a Pipeline>,
}

impl Pipeline {
    /// What the engine needs to know.
    pub fn definition(&self) -> Definition {
        Definition {
            name: self.name.clone(),
            steps: self.steps.iter().map(|step| step.definition(&self.defaults)).collect(),
            finally: self.finally.iter().map(|step| step.definition(&self.defaults)).collect(),
            max_parallel: self.max_parallel.unwrap_or(MAX_PARALLEL),
            on_failure: self.on_failure,
            finally_budget: self.defaults.finally_timeout.unwrap_or(FINALLY_BUDGET),
        }
    }

    /// The step that a path of a run means: `replica[eu]/base` is the step `base` of the pipeline that `replica` runs.
    pub fn find(&self, path: &StepPath) -> Option<Found<'_>> {
        let mut pipeline = self;
        let mut chain = vec![self];
        let mut beneath_finally = false;
        let mut segments = path.segments().peekable();
        while let Some(segment) = segments.next() {
            let (step, is_finally) = pipeline.step(segment.id)?;
            beneath_finally |= is_finally;
            if segments.peek().is_none() {
                return Some(Found { step, pipeline, is_finally: beneath_finally, chain });
            }
            pipeline = step.module.as_deref()?;
            chain.push(pipeline);
        }
        None
    }
}

impl StepSpec {
    fn definition(&self, defaults: &Defaults) -> StepDef {
        let traits = self.info.as_ref().map(|info| (info.traits.0)(&self.with));
        let body = match (&self.module, &self.info) {
            (Some(module), _) => Body::Pipeline(Box::new(module.definition())),
            (None, Some(info)) if info.kind == Kind::Approval => Body::Approval { at_most: self.at_most() },
            _ => Body::Task,
        };
        let undo = if self.undo_skip {
            UndoDef::Skip
        } else if self.undo.is_some() {
            UndoDef::Custom
        } else {
            match traits.map(|traits| traits.undo) {
                Some(Undo::Nothing) => UndoDef::Nothing,
                Some(Undo::Impossible) => UndoDef::Impossible,
                Some(Undo::Built) | None => UndoDef::Built,
            }
        };
        StepDef {
            id: self.id.clone(),
            name: self.name.clone(),
            uses: self.uses.clone(),
            body,
            needs: self.edges.clone(),
            resolve: self.if_.is_some() || self.for_each.is_some() || self.lock.is_some() || self.module.is_some(),
            for_each: self.for_each.is_some(),
            max_parallel: self.max_parallel,
            retry: self.retry.over(&defaults.retry),
            timeout: self.timeout.over(&defaults.timeout),
            pivot: self.pivot,
            pivot_inside: self.info.as_ref().is_some_and(|info| info.pivot == Pivot::Inside),
            background: self
                .background
                .as_ref()
                .zip(self.info.as_ref())
                .map(|(until, info)| BackgroundDef { until: until.clone(), ready: info.background }),
            undo,
            continue_on_error: self.continue_on_error,
            lock_wait: self.lock.is_some().then(|| self.lock_wait.unwrap_or(LOCK_WAIT)),
            placement: self.placement.clone(),
            interrupted: traits.map_or(Interrupted::LookFirst, |traits| traits.interrupted),
        }
    }

    /// How long an approval waits. It is the engine's, so it is read from the text: no template stands there.
    fn at_most(&self) -> Option<Duration> {
        self.with.get("at_most").and_then(Value::as_str)?.parse::<Time>().ok().map(|time| time.0)
    }
}

impl RetrySpec {
    fn over(&self, below: &Self) -> Retry {
        let built = Retry::default();
        Retry {
            attempts: self.attempts.or(below.attempts).unwrap_or(built.attempts),
            backoff: self.backoff.or(below.backoff).unwrap_or(built.backoff),
            initial: self.initial.or(below.initial).unwrap_or(built.initial),
            max: self.max.or(below.max).unwrap_or(built.max),
            jitter: self.jitter.or(below.jitter).unwrap_or(built.jitter),
            exhausted: self.exhausted.or(below.exhausted).unwrap_or(built.exhausted),
            interruptions: self.interruptions.or(below.interruptions).unwrap_or(built.interruptions),
        }
    }
}

impl TimeoutSpec {
    fn over(&self, below: &Self) -> Timeout {
        Timeout { attempt: self.attempt.or(below.attempt), idle: self.idle.or(below.idle) }
    }
}
