//! A step on its way: admitted, resolved, locked, queued, inspected, tried, tried again, done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::backoff;
use super::definition::{Background, Body, Exhausted, Interrupted, OnFailure};
use super::event::{Command, Event, Outcome, Resolution, StopReason, Timer};
use super::node::{Inspection, Ix, Question, State};
use super::run::{Engine, Phase, Stop};
use crate::error::{ErrorClass, Failure};
use crate::units::Span;

impl Engine {
    /// Takes an event that the table lets through.
    pub(super) fn take(&mut self, ix: Ix, event: &Event) {
        match event {
            Event::Resolved { resolution, .. } => self.resolved(ix, resolution),
            Event::LockAcquired { .. } => {
                self.graph[ix].holds_lock = true;
                if self.graph[ix].state == State::UndoLocking {
                    self.undo_locked(ix);
                } else {
                    self.unlocked(ix);
                }
            }
            Event::LockTimedOut { .. } => self.lock_timed_out(ix),
            Event::LockBusy { holder, .. } => self.graph[ix].lock_holder = Some(holder.clone()),
            Event::Inspected { before, config, surroundings, digest, .. } => {
                if *self.surroundings != *surroundings {
                    self.surroundings = Arc::new(surroundings.clone());
                }
                let node = &mut self.graph[ix];
                node.must_inspect = false;
                node.inspections.push(Inspection {
                    config: config.clone(),
                    surroundings: self.surroundings.clone(),
                    digest: digest.clone(),
                    before: before.clone(),
                    started: false,
                    checkpoint: None,
                    undone: false,
                });
                self.start_attempt(ix);
            }
            Event::InspectFailed { failure, .. } => self.attempt_failed(ix, failure),
            Event::ApprovalAsked { message, digest, approvers, .. } => {
                let question = Question { message: message.clone(), digest: digest.clone(), approvers: approvers.clone() };
                self.graph[ix].question = Some(question);
                self.update(ix, |node| node.state = State::Awaiting);
                self.commands.extend(self.approval_timer(ix));
            }
            Event::ApprovalGiven { approved, by, comment, .. } => self.answered(ix, *approved, by, comment.as_deref()),
            Event::AttemptStarted { .. } => self.attempt_started(ix),
            Event::Ready { .. } => self.ready(ix),
            Event::Checkpoint { token, .. } => {
                let node = &mut self.graph[ix];
                node.checkpoint = Some(token.clone());
                if let Some(seen) = node.inspections.last_mut() {
                    seen.checkpoint = Some(token.clone());
                }
            }
            Event::PivotPassed { .. } => self.pivot_passed(ix),
            Event::Measured { rate, .. } => {
                self.graph[ix].pace.measured(*rate);
                self.admit_instances(ix);
                self.commands.extend(self.command_of(ix));
            }
            Event::AttemptEnded { outcome, .. } => self.attempt_ended(ix, outcome),
            Event::TimerFired { timer: Timer::Retry { .. } } => self.again_when_served(ix),
            Event::TimerFired { timer: Timer::UndoRetry { .. } } => self.enter(ix, State::UndoQueued),
            Event::TimerFired { timer: Timer::Approval { .. } } => {
                let failure = needs_person("nobody answered in time", "resume the run to ask again");
                self.graph[ix].failure = Some(failure);
                self.enter(ix, State::Failed);
            }
            Event::UndoStarted { .. } => self.update(ix, |node| node.state = State::Undoing),
            Event::UndoEnded { outcome, .. } => self.undo_ended(ix, outcome),
            // The table lets nothing else through.
            _ => self.fault(format!("{event:?} is not about a step")),
        }
    }

    /// Lets every step start that may.
    pub(super) fn admit_all(&mut self) {
        for ix in self.walk(&[self.root.as_slice(), self.finally.as_slice()].concat()) {
            self.admit(ix);
        }
    }

