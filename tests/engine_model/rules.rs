//! The rules, each read from the events alone, by other means than the engine's.

use std::collections::{BTreeMap, BTreeSet};

use ferry::engine::{
    Background, Body, Definition, Engine, Event, Interrupted, Node, Outcome, Resolution, RunStatus, State, StepDef, StepPath,
    Timer, UndoDef,
};

/// What the events say so far.
pub struct Rules {
    definition: Definition,
    /// Attempts at work, background ones apart.
    at_work: BTreeSet<StepPath>,
    serving: BTreeSet<StepPath>,
    undoing: BTreeSet<StepPath>,
    /// Attempts of `finally` whose runner died and for which that is not journaled yet: `finally` starts anew, and what it
    /// held is free.
    dead: BTreeSet<StepPath>,
    ready: BTreeSet<StepPath>,
    succeeded: BTreeSet<StepPath>,
    skipped: BTreeSet<StepPath>,
    approved: BTreeSet<StepPath>,
    instances: BTreeMap<StepPath, Vec<StepPath>>,
    /// Started and not put back.
    dirty: BTreeSet<StepPath>,
    failures: BTreeMap<StepPath, u32>,
    interruptions: BTreeMap<StepPath, u32>,
    undo_interruptions: BTreeMap<StepPath, u32>,
    /// Ended with nobody knowing how far they came, must not be repeated unasked, and nobody was asked yet.
    to_ask: BTreeSet<StepPath>,
    /// The last number of each step's attempts.
    numbers: BTreeMap<StepPath, u32>,
    cancels: u32,
    is_finally_cancelled: bool,
    is_finally_out_of_time: bool,
    past_pivot: bool,
    /// Whether the last attempt that said that it passes its pivot may.
    passes: bool,
    /// Begun when the run was told to stop, or began to go back.
    told: BTreeSet<StepPath>,
    may_pass_pivot: bool,
    stopped: bool,
    /// Told to start before the run was told to stop: the stop may come too late for them.
    overtaken: BTreeSet<StepPath>,
}

impl Rules {
    pub fn new(definition: &Definition) -> Self {
        Self {
            definition: definition.clone(),
            at_work: BTreeSet::new(),
            serving: BTreeSet::new(),
            undoing: BTreeSet::new(),
            dead: BTreeSet::new(),
            ready: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            skipped: BTreeSet::new(),
            approved: BTreeSet::new(),
            instances: BTreeMap::new(),
            dirty: BTreeSet::new(),
            failures: BTreeMap::new(),
            interruptions: BTreeMap::new(),
            undo_interruptions: BTreeMap::new(),
            to_ask: BTreeSet::new(),
            numbers: BTreeMap::new(),
            cancels: 0,
            is_finally_cancelled: false,
            is_finally_out_of_time: false,
            past_pivot: false,
            passes: false,
            told: BTreeSet::new(),
            may_pass_pivot: false,
            stopped: false,
            overtaken: BTreeSet::new(),
        }
    }

    /// The list that a path's step is in, and its definition there.
    fn place(&self, path: &StepPath) -> (Vec<StepDef>, StepDef, bool) {
        let ids: Vec<String> = path.segments().map(|segment| segment.id.to_owned()).collect();
        for (top, is_finally) in [(&self.definition.steps, false), (&self.definition.finally, true)] {
            let mut list = top.clone();
            let mut found = None;
            for (depth, id) in ids.iter().enumerate() {
                found = list.iter().find(|def| def.id == *id).cloned();
                let inner = found.as_ref().and_then(|def| match &def.body {
                    Body::Pipeline(inner) => Some(inner.steps.clone()),
                    _ => None,
                });
                match (&found, inner) {
                    (Some(_), Some(inner)) if depth + 1 < ids.len() => list = inner,
                    (Some(_), _) => {}
                    (None, _) => break,
                }
            }
            if let Some(def) = found {
                return (list, def, is_finally);
            }
        }
        unreachable!("`{path}` is in no list");
    }

