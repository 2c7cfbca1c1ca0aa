//! What an edited pipeline means for a run that has done a part of it: each case of the design by name, on the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferry::engine::edit::{ChangeKind, compare};
use ferry::engine::{
    Accept, Body, Command, Definition, Engine, Event, Interrupted, OnFailure, Outcome, Resolution, Retry, RunStatus, State,
    StepDef, StepPath, Timeout, UndoDef,
};
use ferry::error::{ErrorClass, Failure};
use serde_json::{Value, json};

/// A driver that does everything at once and writes down what it did.
struct Driver {
    engine: Engine,
    journal: Vec<Event>,
    /// `run a`, `undo a`, in order.
    did: Vec<String>,
    /// Steps whose attempts fail.
    broken: BTreeSet<String>,
    /// What the `for_each` lists say.
    lists: BTreeMap<String, Vec<String>>,
    /// Which steps have a lock: all the same one.
    locked: BTreeSet<String>,
    /// Who holds it first, and who waits for it.
    held: Vec<StepPath>,
}

impl Driver {
    fn start(definition: Definition, broken: &[&str], lists: &[(&str, &[&str])]) -> Self {
        Self::start_locked(definition, broken, lists, &[])
    }

    fn start_locked(definition: Definition, broken: &[&str], lists: &[(&str, &[&str])], locked: &[&str]) -> Self {
        let mut driver = Self {
            engine: Engine::new(),
            journal: Vec::new(),
            did: Vec::new(),
            broken: BTreeSet::new(),
            lists: BTreeMap::new(),
            locked: locked.iter().map(|&id| id.to_owned()).collect(),
            held: Vec::new(),
        };
        driver.set(broken, lists);
        let event = Event::RunCreated {
            run: "r".into(),
            definition: Box::new(definition),
            document: Value::Null,
            on_failure: OnFailure::Stop,
            until: None,
            by: "me".into(),
        };
        let commands = driver.append(event);
        driver.carry_out(commands);
        driver
    }

    fn set(&mut self, broken: &[&str], lists: &[(&str, &[&str])]) {
        self.broken = broken.iter().map(|&id| id.to_owned()).collect();
        self.lists = lists.iter().map(|(id, keys)| ((*id).to_owned(), keys.iter().map(|&k| k.to_owned()).collect())).collect();
        self.did.clear();
    }

    fn append(&mut self, event: Event) -> Vec<Command> {
        let commands = self.engine.on(&event);
        assert_eq!(self.engine.fault_found(), None);
        self.journal.push(event);
        commands
    }

    fn resume_with(&mut self, definition: Definition, changed: &[&str], accept: &[(&str, Accept)]) -> RunStatus {
        let path = |id: &str| StepPath::from(id);
        self.append(Event::PipelineChanged {
            definition: Box::new(definition),
            document: Value::Null,
            changed: changed.iter().map(|&id| path(id)).collect(),
            accept: accept.iter().map(|&(id, accept)| (path(id), accept)).collect(),
            by: "me".into(),
        });
        self.append(Event::Resumed { by: "me".into(), until: None });
        let commands = self.engine.open_commands();
        self.carry_out(commands);
        self.replay_is_the_same();
        self.engine.status()
    }

    fn roll_back(&mut self) -> RunStatus {
        self.did.clear();
        let commands = self.append(Event::RollbackRequested { by: "me".into(), past_pivot: false });
        self.carry_out(commands);
        self.engine.status()
    }