    /// Lets a step start if nothing is in its way.
    pub(super) fn admit(&mut self, ix: Ix) {
        let node = &self.graph[ix];
        if node.state != State::Blocked || node.is_held || self.is_waiting(ix) || !self.scope_is_open(ix) {
            return;
        }
        match node.parent {
            Some(group) if node.is_instance() => self.admit_instances(group),
            _ => self.proceed(ix),
        }
    }

    /// Starts as many instances of a `for_each` as its `max_parallel` allows, in their order.
    pub(super) fn admit_instances(&mut self, group: Ix) {
        if self.is_waiting(group) {
            return;
        }
        // From where it stopped last time: a walk over all instances at each end would make 10,000 of them quadratic.
        while self.graph[group].instances_open < self.instance_limit(group) {
            let node = &self.graph[group];
            let Some(&next) = node.children.get(node.next_instance) else { return };
            if self.graph[next].state == State::Blocked {
                if !self.scope_is_open(next) {
                    return;
                }
                self.graph[group].next_instance += 1;
                self.proceed(next);
            } else {
                self.graph[group].next_instance += 1;
            }
        }
    }

    /// The next thing a step needs before it can be tried: its templates, its lock, a place.
    fn proceed(&mut self, ix: Ix) {
        let node = &self.graph[ix];
        if node.is_background() && !node.was_started() && self.duty_is_done(ix) {
            // Nobody is left to serve. One that has served starts again, to leave its outputs: it is told at once.
            return self.enter(ix, State::Skipped);
        }
        if node.resolution.is_none() && (node.def.resolve || node.is_group() || node.is_instance()) {
            self.enter(ix, State::Resolving);
        } else if node.lock.is_some() && !node.holds_lock {
            self.enter(ix, State::Locking);
        } else {
            self.unlocked(ix);
        }
    }

    fn resolved(&mut self, ix: Ix, resolution: &Resolution) {
        match resolution {
            Resolution::Failed { failure } => return self.attempt_failed(ix, failure),
            Resolution::Run { lock } | Resolution::Inputs { lock, .. } => {
                if self.graph[ix].holds_lock && self.graph[ix].lock != *lock {
                    self.graph[ix].holds_lock = false;
                    self.give_back(ix);
                }
                self.graph[ix].lock.clone_from(lock);
            }
            Resolution::Skip | Resolution::Instances { .. } => {}
        }
        let group = self.graph[ix].is_group();
        let fits = match resolution {
            Resolution::Instances { .. } => self.graph[ix].def.for_each,
            Resolution::Inputs { .. } => group && !self.graph[ix].def.for_each,
            Resolution::Run { .. } => !group,
            _ => true,
        };
        if !fits {
            let path = self.path(ix);
            return self.fault(format!("`{path}` cannot be resolved to {resolution:?}"));
        }
        self.graph[ix].resolution = Some(resolution.clone());
        if *resolution == Resolution::Skip {
            // What an earlier session made inside is not wanted any more; a rollback still knows it.
            for child in std::mem::take(&mut self.graph[ix].children) {
                self.orphan(child);
            }
            self.enter(ix, State::Skipped);
        } else {
            self.proceed(ix);
        }
    }

    /// It has waited for its lock as long as it may. Whoever holds it may do so for days: it is not tried again by itself.
    fn lock_timed_out(&mut self, ix: Ix) {
        let node = &self.graph[ix];
        let lock = node.lock.as_deref().unwrap_or_default();
        let limit = Span(node.def.lock_wait.unwrap_or_default());
        let holder = node.lock_holder.as_ref().map(|holder| format!(": it is held by {holder}")).unwrap_or_default();
        let failure = permanent(
            &format!("the lock `{lock}` was not free within {limit}{holder}"),
            "go on when it is free, or let the step wait longer: `lock: { name: …, wait: … }`",
        );
        if node.state == State::UndoLocking { self.undo_is_given_up(ix, failure) } else { self.attempt_failed(ix, &failure) }
    }