    pub fn before(&mut self, engine: &Engine, event: &Event) {
        match event {
            Event::AttemptStarted { step, attempt } => {
                let node = engine.step(step).expect("known");
                if node.state != State::Starting {
                    return;
                }
                let last = self.numbers.insert(step.clone(), *attempt).unwrap_or_default();
                assert!(*attempt > last, "`{step}` has two attempts {attempt}");
                assert!(!self.at_work.contains(step) && !self.serving.contains(step), "`{step}` has one attempt at a time");
                assert!(!self.succeeded.contains(step) || node.is_finally, "`{step}` is done and does not run again");
                assert!(
                    !self.stopped || node.is_finally || self.overtaken.contains(step),
                    "`{step}` starts although the run was told to stop"
                );
                assert!(!matches!(node.def.body, Body::Approval { .. }), "an approval is nothing that runs");
                assert!(!self.to_ask.contains(step), "`{step}` may have acted, and runs again without asking");
                assert!(self.undoing.is_empty() || node.is_finally, "`{step}` starts while the run goes back");
                self.needs_are_met(engine, step);
                Self::has_been_inspected(engine, step);
                if node.is_background() {
                    self.serving.insert(step.clone());
                } else {
                    self.at_work.insert(step.clone());
                }
                self.places_are_kept(engine);
                if !node.is_finally {
                    self.dirty.insert(step.clone());
                    self.past_pivot |= self.is_in_pivot(step, false);
                }
            }
            Event::PivotPassed { step, attempt } => {
                let is_at_work = self.at_work.contains(step) && self.numbers.get(step) == Some(attempt);
                self.passes = is_at_work && !self.told.contains(step);
                self.past_pivot |= self.passes && self.is_in_pivot(step, true);
            }
            Event::UndoStarted { step, .. } => {
                assert!(!self.undoing.contains(step), "`{step}` has one undo at a time");
                assert!(!self.past_pivot || self.may_pass_pivot, "`{step}` goes back past the pivot by itself");
                assert!(self.at_work.is_empty() && self.serving.is_empty(), "`{step}` goes back while others go forward");
                self.dependants_are_back(engine, step);
                self.undoing.insert(step.clone());
                assert!(self.undoing.len() <= self.definition.max_parallel as usize, "too many undos at work");
            }
            Event::ApprovalGiven { step, digest, approved, by, .. } => {
                let node = engine.step(step).expect("known");
                if node.state == State::Awaiting && digest == "d" && by.starts_with("ann") && *approved {
                    self.approved.insert(step.clone());
                }
            }
            Event::AttemptEnded { step, outcome: Outcome::Succeeded { .. }, .. } => {
                // What is behind it starts now, whether it has said that it passed its pivot or not.
                self.past_pivot |= engine.status() != RunStatus::RollingBack && self.is_in_pivot(step, true);
            }
            Event::AttemptEnded { step, outcome: Outcome::Stopped | Outcome::Interrupted, .. } => {
                let node = engine.step(step).expect("known");
                let is_asked = node.def.interrupted == Interrupted::AskPerson && !node.is_background();
                if node.state == State::Running && is_asked && !node.is_finally {
                    self.to_ask.insert(step.clone());
                }
            }
            Event::CancelRequested { .. } | Event::RollbackRequested { .. } => {
                self.overtaken =
                    engine.steps().filter(|node| node.state == State::Starting).map(|node| node.path.clone()).collect();
                // What the steps came to is told only while `finally` runs.
                let is_in_finally = engine.outcome() != engine.status();
                self.is_finally_cancelled |= is_in_finally && matches!(event, Event::CancelRequested { .. });
            }
            _ => {}
        }
    }

