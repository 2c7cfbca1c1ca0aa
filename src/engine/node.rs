//! A step as the engine sees it: its place in the graph, its state, and what has happened to it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definition::StepDef;
use super::event::Resolution;
use super::path::StepPath;
use crate::error::Failure;

/// Where a step is. What may happen in each state is in one table (`table.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its needs, or for its group.
    Blocked,
    /// Its `if`, `for_each`, `lock` or inputs are being rendered.
    Resolving,
    /// Waits for its lock.
    Locking,
    /// Waits for a place among the steps at work.
    Queued,
    /// The world is being looked at.
    Inspecting,
    /// The question of an approval is being rendered.
    Asking,
    /// Waits for a person's answer.
    Awaiting,
    /// Told to start; the intent is not on disk yet.
    Starting,
    /// An attempt is at work.
    Running,
    /// Waits for the next attempt.
    Backoff,
    /// Needs a person; `resume` tries it again.
    Paused,
    /// A group (`for_each`, pipeline) whose children are at it.
    Open,
    /// Did what was expected.
    Succeeded,
    /// Failed for good in this session; `resume` tries it again.
    Failed,
    /// Its condition said no.
    Skipped,
    /// Told to stop; `resume` goes on.
    Stopped,
    /// Waits for what depends on it to be undone.
    UndoBlocked,
    /// Waits for its lock, to undo.
    UndoLocking,
    /// Waits for a place, to undo.
    UndoQueued,
    /// Told to undo; the intent is not on disk yet.
    UndoStarting,
    /// An undo is at work.
    Undoing,
    /// Waits for the next undo.
    UndoBackoff,
    /// A group whose children are being undone.
    UndoOpen,
    /// Put back, or nothing was to be put back.
    Undone,
    /// Could not be put back; `rollback` tries it again.
    UndoFailed,
}

impl State {
    /// Whether nothing more happens to it in this phase.
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Stopped | Self::Paused | Self::Undone | Self::UndoFailed
        )
    }

    /// Whether a driver is carrying something out for it, or a timer runs.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            Self::Resolving
                | Self::Locking
                | Self::Inspecting
                | Self::Asking
                | Self::Awaiting
                | Self::Starting
                | Self::Running
                | Self::Backoff
                | Self::UndoLocking
                | Self::UndoStarting
                | Self::Undoing
                | Self::UndoBackoff
        )
    }

    /// Whether it takes one of the `max_parallel` places.
    pub fn is_working(self) -> bool {
        matches!(self, Self::Inspecting | Self::Asking | Self::Starting | Self::Running | Self::UndoStarting | Self::Undoing)
    }
}

/// What a step saw of the world before it acted, and with which configuration: what undo needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The rendered configuration, marks in place of secrets.
    pub config: Value,
    /// Digest of the resolved definition.
    pub digest: String,
    /// What `inspect` saw.
    pub before: Value,
    /// Whether an attempt was started on it: only then is there something to undo.
    pub started: bool,
    /// Whether it has been put back.
    pub undone: bool,
}

/// A question as it was put to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What was shown.
    pub message: String,
    /// An answer is bound to it.
    pub digest: String,
    /// Who may answer; empty: anybody.
    pub approvers: Vec<String>,
}

/// A step, an instance of a `for_each`, or a step inside a pipeline used as a step.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in the run.
    pub path: StepPath,
    /// What it is. An instance has its group's definition.
    pub def: StepDef,
    /// Key and value, when it is an instance of a `for_each`.
    pub each: Option<(String, Value)>,
    /// Position among its instances.
    pub each_index: usize,
    /// Whether it belongs to `finally`.
    pub is_finally: bool,
    /// Where it is.
    pub state: State,
    /// What its templates said.
    pub resolution: Option<Resolution>,
    /// The last attempt's number; 0 before the first.
    pub attempts: u32,
    /// The last undo's number.
    pub undo_attempts: u32,
    /// What it saw, oldest first: usually one, more when it ran again on purpose.
    pub inspections: Vec<Inspection>,
    /// The last progress token.
    pub checkpoint: Option<Value>,
    /// What it left. Of a `for_each`: nothing here, its instances have theirs.
    pub output: Option<Value>,
    /// Why it failed last.
    pub failure: Option<Failure>,
    /// Why its undo failed last.
    pub undo_failure: Option<Failure>,
    /// Warnings of its successful attempt.
    pub warnings: u32,
    /// Whether a background step serves its dependants.
    pub is_ready: bool,
    /// The question of an approval.
    pub question: Option<Question>,
    /// What the lock it holds or waits for is called.
    pub lock: Option<String>,
    /// How often an attempt was interrupted.
    pub interruptions: u32,
}

impl Node {
    /// Whether any attempt was ever started: then there may be something to undo.
    pub fn was_started(&self) -> bool {
        self.inspections.iter().any(|inspection| inspection.started)
    }
}
