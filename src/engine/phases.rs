//! The run as a whole: going forward, stopping, undoing, `finally`, over.

use super::event::{Command, StopReason, Timer};
use super::node::{Ix, State};
use super::run::{Engine, Phase, Stop};
use super::status::RunStatus;

impl Engine {
    /// Moves the run on as far as it goes without another event.
    pub(super) fn advance(&mut self) {
        loop {
            self.fill_places();
            let is_quiet = self.load.active == 0;
            match self.phase {
                Phase::Forward => {
                    if is_quiet && self.main_is_done() {
                        let outcome = if self.is_tainted || self.any_failed() { RunStatus::Failed } else { RunStatus::Succeeded };
                        self.enter_finally(outcome);
                    } else if self.load.active == self.load.serving + self.load.locking
                        && !self.is_any_told()
                        && self.locks_are_our_own()
                    {
                        self.nothing_moves();
                    } else {
                        return;
                    }
                }
                Phase::Stopping(_) | Phase::Finally(_) if !is_quiet => {
                    // Only what would go on for ever is left: it serves nobody any more.
                    if self.load.active == self.load.serving {
                        self.tell_all_serving();
                    } else if self.load.active == self.load.serving + self.load.locking
                        && !self.is_any_told()
                        && self.locks_are_our_own()
                        && !std::mem::replace(&mut self.finally_is_closed, true)
                    {
                        // What holds the lock waits for a resume, and that for `finally` to end.
                        self.halt(&self.finally.clone(), true);
                        continue;
                    }
                    return;
                }
                Phase::Stopping(Stop::Failed) => self.enter_finally(RunStatus::Failed),
                Phase::Stopping(Stop::Cancelled) => self.enter_finally(RunStatus::Cancelled),
                Phase::Stopping(Stop::Paused) => self.enter_over(RunStatus::Paused),
                Phase::Stopping(Stop::RollbackCancelled) => self.enter_over(RunStatus::RollingBack),
                Phase::Stopping(Stop::Rollback) => self.start_undo(),
                Phase::Undoing if is_quiet => {
                    if let Some(status) = self.continue_undo() {
                        self.enter_finally(status);
                    }
                }
                Phase::Finally(outcome) => self.leave_finally(outcome),
                Phase::New | Phase::Undoing | Phase::Over(_) => return,
            }
        }
    }

    fn main_is_done(&self) -> bool {
        self.root.iter().all(|&ix| self.graph[ix].is_done())
    }

    fn any_failed(&self) -> bool {
        self.root.iter().any(|&ix| self.graph[ix].state == State::Failed)
    }

    fn is_any_told(&self) -> bool {
        self.load.serving > 0 && self.graph.node_weights().any(|node| node.load().serving > 0 && node.stopping.is_some())
    }

    /// Whether every lock that a step waits for is held by a step of this run. Asked when nothing is at work but what
    /// serves: then nobody gives one back by itself.
    fn locks_are_our_own(&self) -> bool {
        let mut waiting = self.graph.node_weights().filter(|node| node.state == State::Locking);
        self.load.locking == 0
            || waiting.all(|waiting| {
                // Nothing else is at work, so that whichever step of ours holds it does not come to its end either: it
                // is paused, serves, or is a group with nothing inside that moves.
                self.graph.node_weights().any(|node| node.holds_lock && node.lock == waiting.lock)
            })
    }

    fn tell_all_serving(&mut self) {
        for ix in self.graph.node_indices().collect::<Vec<_>>() {
            if self.graph[ix].load().serving > 0 {
                self.tell_stop(ix, StopReason::Cancelled);
            }
        }
    }

    /// Nothing is at work but what would serve for ever, and yet the run is not done: say why and stop.
    fn nothing_moves(&mut self) {
        let is_paused = self.graph.node_weights().any(|node| node.state == State::Paused && !node.is_orphan);
        if is_paused || self.until.is_some() {
            self.stop(Stop::Paused);
        } else {
            self.stuck = self
                .steps()
                .filter(|node| matches!(node.state, State::Blocked | State::Locking))
                .map(|node| node.path.clone())
                .collect();
            self.stop(Stop::Failed);
        }
    }

    /// Starts nothing new. What is at work ends by itself after a failure, and is told to stop otherwise.
    pub(super) fn stop(&mut self, stop: Stop) {
        self.phase = Phase::Stopping(stop);
        self.halt(&self.root.clone(), stop != Stop::Failed);
    }

    /// Takes everything inside these lists out of waiting; tells what is at work to stop if `hard`.
    pub(super) fn halt(&mut self, list: &[Ix], hard: bool) {
        for ix in self.walk(list) {
            let node = &self.graph[ix];
            match node.state {
                State::Resolving | State::Inspecting | State::Asking => {
                    // Both only read. What they still answer is dropped.
                    let (step, attempt) = (node.path.clone(), node.attempts);
                    self.commands.push(Command::Stop { step, attempt, reason: StopReason::Cancelled });
                    self.enter(ix, State::Stopped);
                }
                State::Locking => {
                    self.give_back(ix);
                    self.enter(ix, State::Stopped);
                }
                State::Queued | State::Awaiting | State::Backoff => self.enter(ix, State::Stopped),
                // Put back to be run again (`--accept STEP=undo-first`).
                State::UndoLocking => {
                    self.give_back(ix);
                    self.enter(ix, State::UndoBlocked);
                }
                State::UndoQueued | State::UndoBackoff => self.enter(ix, State::UndoBlocked),
                State::Starting | State::Running | State::UndoStarting | State::Undoing if hard => {
                    self.tell_stop(ix, StopReason::Cancelled);
                }
                _ => {}
            }
        }
    }

