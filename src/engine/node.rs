//! A step as the engine sees it: its place in the graph, its state, and what has happened to it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definition::{Body, Parallel, StepDef};
use super::event::{Resolution, StopReason};
use super::forward::{ASK, needs_person};
use super::pace::Pace;
use super::path::StepPath;
use crate::error::Failure;

pub(super) type Ix = petgraph::graph::NodeIndex;

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

    /// Whether it belongs to going back.
    pub fn is_undo(self) -> bool {
        matches!(
            self,
            Self::UndoBlocked
                | Self::UndoLocking
                | Self::UndoQueued
                | Self::UndoStarting
                | Self::Undoing
                | Self::UndoBackoff
                | Self::UndoOpen
                | Self::Undone
                | Self::UndoFailed
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
    /// The folder, the host and the stores that it names: an undo works there, whatever was edited since.
    pub surroundings: Arc<Value>,
    /// Digest of both.
    pub digest: String,
    /// What `inspect` saw.
    pub before: Value,
    /// Whether an attempt was started on it: only then is there something to undo.
    pub started: bool,
    /// The last progress token of its attempts. It is what undo is given: a later look has attempts of its own.
    pub checkpoint: Option<Value>,
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

impl Question {
    /// Whether this person (`user@host`) may answer. An approver without `@` is a user on any machine.
    pub fn may_answer(&self, by: &str) -> bool {
        let user = by.rsplit_once('@').map_or(by, |(user, _)| user);
        self.approvers.is_empty() || self.approvers.iter().any(|name| name == by || name == user)
    }
}

/// A step, an instance of a `for_each`, or a step inside a pipeline used as a step.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in the run.
    pub path: StepPath,
    /// What it is. An instance has its group's definition.
    pub def: Arc<StepDef>,
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
    /// Who holds the lock that it waits for, when that is known.
    pub lock_holder: Option<String>,
    /// How often an attempt was interrupted since a person last looked at the step.
    pub interruptions: u32,
    /// How often it has failed in this run.
    pub failures: u32,
    /// Its place in the order in which steps were first started; 0: never.
    pub start_order: u64,
    /// Whether it left the pipeline by an edit after it had started: nothing but undo concerns it.
    pub is_orphan: bool,

    /// How many instances may be at it, where that is found out.
    pub pace: Pace,

    // ── place in the graph ──
    pub(super) parent: Option<Ix>,
    pub(super) children: Vec<Ix>,
    /// The background steps that serve until this one is over.
    pub(super) served_by: Vec<Ix>,

    // ── derived; rebuilt whenever a run is taken up ──
    /// Needs that are not met yet.
    pub(super) unmet: usize,
    /// Whether it has told its dependants.
    pub(super) has_satisfied: bool,
    /// Children that are not done.
    pub(super) children_left: usize,
    /// Instances that are neither blocked nor over.
    pub(super) instances_open: u32,
    /// The first instance that was not looked at for a start.
    pub(super) next_instance: usize,
    /// `--until` names a step that does not need this one.
    pub(super) is_held: bool,
    /// What the nodes inside are at, at any depth.
    pub(super) inside: Load,
    /// A child has failed and nobody tolerates it: nothing new starts in here.
    pub(super) is_failing: bool,

    // ── this session's budget ──
    pub(super) failures_now: u32,
    pub(super) undo_failures: u32,
    pub(super) undo_failures_now: u32,
    pub(super) undo_interruptions: u32,

    // ── intents ──
    pub(super) holds_lock: bool,
    /// The next attempt looks at the world anew.
    pub(super) must_inspect: bool,
    /// An attempt of a step that must not be repeated unasked ended with nobody knowing how far it came.
    pub(super) must_ask: bool,
    /// The next attempt follows an interrupted one.
    pub(super) after_interruption: bool,
    pub(super) after_undo_interruption: bool,
    /// It was told to stop, and why.
    pub(super) stopping: Option<StopReason>,
    /// Once put back, it runs again (`--accept STEP=undo-first`).
    pub(super) then_rerun: bool,

    // ── rollback ──
    /// Dependants, and the group itself, that have to be through first.
    pub(super) undo_waits: usize,
    pub(super) undo_children_left: usize,
    /// What is inside has been told that this group's turn has come.
    pub(super) undo_is_open: bool,
    /// Nothing of it is left to be put back.
    pub(super) is_through: bool,
}

/// What counts towards limits and quiet, of one node or of all inside a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// A driver is at it, or a timer runs.
    pub active: usize,
    /// Takes one of the run's places.
    pub working: usize,
    /// Waits for a person's answer.
    pub awaiting: usize,
    /// A background step that serves: it would go on for ever.
    pub serving: usize,
    /// Waits for a lock.
    pub locking: usize,
}

impl Load {
    pub fn add(&mut self, other: Self) {
        self.active += other.active;
        self.working += other.working;
        self.awaiting += other.awaiting;
        self.serving += other.serving;
        self.locking += other.locking;
    }

    pub fn subtract(&mut self, other: Self) {
        self.active -= other.active;
        self.working -= other.working;
        self.awaiting -= other.awaiting;
        self.serving -= other.serving;
        self.locking -= other.locking;
    }
}

