//! The one place where a step changes its state: limits, quiet, dependants and groups follow from it.

use std::collections::HashSet;

use super::definition::Body;
use super::event::{Command, StopReason};
use super::node::{Ix, Node, State};
use super::run::{Engine, Phase};

impl Engine {
    /// Changes a node and keeps what is counted of it true, here and in every group around it.
    pub(super) fn update<T>(&mut self, ix: Ix, change: impl FnOnce(&mut Node) -> T) -> T {
        let node = &mut self.graph[ix];
        let occupies = |node: &Node| node.is_instance() && node.occupies_group();
        let (load_before, done_before, open_before) = (node.load(), node.is_done(), occupies(node));
        let result = change(node);
        let (load, done, open) = (node.load(), node.is_done(), occupies(node));
        let mut around = node.parent;
        if let Some(parent) = around {
            let parent = &mut self.graph[parent];
            parent.children_left = parent.children_left + usize::from(done_before) - usize::from(done);
            parent.instances_open = parent.instances_open + u32::from(open) - u32::from(open_before);
        }
        if load != load_before {
            self.load.add(load);
            self.load.subtract(load_before);
            while let Some(ix) = around {
                let group = &mut self.graph[ix];
                group.inside.add(load);
                group.inside.subtract(load_before);
                around = group.parent;
            }
        }
        result
    }

    /// Puts a step into a state, asks the driver for what that state needs, and lets everything know that hangs on it.
    pub(super) fn enter(&mut self, ix: Ix, state: State) {
        self.update(ix, |node| {
            node.state = state;
            // What was asked of the old state is settled one way or the other.
            if !matches!(state, State::Running | State::Undoing) {
                node.stopping = None;
            }
            if state != State::Running {
                node.is_ready = false;
            }
            if state != State::Awaiting {
                node.question = if state == State::Succeeded { node.question.take() } else { None };
            }
            if !matches!(state, State::Locking | State::UndoLocking) {
                node.lock_holder = None;
            }
        });
        let node = &self.graph[ix];
        if matches!(state, State::Queued | State::UndoQueued) {
            // A background step takes no place: it does not stand in line behind those that need one. And what has begun
            // to switch over does not leave clients waiting behind others.
            if state == State::Queued && (node.is_background() || node.goes_first()) {
                self.queue.push_front(ix);
            } else {
                self.queue.push_back(ix);
            }
        }
        // A paused step keeps its lock: what it left half-done is still protected.
        if state.is_over() && state != State::Paused && node.holds_lock {
            self.graph[ix].holds_lock = false;
            self.give_back(ix);
        } else if let Some(command) = self.command_of(ix) {
            self.commands.push(command);
        }
        if self.graph[ix].has_satisfied && !self.graph[ix].satisfies() {
            self.unsatisfy(ix);
        }
        if state.is_over() && !state.is_undo() {
            self.is_over(ix);
        }
    }

    /// A background step serves no more: what has not started waits for it again.
    fn unsatisfy(&mut self, ix: Ix) {
        self.graph[ix].has_satisfied = false;
        for dependant in self.dependants(ix).collect::<Vec<_>>() {
            self.graph[dependant].unmet += 1;
        }
    }

    /// Gives a step's lock back.
    pub(super) fn give_back(&mut self, ix: Ix) {
        let node = &self.graph[ix];
        if let Some(lock) = node.lock.clone() {
            self.commands.push(Command::ReleaseLock { step: node.path.clone(), lock });
        }
    }

    fn is_over(&mut self, ix: Ix) {
        if self.graph[ix].state == State::Failed {
            self.failed(ix);
        }
        if self.graph[ix].satisfies() && self.graph[ix].unmet == 0 {
            self.satisfy(ix);
        }
        if self.graph[ix].is_done() {
            self.end_backgrounds_of(ix);
        }
        if let (true, Some(parent)) = (self.graph[ix].is_instance(), self.graph[ix].parent) {
            self.admit_instances(parent);
        }
        // All the groups around: an outer one that is failing may have waited for this step.
        let mut around = self.graph[ix].parent;
        while let Some(group) = around {
            self.check_group(group);
            around = self.graph[group].parent;
        }
    }

    /// Tells the dependants, once, that this need of theirs is met. Needs hold through completed steps: where one stands
    /// between a step that runs again (after an edit, after a restart) and one that has not run, it passes the word on
    /// only when its own needs are met. A list of work instead of recursion, because such a chain may be long.
    pub(super) fn satisfy(&mut self, ix: Ix) {
        let mut work = vec![ix];
        while let Some(ix) = work.pop() {
            if std::mem::replace(&mut self.graph[ix].has_satisfied, true) {
                continue;
            }
            for dependant in self.dependants(ix).collect::<Vec<_>>() {
                self.graph[dependant].unmet -= 1;
                let node = &self.graph[dependant];
                if node.unmet == 0 && node.satisfies() {
                    work.push(dependant);
                }
                self.admit(dependant);
                if self.graph[dependant].state == State::Open {
                    self.admit_inside(dependant);
                }
            }
        }
    }

