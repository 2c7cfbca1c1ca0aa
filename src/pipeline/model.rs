//! A pipeline as it was written: typed where the language is fixed, unrendered JSON where templates may stand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::document::Node;
use super::inputs::InputType;
use super::source::{SourceFile, Span};
use crate::catalogue::TypeInfo;
use crate::engine::{Backoff, Exhausted, OnFailure, Parallel};

/// A pipeline file, read and checked.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name; the file's name unless given.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The environment variables that templates may read.
    pub env: Vec<String>,
    /// What a run is given.
    pub inputs: IndexMap<String, InputSpec>,
    /// Where secrets come from.
    pub secrets: IndexMap<String, SecretSpec>,
    /// The machines that steps act on.
    pub hosts: IndexMap<String, HostSpec>,
    /// The named object stores: OpenDAL's options, `scheme` among them, unrendered.
    pub stores: IndexMap<String, Map<String, Value>>,
    /// What holds for every step that does not say otherwise.
    pub defaults: Defaults,
    /// What a failed step does to the run.
    pub on_failure: OnFailure,
    /// How many steps may be at work at once.
    pub max_parallel: Option<u32>,
    /// The steps, in the order of the file.
    pub steps: Vec<StepSpec>,
    /// The steps that run whatever the outcome.
    pub finally: Vec<StepSpec>,
    /// What a run leaves, unrendered.
    pub outputs: IndexMap<String, Value>,
    /// The file it was read from.
    pub file: Arc<SourceFile>,
    pub(crate) root: Arc<Node>,
    /// How many steps a run of it has at most, `for_each` counted once.
    pub(crate) size: usize,
    /// Whether it or a pipeline that it uses has a pivot.
    pub(crate) has_pivot: bool,
}

/// An input of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// What its values are.
    pub kind: InputType,
    /// Its value when none is given.
    pub default: Option<Value>,
    /// What it is for.
    pub description: Option<String>,
    /// The only values it may have, if there is such a list.
    pub allowed: Vec<Value>,
    pub(crate) span: Span,
}

/// Where a secret comes from. The text may hold templates over `inputs` and `env`.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretSpec {
    /// An environment variable.
    Env(String),
    /// The content of a file, without its last line break.
    File(String),
    /// What a command prints, without its last line break: text goes to `sh -c`, a list is executed as it is.
    Command(Value),
}

/// A machine that steps act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSpec {
    /// This machine.
    Local,
    /// A machine by SSH: its keys as they are written. May hold templates over `inputs` and `env`.
    Ssh(Map<String, Value>),
}

/// What holds for every step that does not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// What is done about failed attempts.
    pub retry: RetrySpec,
    /// Limits of an attempt.
    pub timeout: TimeoutSpec,
    /// How long the `finally` steps may take together.
    pub finally_timeout: Option<Duration>,
}

/// `retry:` as far as it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `engine::Retry`")]
pub struct RetrySpec {
    pub attempts: Option<u32>,
    pub backoff: Option<Backoff>,
    pub initial: Option<Duration>,
    pub max: Option<Duration>,
    pub jitter: Option<bool>,
    pub exhausted: Option<Exhausted>,
    pub interruptions: Option<u32>,
}

/// `timeout:` as far as it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeoutSpec {
    /// The whole attempt.
    pub attempt: Option<Duration>,
    /// No progress for this long.
    pub idle: Option<Duration>,
}

/// A step as it was written.
#[derive(Debug, Clone)]
pub struct StepSpec {
    /// Its id within its pipeline.
    pub id: String,
    /// What people read beside it.
    pub name: Option<String>,
    /// Its type, or the path of the pipeline that it runs.
    pub uses: String,
    /// Its configuration, unrendered: an object.
    pub with: Value,
    /// The steps it names under `needs`.
    pub needs: Vec<String>,
    /// Whether it runs at all, unrendered.
    pub if_: Option<Value>,
    /// What it runs over, unrendered.
    pub for_each: Option<Value>,
    /// How many of its instances may be at work at once.
    pub max_parallel: Option<Parallel>,
    /// What is done about failed attempts.
    pub retry: RetrySpec,
    /// Limits of an attempt.
    pub timeout: TimeoutSpec,
    /// The host it acts on, unrendered.
    pub on: Option<Value>,
    /// Whether the run stops going back once it has started.
    pub pivot: bool,
    /// It serves others while it runs, until the step of this id is over.
    pub background: Option<String>,
    /// What undoes it instead of its type's own undo, unrendered.
    pub undo: Option<UndoBody>,
    /// Whether it says `undo: skip`.
    pub undo_skip: bool,
    /// Whether its failure does not stop the steps behind it.
    pub continue_on_error: bool,
    /// The name of the lock it runs under, unrendered.
    pub lock: Option<Value>,
    /// How long it waits for the lock, if that is given.
    pub lock_wait: Option<Duration>,
    /// Which group of workers may run it.
    pub placement: Option<String>,
    /// The pipeline that it runs, when `uses` is a path.
    pub module: Option<Arc<Pipeline>>,
    /// Its type, when `uses` is one.
    pub info: Option<Arc<TypeInfo>>,
    /// The ids in the same list that must be over before it starts: `needs` and what its templates mention.
    pub edges: Vec<String>,
    pub(crate) node: Arc<Node>,
    pub(crate) background_true: bool,
    pub(crate) templates: Vec<TemplateFile>,
}

/// A file whose text, rendered, is a value of a step's configuration.
#[derive(Debug, Clone)]
pub(crate) struct TemplateFile {
    /// Whether it belongs to the step's `undo`.
    pub is_undo: bool,
    /// The key of `with` that names it.
    pub key: String,
    /// The file.
    pub file: Arc<SourceFile>,
}

/// A step body that undoes a step.
#[derive(Debug, Clone, PartialEq)]
pub struct UndoBody {
    /// Its type.
    pub uses: String,
    /// Its configuration, unrendered: an object.
    pub with: Value,
}

impl Pipeline {
    /// The step of this id among `steps` and `finally`, and whether it is of `finally`.
    pub fn step(&self, id: &str) -> Option<(&StepSpec, bool)> {
        let main = self.steps.iter().find(|step| step.id == id).map(|step| (step, false));
        main.or_else(|| self.finally.iter().find(|step| step.id == id).map(|step| (step, true)))
    }
}

impl StepSpec {
    /// Whether another pipeline is what it runs.
    pub fn is_module(uses: &str) -> bool {
        let ending = Path::new(uses).extension();
        ["./", "../", "/"].iter().any(|start| uses.starts_with(start))
            || ending.is_some_and(|ending| ending == "yaml" || ending == "yml")
    }

    /// Where a key's value stands; the step itself when it has no such key.
    pub(crate) fn span_of(&self, key: &str) -> Span {
        self.node.get(key).map_or(self.node.span, |node| node.span)
    }

    /// Where a key stands; the id when it has no such key.
    pub(crate) fn key_span(&self, key: &str) -> Span {
        self.node.entry(key).map_or_else(|| self.span_of("id"), |(key, _)| key.span)
    }
}