    pub(super) fn cancel(&mut self) {
        match self.phase {
            Phase::Forward | Phase::Stopping(Stop::Failed | Stop::Paused | Stop::Cancelled) | Phase::Over(RunStatus::Paused) => {
                self.has_settled = false;
                self.stop(Stop::Cancelled);
            }
            Phase::Undoing | Phase::Stopping(Stop::Rollback) => {
                self.stop(Stop::RollbackCancelled);
                self.halt(&self.orphans.clone(), true);
            }
            Phase::Finally(_) => {
                self.finally_is_closed = true;
                self.finally_is_cancelled = true;
                self.halt(&self.finally.clone(), true);
            }
            Phase::New | Phase::Stopping(Stop::RollbackCancelled) | Phase::Over(_) => {}
        }
    }

    pub(super) fn rollback(&mut self, past_pivot: bool) {
        if self.is_past_pivot && !past_pivot {
            return;
        }
        match self.phase {
            Phase::New | Phase::Undoing | Phase::Stopping(Stop::Rollback) | Phase::Over(RunStatus::RolledBack) => {}
            _ => {
                self.past_pivot = past_pivot;
                self.try_undo_again();
                self.has_settled = false;
                self.stop(Stop::Rollback);
                self.halt(&self.finally.clone(), true);
            }
        }
    }

    /// `finally` steps start anew each time the rest has come to an end.
    pub(super) fn enter_finally(&mut self, outcome: RunStatus) {
        if self.finally.is_empty() {
            return self.enter_over(outcome);
        }
        self.phase = Phase::Finally(outcome);
        self.finally_session += 1;
        self.finally_is_closed = false;
        self.finally_is_cancelled = false;
        for ix in self.walk(&self.finally.clone()) {
            self.forget(ix);
        }
        self.recount();
        self.commands.extend(self.finally_timer());
        self.admit_all();
    }

    /// Makes a step as if it had not run, but for its history.
    pub(super) fn forget(&mut self, ix: Ix) {
        if std::mem::take(&mut self.graph[ix].holds_lock) {
            self.give_back(ix);
        }
        let node = &mut self.graph[ix];
        node.state = State::Blocked;
        node.resolution = None;
        node.output = None;
        node.failure = None;
        node.checkpoint = None;
        node.must_inspect = true;
        node.after_interruption = false;
        node.then_rerun = false;
        node.is_failing = false;
        node.is_ready = false;
        node.interruptions = 0;
        node.undo_interruptions = 0;
        node.must_ask = false;
        node.stopping = None;
        self.refresh(ix);
    }

    /// Gives a step a full budget of attempts.
    pub(super) fn refresh(&mut self, ix: Ix) {
        let node = &mut self.graph[ix];
        node.failures_now = 0;
        node.undo_failures_now = 0;
    }

    /// A person asks for undo again: what was given up is tried again.
    pub(super) fn try_undo_again(&mut self) {
        for node in self.graph.node_weights_mut() {
            if matches!(node.state, State::UndoFailed | State::Failed) {
                node.undo_interruptions = 0;
            }
        }
    }

    pub(super) fn finally_timer(&self) -> Option<Command> {
        let definition = self.definition.as_ref()?;
        let timer = Timer::Finally { session: self.finally_session };
        Some(Command::StartTimer { timer, after: definition.finally_budget })
    }

    pub(super) fn finally_is_out_of_time(&mut self, session: u32) {
        if session == self.finally_session && matches!(self.phase, Phase::Finally(_)) && !self.finally_is_closed {
            self.finally_is_closed = true;
            self.halt(&self.finally.clone(), true);
        }
    }

    fn leave_finally(&mut self, outcome: RunStatus) {
        let all_well = self.finally.iter().all(|&ix| matches!(self.graph[ix].state, State::Succeeded | State::Skipped));
        let has_failed = self.walk(&self.finally).iter().any(|&ix| self.graph[ix].state == State::Failed);
        // A handler never makes an outcome better; it can make a good one worse.
        self.enter_over(match outcome {
            RunStatus::Succeeded if all_well => RunStatus::Succeeded,
            RunStatus::Succeeded if self.finally_is_cancelled && !has_failed => RunStatus::Cancelled,
            RunStatus::Succeeded => RunStatus::Failed,
            _ => outcome,
        });
    }

    fn enter_over(&mut self, status: RunStatus) {
        self.phase = Phase::Over(status);
        self.has_settled = false;
        self.commands.push(Command::Settle { status });
    }
}