    /// Nothing is in its way but a place; a group takes none.
    fn unlocked(&mut self, ix: Ix) {
        if self.graph[ix].is_group() { self.open(ix) } else { self.enter(ix, State::Queued) }
    }

    /// Opens a group: what is inside may start.
    fn open(&mut self, ix: Ix) {
        self.expand(ix);
        let inside = self.walk(&self.graph[ix].children.clone());
        for &inner in &inside {
            // It was interrupted while its group waited to be resolved anew.
            if self.graph[inner].state == State::Stopped {
                self.graph[inner].take_up();
            }
        }
        self.enter(ix, State::Open);
        self.recount_group(ix);
        self.admit_inside(ix);
        for &inner in inside.iter().rev() {
            self.check_group(inner);
        }
        self.check_group(ix);
        if self.graph[ix].holds_lock && self.phase == Phase::Forward {
            // What inside is undone to run again has waited for the lock.
            self.undo_before_rerun();
        }
    }

    /// Gives the free places to those who have waited longest.
    pub(super) fn fill_places(&mut self) {
        if matches!(self.phase, Phase::New | Phase::Over(_)) {
            return;
        }
        let limit = self.definition.as_ref().map_or(1, |definition| definition.max_parallel.max(1) as usize);
        while let Some(&ix) = self.queue.front() {
            let node = &self.graph[ix];
            let is_free = self.load.working < limit || (node.is_background() && node.state == State::Queued);
            match node.state {
                State::Queued | State::UndoQueued if !is_free => return,
                _ => self.queue.pop_front(),
            };
            match self.graph[ix].state {
                State::Queued if !self.scope_is_open(ix) => self.enter(ix, State::Stopped),
                State::Queued if self.is_approval(ix) => self.enter(ix, State::Asking),
                State::Queued if self.graph[ix].must_inspect => self.enter(ix, State::Inspecting),
                State::Queued => self.start_attempt(ix),
                State::UndoQueued => {
                    self.graph[ix].undo_attempts += 1;
                    self.enter(ix, State::UndoStarting);
                }
                // It was stopped while it stood in line.
                _ => {}
            }
        }
    }

    fn start_attempt(&mut self, ix: Ix) {
        self.graph[ix].attempts += 1;
        self.enter(ix, State::Starting);
    }

    fn attempt_started(&mut self, ix: Ix) {
        self.update(ix, |node| node.state = State::Running);
        self.starts += 1;
        let order = self.starts;
        let node = &mut self.graph[ix];
        if let Some(inspection) = node.inspections.last_mut() {
            inspection.started = true;
        }
        if node.start_order == 0 {
            node.start_order = order;
        }
        let mut around = Some(ix);
        while let Some(at) = around {
            let def = &self.graph[at].def;
            if def.pivot && !def.pivot_inside && !self.graph[at].is_finally {
                self.is_past_pivot = true;
                // It started before the order to stop reached it. From here on nothing goes back by itself.
                match self.phase {
                    Phase::Stopping(Stop::Rollback) if !self.past_pivot => self.phase = Phase::Stopping(Stop::Failed),
                    Phase::Stopping(Stop::RollbackCancelled) if !self.past_pivot => {
                        self.phase = Phase::Stopping(Stop::Cancelled);
                    }
                    _ => {}
                }
            }
            around = self.graph[at].parent;
        }
        let node = &self.graph[ix];
        if node.def.background.as_ref().is_some_and(|background| background.ready == Background::ReadyAtStart) {
            self.ready(ix);
        }
        if self.graph[ix].is_background() && self.duty_is_done(ix) {
            self.end_background(ix);
        }
    }

    /// A pivot inside a step was reached.
    fn pivot_passed(&mut self, ix: Ix) {
        let node = &self.graph[ix];
        self.is_past_pivot |= node.def.pivot && !node.is_finally;
    }

    fn ready(&mut self, ix: Ix) {
        if self.graph[ix].is_background() {
            self.update(ix, |node| node.is_ready = true);
            self.satisfy(ix);
            if let Some(parent) = self.graph[ix].parent {
                self.check_group(parent);
                self.group_is_ready(parent);
            }
        }
    }