impl Node {
    pub(super) fn new(path: StepPath, def: Arc<StepDef>, parent: Option<Ix>, is_finally: bool) -> Self {
        Self {
            path,
            def,
            each: None,
            each_index: 0,
            is_finally,
            state: State::Blocked,
            resolution: None,
            attempts: 0,
            undo_attempts: 0,
            inspections: Vec::new(),
            checkpoint: None,
            output: None,
            failure: None,
            undo_failure: None,
            warnings: 0,
            is_ready: false,
            question: None,
            lock: None,
            lock_holder: None,
            interruptions: 0,
            failures: 0,
            start_order: 0,
            is_orphan: false,
            pace: Pace::default(),
            parent,
            children: Vec::new(),
            served_by: Vec::new(),
            unmet: 0,
            has_satisfied: false,
            children_left: 0,
            instances_open: 0,
            next_instance: 0,
            is_held: false,
            inside: Load::default(),
            is_failing: false,
            failures_now: 0,
            undo_failures: 0,
            undo_failures_now: 0,
            undo_interruptions: 0,
            holds_lock: false,
            must_inspect: true,
            must_ask: false,
            after_interruption: false,
            after_undo_interruption: false,
            stopping: None,
            then_rerun: false,
            undo_waits: 0,
            undo_children_left: 0,
            undo_is_open: false,
            is_through: false,
        }
    }

    /// Whether any attempt was ever started: then there may be something to undo.
    pub fn was_started(&self) -> bool {
        self.inspections.iter().any(|inspection| inspection.started)
    }

    /// Whether it holds other steps and does nothing itself: a `for_each`, or a pipeline used as a step.
    pub fn is_group(&self) -> bool {
        self.def.for_each || matches!(self.def.body, Body::Pipeline(_))
    }

    /// Whether it is an instance of a `for_each`.
    pub fn is_instance(&self) -> bool {
        self.each.is_some()
    }

    /// Whether it serves others while it runs.
    pub fn is_background(&self) -> bool {
        self.def.background.is_some() && !self.is_group()
    }

    /// Whether it has begun to switch something over, and is not done: what an attempt has left half-way (clients that are
    /// held back, for one) may be just what keeps background steps from being ready. It waits for none of them any more.
    pub(super) fn goes_first(&self) -> bool {
        let may_switch = self.def.pivot_inside && !self.is_finally && !self.is_group() && self.def.background.is_none();
        may_switch && self.next_undo().is_some()
    }

    /// Whether steps that need it may start: it did what was expected, was not wanted, serves, or its failure is
    /// tolerated.
    pub(super) fn satisfies(&self) -> bool {
        match self.state {
            State::Succeeded | State::Skipped => true,
            State::Failed => self.def.continue_on_error,
            State::Running => self.is_background() && self.is_ready,
            _ => false,
        }
    }

    /// How many of its instances may be at it now.
    pub fn instance_limit(&self) -> u32 {
        match self.def.max_parallel {
            None => u32::MAX,
            Some(Parallel::AtMost(most)) => most.max(1),
            Some(Parallel::Auto) => self.pace.limit,
        }
    }

    /// Whether it is to be found out how fast its instances go: one more than are at it now waits for a place.
    pub(super) fn is_measured(&self) -> bool {
        let has_more = (self.pace.limit as usize) < self.children.len();
        self.state == State::Open && self.def.max_parallel == Some(Parallel::Auto) && !self.pace.has_settled && has_more
    }

    /// Whether it counts towards the `max_parallel` of its `for_each`.
    pub(super) fn occupies_group(&self) -> bool {
        self.state != State::Blocked && !self.state.is_over()
    }

    /// Whether its group need not wait for it any more.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Succeeded | State::Failed | State::Skipped)
    }

    /// Whether its undo was interrupted more often than is tried without a person.
    pub(super) fn kills_its_runner(&self) -> bool {
        self.undo_interruptions > self.def.retry.interruptions
    }

    /// A group that is not done, taken up: it opens once its lock is held (again), and as one of the instances that its
    /// `for_each` lets be at it.
    pub(super) fn reopen(&mut self) {
        let has_lock = self.lock.is_none() || self.holds_lock;
        let is_in = self.state == State::Open || !self.is_instance();
        self.state = if has_lock && is_in { State::Open } else { State::Blocked };
    }

    /// A step that ended without succeeding, taken up: it starts over, unless a person has to be asked first.
    pub(super) fn take_up(&mut self) {
        if std::mem::take(&mut self.must_ask) {
            let message = "it was stopped at work, and nothing can tell whether it has acted";
            self.failure = Some(needs_person(message, ASK));
            self.state = State::Paused;
        } else {
            self.state = State::Blocked;
        }
    }

    pub(super) fn load(&self) -> Load {
        let state = self.state;
        Load {
            active: usize::from(state.is_active()),
            working: usize::from(state.is_working() && (!self.is_background() || state.is_undo())),
            awaiting: usize::from(state == State::Awaiting),
            locking: usize::from(state == State::Locking),
            serving: usize::from(state == State::Running && self.is_background() && self.is_ready),
        }
    }

    /// The newest inspection that an attempt was started on and that has not been put back.
    pub fn next_undo(&self) -> Option<usize> {
        self.inspections.iter().rposition(|inspection| inspection.started && !inspection.undone)
    }

    /// Takes over what has happened to the node of the same name before an edit.
    pub(super) fn adopt(&mut self, old: Self) {
        let fresh = self.clone();
        let Self { def, parent, children, served_by, is_finally, .. } = fresh;
        *self = Self { def, is_finally, parent, children, served_by, ..old };
    }
}
