//! What the engine knows of a pipeline: steps, edges and policies, with every default filled in and nothing to render.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::catalogue::{Background, Interrupted};

/// A pipeline as the engine runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The pipeline's name.
    pub name: String,
    /// The steps, in the order of the file (which means nothing).
    pub steps: Vec<StepDef>,
    /// The steps that run whatever the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<StepDef>,
    /// How many steps may be at work at once. Only the outermost pipeline's number counts.
    pub max_parallel: u32,
    /// What a failed step does to the run.
    pub on_failure: OnFailure,
    /// How long the `finally` steps may take together.
    #[serde(with = "crate::units::duration_ms")]
    pub finally_budget: Duration,
}

/// How many instances of a `for_each` may be at work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parallel {
    /// One, then more as long as they move more together.
    Auto,
    /// No more than these.
    #[serde(untagged)]
    AtMost(u32),
}

/// One step of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDef {
    /// Its id within this pipeline.
    pub id: String,
    /// What people read beside the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The step type, for people.
    pub uses: String,
    /// What is to be done.
    pub body: Body,
    /// The ids in the same list that must be over before it starts: `needs` and what its templates mention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Whether `if`, `for_each` or `lock` have to be rendered before it starts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub resolve: bool,
    /// Whether it is a `for_each` (then `resolve` is set too).
    #[serde(default, skip_serializing_if = "is_false")]
    pub for_each: bool,
    /// How many instances of a `for_each` may be at work at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<Parallel>,
    /// What is done about failed attempts.
    pub retry: Retry,
    /// Limits of an attempt.
    pub timeout: Timeout,
    /// Whether it is the pivot: the run stops going back once this step has started.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pivot: bool,
    /// As the pivot, it is passed only when an attempt says so (`PivotPassed`), or has succeeded.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pivot_inside: bool,
    /// It serves others while it runs, until this step is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<BackgroundDef>,
    /// What undo does.
    pub undo: UndoDef,
    /// Its failure does not stop the steps behind it. The run still fails.
    #[serde(default, skip_serializing_if = "is_false")]
    pub continue_on_error: bool,
    /// How long it waits for its lock while another run holds it; `None`: however long that takes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::units::option_duration_ms")]
    pub lock_wait: Option<Duration>,
    /// Which group of workers may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// What an attempt whose runner died means.
    pub interrupted: Interrupted,
}

/// What a step does when it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The executor runs it.
    Task,
    /// The engine waits for a person's answer.
    Approval {
        /// How long to wait for the answer; then the step fails.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::units::option_duration_ms")]
        at_most: Option<Duration>,
    },
    /// Another pipeline runs as one step. Its `finally`, `max_parallel` and `on_failure` are not used.
    Pipeline(Box<Definition>),
}

/// When a background step is ready, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackgroundDef {
    /// The step of the same list after which it ends.
    pub until: String,
    /// When its dependants may start.
    pub ready: Background,
}

/// What undoing a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoDef {
    /// The type's own undo.
    Built,
    /// The step body that the pipeline gives under `undo:`.
    Custom,
    /// There is nothing to put back.
    Nothing,
    /// The pipeline says `undo: skip`.
    Skip,
    /// It cannot be undone.
    Impossible,
}

/// What a failed step does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Start nothing new, let what runs finish, stay resumable.
    #[default]
    Stop,
    /// Undo everything the run started, unless it is past its pivot.
    Rollback,
}

/// What is done about failed attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How many attempts may fail before the step does; at least 1.
    pub attempts: u32,
    /// How the wait grows.
    pub backoff: Backoff,
    /// The first wait.
    #[serde(with = "crate::units::duration_ms")]
    pub initial: Duration,
    /// No wait is longer.
    #[serde(with = "crate::units::duration_ms")]
    pub max: Duration,
    /// Whether a wait is drawn between half its length and its length.
    pub jitter: bool,
    /// What follows when no attempt is left.
    pub exhausted: Exhausted,
    /// How often an attempt may be interrupted before a person is asked: the step may be what kills the process.
    pub interruptions: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::Exponential,
            initial: Duration::from_secs(1),
            max: Duration::from_mins(1),
            jitter: true,
            exhausted: Exhausted::Fail,
            interruptions: 5,
        }
    }
}

/// How the wait between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Always the first wait.
    Constant,
    /// The first wait times the number of the attempt.
    Linear,
    /// Doubles each time.
    #[default]
    Exponential,
}

/// What follows when no attempt is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exhausted {
    /// Wait for a person; the rest of the run that does not depend on the step goes on.
    Pause,
    /// The step fails.
    #[default]
    Fail,
    /// The step fails and the run rolls back, unless it is past its pivot.
    Rollback,
}

/// Limits of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timeout {
    /// The whole attempt.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::units::option_duration_ms")]
    pub attempt: Option<Duration>,
    /// No progress (bytes, rows, LSN) for this long.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::units::option_duration_ms")]
    pub idle: Option<Duration>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
