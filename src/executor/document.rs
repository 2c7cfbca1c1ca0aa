//! What a run keeps of its surroundings: the texts it was started with, its inputs, where it was started.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ExecutorError;
use crate::catalogue::Catalogue;
use crate::pipeline::{self, Loaded, Problems, Sources};

/// The executor's part of `RunCreated` and `PipelineChanged`: with it, a run is taken up without the user's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The version that wrote it.
    pub ferry: String,
    /// The pipeline's file, as it was given.
    pub path: PathBuf,
    /// The folder in which ferry was started: relative paths begin there.
    pub folder: PathBuf,
    /// The text of the pipeline and of every pipeline it uses.
    pub sources: Sources,
    /// The run's inputs, defaults filled in.
    pub inputs: Map<String, Value>,
    /// The environment variables that the pipeline lists under `env`, as they were at the start.
    #[serde(default)]
    pub env: Map<String, Value>,
}

impl Document {
    pub(super) fn new(path: &Path, loaded: &Loaded, inputs: Map<String, Value>) -> Self {
        let folder = std::env::current_dir().unwrap_or_default();
        let mut env = Map::new();
        collect_env(&loaded.pipeline, &mut env);
        Self {
            ferry: env!("CARGO_PKG_VERSION").to_owned(),
            path: path.to_owned(),
            folder,
            sources: loaded.sources.clone(),
            inputs,
            env,
        }
    }

    /// The document of a run, as the journal holds it.
    pub fn of(run: &str, document: &Value) -> Result<Self, ExecutorError> {
        Self::deserialize(document)
            .map_err(|error| ExecutorError::Fault { run: run.to_owned(), what: format!("its document cannot be read: {error}") })
    }

    /// The pipeline as the run has it.
    pub fn load(&self, catalogue: &Catalogue) -> Result<Loaded, Problems> {
        pipeline::load(&self.path, &self.sources, catalogue)
    }

    pub(super) fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a document is plain data with text keys")
    }
}

/// Missing variables are left out: a template that names one says so.
fn collect_env(pipeline: &pipeline::Pipeline, env: &mut Map<String, Value>) {
    for name in &pipeline.env {
        if let Ok(value) = std::env::var(name) {
            env.insert(name.clone(), crate::secret::sanitize(&value).into_owned().into());
        }
    }
    for step in pipeline.steps.iter().chain(&pipeline.finally) {
        if let Some(module) = &step.module {
            collect_env(module, env);
        }
    }
}
