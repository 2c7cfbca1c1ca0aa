//! Going back: every started step is undone, last first, in parallel where the DAG allows.

use std::collections::{HashSet, VecDeque};

use super::backoff;
use super::definition::UndoDef;
use super::event::{Command, Outcome, Timer};
use super::forward::{asked, permanent};
use super::node::{Ix, State};
use super::run::{Engine, Phase};
use crate::error::{ErrorClass, Failure};

impl Engine {
    /// Begins, or takes up again, the rollback: nothing is at work.
    pub(super) fn start_undo(&mut self) {
        self.phase = Phase::Undoing;
        self.undo_stage = 0;
        self.undo_parked.clear();
        let main = self.walk(&self.root.clone());
        for &ix in main.iter().chain(&self.orphans.clone()) {
            let waits = self.dependants(ix).count() + usize::from(self.graph[ix].parent.is_some());
            let node = &mut self.graph[ix];
            node.is_through = false;
            node.undo_is_open = false;
            node.undo_waits = waits;
            node.undo_children_left = node.children.len();
            node.then_rerun = false;
            node.undo_failures_now = 0;
            // One that was given up while the run was taken up stays so until a person asks again.
            let is_given_up = node.state == State::UndoFailed && node.kills_its_runner();
            if !node.is_group() && node.next_undo().is_some() && !is_given_up {
                node.state = State::UndoBlocked;
            }
            if !node.is_group() && node.next_undo().is_none() && std::mem::take(&mut node.holds_lock) {
                // Paused before it had done anything: nothing of it is left to be protected.
                self.give_back(ix);
            }
        }
        // `finally` starts anew behind the rollback; what it was at must not be in the way of that.
        for ix in self.walk(&self.finally.clone()) {
            if std::mem::take(&mut self.graph[ix].holds_lock) {
                self.give_back(ix);
            }
        }
        // Where an orphan stood in the graph is not known any more: it goes when its start says (`orphan.rs`).
        let graph = &self.graph;
        self.orphans.sort_by_key(|&ix| std::cmp::Reverse(graph[ix].start_order));
        self.recount();
    }

    /// It is the turn of these: all that depends on them is through. A list of work instead of recursion, because a
    /// chain may be 10,000 steps long.
    pub(super) fn undo_from(&mut self, turn: Vec<Ix>) {
        let mut work = VecDeque::from(turn);
        let mut stays = Vec::new();
        while let Some(ix) = work.pop_front() {
            if self.graph[ix].is_group() && !self.graph[ix].children.is_empty() {
                let node = &self.graph[ix];
                if node.lock.is_some() && !node.holds_lock && self.has_something_to_undo(ix) {
                    // What is inside was done under the group's lock, and is undone under it.
                    self.enter(ix, State::UndoLocking);
                } else {
                    self.undo_open(ix, &mut work);
                }
            } else if self.has_to_wait(ix) {
                self.undo_parked.push(ix);
            } else if self.undo_one(ix) {
                self.through(ix, &mut work);
            } else if self.graph[ix].state == State::UndoFailed {
                stays.push(ix);
            }
        }
        for ix in stays {
            self.unlock_around(ix);
        }
    }

    /// A step stays as it is. The groups around it in which nothing moves any more give their locks back, as a step does
    /// that could not be undone: others may have to go back under them.
    fn unlock_around(&mut self, ix: Ix) {
        let mut around = self.graph[ix].parent;
        while let Some(group) = around {
            let node = &self.graph[group];
            around = node.parent;
            if node.state == State::UndoOpen && node.holds_lock && node.inside.active == 0 {
                let is_queued = |&inner: &Ix| self.graph[inner].state == State::UndoQueued;
                // Usually it is right here, and nothing has to be walked.
                if !node.children.iter().any(is_queued) && !self.walk(&node.children).iter().any(is_queued) {
                    self.graph[group].holds_lock = false;
                    self.give_back(group);
                }
            }
        }
    }

    /// It is the turn of what is inside a group.
    fn undo_open(&mut self, ix: Ix, work: &mut VecDeque<Ix>) {
        if !matches!(self.graph[ix].state, State::UndoOpen | State::Undone) {
            self.enter(ix, State::UndoOpen);
        }
        if std::mem::replace(&mut self.graph[ix].undo_is_open, true) {
            return;
        }
        for child in self.graph[ix].children.clone() {
            self.graph[child].undo_waits -= 1;
            if self.graph[child].undo_waits == 0 {
                work.push_back(child);
            }
        }
    }