    fn replay_is_the_same(&self) {
        let mut again = Engine::new();
        for event in &self.journal {
            again.on(event);
        }
        let states = |engine: &Engine| engine.steps().map(|node| (node.path.clone(), node.state)).collect::<Vec<_>>();
        assert_eq!(states(&again), states(&self.engine));
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        let mut work: std::collections::VecDeque<Command> = commands.into();
        while let Some(command) = work.pop_front() {
            let events = match command {
                Command::AcquireLock { step, lock, .. } => {
                    self.held.push(step.clone());
                    if self.held.len() == 1 { vec![Event::LockAcquired { step, lock }] } else { Vec::new() }
                }
                Command::ReleaseLock { step, lock } => {
                    let was_first = self.held.first() == Some(&step);
                    self.held.retain(|holder| *holder != step);
                    let next = self.held.first().filter(|_| was_first).cloned();
                    next.map(|step| Event::LockAcquired { step, lock }).into_iter().collect()
                }
                Command::Resolve { step } => {
                    let lock = self.locked.contains(step.as_str()).then(|| "l".to_owned());
                    let resolution = match self.lists.get(step.as_str()) {
                        Some(keys) => Resolution::Instances { items: keys.iter().map(|key| (key.clone(), json!(key))).collect() },
                        None if self.engine.step(&step).is_some_and(ferry::engine::Node::is_group) => {
                            Resolution::Inputs { inputs: json!({}), digest: String::new(), lock }
                        }
                        None => Resolution::Run { lock },
                    };
                    vec![Event::Resolved { step, resolution, operands: Value::Null }]
                }
                Command::Inspect { step } => {
                    vec![Event::Inspected {
                        step,
                        before: json!(null),
                        config: json!({}),
                        surroundings: Value::Null,
                        digest: String::new(),
                    }]
                }
                Command::Attempt { step, attempt, .. } => {
                    self.did.push(format!("run {step}"));
                    let outcome = if self.broken.contains(step.as_str()) {
                        failed()
                    } else {
                        Outcome::Succeeded { output: json!({}), warnings: 0 }
                    };
                    vec![Event::AttemptStarted { step: step.clone(), attempt }, Event::AttemptEnded { step, attempt, outcome }]
                }
                Command::Undo { step, attempt, .. } => {
                    let what = format!("undo {step}");
                    let outcome = if self.broken.contains(&what) {
                        failed()
                    } else {
                        Outcome::Succeeded { output: Value::Null, warnings: 0 }
                    };
                    self.did.push(what);
                    vec![Event::UndoStarted { step: step.clone(), attempt }, Event::UndoEnded { step, attempt, outcome }]
                }
                Command::Settle { status } => vec![Event::Settled { status }],
                _ => Vec::new(),
            };
            for event in events {
                work.extend(self.append(event));
            }
        }
    }
}

fn failed() -> Outcome {
    let message = "broken".into();
    let failure = Failure { message, class: ErrorClass::Permanent, help: None, retry_after: None, causes: Vec::new() };
    Outcome::Failed { failure }
}

fn step(id: &str, needs: &[&str]) -> StepDef {
    StepDef {
        id: id.into(),
        name: None,
        uses: "test".into(),
        body: Body::Task,
        needs: needs.iter().map(|&need| need.to_owned()).collect(),
        resolve: false,
        for_each: false,
        max_parallel: None,
        retry: Retry::default(),
        timeout: Timeout::default(),
        pivot: false,
        pivot_inside: false,
        background: None,
        undo: UndoDef::Built,
        continue_on_error: false,
        lock_wait: None,
        placement: None,
        interrupted: Interrupted::LookFirst,
    }
}

fn for_each(id: &str, needs: &[&str]) -> StepDef {
    StepDef { for_each: true, resolve: true, ..step(id, needs) }
}

fn module(id: &str, needs: &[&str], inner: &[StepDef]) -> StepDef {
    StepDef { resolve: true, body: Body::Pipeline(Box::new(pipeline(inner))), ..step(id, needs) }
}

fn pipeline(steps: &[StepDef]) -> Definition {
    Definition {
        name: "p".into(),
        steps: steps.to_vec(),
        finally: Vec::new(),
        max_parallel: 1,
        on_failure: OnFailure::Stop,
        finally_budget: Duration::from_mins(1),
    }
}

fn kinds(engine: &Engine, new: &Definition, changed: &[&str]) -> Vec<(String, String, bool)> {
    let changed = changed.iter().map(|&id| StepPath::from(id)).collect();
    compare(engine, new, &changed)
        .into_iter()
        .map(|change| {
            let kind = match change.kind {
                ChangeKind::InsertedBefore { completed } => format!("InsertedBefore {completed:?}"),
                other => format!("{other:?}"),
            };
            (change.step.to_string(), kind, change.needs_accept)
        })
        .collect()
}

fn told(step: &str, kind: &str, needs_accept: bool) -> (String, String, bool) {
    (step.into(), kind.into(), needs_accept)
}

#[test]
fn a_step_not_yet_run_takes_the_new_text() {
    let old = pipeline(&[step("a", &[]), step("b", &["a"])]);
    let mut driver = Driver::start(old.clone(), &["b"], &[]);
    assert_eq!(driver.engine.status(), RunStatus::Failed);
    assert_eq!(kinds(&driver.engine, &old, &["b"]), [told("b", "Changed", false)]);
    driver.set(&[], &[]);
    assert_eq!(driver.resume_with(old, &["b"], &[]), RunStatus::Succeeded);
    assert_eq!(driver.did, ["run b"]);
    // It was started twice with different texts: both are put back.
    assert_eq!(driver.roll_back(), RunStatus::RolledBack);
    assert_eq!(driver.did, ["undo b", "undo b", "undo a"]);
}