    pub fn after(&mut self, engine: &Engine, event: &Event) {
        match event {
            Event::PivotPassed { step, .. } => {
                assert_eq!(!engine.has_dropped(), self.passes, "`{step}` passes its pivot unless it was told to stop");
            }
            Event::Resumed { .. } => {
                let is_finally = |step: &&StepPath| engine.step(step).is_some_and(|node| node.is_finally);
                self.dead = self.at_work.iter().chain(&self.serving).filter(is_finally).cloned().collect();
                self.told.clear();
                self.stopped = false;
                self.cancels = 0;
                self.is_finally_cancelled = false;
                self.is_finally_out_of_time = false;
                self.failures.clear();
                self.ready.clear();
            }
            Event::CancelRequested { .. } => {
                self.stopped = true;
                self.cancels += 1;
            }
            Event::TimerFired { timer: Timer::Finally { .. } } => self.is_finally_out_of_time = true,
            Event::RollbackRequested { past_pivot, .. } if *past_pivot || !self.past_pivot => {
                self.is_finally_out_of_time = false;
                self.stopped = true;
                self.may_pass_pivot |= past_pivot;
            }
            Event::Resolved { step, resolution: Resolution::Skip, .. }
                if engine.step(step).is_some_and(|n| n.state == State::Skipped) =>
            {
                self.skipped.insert(step.clone());
            }
            Event::Resolved { step, resolution: Resolution::Instances { items }, .. } => {
                self.instances.insert(step.clone(), items.iter().map(|(key, _)| step.instance(key)).collect());
            }
            Event::AttemptStarted { step, .. } => {
                let def = &engine.step(step).expect("known").def;
                if def.background.as_ref().is_some_and(|background| background.ready == Background::ReadyAtStart) {
                    self.ready.insert(step.clone());
                }
            }
            Event::Ready { step, .. } => {
                self.ready.insert(step.clone());
            }
            Event::AttemptEnded { step, outcome, .. } => {
                self.told.remove(step);
                self.dead.remove(step);
                self.at_work.remove(step);
                self.serving.remove(step);
                match outcome {
                    Outcome::Succeeded { .. } => {
                        self.succeeded.insert(step.clone());
                        self.failures.remove(step);
                    }
                    Outcome::Failed { .. } => {
                        let (_, def, _) = self.place(step);
                        let failures = self.failures.entry(step.clone()).or_default();
                        *failures += 1;
                        assert!(
                            *failures <= def.retry.attempts || engine.step(step).is_some_and(|n| n.is_finally),
                            "`{step}` was tried too often"
                        );
                    }
                    Outcome::Interrupted => {
                        let node = engine.step(step).expect("known");
                        let interruptions = self.interruptions.entry(step.clone()).or_default();
                        *interruptions += u32::from(!node.is_background() && !node.is_finally);
                        if node.def.interrupted == Interrupted::AskPerson && !node.is_finally {
                            let waits = matches!(node.state, State::Paused | State::Stopped) || node.state.is_undo();
                            assert!(waits, "`{step}` may have acted, and goes on as {:?} without asking", node.state);
                        }
                        let bound = node.def.retry.interruptions + 1;
                        assert!(*interruptions <= bound, "`{step}` was interrupted {interruptions} times and nobody was asked");
                    }
                    Outcome::Stopped => {}
                }
            }
            Event::UndoEnded { step, outcome, .. } => {
                self.undoing.remove(step);
                let node = engine.step(step).expect("known");
                let interruptions = self.undo_interruptions.entry(step.clone()).or_default();
                *interruptions += u32::from(*outcome == Outcome::Interrupted);
                let bound = node.def.retry.interruptions + 1;
                assert!(*interruptions <= bound, "undoing `{step}` was interrupted {interruptions} times and nobody was asked");
                if matches!(outcome, Outcome::Succeeded { .. }) && engine.step(step).is_some_and(|n| n.next_undo().is_none()) {
                    self.dirty.remove(step);
                }
            }
            _ => {}
        }
        if self.stopped || engine.status() == RunStatus::RollingBack {
            let begun = engine.steps().filter(|node| matches!(node.state, State::Starting | State::Running));
            self.told.extend(begun.map(|node| node.path.clone()));
        }
        for node in engine.steps() {
            if matches!(node.state, State::Paused | State::Succeeded) {
                self.interruptions.remove(&node.path);
            }
            if matches!(node.state, State::UndoFailed | State::Undone) {
                self.undo_interruptions.remove(&node.path);
            }
            if node.state == State::Paused || node.state.is_undo() {
                self.to_ask.remove(&node.path);
            }
            if node.state == State::Succeeded && matches!(node.def.body, Body::Approval { .. }) && !node.is_group() {
                assert!(self.approved.contains(&node.path), "`{}` succeeded and nobody approved", node.path);
            }
        }
    }

