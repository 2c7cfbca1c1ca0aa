//! A run is taken up again, with its pipeline or with an edited one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::definition::Definition;
use super::event::{Accept, StopReason};
use super::node::{Ix, Node, State};
use super::path::StepPath;
use super::run::{Engine, Phase, Stop};
use super::status::RunStatus;

impl Engine {
    pub(super) fn resume(&mut self, until: Option<&str>) {
        let goes_back = match self.phase {
            // There is nothing to go on with.
            Phase::New | Phase::Over(RunStatus::Succeeded | RunStatus::RolledBack) => return,
            Phase::Undoing
            | Phase::Stopping(Stop::Rollback | Stop::RollbackCancelled)
            | Phase::Over(RunStatus::RollingBack | RunStatus::RollbackFailed) => true,
            // The runner died in `finally`, after everything else had come to its end.
            Phase::Finally(RunStatus::Succeeded | RunStatus::RolledBack | RunStatus::RollbackFailed) => {
                self.has_settled = false;
                return self.resume_finally();
            }
            _ => false,
        };
        self.has_settled = false;
        self.stuck.clear();
        self.until = until.map(str::to_owned);
        self.try_undo_again();
        let main = self.walk(&self.root.clone());
        for &ix in &main {
            self.refresh(ix);
            self.graph[ix].is_failing = false;
            self.graph[ix].is_ready = false;
        }
        for ix in self.walk(&self.finally.clone()) {
            if self.graph[ix].state == State::Running {
                // That it was interrupted is still to be journaled.
                self.graph[ix].stopping = Some(StopReason::Cancelled);
            } else {
                self.forget(ix);
            }
        }
        if goes_back {
            self.phase = Phase::Stopping(Stop::Rollback);
            for ix in main.into_iter().chain(self.orphans.clone()) {
                match self.graph[ix].state {
                    State::UndoLocking | State::UndoQueued | State::UndoStarting | State::UndoBackoff => {
                        self.graph[ix].state = State::UndoBlocked;
                    }
                    _ => {}
                }
            }
            self.recount();
            for ix in self.walk(&self.root.clone()) {
                // Its intent never reached the disk: it has not started.
                if self.graph[ix].state == State::Starting {
                    self.enter(ix, State::Stopped);
                }
            }
            return self.halt(&self.root.clone(), true);
        }
        self.phase = Phase::Forward;
        self.is_tainted = false;
        for ix in main {
            let node = &mut self.graph[ix];
            node.stopping = None;
            match node.state {
                State::Failed | State::Stopped | State::Paused if node.is_group() && !node.children.is_empty() => node.reopen(),
                State::Failed | State::Stopped | State::Paused if node.then_rerun && node.next_undo().is_some() => {
                    node.state = State::UndoBlocked;
                }
                State::Failed | State::Stopped | State::Paused => {
                    if node.state == State::Paused {
                        // A person has looked at it. A resume by itself proves nothing: a supervisor may do it, again and
                        // again, with the step that kills the runner each time.
                        node.interruptions = 0;
                    }
                    node.take_up();
                }
                // Its text was edited while it was stopped.
                State::Blocked if node.must_ask => node.take_up(),
                _ => {}
            }
        }
        self.reopen_groups();
        self.hold_back();
        self.recount();
        self.wait_again(&self.root.clone());
        self.admit_all();
        self.undo_before_rerun();
        for ix in self.walk(&self.root.clone()).into_iter().rev() {
            self.check_group(ix);
        }
    }

    /// The background steps died with their runner, and tolerated failures are tried again: what was about to start waits
    /// for them again.
    fn wait_again(&mut self, list: &[Ix]) {
        for ix in self.walk(list) {
            let is_on_its_way = self.graph[ix].occupies_group()
                && !self.graph[ix].state.is_undo()
                && !matches!(self.graph[ix].state, State::Running | State::Open);
            if is_on_its_way && self.is_waiting(ix) {
                self.graph[ix].state = State::Blocked;
            }
            self.unlock_waiting(ix);
        }
        self.recount();
    }

    /// What it waits for again may have to be done under the same lock: it takes it anew when its turn comes.
    fn unlock_waiting(&mut self, ix: Ix) {
        let node = &self.graph[ix];
        if !node.holds_lock {
            return;
        }
        let is_resting = match node.state {
            State::Blocked => true,
            State::Open => !self.walk(&node.children).iter().any(|&inner| self.graph[inner].state == State::Running),
            _ => false,
        };
        if is_resting && self.is_waiting(ix) {
            self.graph[ix].holds_lock = false;
            self.graph[ix].state = State::Blocked;
            self.give_back(ix);
        }
    }

    /// Takes `finally` up where the runner died: what is done stays done, with a new budget.
    fn resume_finally(&mut self) {
        self.finally_session += 1;
        self.finally_is_closed = false;
        self.finally_is_cancelled = false;
        for ix in self.walk(&self.finally.clone()) {
            self.refresh(ix);
            let node = &mut self.graph[ix];
            node.is_failing = false;
            match node.state {
                State::Failed | State::Stopped | State::Paused if node.is_group() && !node.children.is_empty() => node.reopen(),
                State::Failed | State::Stopped | State::Paused => node.take_up(),
                _ => {}
            }
        }
        self.recount();
        self.wait_again(&self.finally.clone());
        self.admit_all();
    }

    /// `--until STEP`: everything that step does not need is held back.
    pub(super) fn hold_back(&mut self) {
        let wanted: Option<HashSet<Ix>> = self.until.as_ref().map(|until| {
            let mut wanted = HashSet::new();
            let mut work: Vec<Ix> = self.index.get(&StepPath::root(until)).copied().into_iter().collect();
            while let Some(ix) = work.pop() {
                if wanted.insert(ix) {
                    work.extend(self.needs(ix));
                }
            }
            wanted
        });
        for ix in self.root.clone() {
            self.graph[ix].is_held = wanted.as_ref().is_some_and(|wanted| !wanted.contains(&ix));
        }
    }

