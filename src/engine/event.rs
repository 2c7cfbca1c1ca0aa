//! What has happened (events) and what is to be done (commands): the whole traffic between the engine and a driver.
//!
//! Events are the journal's format (`docs/journal.md`): a field may be added with a default, never renamed or removed
//! without a new schema version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definition::{Definition, OnFailure, Timeout};
use super::path::StepPath;
use super::status::RunStatus;
use crate::error::Failure;

/// Something that has happened. It is durable before the engine sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event of every run.
    RunCreated {
        /// The run's id: the seed of every jitter.
        run: String,
        /// What is to be done.
        definition: Box<Definition>,
        /// The executor's own: sources, inputs, settings. The engine does not look inside.
        document: Value,
        /// The policy in force (the command line may override the pipeline's).
        on_failure: OnFailure,
        /// Only this step of the top list and what it needs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<String>,
        /// Who started it: `user@host`.
        by: String,
    },
    /// A runner has taken the run up again: failed and paused steps are tried again.
    Resumed {
        /// Who did it.
        by: String,
        /// A new limit, or none: `--until` does not outlive a run's stop.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<String>,
    },
    /// `resume --pipeline`: the definition is replaced. The engine has said that it may be (`edit::compare`).
    PipelineChanged {
        /// What is to be done from now on.
        definition: Box<Definition>,
        /// The executor's own.
        document: Value,
        /// Steps whose text is not what it was. The engine cannot see that: `with` is not in the definition.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        changed: BTreeSet<StepPath>,
        /// What was accepted for completed steps that changed.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        accept: BTreeMap<StepPath, Accept>,
        /// Who did it.
        by: String,
    },
    /// Answer to `Resolve`.
    Resolved {
        /// The step.
        step: StepPath,
        /// What its templates said.
        resolution: Resolution,
        /// The values of the operands, for `why`.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        operands: Value,
    },
    /// Answer to `AcquireLock`.
    LockAcquired {
        /// The step.
        step: StepPath,
        /// The lock's name.
        lock: String,
    },
    /// The lock is held elsewhere; the driver keeps trying. For people only.
    LockBusy {
        /// The step.
        step: StepPath,
        /// The run and step that hold it.
        holder: String,
    },
    /// Answer to `AcquireLock`: the step has waited as long as it may. It holds nothing.
    LockTimedOut {
        /// The step.
        step: StepPath,
        /// The lock's name.
        lock: String,
    },
    /// Answer to `Inspect`: what the step saw of the world before its first attempt.
    Inspected {
        /// The step.
        step: StepPath,
        /// What undo needs.
        before: Value,
        /// The rendered configuration, marks in place of secrets.
        config: Value,
        /// The folder, the host and the stores that the configuration names, marks in place of secrets.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        surroundings: Value,
        /// Digest of the resolved definition and its surroundings.
        digest: String,
    },
    /// Rendering or inspecting failed; nothing was changed.
    InspectFailed {
        /// The step.
        step: StepPath,
        /// Why.
        failure: Failure,
    },
    /// Intent: from here on the attempt may have acted.
    AttemptStarted {
        /// The step.
        step: StepPath,
        /// Counts from 1 over the whole run.
        attempt: u32,
    },
    /// A background step serves its dependants.
    Ready {
        /// The step.
        step: StepPath,
        /// Its attempt.
        attempt: u32,
    },
    /// A progress token.
    Checkpoint {
        /// The step.
        step: StepPath,
        /// Its attempt.
        attempt: u32,
        /// What the next attempt is given.
        token: Value,
    },
    /// An attempt is about to do what cannot be undone. Counts only when it was not told to stop before; if its step is
    /// the pivot, the run is past it from here on.
    PivotPassed {
        /// The step.
        step: StepPath,
        /// Its attempt.
        attempt: u32,
    },
    /// Answer to `Measure`: how fast so many instances of a `for_each` were together.
    Measured {
        /// The `for_each`.
        step: StepPath,
        /// How many were at it at once.
        at_once: u32,
        /// Thousandths of a byte a second. One that has ended counts as a byte.
        rate: u64,
    },
    /// An attempt is over.
    AttemptEnded {
        /// The step.
        step: StepPath,
        /// Its attempt.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// A question was put to a person.
    ApprovalAsked {
        /// The step.
        step: StepPath,
        /// What is shown.
        message: String,
        /// Of what is shown: an answer is bound to it.
        digest: String,
        /// Who may answer; empty: anybody.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvers: Vec<String>,
    },
    /// A person has answered.
    ApprovalGiven {
        /// The step.
        step: StepPath,
        /// What the person saw. An answer to something else is dropped.
        digest: String,
        /// Yes or no.
        approved: bool,
        /// Who.
        by: String,
        /// In the person's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// Intent: from here on the undo may have acted.
    UndoStarted {
        /// The step.
        step: StepPath,
        /// Counts from 1 over the whole run.
        attempt: u32,
    },
    /// An undo is over. The output is null.
    UndoEnded {
        /// The step.
        step: StepPath,
        /// Its attempt.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// A timer that the engine asked for has run out.
    TimerFired {
        /// Which.
        timer: Timer,
    },
    /// Stop, run `finally`, stay resumable.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// Stop, undo, run `finally`.
    RollbackRequested {
        /// Who.
        by: String,
        /// Whether it was said that going back is meant although the run is past its pivot.
        #[serde(default)]
        past_pivot: bool,
    },
    /// Answer to `Settle`: nothing is left to do in this session.
    Settled {
        /// The run's status.
        status: RunStatus,
    },
}

impl Event {
    /// The step that the event is about, if it is about one.
    pub fn step(&self) -> Option<&StepPath> {
        match self {
            Self::Resolved { step, .. }
            | Self::LockAcquired { step, .. }
            | Self::LockBusy { step, .. }
            | Self::LockTimedOut { step, .. }
            | Self::Inspected { step, .. }
            | Self::InspectFailed { step, .. }
            | Self::AttemptStarted { step, .. }
            | Self::Ready { step, .. }
            | Self::Checkpoint { step, .. }
            | Self::PivotPassed { step, .. }
            | Self::Measured { step, .. }
            | Self::AttemptEnded { step, .. }
            | Self::ApprovalAsked { step, .. }
            | Self::ApprovalGiven { step, .. }
            | Self::UndoStarted { step, .. }
            | Self::UndoEnded { step, .. } => Some(step),
            Self::TimerFired { timer } => timer.step(),
            Self::RunCreated { .. }
            | Self::Resumed { .. }
            | Self::PipelineChanged { .. }
            | Self::CancelRequested { .. }
            | Self::RollbackRequested { .. }
            | Self::Settled { .. } => None,
        }
    }
}

/// What the templates of a step said before it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It runs, under this lock if any.
    Run {
        /// The lock's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lock: Option<String>,
    },
    /// `if` said no.
    Skip,
    /// One instance per key, in order. Keys are unique.
    Instances {
        /// Key and value of each.
        items: Vec<(String, Value)>,
    },
    /// The body of a pipeline used as a step starts, with these inputs.
    Inputs {
        /// Its inputs, marks in place of secrets.
        inputs: Value,
        /// Digest of the resolved definition.
        digest: String,
        /// The lock's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lock: Option<String>,
    },
    /// A template could not be rendered.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What was expected is known and found.
    Succeeded {
        /// The typed JSON left for later steps.
        output: Value,
        /// How many warnings it gave.
        #[serde(default)]
        warnings: u32,
    },
    /// The world said no.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// It was told to stop, and did.
    Stopped,
    /// Its runner died: it may or may not have acted.
    Interrupted,
}

/// What was accepted for a completed step whose definition changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// It counts as done as it is.
    Keep,
    /// It runs again on top of what it did.
    Rerun,
    /// It is undone, then runs again.
    UndoFirst,
}

