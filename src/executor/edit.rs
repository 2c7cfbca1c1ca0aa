//! Resumes with an edited pipeline: what differs, what has already been done, and what has to be said before it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::level::Level;
use super::render::{config, sha256_of};
use super::scope::{self, View};
use super::session::{Session, inside};
use super::start::{Folded, Taken, read};
use super::surroundings::{digest, surroundings};
use super::{Document, Executor, ExecutorError};
use crate::engine::edit::{Change, ChangeKind, compare};
use crate::engine::{Accept, Engine, Inspection, Node, Resolution, RunStatus, State, StepPath};
use crate::pipeline::template::{RenderError, Scope, render};
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
        let Folded { engine, document, started_at, .. } = read(&self.journal, run).await?;
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
        enter_anew(session, engine).await;
        let new = &loaded.pipeline;
        let changed: BTreeSet<StepPath> = engine
            .steps()
            .filter(|node| !node.is_orphan && is_changed(session, engine, node, &old, new))
            .map(|node| node.path.clone())
            .collect();
        let found = compare(engine, &new.definition(), &changed);
        let differences = found.into_iter().map(|change| {
            let node = engine.step(&change.step);
            let (was, becomes) = (text_at(&old, &change.step), text_at(new, &change.step));
            // What was done says more than the text, and where both texts are the same, only that tells them apart.
            let resolved = node.filter(|node| node.state == State::Succeeded || was == becomes);
            let inspected = resolved.and_then(|node| node.inspections.last());
            let (was, becomes) = match (inspected, resolved.and_then(|node| resolve_now(session, engine, node))) {
                (Some(inspection), Some(now)) => now.beside(inspection),
                _ => (was, becomes),
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

/// Opens the pipelines used as steps with the inputs that the new text gives them: what is inside is compared as it
/// would be, not as it was.
async fn enter_anew(session: &Session, engine: &Engine) {
    for node in engine.steps() {
        let Some(inputs) = inputs_now(session, engine, node) else { continue };
        let around = session.level(inside(&node.path).as_ref());
        let module = around.as_ref().and_then(|around| around.spec(node.path.id())?.0.module.clone());
        let (Some(around), Some(module)) = (around, module) else { continue };
        // One that cannot be opened stays as it was recorded; its steps say why when their turn comes.
        if let Ok(level) = Level::open(session, Some(node.path.clone()), module, inputs, Some(&around)).await {
            session.enter(level);
        }
    }
}

/// The inputs of a pipeline used as a step by the new text and its defaults, where they can be told yet.
fn inputs_now(session: &Session, engine: &Engine, node: &Node) -> Option<serde_json::Map<String, Value>> {
    if !matches!(node.resolution, Some(Resolution::Inputs { .. })) {
        return None;
    }
    let level = session.level(inside(&node.path).as_ref())?;
    let (spec, _) = level.spec(node.path.id())?;
    let given = scoped(session, engine, node, &level, |scope| render(&spec.with, scope, &session.vault)).ok()?;
    spec.module.as_ref()?.inputs(given.as_object()?).ok()
}

/// Whether a step would not do what it did, or is not what it was.
fn is_changed(session: &Session, engine: &Engine, node: &Node, old: &Pipeline, new: &Pipeline) -> bool {
    let is_same_text = match (old.find(&node.path), new.find(&node.path)) {
        (Some(old), Some(new)) => text(old.step) == text(new.step),
        // It is gone, or it is new: that is no change of its text.
        _ => return false,
    };
    if let (Some(Resolution::Inputs { inputs, .. }), Some(now)) = (&node.resolution, inputs_now(session, engine, node)) {
        return !is_same_text || inputs.as_object() != Some(&now);
    }
    match (node.inspections.last(), resolve_now(session, engine, node)) {
        // A text that says the same in other words is no change of what was done; a text that says something else now,
        // because a store, a host or a default behind it was edited, is one.
        (Some(inspection), Some(now)) => !now.is_what(inspection) || (node.state != State::Succeeded && !is_same_text),
        _ => !is_same_text,
    }
}

/// The resolved definition of a step by the new text.
struct Now {
    config: Value,
    surroundings: Value,
}

impl Now {
    fn is_what(&self, inspection: &Inspection) -> bool {
        if inspection.surroundings.is_null() {
            // By a ferry that did not record them, which had another digest.
            let stores = self.surroundings.get("stores").cloned().unwrap_or_else(|| json!({}));
            let old = json!({ "config": self.config, "stores": stores, "host": self.surroundings.get("host") });
            return inspection.digest == sha256_of(&old);
        }
        inspection.digest == digest(&self.config, &self.surroundings)
    }

    /// As it was and as it would be, each with the surroundings that differ.
    fn beside(self, inspection: &Inspection) -> (Value, Value) {
        let (mut was, mut becomes) = (inspection.config.clone(), self.config);
        for key in ["base", "host", "stores"] {
            let (before, now) = (inspection.surroundings.get(key), self.surroundings.get(key));
            if before != now && !inspection.surroundings.is_null() {
                was[key] = before.cloned().unwrap_or_default();
                becomes[key] = now.cloned().unwrap_or_default();
            }
        }
        (was, becomes)
    }
}

fn resolve_now(session: &Session, engine: &Engine, node: &Node) -> Option<Now> {
    if node.inspections.is_empty() {
        return None;
    }
    let level = session.level(inside(&node.path).as_ref())?;
    let (spec, _) = level.spec(node.path.id())?;
    let config = scoped(session, engine, node, &level, |scope| config(spec, scope, &session.vault)).ok()?;
    let surroundings = surroundings(&config, &level);
    Some(Now { config, surroundings })
}

/// As the step was rendered: before the end of the run, whatever has become of it since.
fn scoped<R>(
    session: &Session,
    engine: &Engine,
    node: &Node,
    level: &Level,
    render: impl FnOnce(&Scope<'_>) -> Result<R, RenderError>,
) -> Result<R, RenderError> {
    let view = View { session, engine };
    let status = scope::status_text(if node.is_finally { engine.outcome() } else { RunStatus::Running });
    scope::with(session, level, View::each(node), &|id| view.step(level, id), Some(status), render)
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