    /// The lock that undoing has waited for is held.
    pub(super) fn undo_locked(&mut self, ix: Ix) {
        if !self.graph[ix].is_group() {
            return self.enter(ix, State::UndoQueued);
        }
        let mut work = VecDeque::new();
        self.undo_open(ix, &mut work);
        // It had given its lock back for an orphan: what is inside goes on under it.
        work.extend(self.unparked());
        self.undo_from(work.into());
    }

    fn has_something_to_undo(&self, group: Ix) -> bool {
        let mut inside = self.walk(&self.graph[group].children).into_iter();
        inside.any(|ix| self.graph[ix].next_undo().is_some() && matches!(self.undo_of(ix), UndoDef::Built | UndoDef::Custom))
    }

    /// Whether every group around a step holds the lock that it has.
    fn is_locked_around(&self, ix: Ix) -> bool {
        let mut around = self.graph[ix].parent;
        while let Some(group) = around {
            let group = &self.graph[group];
            if group.lock.is_some() && !group.holds_lock {
                return false;
            }
            around = group.parent;
        }
        true
    }

    /// What is undone needs nothing of this step any more.
    fn through(&mut self, ix: Ix, work: &mut VecDeque<Ix>) {
        let mut at = ix;
        loop {
            if std::mem::replace(&mut self.graph[at].is_through, true) {
                return;
            }
            for need in self.needs(at).collect::<Vec<_>>() {
                self.graph[need].undo_waits -= 1;
                if self.graph[need].undo_waits == 0 {
                    work.push_back(need);
                }
            }
            let Some(group) = self.graph[at].parent else { return };
            self.graph[group].undo_children_left -= 1;
            if self.graph[group].undo_children_left > 0 {
                return;
            }
            self.enter(group, State::Undone);
            at = group;
        }
    }

    /// Begins to undo one step. Whether there is nothing to do.
    fn undo_one(&mut self, ix: Ix) -> bool {
        if self.graph[ix].next_undo().is_none() {
            return true;
        }
        if self.graph[ix].state == State::UndoFailed {
            return false;
        }
        match self.undo_of(ix) {
            UndoDef::Nothing | UndoDef::Skip => {
                for inspection in &mut self.graph[ix].inspections {
                    inspection.undone = true;
                }
                self.enter(ix, State::Undone);
                true
            }
            UndoDef::Impossible => {
                let help = "put back by hand what it changed";
                self.graph[ix].undo_failure = Some(permanent("a step of this type cannot be undone", help));
                self.enter(ix, State::UndoFailed);
                false
            }
            UndoDef::Built | UndoDef::Custom => {
                self.queue_undo(ix);
                false
            }
        }
    }

    /// A pipeline used as a step may say `undo: skip` for all inside.
    pub(super) fn undo_of(&self, ix: Ix) -> UndoDef {
        let mut around = self.graph[ix].parent;
        while let Some(group) = around {
            if self.graph[group].def.undo == UndoDef::Skip {
                return UndoDef::Skip;
            }
            around = self.graph[group].parent;
        }
        self.graph[ix].def.undo
    }

    /// Lets those steps be undone that are to run again (`--accept STEP=undo-first`), last first.
    pub(super) fn undo_before_rerun(&mut self) {
        let waiting: Vec<Ix> = self
            .graph
            .node_indices()
            .filter(|&ix| self.graph[ix].then_rerun && self.graph[ix].state == State::UndoBlocked)
            .collect();
        for ix in waiting {
            let is_free = !self.everything_behind(ix).into_iter().any(|behind| self.graph[behind].then_rerun);
            if is_free && self.is_locked_around(ix) {
                self.queue_undo(ix);
            }
        }
    }

    /// Every step that directly or indirectly needs this one, or a group around it.
    fn everything_behind(&self, ix: Ix) -> HashSet<Ix> {
        let mut around = Some(ix);
        let mut work = Vec::new();
        while let Some(at) = around {
            work.extend(self.dependants(at));
            around = self.graph[at].parent;
        }
        let mut behind = HashSet::new();
        while let Some(at) = work.pop() {
            if behind.insert(at) {
                work.extend(self.dependants(at));
                work.extend(&self.graph[at].children);
            }
        }
        behind
    }