    /// What is at work inside a group that has a lock is at work under it, and so is every step under its own.
    pub fn locks_are_held(&self, engine: &Engine, locks: &BTreeMap<String, StepPath>) {
        for step in self.at_work.iter().chain(&self.serving).chain(&self.undoing).filter(|step| !self.dead.contains(*step)) {
            let mut at = Some(step.clone());
            while let Some(path) = at {
                if let Some(lock) = engine.step(&path).and_then(|node| node.lock.as_ref()) {
                    assert_eq!(locks.get(lock), Some(&path), "`{step}` is at work while `{path}` does not hold `{lock}`");
                }
                at = path.parent();
            }
        }
    }

    /// Whether it is, or is part of, a pivot that lies inside its steps, or one that is passed with the first start.
    fn is_in_pivot(&self, path: &StepPath, inside: bool) -> bool {
        let mut at = Some(path.clone());
        while let Some(path) = at {
            let (_, def, _) = self.place(&path);
            if def.pivot && def.pivot_inside == inside {
                return true;
            }
            at = path.parent();
        }
        false
    }

    fn places_are_kept(&self, engine: &Engine) {
        assert!(self.at_work.len() <= self.definition.max_parallel as usize, "too many steps at work: {:?}", self.at_work);
        for (group, instances) in &self.instances {
            let busy = instances
                .iter()
                .filter(|instance| {
                    self.at_work.iter().chain(&self.serving).any(|step| step.as_str().starts_with(instance.as_str()))
                })
                .count();
            let limit = engine.step(group).map(Node::instance_limit);
            // One that is found to be too many is not stopped.
            let tolerated = engine.step(group).is_some_and(|node| node.pace.has_settled);
            let limit = limit.map(|limit| limit.saturating_add(u32::from(tolerated)));
            assert!(limit.is_none_or(|limit| busy <= limit as usize), "too many instances of `{group}` at work");
        }
    }

    fn has_been_inspected(engine: &Engine, step: &StepPath) {
        assert!(!engine.step(step).expect("known").inspections.is_empty(), "`{step}` starts before anything looked at the world");
    }

    /// Walks from a step outwards: at each level everything it needs is over, by the events. A step that has a pivot inside
    /// and was begun before does not wait until background steps serve again: what it left half-way may keep them from it.
    fn needs_are_met(&self, engine: &Engine, step: &StepPath) {
        let is_finally = engine.step(step).expect("known").is_finally;
        let (_, own, _) = self.place(step);
        let goes_first = own.pivot_inside && !is_finally && own.background.is_none() && self.dirty.contains(step);
        let mut at = Some(step.clone());
        while let Some(path) = at {
            if path.key().is_none() {
                let (_, def, _) = self.place(&path);
                for need in &def.needs {
                    let need = match path.parent() {
                        Some(parent) => parent.child(need),
                        None => StepPath::root(need),
                    };
                    // `finally` starts anew each time, so that the events of an earlier time say nothing of this one.
                    let is_met = if is_finally { is_over_now(engine, &need) } else { self.is_met(engine, &need) };
                    let is_met = is_met || (goes_first && self.place(&need).1.background.is_some());
                    assert!(is_met, "`{step}` starts before `{need}` is over");
                }
            }
            at = path.parent();
        }
    }