#[test]
fn a_changed_completed_step_is_refused_until_it_is_said_what_is_meant() {
    let old = pipeline(&[step("a", &[]), step("b", &["a"])]);
    let start = || Driver::start(old.clone(), &["b"], &[]);
    assert_eq!(kinds(&start().engine, &old, &["a"]), [told("a", "ChangedCompleted", true)]);
    let with = |accept| {
        let mut driver = start();
        driver.set(&[], &[]);
        assert_eq!(driver.resume_with(old.clone(), &["a"], &[("a", accept)]), RunStatus::Succeeded);
        driver.did
    };
    assert_eq!(with(Accept::Keep), ["run b"]);
    assert_eq!(with(Accept::Rerun), ["run a", "run b"]);
    assert_eq!(with(Accept::UndoFirst), ["undo a", "run a", "run b"]);
}

#[test]
fn a_step_inserted_before_completed_ones_is_refused_until_it_is_said_what_is_meant() {
    let old = pipeline(&[step("a", &[]), step("b", &["a"]), step("c", &["b"])]);
    let new = pipeline(&[step("new", &[]), step("a", &["new"]), step("b", &["a"]), step("c", &["b"])]);
    let start = || Driver::start(old.clone(), &["c"], &[]);
    assert_eq!(kinds(&start().engine, &new, &[]), [told("new", "InsertedBefore [a, b]", true)]);
    let with = |accept| {
        let mut driver = start();
        driver.set(&[], &[]);
        assert_eq!(driver.resume_with(new.clone(), &[], &[("new", accept)]), RunStatus::Succeeded);
        driver.did
    };
    assert_eq!(with(Accept::Keep), ["run new", "run c"]);
    assert_eq!(with(Accept::Rerun), ["run new", "run a", "run b", "run c"]);
    let undone_first = with(Accept::UndoFirst);
    let at = |what: &str| undone_first.iter().position(|did| did == what).expect("done");
    assert!(at("undo b") < at("undo a") && at("undo a") < at("run a") && at("run a") < at("run b"), "{undone_first:?}");
}

#[test]
fn needs_hold_through_a_completed_step_that_is_kept() {
    // The last step stands first in the file: only what it needs keeps it from running first.
    let old = pipeline(&[step("c", &["b"]), step("b", &["a"]), step("a", &[])]);
    let new = pipeline(&[step("c", &["b"]), step("b", &["a"]), step("a", &["new"]), step("new", &[])]);
    let with = |definition: &Definition, changed: &[&str], id: &str, accept| {
        let mut driver = Driver::start(old.clone(), &["c"], &[]);
        driver.set(&[], &[]);
        assert_eq!(driver.resume_with(definition.clone(), changed, &[(id, accept)]), RunStatus::Succeeded);
        driver.did
    };
    assert_eq!(with(&old, &["a"], "a", Accept::Rerun), ["run a", "run c"]);
    assert_eq!(with(&old, &["a"], "a", Accept::UndoFirst), ["undo a", "run a", "run c"]);
    assert_eq!(with(&new, &[], "new", Accept::Keep), ["run new", "run c"]);
}

#[test]
fn a_step_added_where_nothing_was_done_just_runs() {
    let old = pipeline(&[step("a", &[]), step("b", &["a"])]);
    let new = pipeline(&[step("a", &[]), step("new", &["a"]), step("b", &["new"])]);
    let mut driver = Driver::start(old, &["b"], &[]);
    // `b` was started and failed: it is not completed, and runs again behind what it lacked.
    assert_eq!(kinds(&driver.engine, &new, &[]), [told("new", "Added", false)]);
    driver.set(&[], &[]);
    assert_eq!(driver.resume_with(new, &[], &[]), RunStatus::Succeeded);
    assert_eq!(driver.did, ["run new", "run b"]);
}