    /// The pipeline was edited between two sessions: the graph is built anew, and what has happened moves over by name.
    pub(super) fn change(
        &mut self,
        definition: &Definition,
        document: &Value,
        changed: &BTreeSet<StepPath>,
        accept: &BTreeMap<StepPath, Accept>,
    ) {
        let order = self.walk(&self.root.clone());
        let past: Vec<Node> = order.into_iter().chain(self.orphans.clone()).map(|ix| self.graph[ix].clone()).collect();
        self.graph.clear();
        self.index.clear();
        self.orphans.clear();
        self.queue.clear();
        self.document = document.clone();
        self.definition = Some(Box::new(definition.clone()));
        self.root = self.add_list(&definition.steps, None, false);
        self.finally = self.add_list(&definition.finally, None, true);
        let mut past: HashMap<StepPath, Node> = past.into_iter().map(|node| (node.path.clone(), node)).collect();
        // Parents first, so that the children that a group had are there to be adopted.
        let mut work: std::collections::VecDeque<Ix> = self.root.iter().copied().collect();
        while let Some(ix) = work.pop_front() {
            let path = self.path(ix);
            let fits = past.get(&path).is_some_and(|old| old.is_group() == self.graph[ix].is_group());
            if !fits {
                continue;
            }
            let Some(old) = past.remove(&path) else { continue };
            self.graph[ix].adopt(old);
            self.graph[ix].is_orphan = false;
            let is_changed = changed.contains(&path);
            if self.graph[ix].is_group() {
                self.adopt_group(ix, is_changed, &past);
                work.extend(self.graph[ix].children.iter().copied());
            } else if is_changed {
                self.text_changed(ix, accept.get(&path).copied());
            }
        }
        self.accept_inserted(accept);
        self.reopen_groups();
        let mut gone: Vec<Node> = past.into_values().filter(|node| !node.is_group() && node.next_undo().is_some()).collect();
        gone.sort_by_key(|node| node.start_order);
        for mut node in gone {
            node.parent = None;
            node.children.clear();
            if !node.state.is_over() && !node.state.is_undo() {
                node.state = State::Stopped;
            }
            node.is_orphan = true;
            // Its name may be taken by another kind of step now: then only that one can be spoken of.
            if !self.index.contains_key(&node.path) {
                let ix = self.add(node);
                self.orphans.push(ix);
            }
        }
        self.recount();
    }

    /// A group keeps its instances or its inner steps; whether it is done follows from them.
    fn adopt_group(&mut self, ix: Ix, is_changed: bool, past: &HashMap<StepPath, Node>) {
        if self.graph[ix].resolution.is_none() {
            return;
        }
        self.expand(ix);
        let was_complete = self.graph[ix].state == State::Succeeded;
        let knows_all = self.graph[ix].children.iter().all(|&child| past.contains_key(&self.graph[child].path));
        let node = &mut self.graph[ix];
        if is_changed || (node.def.for_each && !was_complete) {
            // The list, the condition or the inputs may say something else now: ask the templates again.
            node.resolution = None;
            node.state = State::Blocked;
        } else if !(was_complete && knows_all) && node.state != State::Skipped {
            node.reopen();
        }
    }

    /// A completed group with something inside that runs again is not complete.
    fn reopen_groups(&mut self) {
        for ix in self.walk(&self.root.clone()).into_iter().rev() {
            let node = &self.graph[ix];
            if node.state == State::Succeeded && node.children.iter().any(|&child| !self.graph[child].is_done()) {
                self.graph[ix].reopen();
            }
        }
    }

    /// A step whose text is not what it was.
    fn text_changed(&mut self, ix: Ix, accept: Option<Accept>) {
        let node = &mut self.graph[ix];
        match (node.state, accept) {
            (State::Succeeded, Some(accept)) => self.again(ix, accept),
            // Undone or being undone: the old text is what was done, and stays what is undone.
            (state, _) if state == State::Succeeded || state.is_undo() => {}
            (State::Skipped, None) => {}
            _ => {
                // It takes the new text: its templates are rendered and the world is looked at anew.
                node.resolution = None;
                node.must_inspect = true;
                node.checkpoint = None;
                if !matches!(node.state, State::Running) {
                    node.state = State::Blocked;
                }
            }
        }
    }

    fn again(&mut self, ix: Ix, accept: Accept) {
        let has_something = self.graph[ix].next_undo().is_some();
        match accept {
            Accept::Keep => {}
            Accept::UndoFirst if has_something => {
                self.graph[ix].then_rerun = true;
                self.graph[ix].state = State::UndoBlocked;
            }
            Accept::Rerun | Accept::UndoFirst => self.forget(ix),
        }
    }

    /// `--accept NEW=…` on a step that was put in front of completed ones says what becomes of those.
    fn accept_inserted(&mut self, accept: &BTreeMap<StepPath, Accept>) {
        for (path, &accept) in accept {
            let Some(&new) = self.index.get(path) else { continue };
            if accept == Accept::Keep || self.graph[new].state == State::Succeeded || self.graph[new].was_started() {
                continue;
            }
            let mut behind: Vec<Ix> = self.dependants(new).collect();
            let mut seen = HashSet::new();
            while let Some(ix) = behind.pop() {
                if !seen.insert(ix) {
                    continue;
                }
                behind.extend(self.dependants(ix));
                for inner in self.walk(&[ix]) {
                    let node = &self.graph[inner];
                    if node.state == State::Succeeded && !node.is_group() {
                        self.again(inner, accept);
                    }
                }
            }
        }
    }
}