    pub(super) fn queue_undo(&mut self, ix: Ix) {
        let node = &self.graph[ix];
        let needs_lock = node.lock.is_some() && !node.holds_lock;
        self.enter(ix, if needs_lock { State::UndoLocking } else { State::UndoQueued });
    }

    pub(super) fn undo_ended(&mut self, ix: Ix, outcome: &Outcome) {
        let was_told = self.graph[ix].stopping.is_some();
        let goes_on = self.phase == Phase::Undoing || (self.graph[ix].then_rerun && self.phase == Phase::Forward);
        if *outcome == Outcome::Interrupted {
            // Over all sessions: a supervisor may take the run up again and again, and the undo kill each runner.
            let node = &mut self.graph[ix];
            node.after_undo_interruption = true;
            node.undo_interruptions += 1;
            if node.kills_its_runner() {
                let help = "look at its log; `rollback` tries it again";
                let failure = permanent("undoing it was interrupted too often", help);
                return self.undo_is_given_up(ix, failure);
            }
        }
        match outcome {
            Outcome::Succeeded { .. } => self.undo_succeeded(ix, goes_on),
            Outcome::Failed { failure } => self.undo_failed(ix, failure, goes_on),
            Outcome::Stopped | Outcome::Interrupted if was_told || !goes_on => {
                self.graph[ix].after_undo_interruption = *outcome == Outcome::Interrupted;
                self.enter(ix, State::UndoBlocked);
            }
            Outcome::Stopped | Outcome::Interrupted => {
                self.graph[ix].after_undo_interruption = true;
                self.enter(ix, State::UndoQueued);
            }
        }
    }

    fn undo_succeeded(&mut self, ix: Ix, goes_on: bool) {
        let node = &mut self.graph[ix];
        node.after_undo_interruption = false;
        node.undo_interruptions = 0;
        node.undo_failure = None;
        if let Some(inspection) = node.next_undo() {
            node.inspections[inspection].undone = true;
        }
        let has_more = node.next_undo().is_some();
        if !goes_on && has_more {
            self.enter(ix, State::UndoBlocked);
        } else if has_more {
            self.enter(ix, State::UndoQueued);
        } else if self.graph[ix].then_rerun {
            self.enter(ix, State::Blocked);
            self.forget(ix);
            self.undo_before_rerun();
            self.admit(ix);
        } else {
            self.enter(ix, State::Undone);
            if self.phase == Phase::Undoing {
                let mut work = VecDeque::new();
                self.through(ix, &mut work);
                self.undo_from(work.into());
                self.unlock_around(ix);
            }
        }
    }

    fn undo_failed(&mut self, ix: Ix, failure: &Failure, goes_on: bool) {
        let node = &mut self.graph[ix];
        node.after_undo_interruption = false;
        node.undo_failures += 1;
        node.undo_failures_now += 1;
        let is_worth_it = failure.class == ErrorClass::Transient && node.undo_failures_now < node.def.retry.attempts;
        if is_worth_it && goes_on {
            node.undo_failure = Some(failure.clone());
            self.enter(ix, State::UndoBackoff);
        } else {
            self.undo_is_given_up(ix, failure.clone());
        }
    }

    pub(super) fn undo_is_given_up(&mut self, ix: Ix, failure: Failure) {
        let node = &mut self.graph[ix];
        if node.then_rerun {
            // It was to be undone only to run again: it has failed, and a resume tries that again.
            node.failure = Some(failure);
            self.enter(ix, State::Failed);
        } else {
            node.undo_failure = Some(failure);
            self.enter(ix, State::UndoFailed);
            self.unlock_around(ix);
        }
    }

    pub(super) fn undo_command(&self, ix: Ix) -> Command {
        let node = &self.graph[ix];
        Command::Undo {
            step: node.path.clone(),
            attempt: node.undo_attempts,
            inspection: node.next_undo().unwrap_or_default(),
            interrupted: node.after_undo_interruption,
            timeout: node.def.timeout.clone(),
        }
    }

    pub(super) fn undo_timer(&self, ix: Ix) -> Command {
        let node = &self.graph[ix];
        let wait = backoff::wait(&node.def.retry, node.undo_failures_now, &[&self.run, node.path.as_str(), "undo"]);
        let asked = asked(node.undo_failure.as_ref());
        Command::StartTimer {
            timer: Timer::UndoRetry { step: node.path.clone(), failures: node.undo_failures },
            after: wait.max(asked),
        }
    }
}