    /// A `for_each` of background steps serves when every instance does.
    fn group_is_ready(&mut self, group: Ix) {
        let node = &self.graph[group];
        if node.def.for_each && node.state == State::Open && node.children.iter().all(|&child| self.graph[child].satisfies()) {
            self.satisfy(group);
        }
    }

    fn attempt_ended(&mut self, ix: Ix, outcome: &Outcome) {
        let told = self.graph[ix].stopping;
        let node = &mut self.graph[ix];
        // Told to stop before its intent was on disk, it has not acted.
        let may_have_acted = node.state == State::Running && matches!(outcome, Outcome::Stopped | Outcome::Interrupted);
        node.must_ask = may_have_acted && told != Some(StopReason::Over) && node.def.interrupted == Interrupted::AskPerson;
        match outcome {
            Outcome::Succeeded { output, warnings } => {
                // Also when it found nothing left to be done and never said so: what is behind it starts now. Not when the
                // run is going back already: what has not passed its pivot can be undone.
                if !matches!(self.phase, Phase::Stopping(Stop::Rollback | Stop::RollbackCancelled)) {
                    self.pivot_passed(ix);
                }
                let node = &mut self.graph[ix];
                node.output = Some(output.clone());
                node.warnings = *warnings;
                node.failure = None;
                node.after_interruption = false;
                node.interruptions = 0;
                self.enter(ix, State::Succeeded);
            }
            Outcome::Failed { failure } => {
                self.graph[ix].after_interruption = false;
                self.attempt_failed(ix, failure);
            }
            // It served until its end and left nothing.
            Outcome::Stopped if told == Some(StopReason::Over) => self.enter(ix, State::Succeeded),
            Outcome::Stopped if told.is_some() => self.enter(ix, State::Stopped),
            Outcome::Stopped | Outcome::Interrupted => self.attempt_interrupted(ix, told.is_some()),
        }
    }

    fn attempt_interrupted(&mut self, ix: Ix, was_told: bool) {
        let node = &mut self.graph[ix];
        node.after_interruption = true;
        // A background step lives as long as its runner: that it died with it says nothing about the step.
        if !node.is_background() {
            node.interruptions += 1;
        }
        let bound = node.def.retry.interruptions;
        if was_told || !self.scope_is_open(ix) {
            self.enter(ix, State::Stopped);
        } else if self.graph[ix].def.interrupted == Interrupted::AskPerson {
            self.needs_person(ix, "its runner died, and nothing can tell whether it has acted", ASK);
        } else if self.graph[ix].interruptions > bound {
            self.needs_person(
                ix,
                &format!("it was interrupted {} times: it may be what kills the runner", bound + 1),
                "look at its log; `resume` tries it again",
            );
        } else {
            // Not straight into the queue: its text may have been edited, then its templates come first.
            self.again_when_served(ix);
        }
    }

    /// A step that was on its way starts over, as soon as the background steps that it needs serve again: at once, if it
    /// goes first.
    fn again_when_served(&mut self, ix: Ix) {
        self.update(ix, |node| node.state = State::Blocked);
        if !self.is_waiting(ix) {
            self.proceed(ix);
        }
    }

    fn needs_person(&mut self, ix: Ix, message: &str, help: &str) {
        self.graph[ix].must_ask = false;
        self.graph[ix].failure = Some(needs_person(message, help));
        self.enter(ix, State::Paused);
    }

