//! What an edited pipeline means for a run that has already done a part of it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::definition::{Body, Definition, StepDef};
use super::node::State;
use super::path::StepPath;
use super::run::Engine;

/// One difference between what a run was and what it would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The step.
    pub step: StepPath,
    /// What differs.
    pub kind: ChangeKind,
    /// Whether the run can go on without anybody saying what is meant.
    pub needs_accept: bool,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ChangeKind {
    /// New, and nothing that is behind it is completed: it runs when its turn comes.
    Added,
    /// New, in front of steps that are completed.
    InsertedBefore {
        /// Those.
        completed: Vec<StepPath>,
    },
    /// Gone, never started.
    Removed,
    /// Gone after it was started: `rollback` still undoes it.
    RemovedStarted,
    /// Not completed: it takes the new text.
    Changed,
    /// Completed, and its text is not what was done.
    ChangedCompleted,
    /// A step became a group (`for_each`, pipeline) or the other way round, after it had started: give it another id.
    KindChanged,
}

/// Compares a run with an edited pipeline. `changed` holds the steps whose text differs, which only the executor can
/// see. A change that needs an answer and has none must keep the run from being resumed; `KindChanged` has no answer.
pub fn compare(engine: &Engine, new: &Definition, changed: &BTreeSet<StepPath>) -> Vec<Change> {
    let mut found = Vec::new();
    let was_in = |path: &StepPath| engine.step(path).is_some_and(|node| !node.is_orphan);
    compare_list(engine, &new.steps, None, &was_in, &mut found);
    let mut kept = BTreeSet::new();
    collect_paths(&new.steps, None, &mut kept);
    for node in engine.steps().filter(|node| !node.is_finally && !node.is_orphan) {
        let is_gone = !belongs(&node.path, &kept);
        let has_started = node.was_started() || matches!(node.state, State::Succeeded | State::Open);
        let is_completed = node.state == State::Succeeded && !node.is_group();
        let kind = match (is_gone, changed.contains(&node.path)) {
            // What is inside a group that is gone goes with it.
            (true, _) if node.path.parent().is_some_and(|parent| !belongs(&parent, &kept)) && !node.was_started() => continue,
            (true, _) if has_started => ChangeKind::RemovedStarted,
            (true, _) => ChangeKind::Removed,
            (false, true) if is_completed => ChangeKind::ChangedCompleted,
            (false, true) => ChangeKind::Changed,
            (false, false) => continue,
        };
        let needs_accept = kind == ChangeKind::ChangedCompleted;
        found.push(Change { step: node.path.clone(), kind, needs_accept });
    }
    found
}

/// Whether a path is one of the pipeline's, instances counted with their `for_each`.
fn belongs(path: &StepPath, kept: &BTreeSet<String>) -> bool {
    let plain: Vec<_> = path.segments().map(|segment| segment.id.to_owned()).collect();
    kept.contains(&plain.join("/"))
}

fn collect_paths(steps: &[StepDef], inside: Option<&str>, kept: &mut BTreeSet<String>) {
    for def in steps {
        let path = inside.map_or_else(|| def.id.clone(), |inside| format!("{inside}/{}", def.id));
        if let Body::Pipeline(inner) = &def.body {
            collect_paths(&inner.steps, Some(&path), kept);
        }
        kept.insert(path);
    }
}

fn compare_list(
    engine: &Engine,
    steps: &[StepDef],
    parent: Option<&StepPath>,
    was_in: &dyn Fn(&StepPath) -> bool,
    changes: &mut Vec<Change>,
) {
    let path_of = |id: &str| parent.map_or_else(|| StepPath::root(id), |parent| parent.child(id));
    for def in steps {
        let path = path_of(&def.id);
        let is_group = def.for_each || matches!(def.body, Body::Pipeline(_));
        match engine.step(&path) {
            Some(node) if was_in(&path) => {
                if node.is_group() != is_group && node.state != State::Blocked {
                    changes.push(Change { step: path.clone(), kind: ChangeKind::KindChanged, needs_accept: true });
                }
                if let (Body::Pipeline(inner), false) = (&def.body, def.for_each) {
                    compare_list(engine, &inner.steps, Some(&path), was_in, changes);
                }
            }
            _ => {
                let completed = completed_behind(engine, steps, &def.id, &path_of);
                let needs_accept = !completed.is_empty();
                let kind = if needs_accept { ChangeKind::InsertedBefore { completed } } else { ChangeKind::Added };
                changes.push(Change { step: path, kind, needs_accept });
            }
        }
    }
}

/// The completed steps of a list that are, by the new edges, behind a step.
fn completed_behind(engine: &Engine, steps: &[StepDef], id: &str, path_of: &dyn Fn(&str) -> StepPath) -> Vec<StepPath> {
    let mut behind = BTreeSet::from([id]);
    let mut work = vec![id];
    while let Some(need) = work.pop() {
        for def in steps.iter().filter(|def| def.needs.iter().any(|other| other == need)) {
            if behind.insert(&def.id) {
                work.push(&def.id);
            }
        }
    }
    // One that failed is tried again, behind the new step: that is what a missing step is put in for.
    let is_completed = |path: &StepPath| engine.step(path).is_some_and(|node| !node.is_orphan && node.state == State::Succeeded);
    behind.into_iter().filter(|&other| other != id).map(path_of).filter(is_completed).collect()
}
