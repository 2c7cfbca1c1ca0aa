//! The engine of one run: takes events, gives commands, answers questions about the state.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use petgraph::graph::DiGraph;
use serde_json::Value;

use super::definition::{Definition, OnFailure};
use super::event::{Command, Event, Outcome, Timer};
use super::node::{Ix, Load, Node, State};
use super::path::StepPath;
use super::status::RunStatus;
use super::table::{Verdict, verdict};

/// Why the run starts nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A step failed.
    Failed,
    /// On request.
    Cancelled,
    /// It is going to be rolled back.
    Rollback,
    /// `--until` was reached, or only people can go on.
    Paused,
    /// A rollback was told to stop; it can be taken up again.
    RollbackCancelled,
}

/// What the run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before `RunCreated`.
    New,
    Forward,
    /// Waits for what is at work to end.
    Stopping(Stop),
    Undoing,
    /// `finally` runs; this was the outcome of the rest.
    Finally(RunStatus),
    /// Nothing is left to do in this session.
    Over(RunStatus),
}

/// The state of one run: the fold of its events. Cloning it is how a test asks "what if".
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) run: String,
    pub(super) definition: Option<Box<Definition>>,
    pub(super) document: Value,
    pub(super) on_failure: OnFailure,
    /// The only top-level steps that run, when `--until` names one.
    pub(super) until: Option<String>,
    pub(super) graph: DiGraph<Node, ()>,
    pub(super) index: HashMap<StepPath, Ix>,
    /// The top lists.
    pub(super) root: Vec<Ix>,
    pub(super) finally: Vec<Ix>,
    /// Started steps that an edit took out of the pipeline.
    pub(super) orphans: Vec<Ix>,
    pub(super) phase: Phase,
    pub(super) is_past_pivot: bool,
    /// A tolerated failure: the run cannot succeed any more.
    pub(super) is_tainted: bool,
    pub(super) past_pivot: bool,
    pub(super) finally_session: u32,
    pub(super) has_settled: bool,
    pub(super) starts: u64,
    pub(super) load: Load,
    /// Steps that wait for a place, first come, first served. May hold steps that wait no longer.
    pub(super) queue: VecDeque<Ix>,
    pub(super) commands: Vec<Command>,
    pub(super) finally_is_closed: bool,
    /// It was a person who told `finally` to stop.
    pub(super) finally_is_cancelled: bool,
    /// How far a rollback has come (`orphan.rs`).
    pub(super) undo_stage: usize,
    /// Steps whose turn has come by the graph, and that wait for an orphan that was started later.
    pub(super) undo_parked: Vec<Ix>,
    pub(super) fault: Option<String>,
    pub(super) stuck: Vec<StepPath>,
    /// Whether the last event was dropped.
    pub(super) has_dropped: bool,
    /// Of the last inspection: most steps of a run have the same, and share them.
    pub(super) surroundings: Arc<Value>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// A run before its first event.
    pub fn new() -> Self {
        Self {
            run: String::new(),
            definition: None,
            document: Value::Null,
            on_failure: OnFailure::Stop,
            until: None,
            graph: DiGraph::new(),
            index: HashMap::new(),
            root: Vec::new(),
            finally: Vec::new(),
            orphans: Vec::new(),
            phase: Phase::New,
            is_past_pivot: false,
            is_tainted: false,
            past_pivot: false,
            finally_session: 0,
            has_settled: false,
            starts: 0,
            load: Load::default(),
            queue: VecDeque::new(),
            commands: Vec::new(),
            finally_is_closed: false,
            finally_is_cancelled: false,
            undo_stage: 0,
            undo_parked: Vec::new(),
            fault: None,
            stuck: Vec::new(),
            has_dropped: false,
            surroundings: Arc::default(),
        }
    }

    /// Takes in an event that is durable, and says what is to be done now.
    pub fn on(&mut self, event: &Event) -> Vec<Command> {
        self.has_dropped = false;
        match event {
            Event::RunCreated { run, definition, document, on_failure, until, .. } => {
                if self.phase == Phase::New {
                    self.create(run, definition, document, *on_failure, until.as_deref());
                } else {
                    self.fault("a run is created once");
                }
            }
            _ if self.phase == Phase::New => self.fault("the first event of a run is `run_created`"),
            Event::Resumed { until, .. } => self.resume(until.as_deref()),
            Event::PipelineChanged { definition, document, changed, accept, .. } => {
                self.change(definition, document, changed, accept);
            }
            Event::CancelRequested { .. } => self.cancel(),
            Event::RollbackRequested { past_pivot, .. } => self.rollback(*past_pivot),
            // A request may have come in between the command and its answer: then the run is not over after all.
            Event::Settled { status } => self.has_settled = self.may_settle(*status),
            Event::TimerFired { timer: Timer::Finally { session } } => self.finally_is_out_of_time(*session),
            about_step => self.about_step(about_step),
        }
        self.advance();
        std::mem::take(&mut self.commands)
    }

    fn about_step(&mut self, event: &Event) {
        let Some(path) = event.step() else { return };
        let Some(&ix) = self.index.get(path) else {
            // A person may answer at any time, also for a step that an edit has taken out meanwhile.
            if matches!(event, Event::ApprovalGiven { .. }) {
                self.has_dropped = true;
                return;
            }
            return self.fault(format!("`{path}` is not a step of this run"));
        };
        match verdict(&self.graph[ix], event) {
            Verdict::Take => {
                // A run that was left waiting goes on with the answer.
                self.has_settled = false;
                self.take(ix, event);
            }
            // The lock was taken for a step that has given up waiting: give it back.
            Verdict::Late => {
                self.has_dropped = true;
                if let Event::LockAcquired { step, lock } = event
                    && !(self.graph[ix].holds_lock && self.graph[ix].lock.as_ref() == Some(lock))
                {
                    self.commands.push(Command::ReleaseLock { step: step.clone(), lock: lock.clone() });
                }
            }
            Verdict::Illegal => {
                self.has_dropped = true;
                let state = self.graph[ix].state;
                self.fault(format!("`{path}` was {state:?} and cannot take {event:?}"));
            }
        }
    }

    pub(super) fn fault(&mut self, text: impl Into<String>) {
        self.fault.get_or_insert_with(|| text.into());
    }

    /// What in the events breaks the rules, if anything does: then the journal is not one of a run, or its driver is
    /// broken, and nothing may be done on its word.
    pub fn fault_found(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Whether the last event changed nothing: an answer to what is over, or to another question than the one asked.
    pub fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What is to be done; `None` before the first event.
    pub fn definition(&self) -> Option<&Definition> {
        self.definition.as_deref()
    }

    /// The executor's own: sources, inputs, settings.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The run's status now: its worst truth.
    pub fn status(&self) -> RunStatus {
        match self.phase {
            Phase::Over(status) => status,
            Phase::Undoing | Phase::Stopping(Stop::Rollback | Stop::RollbackCancelled) => RunStatus::RollingBack,
            Phase::Forward if self.awaits_only() => RunStatus::Waiting,
            _ => RunStatus::Running,
        }
    }

    /// What the steps came to, while `finally` runs and after: `run.status` in its templates.
    pub fn outcome(&self) -> RunStatus {
        match self.phase {
            Phase::Finally(status) => status,
            _ => self.status(),
        }
    }

    /// Whether nothing is left to do in this session, and that is journaled.
    pub fn is_at_rest(&self) -> bool {
        self.has_settled
    }

    /// Whether this is the end of the session. What comes in between `Settle` and its answer may have changed that.
    pub fn may_settle(&self, status: RunStatus) -> bool {
        self.phase == Phase::Over(status) || (status == RunStatus::Waiting && self.awaits_only())
    }

    /// Whether nothing at all is going on but waiting for people to answer: a driver may leave (journal
    /// `Settled { status: Waiting }`), and a later one goes on.
    pub fn awaits_only(&self) -> bool {
        self.phase == Phase::Forward && self.load.awaiting > 0 && self.load.active == self.load.awaiting
    }

    /// Whether a step that is a pivot was started, or has passed the one inside it: the run does not go back by itself
    /// any more.
    pub fn is_past_pivot(&self) -> bool {
        self.is_past_pivot
    }

    /// The step of this name.
    pub fn step(&self, path: &StepPath) -> Option<&Node> {
        self.index.get(path).map(|&ix| &self.graph[ix])
    }

    /// All steps: each before what is inside it, in the order of the pipeline, orphans last.
    pub fn steps(&self) -> impl Iterator<Item = &Node> {
        let mut stack: Vec<Ix> = self.root.iter().chain(&self.finally).chain(&self.orphans).rev().copied().collect();
        std::iter::from_fn(move || {
            let ix = stack.pop()?;
            let node = &self.graph[ix];
            stack.extend(node.children.iter().rev());
            Some(node)
        })
    }

    /// What is inside a `for_each` or a pipeline used as a step.
    pub fn children<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Node> {
        node.children.iter().map(|&ix| &self.graph[ix])
    }

    /// What a blocked step waits for: its needs that are not met, else the groups around it that have not opened.
    pub fn waits_for(&self, path: &StepPath) -> Vec<StepPath> {
        let Some(&ix) = self.index.get(path) else { return Vec::new() };
        let unmet: Vec<_> = self.needs(ix).filter(|&need| !self.graph[need].has_satisfied).map(|need| self.path(need)).collect();
        match self.graph[ix].parent {
            Some(parent) if unmet.is_empty() && self.graph[parent].state != State::Open => vec![self.path(parent)],
            _ => unmet,
        }
    }

    /// The steps that could not go on when the run was found stuck.
    pub fn stuck(&self) -> &[StepPath] {
        &self.stuck
    }

    /// Started steps whose changes are still in the world after a rollback.
    pub fn left_behind(&self) -> impl Iterator<Item = &Node> {
        self.steps().filter(|node| node.state != State::Undone && !node.is_finally && node.next_undo().is_some())
    }

    /// The events that say what a crash means for the attempts that were at work: to be journaled by a driver that
    /// takes the run up, before it carries out [`Engine::open_commands`].
    pub fn interrupted(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for node in self.graph.node_weights() {
            let (step, outcome) = (node.path.clone(), Outcome::Interrupted);
            match node.state {
                State::Running => events.push(Event::AttemptEnded { step, attempt: node.attempts, outcome }),
                State::Undoing => events.push(Event::UndoEnded { step, attempt: node.undo_attempts, outcome }),
                _ => {}
            }
        }
        events
    }

    /// Everything that was asked of a driver and not answered yet. After a crash a driver carries these out, then what
    /// [`Engine::on`] returns.
    pub fn open_commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = self.graph.node_indices().flat_map(|ix| self.open_commands_of(ix)).collect();
        match self.phase {
            Phase::Finally(_) => commands.extend(self.finally_timer()),
            Phase::Over(status) if !self.has_settled => commands.push(Command::Settle { status }),
            _ => {}
        }
        commands
    }

    /// What a step's state asks of a driver: of the state, not of its history, so that a live run and a resumed one
    /// ask for the same.
    pub(super) fn command_of(&self, ix: Ix) -> Option<Command> {
        let node = &self.graph[ix];
        let step = node.path.clone();
        match node.state {
            State::Resolving => Some(Command::Resolve { step }),
            State::Locking | State::UndoLocking => {
                node.lock.clone().map(|lock| Command::AcquireLock { step, lock, at_most: node.def.lock_wait })
            }
            State::Inspecting => Some(Command::Inspect { step }),
            State::Asking => Some(Command::AskApproval { step }),
            State::Awaiting => self.approval_timer(ix),
            State::Starting => Some(self.attempt_command(ix)),
            State::Backoff => Some(self.retry_timer(ix)),
            State::UndoStarting => Some(self.undo_command(ix)),
            State::UndoBackoff => Some(self.undo_timer(ix)),
            State::Open if node.is_measured() => Some(Command::Measure { step, at_once: node.pace.limit }),
            _ => None,
        }
    }

    /// What was asked for a step and not answered, and what may have been lost with the driver.
    fn open_commands_of(&self, ix: Ix) -> impl Iterator<Item = Command> {
        let node = &self.graph[ix];
        let waits_for_lock = matches!(node.state, State::Locking | State::UndoLocking);
        // Giving back twice does no harm.
        let give_back = node.lock.clone().filter(|_| !node.holds_lock && !waits_for_lock);
        let told = match node.state {
            State::Starting | State::Running => node.stopping.map(|reason| (node.attempts, reason)),
            State::UndoStarting | State::Undoing => node.stopping.map(|reason| (node.undo_attempts, reason)),
            _ => None,
        };
        let release = give_back.map(|lock| Command::ReleaseLock { step: node.path.clone(), lock });
        let stop = told.map(|(attempt, reason)| Command::Stop { step: node.path.clone(), attempt, reason });
        self.command_of(ix).into_iter().chain(release).chain(stop)
    }

    pub(super) fn path(&self, ix: Ix) -> StepPath {
        self.graph[ix].path.clone()
    }

    pub(super) fn needs(&self, ix: Ix) -> impl Iterator<Item = Ix> {
        self.graph.neighbors_directed(ix, petgraph::Direction::Incoming)
    }

    pub(super) fn dependants(&self, ix: Ix) -> impl Iterator<Item = Ix> {
        self.graph.neighbors_directed(ix, petgraph::Direction::Outgoing)
    }
}
