//! A driver and a world in memory: the driver keeps the four promises of a driver and no more; the world rolls dice.

use std::collections::{BTreeMap, BTreeSet};

use ferry::engine::{
    Command, Definition, Engine, Event, Node, Outcome, Resolution, RunStatus, State, StepPath, StopReason, Timer,
};
use ferry::error::{ErrorClass, Failure};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::rules::Rules;

/// An attempt or undo that is at work.
#[derive(Debug, Clone, Copy)]
struct Work {
    attempt: u32,
    told: Option<StopReason>,
}

pub struct World {
    rng: StdRng,
    crashes: f64,
    journal: Vec<Event>,
    engine: Engine,
    rules: Rules,
    /// What the engine has asked for and is not done.
    commands: Vec<Command>,
    attempts: BTreeMap<StepPath, Work>,
    undos: BTreeMap<StepPath, Work>,
    /// The lock table: it outlives the runner.
    locks: BTreeMap<String, StepPath>,
    /// How much may still go wrong.
    faults: u32,
    crashes_left: u32,
}

impl World {
    pub fn new(seed: u64, definition: Definition, crashes: f64, rng: StdRng) -> Self {
        let rules = Rules::new(&definition);
        let on_failure = definition.on_failure;
        let until = None;
        let created = Event::RunCreated {
            run: format!("run-{seed}"),
            definition: Box::new(definition),
            document: Value::Null,
            on_failure,
            until,
            by: "me@here".to_owned(),
        };
        let mut world = Self {
            rng,
            crashes,
            journal: Vec::new(),
            engine: Engine::new(),
            rules,
            commands: Vec::new(),
            attempts: BTreeMap::new(),
            undos: BTreeMap::new(),
            locks: BTreeMap::new(),
            faults: 12,
            crashes_left: 25,
        };
        world.append(created);
        world
    }

    /// What happened, for people.
    pub fn story(&self) -> String {
        use std::fmt::Write as _;
        let Some(Event::RunCreated { definition, .. }) = self.journal.first() else { return String::new() };
        let mut story = String::new();
        for def in definition.steps.iter().chain(&definition.finally) {
            let _ = writeln!(story, "{def:?}");
        }
        for event in &self.journal[1..] {
            let _ = writeln!(story, "{event:?}");
        }
        story
    }

    /// Sessions until the run has come to an end that is none: at first anything may go wrong, at last nothing.
    pub fn live(&mut self) {
        for session in 0..40 {
            self.session();
            self.rules.at_rest(&self.engine, &self.locks);
            let status = self.engine.status();
            if session > 6 {
                self.faults = 0;
                self.crashes_left = 0;
            }
            let goes_back_again = session > 3 || self.rng.random_bool(0.6);
            match status {
                RunStatus::Succeeded if self.faults > 0 && self.rng.random_bool(0.2) => {
                    let past_pivot = self.rng.random_bool(0.3);
                    self.take_up(Event::RollbackRequested { by: "me".into(), past_pivot });
                    if self.engine.is_at_rest() {
                        return; // past the pivot, and nobody said that going back is meant
                    }
                }
                RunStatus::Succeeded | RunStatus::RolledBack => return,
                RunStatus::RollbackFailed if self.faults == 0 && Rules::cannot_go_back(&self.engine) => return,
                RunStatus::Failed | RunStatus::Paused | RunStatus::Cancelled if !goes_back_again => {
                    let past_pivot = self.rng.random_bool(0.3);
                    self.take_up(Event::RollbackRequested { by: "me".into(), past_pivot });
                    if self.engine.is_at_rest() {
                        self.take_up(Event::Resumed { by: "me".into(), until: None });
                    }
                }
                RunStatus::Paused if self.rng.random_bool(0.2) => self.take_up(Event::CancelRequested { by: "me".into() }),
                _ => self.take_up(Event::Resumed { by: "me".into(), until: None }),
            }
        }
        panic!("the run never came to an end: {:?}", self.engine.status());
    }

