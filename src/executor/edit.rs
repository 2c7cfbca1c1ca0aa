//! Resumes with an edited pipeline: what differs, what has already been done, and what has to be said before it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::render::{config, digest};
use super::scope::View;
use super::session::{Session, inside};
use super::start::{Taken, read};
use super::{Document, Executor, ExecutorError};
use crate::engine::edit::{Change, ChangeKind, compare};
use crate::engine::{Accept, Engine, Node, State, StepPath};
use crate::pipeline::{Loaded, Pipeline, StepSpec};

/// How a run is taken up.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// Only this step and what it needs.
    pub until: Option<String>,
    /// An edited pipeline and the file it was read from.
    pub pipeline: Option<(PathBuf, Loaded)>,
    /// What is meant for steps that are completed and changed.
    pub accept: BTreeMap<StepPath, Accept>,
}

/// One difference, with the texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The step and what differs.
    #[serde(flatten)]
    pub change: Change,
    /// What was said to it, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accept>,
    /// The step as it was: resolved when it is completed, as written otherwise.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub was: Value,
    /// The step as it would be.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub becomes: Value,
}

impl Difference {
    /// Whether the run cannot go on before somebody says what is meant.
    pub fn is_open(&self) -> bool {
        self.change.needs_accept && (self.accepted.is_none() || self.change.kind == ChangeKind::KindChanged)
    }
}

/// What an edited pipeline means for a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EditTable {
    /// The run.
    pub run: String,
    /// The differences, in the order of the pipeline.
    pub differences: Vec<Difference>,
}

impl EditTable {
    /// The differences that need an answer and have none.
    pub fn open(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|difference| difference.is_open())
    }

    pub(super) fn open_names(&self) -> String {
        self.open().map(|difference| format!("`{}`", difference.change.step)).collect::<Vec<_>>().join(", ")
    }
}

impl Executor {
    /// What an edited pipeline would mean for a run. Changes nothing, and needs no lease.
    pub async fn compare(&self, run: &str, path: &Path, loaded: &Loaded) -> Result<EditTable, ExecutorError> {
        let (engine, document, started_at) = read(&self.journal, run).await?;
        let edited = edited(&document, path, loaded)?;
        let session = Arc::new(Session::looking(self, run, started_at, &edited));
        let (table, _) = self.table(&session, &engine, &document, &edited, loaded, &BTreeMap::new()).await?;
        Ok(table)
    }

    async fn table(
        &self,
        session: &Arc<Session>,
        engine: &Engine,
        document: &Document,
        edited: &Document,
        loaded: &Loaded,
        accept: &BTreeMap<StepPath, Accept>,
    ) -> Result<(EditTable, BTreeSet<StepPath>), ExecutorError> {
        let old = document.load(self.registry.catalogue())?.pipeline;
        self.enter(session, engine, loaded, edited).await?;
        let new = &loaded.pipeline;
        let changed: BTreeSet<StepPath> = engine
            .steps()
            .filter(|node| !node.is_orphan && is_changed(session, engine, node, &old, new))
            .map(|node| node.path.clone())
            .collect();
        let found = compare(engine, &new.definition(), &changed);
        let differences = found.into_iter().map(|change| {
            let node = engine.step(&change.step);
            let resolved = node.filter(|node| node.state == State::Succeeded).and_then(|node| node.inspections.last());
            let (was, becomes) = match (resolved, node.and_then(|node| resolve_now(session, engine, node))) {
                (Some(inspection), Some((config, _))) => (inspection.config.clone(), config),
                _ => (text_at(&old, &change.step), text_at(new, &change.step)),
            };
            Difference { accepted: accept.get(&change.step).copied(), change, was, becomes }
        });
        let table = EditTable { run: engine.run().to_owned(), differences: differences.collect() };
        Ok((table, changed))
    }
}

/// What the run goes on with, or the table that says why it does not.
pub(super) async fn check(
    executor: &Executor,
    taken: &Taken,
    path: &Path,
    loaded: &Loaded,
    accept: &BTreeMap<StepPath, Accept>,
) -> Result<(Document, BTreeSet<StepPath>), ExecutorError> {
    let edited = edited(&taken.document, path, loaded)?;
    let run = taken.engine.run();
    let session = Arc::new(Session::looking(executor, run, taken.started_at, &edited));
    let (table, changed) = executor.table(&session, &taken.engine, &taken.document, &edited, loaded, accept).await?;
    if table.open().next().is_some() {
        return Err(ExecutorError::Edited(Box::new(table)));
    }
    Ok((edited, changed))
}

/// The run's document with the new text. Its inputs stay; new ones take their defaults, and those that are gone go.
fn edited(document: &Document, path: &Path, loaded: &Loaded) -> Result<Document, ExecutorError> {
    let known = document.inputs.iter().filter(|(name, _)| loaded.pipeline.inputs.contains_key(name.as_str()));
    let given = known.map(|(name, value)| (name.clone(), value.clone())).collect();
    let inputs = loaded.pipeline.inputs(&given)?;
    let mut edited = Document::new(path, loaded, inputs);
    // What the run has seen of its surroundings stays; only what it has not is new.
    edited.env.extend(document.env.clone());
    Ok(edited)
}

/// Whether a step would not do what it did, or is not what it was.
fn is_changed(session: &Session, engine: &Engine, node: &Node, old: &Pipeline, new: &Pipeline) -> bool {
    let is_same_text = match (old.find(&node.path), new.find(&node.path)) {
        (Some(old), Some(new)) => text(old.step) == text(new.step),
        // It is gone, or it is new: that is no change of its text.
        _ => return false,
    };
    let inspected = node.inspections.last().filter(|_| node.state == State::Succeeded);
    match (inspected, resolve_now(session, engine, node)) {
        // A text that says the same in other words is no change; a text that says something else now, because a store
        // or a default behind it was edited, is one.
        (Some(inspection), Some((_, digest))) => inspection.digest != digest,
        _ => !is_same_text,
    }
}

/// The resolved definition of a completed step by the new text, with its digest.
fn resolve_now(session: &Session, engine: &Engine, node: &Node) -> Option<(Value, String)> {
    if node.inspections.is_empty() {
        return None;
    }
    let level = session.level(inside(&node.path).as_ref())?;
    let (spec, _) = level.spec(node.path.id())?;
    let view = View { session, engine };
    let config = view.scope(&level, View::each(node), |scope| config(spec, scope, &session.vault)).ok()?;
    let digest = digest(&config, &level);
    Some((config, digest))
}

fn text_at(pipeline: &Pipeline, step: &StepPath) -> Value {
    pipeline.find(step).map_or(Value::Null, |found| text(found.step))
}

/// What a step says, as far as it decides what is done. Names, edges and policies are the engine's to compare.
fn text(spec: &StepSpec) -> Value {
    let mut text = json!({ "uses": spec.uses, "with": spec.with });
    let undo = spec.undo.as_ref().map(|body| json!({ "uses": body.uses, "with": body.with }));
    let parts = [("if", &spec.if_), ("for_each", &spec.for_each), ("on", &spec.on), ("lock", &spec.lock), ("undo", &undo)];
    for (key, value) in parts {
        if let Some(value) = value {
            text[key] = value.clone();
        }
    }
    if let Some(module) = &spec.module {
        let outputs: serde_json::Map<_, _> = module.outputs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        text["outputs"] = Value::Object(outputs);
    }
    text
}