    fn is_met(&self, engine: &Engine, need: &StepPath) -> bool {
        let node = engine.step(need).expect("known");
        let (_, def, _) = self.place(need);
        if self.skipped.contains(need) || self.succeeded.contains(need) || self.approved.contains(need) {
            return true;
        }
        if node.state == State::Skipped && def.background.is_some() {
            return true; // what it was to serve was over before it could start
        }
        let is_tolerated = def.continue_on_error && node.state == State::Failed;
        // It served when the step was let in; that it stops serving before the step's intent is on disk is a race that
        // nobody can win.
        let is_served = def.background.is_some() && (self.ready.contains(need) || !node.is_background());
        if let Some(instances) = self.instances.get(need) {
            return is_tolerated || instances.iter().all(|instance| self.is_met(engine, instance) || is_served);
        }
        if let (Body::Pipeline(inner), false) = (&def.body, def.for_each && need.key().is_none()) {
            return is_tolerated || inner.steps.iter().all(|def| self.is_met(engine, &need.child(&def.id)));
        }
        is_tolerated || is_served
    }

    /// Everything that needs this step, or is inside what needs it, has been put back before.
    fn dependants_are_back(&self, engine: &Engine, step: &StepPath) {
        let mut at = Some(step.clone());
        while let Some(path) = at {
            if path.key().is_none() {
                let (list, own, _) = self.place(&path);
                for other in list.iter().filter(|other| other.needs.contains(&own.id)) {
                    let dependant = match path.parent() {
                        Some(parent) => parent.child(&other.id),
                        None => StepPath::root(&other.id),
                    };
                    for dirty in &self.dirty {
                        let is_inside = *dirty == dependant
                            || dirty.as_str().strip_prefix(dependant.as_str()).is_some_and(|rest| rest.starts_with(['/', '[']));
                        if is_inside {
                            let undo = engine.step(dirty).expect("known").state;
                            assert_eq!(undo, State::Undone, "`{step}` goes back before `{dirty}`");
                        }
                    }
                }
            }
            at = path.parent();
        }
    }

    /// Whether some started step cannot be undone, so that a rollback cannot become whole.
    pub fn cannot_go_back(engine: &Engine) -> bool {
        engine.left_behind().any(|node| node.def.undo == UndoDef::Impossible)
    }

    pub fn at_rest(&self, engine: &Engine, locks: &BTreeMap<String, StepPath>) {
        let status = engine.status();
        assert!(self.at_work.is_empty() && self.serving.is_empty() && self.undoing.is_empty(), "something is at work at rest");
        let main = || engine.steps().filter(|node| !node.is_finally);
        if status == RunStatus::Succeeded {
            assert!(
                engine.steps().all(|node| matches!(node.state, State::Succeeded | State::Skipped)
                    || node.def.continue_on_error && node.is_finally),
                "a run that succeeded has nothing that did not"
            );
        }
        if main().any(|node| node.state == State::Failed) {
            assert!(status != RunStatus::Succeeded, "a failure never becomes a success");
        }
        if status == RunStatus::RolledBack {
            assert!(main().all(|node| node.next_undo().is_none()), "a run that is rolled back has left nothing behind");
        }
        if status == RunStatus::RollbackFailed {
            assert!(engine.left_behind().next().is_some(), "a rollback that failed names what it left behind");
        }
        let has_ended = !matches!(status, RunStatus::Paused | RunStatus::RollingBack | RunStatus::Waiting | RunStatus::Running);
        // A cancel while `finally` runs, and its budget, end it.
        let is_cut_short =
            self.is_finally_out_of_time || self.is_finally_cancelled || self.cancels > u32::from(status == RunStatus::Cancelled);
        if has_ended && !is_cut_short {
            let untouched = engine.steps().find(|node| {
                node.is_finally && node.state == State::Blocked && node.path.parent().is_none() && node.def.needs.is_empty()
            });
            assert!(untouched.is_none(), "`finally` has run: {:?}", untouched.map(|node| &node.path));
        }
        for (lock, holder) in locks {
            let state = engine.step(holder).expect("known").state;
            assert!(state == State::Paused || !state.is_over(), "`{holder}` is {state:?} and still holds `{lock}`");
        }
    }
}

fn is_over_now(engine: &Engine, need: &StepPath) -> bool {
    let node = engine.step(need).expect("known");
    let is_served = node.def.background.is_some() && node.was_started() || node.def.for_each;
    matches!(node.state, State::Succeeded | State::Skipped)
        || is_served
        || (node.state == State::Failed && node.def.continue_on_error)
}