    /// An attempt, or what comes before one, has failed: again, or over.
    fn attempt_failed(&mut self, ix: Ix, failure: &Failure) {
        let may_go_on = self.scope_is_open(ix);
        let node = &mut self.graph[ix];
        node.failure = Some(failure.clone());
        node.failures += 1;
        node.failures_now += 1;
        let is_worth_it = failure.class == ErrorClass::Transient && node.failures_now < node.def.retry.attempts;
        // The duty of a background step may have ended while it was failing.
        let is_told = node.stopping.is_some();
        if failure.class == ErrorClass::NeedsPerson && may_go_on {
            self.enter(ix, State::Paused);
        } else if is_worth_it && may_go_on && !is_told {
            self.enter(ix, State::Backoff);
        } else if self.graph[ix].def.retry.exhausted == Exhausted::Pause && may_go_on {
            self.enter(ix, State::Paused);
        } else {
            self.enter(ix, State::Failed);
        }
    }

    fn answered(&mut self, ix: Ix, approved: bool, by: &str, comment: Option<&str>) {
        if approved {
            self.graph[ix].output = Some(json!({ "by": by, "comment": comment }));
            self.graph[ix].failure = None;
            self.enter(ix, State::Succeeded);
        } else {
            let said = comment.map(|comment| format!(": {comment}")).unwrap_or_default();
            self.graph[ix].failure =
                Some(needs_person(&format!("`{by}` said no{said}"), "resume the run to ask again, or roll it back"));
            self.enter(ix, State::Failed);
        }
    }

    /// A step has failed for good: whom does that stop?
    pub(super) fn failed(&mut self, ix: Ix) {
        let mut at = ix;
        loop {
            let node = &self.graph[at];
            if node.def.continue_on_error {
                self.is_tainted |= !node.is_finally;
                return;
            }
            let Some(group) = node.parent else { break };
            self.graph[group].is_failing = true;
            self.halt(&self.graph[group].children.clone(), false);
            at = group;
        }
        // `finally` steps do not stop each other.
        if self.phase == Phase::Forward && !self.graph[ix].is_finally {
            let goes_back = self.on_failure == OnFailure::Rollback || self.graph[ix].def.retry.exhausted == Exhausted::Rollback;
            self.stop(if goes_back && !self.is_past_pivot { Stop::Rollback } else { Stop::Failed });
        }
    }

    pub(super) fn attempt_command(&self, ix: Ix) -> Command {
        let node = &self.graph[ix];
        Command::Attempt {
            step: node.path.clone(),
            attempt: node.attempts,
            interrupted: node.after_interruption,
            timeout: node.def.timeout.clone(),
        }
    }

    pub(super) fn retry_timer(&self, ix: Ix) -> Command {
        let node = &self.graph[ix];
        let wait = backoff::wait(&node.def.retry, node.failures_now, &[&self.run, node.path.as_str()]);
        let asked = asked(node.failure.as_ref());
        Command::StartTimer { timer: Timer::Retry { step: node.path.clone(), failures: node.failures }, after: wait.max(asked) }
    }

    pub(super) fn approval_timer(&self, ix: Ix) -> Option<Command> {
        let node = &self.graph[ix];
        match node.def.body {
            Body::Approval { at_most: Some(after) } => {
                Some(Command::StartTimer { timer: Timer::Approval { step: node.path.clone() }, after })
            }
            _ => None,
        }
    }
}

/// How long the other side asked to wait.
pub(super) fn asked(failure: Option<&Failure>) -> Duration {
    failure.and_then(|failure| failure.retry_after).unwrap_or_default().min(LONGEST_ASKED)
}

/// What a person may do about a step that may have acted.
pub(super) const ASK: &str = "look at the world yourself; `resume` runs it again, `rollback` undoes it";

/// No server makes a run wait longer between two attempts.
const LONGEST_ASKED: Duration = Duration::from_hours(1);

/// A failure that only a person can do something about.
pub(super) fn needs_person(message: &str, help: &str) -> Failure {
    Failure { class: ErrorClass::NeedsPerson, ..permanent(message, help) }
}

/// A failure that the engine itself found.
pub(super) fn permanent(message: &str, help: &str) -> Failure {
    Failure {
        message: message.to_owned(),
        class: ErrorClass::Permanent,
        help: Some(help.to_owned()),
        retry_after: None,
        causes: Vec::new(),
    }
}