#[test]
fn a_removed_step_that_was_started_is_still_undone() {
    let old = pipeline(&[step("a", &[]), step("b", &["a"]), step("c", &["b"]), step("d", &["c"])]);
    let new = pipeline(&[step("a", &[]), step("d", &["a"])]);
    let mut driver = Driver::start(old, &["c"], &[]);
    assert_eq!(kinds(&driver.engine, &new, &[]), [told("b", "RemovedStarted", false), told("c", "RemovedStarted", false)]);
    driver.set(&[], &[]);
    assert_eq!(driver.resume_with(new, &[], &[]), RunStatus::Succeeded);
    assert_eq!(driver.did, ["run d"]);
    assert_eq!(driver.roll_back(), RunStatus::RolledBack);
    assert_eq!(driver.did, ["undo d", "undo c", "undo b", "undo a"], "the last started goes first");
}

#[test]
fn a_removed_step_goes_back_between_what_was_started_later_and_what_was_started_earlier() {
    let old = pipeline(&[step("a", &[]), step("db", &["a"]), step("rows", &["db"]), step("fail", &["rows"])]);
    let new = pipeline(&[step("a", &[]), step("rows", &[]), step("fail", &["rows"])]);
    let start = |stays: &[&str]| {
        let mut driver = Driver::start(old.clone(), &["fail"], &[]);
        driver.set(&["fail"], &[]);
        assert_eq!(driver.resume_with(new.clone(), &[], &[]), RunStatus::Failed);
        driver.set(stays, &[]);
        driver
    };
    let mut driver = start(&[]);
    assert_eq!(driver.roll_back(), RunStatus::RolledBack);
    assert_eq!(driver.did, ["undo fail", "undo rows", "undo db", "undo a"]);
    // What was started later stays: nothing under it goes back before it does.
    for (stays, first, second) in [
        ("undo rows", &["undo fail", "undo rows"][..], &["undo rows", "undo db", "undo a"][..]),
        ("undo db", &["undo fail", "undo rows", "undo db"], &["undo db", "undo a"]),
    ] {
        let mut driver = start(&[stays]);
        assert_eq!(driver.roll_back(), RunStatus::RollbackFailed);
        assert_eq!(driver.did, first);
        driver.set(&[], &[]);
        assert_eq!(driver.roll_back(), RunStatus::RolledBack);
        assert_eq!(driver.did, second);
        driver.replay_is_the_same();
    }
}

#[test]
fn a_group_with_a_lock_lets_a_removed_step_go_back_under_the_same_lock() {
    let locking = |id: &str, needs: &[&str]| StepDef { resolve: true, ..step(id, needs) };
    let inside = [step("early", &[]), step("mid", &["early"]), step("late", &["mid"])];
    let group = StepDef { continue_on_error: true, ..module("m", &[], &inside) };
    let old = pipeline(&[group.clone(), locking("gone", &["m"])]);
    let mut driver = Driver::start_locked(old, &["m/mid"], &[], &["m", "gone"]);
    assert_eq!(driver.did, ["run m/early", "run m/mid", "run gone"]);
    driver.set(&[], &[]);
    assert_eq!(driver.resume_with(pipeline(&[group]), &[], &[]), RunStatus::Succeeded);
    assert_eq!(driver.roll_back(), RunStatus::RolledBack);
    assert_eq!(driver.did, ["undo m/late", "undo gone", "undo m/mid", "undo m/early"]);
    assert!(driver.held.is_empty(), "{:?}", driver.held);
    driver.replay_is_the_same();
}

#[test]
fn a_group_that_waits_for_a_removed_step_does_not_keep_the_lock_from_it() {
    let group = module("m", &[], &[step("x", &[])]);
    let gone = StepDef { resolve: true, ..step("gone", &["m"]) };
    let old = pipeline(&[group.clone(), gone, step("last", &["gone"])]);
    let mut driver = Driver::start_locked(old, &["last"], &[], &["m", "gone"]);
    driver.set(&[], &[]);
    assert_eq!(driver.resume_with(pipeline(&[group, step("last", &["m"])]), &[], &[]), RunStatus::Succeeded);
    assert_eq!(driver.roll_back(), RunStatus::RolledBack);
    assert_eq!(driver.did, ["undo last", "undo gone", "undo m/x"]);
    assert!(driver.held.is_empty(), "{:?}", driver.held);

    // Nothing keeps the group from being opened before the removed step's turn: it hands the lock over.
    let group = module("m", &[], &[step("x", &[])]);
    let old = pipeline(&[group.clone(), StepDef { resolve: true, ..step("gone", &["m"]) }, step("last", &["gone"])]);
    let mut driver = Driver::start_locked(old, &["last"], &[], &["m", "gone"]);
    driver.set(&["last"], &[]);
    assert_eq!(driver.resume_with(pipeline(&[group, step("last", &[])]), &[], &[]), RunStatus::Failed);
    assert_eq!(driver.roll_back(), RunStatus::RolledBack);
    assert_eq!(driver.did, ["undo last", "undo gone", "undo m/x"]);
    assert!(driver.held.is_empty(), "{:?}", driver.held);
    driver.replay_is_the_same();
}

