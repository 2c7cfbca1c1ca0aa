//! What is known of the step types without running them: the pipeline checks against it, the steps fill it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What undoing a step of a type does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// `undo` puts back what the step changed.
    Built,
    /// The step changes nothing that would need putting back.
    Nothing,
    /// The step cannot be undone: it has to stand behind the pivot or say `undo: skip`.
    Impossible,
}

/// What a type does about an attempt whose runner died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    /// The work is idempotent: run it again.
    RunAgain,
    /// `run` asks the world first what happened, then goes on.
    LookFirst,
    /// Only a person can say whether it may run again.
    AskPerson,
}

/// From when on a run does not go back by itself, if a step of the type is its pivot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pivot {
    /// From its first start on.
    #[default]
    AtStart,
    /// From the point on at which `run` says so (`StepContext::pass_pivot`): until then undo puts everything back, from
    /// then on nothing does. The step has to be the pivot, stand behind it or say `undo: skip`.
    Inside,
}

/// When the dependants of a background step may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Background {
    /// The type cannot run in the background.
    No,
    /// As soon as the attempt has started.
    ReadyAtStart,
    /// When `run` says so (`StepContext::ready`).
    ReadyWhenSaid,
}

/// How the engine treats a step of this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The executor runs it.
    Task,
    /// The engine waits for a person's answer; nothing is run.
    Approval,
}

/// What a step of a type says of itself once its configuration is known. Answers must hold for every rendering of the
/// templates inside the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// What undo does.
    pub undo: Undo,
    /// What an interruption means.
    pub interrupted: Interrupted,
}

/// A step type as the catalogue lists it.
#[derive(Debug, Clone)]
pub struct TypeInfo {
    /// The name behind `uses`: `object.sync`.
    pub name: String,
    /// The first sentence of the manual.
    pub summary: String,
    /// The manual, Markdown.
    pub manual: String,
    /// JSON Schema of `with`.
    pub config: Value,
    /// JSON Schema of the outputs.
    pub outputs: Value,
    /// An example pipeline step, YAML.
    pub example: String,
    /// How the engine treats it.
    pub kind: Kind,
    /// Whether and how it runs in the background.
    pub background: Background,
    /// Where its pivot lies.
    pub pivot: Pivot,
    /// The programs that it needs on the host that it acts on.
    pub tools: Vec<String>,
    /// What the type says of a step with this `with` (templates unrendered).
    pub traits: TraitsOf,
}

/// The question put to a type: what do you say of a step with this `with`?
#[derive(Clone)]
pub struct TraitsOf(pub Arc<dyn Fn(&Value) -> Traits + Send + Sync>);

impl std::fmt::Debug for TraitsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TraitsOf")
    }
}

/// The step types that a pipeline may use. Passed in, so that checking stays pure.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    types: BTreeMap<String, Arc<TypeInfo>>,
}

impl Catalogue {
    /// Adds a type; a later one of the same name replaces the earlier.
    pub fn add(&mut self, info: TypeInfo) {
        self.types.insert(info.name.clone(), Arc::new(info));
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<TypeInfo>> {
        self.types.get(name)
    }

    /// All types, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TypeInfo>> {
        self.types.values()
    }
}