    /// One life of a runner, or several when it crashes, until the run settles.
    fn session(&mut self) {
        for _ in 0..20_000 {
            if self.engine.is_at_rest() {
                return;
            }
            if self.crashes_left > 0 && self.rng.random_bool(self.crashes) {
                self.crashes_left -= 1;
                self.take_up(Event::Resumed { by: "me".into(), until: None });
                continue;
            }
            if self.faults > 0 && self.rng.random_bool(0.004) {
                self.faults -= 1;
                let event = if self.rng.random_bool(0.5) {
                    Event::CancelRequested { by: "me".into() }
                } else {
                    Event::RollbackRequested { by: "me".into(), past_pivot: self.rng.random_bool(0.2) }
                };
                self.append(event);
                continue;
            }
            assert!(self.move_something(), "nothing is asked, nothing is at work, and the run has not settled");
        }
        panic!("the run does not settle: {:?}, locks {:?}", self.commands, self.locks);
    }

    /// A new runner: folds the journal, which must give what the old one had, and goes on.
    fn take_up(&mut self, first: Event) {
        let mut engine = Engine::new();
        for event in &self.journal {
            engine.on(event);
        }
        assert_eq!(snapshot(&engine), snapshot(&self.engine), "a replay gives what the live run had");
        assert_eq!(
            sorted(&engine.open_commands()),
            sorted(&self.engine.open_commands()),
            "a replay asks for what the live run asked for"
        );
        self.commands.clear();
        self.attempts.clear();
        self.undos.clear();
        self.append(first);
        for event in self.engine.interrupted() {
            self.append(event);
        }
        // A lock is given back before anything else is done, as in a live run: later it may be held again.
        let (releases, commands) =
            self.engine.open_commands().into_iter().partition(|command| matches!(command, Command::ReleaseLock { .. }));
        self.commands = commands;
        for release in releases {
            self.carry_out(release);
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "an event is handed over for good")]
    fn append(&mut self, event: Event) {
        self.rules.before(&self.engine, &event);
        self.journal.push(event.clone());
        let commands = self.engine.on(&event);
        assert_eq!(self.engine.fault_found(), None, "no event of an honest driver is illegal");
        self.rules.after(&self.engine, &event);
        self.rules.locks_are_held(&self.engine, &self.locks);
        if matches!(event, Event::CancelRequested { .. }) && self.engine.status() != RunStatus::RollingBack {
            for node in self.engine.steps().filter(|node| matches!(node.state, State::Starting | State::Running)) {
                let is_told = commands.iter().any(|command| matches!(command, Command::Stop { step, .. } if *step == node.path));
                let was_told = self.attempts.get(&node.path).is_some_and(|work| work.told.is_some())
                    || self.commands.iter().any(|command| matches!(command, Command::Stop { step, .. } if *step == node.path));
                assert!(is_told || was_told, "`{}` is not told of the cancel", node.path);
            }
        }
        // Every command that a live run is given is one that a new runner would find again, or a stop.
        for command in commands {
            match command {
                Command::ReleaseLock { .. } => self.carry_out(command),
                other => self.commands.push(other),
            }
        }
    }

    /// Does one of the things that are open. Whether there was one.
    fn move_something(&mut self) -> bool {
        let at_work = self.attempts.len() + self.undos.len();
        let open = self.commands.len() + at_work;
        if open == 0 {
            return false;
        }
        let pick = self.rng.random_range(0..open);
        if pick < self.commands.len() {
            let command = self.commands.swap_remove(pick);
            self.carry_out(command);
        } else if pick - self.commands.len() < self.attempts.len() {
            let step = self.attempts.keys().nth(pick - self.commands.len()).expect("counted").clone();
            self.work_on(&step);
        } else {
            let step = self.undos.keys().nth(pick - self.commands.len() - self.attempts.len()).expect("counted").clone();
            self.work_on_undo(&step);
        }
        true
    }

    fn goes_wrong(&mut self, chance: f64) -> bool {
        let wrong = self.faults > 0 && self.rng.random_bool(chance);
        self.faults -= u32::from(wrong);
        wrong
    }