/// A timer, by what it is for. At most one of each is open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "timer", rename_all = "snake_case")]
pub enum Timer {
    /// The wait before the next attempt of a step.
    Retry {
        /// The step.
        step: StepPath,
        /// How often the step has failed in this run: tells this wait from an earlier one.
        failures: u32,
    },
    /// The wait before the next undo of a step.
    UndoRetry {
        /// The step.
        step: StepPath,
        /// How often its undo has failed in this run.
        failures: u32,
    },
    /// The limit of an approval.
    Approval {
        /// The step.
        step: StepPath,
    },
    /// The budget of `finally`.
    Finally {
        /// Which `finally` of the run: a resumed run has another.
        session: u32,
    },
}

impl Timer {
    /// The step that the timer belongs to, if it belongs to one.
    pub fn step(&self) -> Option<&StepPath> {
        match self {
            Self::Retry { step, .. } | Self::UndoRetry { step, .. } | Self::Approval { step } => Some(step),
            Self::Finally { .. } => None,
        }
    }
}

/// Something a driver has to do. Each is carried out at least once and answered by at most one accepted event.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Render `if`, `for_each`, `lock` or the inputs of a pipeline; answer `Resolved`.
    Resolve {
        /// The step.
        step: StepPath,
    },
    /// Take the named lock; answer `LockAcquired` (and `LockBusy` once if it has to wait), or `LockTimedOut`.
    AcquireLock {
        /// The step.
        step: StepPath,
        /// The lock's name.
        lock: String,
        /// How long to wait while other runs hold it. The steps of one run stand in line however long that takes, as
        /// they do for a place.
        at_most: Option<Duration>,
    },
    /// Give the named lock back. No answer.
    ReleaseLock {
        /// The step.
        step: StepPath,
        /// The lock's name.
        lock: String,
    },
    /// Render `with` and let the type look at the world; answer `Inspected` or `InspectFailed`.
    Inspect {
        /// The step.
        step: StepPath,
    },
    /// Journal `AttemptStarted`, then run the step; answer `AttemptEnded`.
    Attempt {
        /// The step.
        step: StepPath,
        /// The attempt's number.
        attempt: u32,
        /// Whether an earlier attempt was interrupted: the step looks before it acts.
        interrupted: bool,
        /// Its limits.
        timeout: Timeout,
    },
    /// Find out how fast the instances of a `for_each` go while so many may be at it; answer `Measured` when that is known.
    Measure {
        /// The `for_each`.
        step: StepPath,
        /// How many.
        at_once: u32,
    },
    /// Tell a running attempt or undo to stop; it answers with its own `AttemptEnded` or `UndoEnded`.
    Stop {
        /// The step.
        step: StepPath,
        /// The attempt's number.
        attempt: u32,
        /// Why.
        reason: StopReason,
    },
    /// Render the question; answer `ApprovalAsked`, or `InspectFailed`. The answer comes as `ApprovalGiven`.
    AskApproval {
        /// The step.
        step: StepPath,
    },
    /// Journal `UndoStarted`, then undo the step with what `Inspected` recorded; answer `UndoEnded`.
    Undo {
        /// The step.
        step: StepPath,
        /// The undo's number.
        attempt: u32,
        /// Which of the step's inspections it goes back to: an index into `Node::inspections`.
        inspection: usize,
        /// Whether an earlier undo was interrupted.
        interrupted: bool,
        /// Its limits.
        timeout: Timeout,
    },
    /// Answer `TimerFired` after this long.
    StartTimer {
        /// Which.
        timer: Timer,
        /// How long.
        after: Duration,
    },
    /// Journal `Settled`, and go.
    Settle {
        /// The run's status.
        status: RunStatus,
    },
}

/// Why an attempt is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The run is cancelled or rolled back: write a checkpoint and stop (`Outcome::Stopped`).
    Cancelled,
    /// A background step has done its duty: end well and leave the outputs (`Outcome::Succeeded`).
    Over,
}