#[test]
fn a_removed_step_that_never_started_is_forgotten() {
    let old = pipeline(&[step("a", &[]), step("b", &["a"]), step("c", &["b"])]);
    let new = pipeline(&[step("a", &[]), step("b", &["a"])]);
    let mut driver = Driver::start(old, &["b"], &[]);
    assert_eq!(kinds(&driver.engine, &new, &[]), [told("c", "Removed", false)]);
    driver.set(&[], &[]);
    assert_eq!(driver.resume_with(new, &[], &[]), RunStatus::Succeeded);
    assert!(driver.engine.step(&StepPath::root("c")).is_none());
}

#[test]
fn a_changed_for_each_list_runs_only_what_is_new_and_matches_by_key() {
    let old = pipeline(&[for_each("each", &[]), step("after", &["each"])]);
    let mut driver = Driver::start(old.clone(), &["each[b]"], &[("each", &["a", "b", "c"])]);
    assert_eq!(driver.engine.status(), RunStatus::Failed);
    // Another order, one new, one gone.
    driver.set(&[], &[("each", &["d", "b", "a"])]);
    assert_eq!(driver.resume_with(old, &["each"], &[]), RunStatus::Succeeded);
    assert_eq!(driver.did.iter().filter(|did| did.contains("[a]")).count(), 0, "done stays done: {:?}", driver.did);
    assert!(driver.did.contains(&"run each[d]".to_owned()) && driver.did.contains(&"run each[b]".to_owned()));
    assert_eq!(driver.did.last().map(String::as_str), Some("run after"));
    driver.roll_back();
    let undone: BTreeSet<_> = driver.did.iter().map(String::as_str).collect();
    assert!(undone.contains("undo each[a]") && undone.contains("undo each[d]"), "{undone:?}");
}

#[test]
fn an_instance_that_left_the_list_after_it_ran_is_still_undone() {
    let old = pipeline(&[for_each("each", &[]), step("after", &["each"])]);
    let mut driver = Driver::start(old.clone(), &["after"], &[("each", &["a", "b"])]);
    driver.set(&[], &[("each", &["b"])]);
    assert_eq!(driver.resume_with(old, &["each"], &[("each", Accept::Keep)]), RunStatus::Succeeded);
    assert_eq!(driver.did, ["run after"]);
    assert_eq!(driver.roll_back(), RunStatus::RolledBack);
    assert_eq!(driver.did, ["undo after", "undo each[b]", "undo each[a]"]);
}

#[test]
fn a_step_added_to_a_completed_pipeline_used_as_a_step_runs() {
    let old = pipeline(&[module("m", &[], &[step("x", &[])]), step("after", &["m"])]);
    let new = pipeline(&[module("m", &[], &[step("x", &[]), step("y", &["x"])]), step("after", &["m"])]);
    let mut driver = Driver::start(old, &["after"], &[]);
    assert_eq!(kinds(&driver.engine, &new, &[]), [told("m/y", "Added", false)]);
    driver.set(&[], &[]);
    assert_eq!(driver.resume_with(new, &[], &[]), RunStatus::Succeeded);
    assert_eq!(driver.did, ["run m/y", "run after"]);
}

#[test]
fn a_step_that_becomes_a_group_after_it_ran_needs_another_id() {
    let old = pipeline(&[step("a", &[]), step("b", &["a"])]);
    let new = pipeline(&[for_each("a", &[]), step("b", &["a"])]);
    let driver = Driver::start(old, &["b"], &[]);
    assert!(kinds(&driver.engine, &new, &[]).contains(&told("a", "KindChanged", true)));
    assert_eq!(driver.engine.step(&StepPath::root("a")).map(|node| node.state), Some(State::Succeeded));
}

#[test]
fn an_answer_about_a_step_that_is_gone_is_late_and_breaks_nothing() {
    let mut driver = Driver::start(pipeline(&[step("a", &[])]), &["a"], &[]);
    let (step, digest, by) = (StepPath::from("gone"), "d".to_owned(), "ann".to_owned());
    driver.append(Event::ApprovalGiven { step, digest, approved: true, by, comment: None });
    assert!(driver.engine.has_dropped());
}