    fn failure(&mut self) -> Failure {
        let class = match self.rng.random_range(0..10) {
            0 => ErrorClass::NeedsPerson,
            1..4 => ErrorClass::Permanent,
            _ => ErrorClass::Transient,
        };
        Failure { message: "no".into(), class, help: None, retry_after: None, causes: Vec::new() }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Resolve { step } => self.resolve(step),
            Command::AcquireLock { step, lock, at_most } => match self.locks.get(&lock) {
                Some(holder) if *holder != step => {
                    // Still waiting: only while the engine wants it.
                    let waits = |node: &Node| matches!(node.state, State::Locking | State::UndoLocking);
                    if self.engine.step(&step).is_some_and(waits) {
                        if at_most.is_some() && self.goes_wrong(0.1) {
                            self.append(Event::LockTimedOut { step, lock });
                        } else {
                            self.commands.push(Command::AcquireLock { step, lock, at_most });
                        }
                    }
                }
                _ => {
                    self.locks.insert(lock.clone(), step.clone());
                    self.append(Event::LockAcquired { step, lock });
                }
            },
            Command::ReleaseLock { step, lock } => {
                if self.locks.get(&lock) == Some(&step) {
                    self.locks.remove(&lock);
                }
            }
            Command::Inspect { step } => {
                let event = if self.goes_wrong(0.05) {
                    Event::InspectFailed { step, failure: self.failure() }
                } else {
                    Event::Inspected { step, before: json!(1), config: json!({}), surroundings: Value::Null, digest: "d".into() }
                };
                self.append(event);
            }
            Command::AskApproval { step } => {
                self.append(Event::ApprovalAsked {
                    step: step.clone(),
                    message: "?".into(),
                    digest: "d".into(),
                    approvers: vec!["ann".into()],
                });
                self.answer(&step);
            }
            Command::Attempt { step, attempt, .. } => {
                assert!(!self.attempts.contains_key(&step), "one attempt of a step at a time");
                self.append(Event::AttemptStarted { step: step.clone(), attempt });
                self.attempts.insert(step, Work { attempt, told: None });
            }
            Command::Undo { step, attempt, .. } => {
                assert!(!self.undos.contains_key(&step), "one undo of a step at a time");
                self.append(Event::UndoStarted { step: step.clone(), attempt });
                self.undos.insert(step, Work { attempt, told: None });
            }
            Command::Stop { step, attempt, reason } => {
                for work in [self.attempts.get_mut(&step), self.undos.get_mut(&step)].into_iter().flatten() {
                    if work.attempt == attempt {
                        work.told = Some(reason);
                    }
                }
                self.stop_unstarted(step, attempt);
            }
            Command::StartTimer { timer, .. } => {
                // The budget of `finally` seldom runs out.
                let fires = !matches!(timer, Timer::Finally { .. } | Timer::Approval { .. }) || self.goes_wrong(0.3);
                if fires {
                    self.append(Event::TimerFired { timer });
                } else if let Timer::Approval { step } = timer {
                    self.answer(&step);
                }
            }
            Command::Measure { step, at_once } => {
                let rate = self.rng.random_range(0..1000);
                self.append(Event::Measured { step, at_once, rate });
            }
            Command::Settle { status } => self.append(Event::Settled { status }),
        }
    }

    /// A stop that overtakes its attempt: the attempt ends without having started.
    fn stop_unstarted(&mut self, step: StepPath, attempt: u32) {
        let is_it = |command: &Command| match command {
            Command::Attempt { step: s, attempt: a, .. } | Command::Undo { step: s, attempt: a, .. } => {
                *s == step && *a == attempt
            }
            _ => false,
        };
        if let Some(at) = self.commands.iter().position(is_it) {
            let outcome = Outcome::Stopped;
            let event = match self.commands.swap_remove(at) {
                Command::Undo { .. } => Event::UndoEnded { step, attempt, outcome },
                _ => Event::AttemptEnded { step, attempt, outcome },
            };
            self.append(event);
        }
    }

    fn answer(&mut self, step: &StepPath) {
        let wrong_digest = self.goes_wrong(0.1);
        if wrong_digest {
            self.append(given(step, "something else", true, "ann"));
            self.append(given(step, "d", true, "eve"));
        }
        let approved = !self.goes_wrong(0.1);
        self.append(given(step, "d", approved, "ann@there"));
    }

    fn resolve(&mut self, step: StepPath) {
        let node = self.engine.step(&step).expect("asked for");
        let (for_each, is_pipeline, is_background) = (node.def.for_each, node.is_group(), node.is_background());
        let lock = self.rng.random_bool(0.25).then(|| if self.rng.random_bool(0.5) { "l".to_owned() } else { "m".to_owned() });
        // What is inside a pipeline must not wait for that one's lock, nor what is served for that of what serves: the
        // run would say so and stop.
        let lock = lock.filter(|_| !is_background && step.parent().is_none());
        let resolution = if self.goes_wrong(0.04) {
            Resolution::Failed { failure: self.failure() }
        } else if self.rng.random_bool(0.1) {
            Resolution::Skip
        } else if for_each {
            let count = self.rng.random_range(0..4);
            Resolution::Instances { items: (0..count).map(|n| (format!("k/{n}"), json!(n))).collect() }
        } else if is_pipeline {
            Resolution::Inputs { inputs: json!({}), digest: "d".into(), lock }
        } else {
            Resolution::Run { lock }
        };
        self.append(Event::Resolved { step, resolution, operands: Value::Null });
    }

    fn work_on(&mut self, step: &StepPath) {
        let work = self.attempts[step];
        let node = self.engine.step(step).expect("at work");
        let is_background = node.is_background();
        let is_ready = node.is_ready;
        let node_passes = node.def.pivot_inside && !is_background && !node.is_finally;
        if work.told.is_none() && self.rng.random_bool(0.2) {
            return self.append(Event::Checkpoint { step: step.clone(), attempt: work.attempt, token: json!(1) });
        }
        if node_passes && self.rng.random_bool(0.3) {
            // Told to stop or not: it may not have heard of it yet.
            return self.append(Event::PivotPassed { step: step.clone(), attempt: work.attempt });
        }
        if is_background && !is_ready && work.told.is_none() && !self.goes_wrong(0.1) {
            return self.append(Event::Ready { step: step.clone(), attempt: work.attempt });
        }
        let outcome = match work.told {
            Some(StopReason::Cancelled) if self.rng.random_bool(0.7) => Outcome::Stopped,
            _ if self.goes_wrong(0.25) => Outcome::Failed { failure: self.failure() },
            // Serves until it is told that its duty is done.
            None if is_background => return,
            _ => Outcome::Succeeded { output: json!({}), warnings: 0 },
        };
        self.attempts.remove(step);
        self.append(Event::AttemptEnded { step: step.clone(), attempt: work.attempt, outcome });
    }

    fn work_on_undo(&mut self, step: &StepPath) {
        let work = self.undos[step];
        let outcome = match work.told {
            Some(_) if self.rng.random_bool(0.7) => Outcome::Stopped,
            _ if self.goes_wrong(0.2) => Outcome::Failed { failure: self.failure() },
            _ => Outcome::Succeeded { output: Value::Null, warnings: 0 },
        };
        self.undos.remove(step);
        self.append(Event::UndoEnded { step: step.clone(), attempt: work.attempt, outcome });
    }
}

fn given(step: &StepPath, digest: &str, approved: bool, by: &str) -> Event {
    Event::ApprovalGiven { step: step.clone(), digest: digest.into(), approved, by: by.into(), comment: None }
}

/// All that a person or a driver sees of the state.
fn snapshot(engine: &Engine) -> Vec<String> {
    let mut lines: Vec<String> = engine
        .steps()
        .map(|node| {
            format!(
                "{} {:?} {} {} {:?} {:?} {:?} {:?}",
                node.path, node.state, node.attempts, node.undo_attempts, node.inspections, node.output, node.failure, node.lock
            )
        })
        .collect();
    lines.push(format!("{:?} {:?} {}", engine.status(), engine.outcome(), engine.is_past_pivot()));
    lines
}

fn sorted(commands: &[Command]) -> BTreeSet<String> {
    commands.iter().map(|command| format!("{command:?}")).collect()
}