    /// Lets start what may inside a group, at any depth.
    pub(super) fn admit_inside(&mut self, group: Ix) {
        for ix in self.walk(&[group]) {
            self.graph[ix].next_instance = 0;
            self.admit(ix);
        }
    }

    /// Whether something that the step, or a group around it, needs is not there (any more).
    pub(super) fn is_waiting(&self, ix: Ix) -> bool {
        let goes_first = self.graph[ix].goes_first();
        let mut at = Some(ix);
        while let Some(ix) = at {
            if self.graph[ix].unmet > 0 && !(goes_first && self.lacks_only_service(ix)) {
                return true;
            }
            at = self.graph[ix].parent;
        }
        false
    }

    /// Whether all that it needs and has not got are background steps that do not serve (again) yet, at any distance.
    fn lacks_only_service(&self, ix: Ix) -> bool {
        let (mut work, mut seen) = (vec![ix], HashSet::new());
        while let Some(ix) = work.pop() {
            for need in self.needs(ix).filter(|&need| !self.graph[need].has_satisfied) {
                let node = &self.graph[need];
                if node.def.background.is_some() {
                    continue;
                }
                if !node.satisfies() {
                    return false;
                }
                // It is done, and says so only when what it needs is there itself.
                if seen.insert(need) {
                    work.push(need);
                }
            }
        }
        true
    }

    /// Lets the background steps end that served until this one.
    fn end_backgrounds_of(&mut self, ix: Ix) {
        let served = self.graph[ix].served_by.clone();
        for background in self.walk(&served) {
            self.end_background(background);
        }
    }

    /// Ends a background step whose duty is done.
    pub(super) fn end_background(&mut self, ix: Ix) {
        match self.graph[ix].state {
            State::Running if self.graph[ix].is_background() => self.tell_stop(ix, StopReason::Over),
            // It was failing when its duty ended: that stays the truth.
            State::Backoff => self.enter(ix, State::Failed),
            _ => {}
        }
    }

    /// Whether the step that a background step serves is done.
    pub(super) fn duty_is_done(&self, ix: Ix) -> bool {
        let mut node = &self.graph[ix];
        // The instances of a `for_each` serve the same step as their group.
        while let (true, Some(parent)) = (node.is_instance(), node.parent) {
            node = &self.graph[parent];
        }
        let Some(background) = &node.def.background else { return false };
        let until = match node.parent {
            Some(parent) => self.graph[parent].path.child(&background.until),
            None => super::path::StepPath::root(&background.until),
        };
        self.step(&until).is_some_and(Node::is_done)
    }

    /// Tells what is at work to stop. It answers with its own end.
    pub(super) fn tell_stop(&mut self, ix: Ix, reason: StopReason) {
        let node = &mut self.graph[ix];
        if node.stopping.is_some_and(|told| told == reason || told == StopReason::Cancelled) {
            return;
        }
        node.stopping = Some(reason);
        let attempt = if node.state.is_undo() { node.undo_attempts } else { node.attempts };
        self.commands.push(Command::Stop { step: node.path.clone(), attempt, reason });
    }

    /// Closes a group when all inside is done, or when it is failing and nothing inside is at work.
    pub(super) fn check_group(&mut self, ix: Ix) {
        let group = &self.graph[ix];
        if group.state != State::Open {
            return;
        }
        if group.is_failing {
            // What serves inside a failing group serves nobody any more.
            if group.inside.active == group.inside.serving && group.inside.active > 0 {
                for child in self.walk(&group.children.clone()) {
                    if self.graph[child].load().serving > 0 {
                        self.tell_stop(child, StopReason::Cancelled);
                    }
                }
            } else if group.inside.active == 0 {
                self.enter(ix, State::Failed);
            }
        } else if group.children_left == 0 {
            // Of a `for_each` with `continue_on_error`, every instance is tried, and the whole still tells the truth.
            let has_failed = group.def.for_each && group.children.iter().any(|&child| self.graph[child].state == State::Failed);
            self.enter(ix, if has_failed { State::Failed } else { State::Succeeded });
        }
    }

    /// Whether anything inside here may start: every group around it is open and not failing, and the run goes on.
    pub(super) fn scope_is_open(&self, ix: Ix) -> bool {
        let node = &self.graph[ix];
        let run_goes_on = match self.phase {
            Phase::Forward => !node.is_finally && !node.is_orphan,
            Phase::Finally(_) => node.is_finally && !self.finally_is_closed,
            _ => false,
        };
        let mut around = node.parent;
        while let Some(group) = around {
            let group = &self.graph[group];
            if group.state != State::Open || group.is_failing {
                return false;
            }
            around = group.parent;
        }
        run_goes_on
    }

    /// How many of a group's instances may be at it.
    pub(super) fn instance_limit(&self, ix: Ix) -> u32 {
        self.graph[ix].instance_limit()
    }

    pub(super) fn is_approval(&self, ix: Ix) -> bool {
        matches!(self.graph[ix].def.body, Body::Approval { .. })
    }
}
