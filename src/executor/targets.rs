//! Where the syncs of a run wrote to, for whoever looks there later: the store is opened as the step had it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::level::Level;
use super::session::Session;
use super::surroundings::Surroundings;
use super::{Executor, ExecutorError, start};
use crate::engine::{RunStatus, StepPath};
use crate::error::StepError;
use crate::stores::Store;

/// What one look of a sync at the world led to.
pub struct Target {
    /// The step.
    pub step: StepPath,
    /// What it wrote to, as the pipeline has it.
    pub place: String,
    /// Its folder, with its ledger.
    pub scratch: PathBuf,
    /// The place, if it can be opened.
    pub store: Result<Store, StepError>,
}

impl Executor {
    /// The targets of all syncs that a run has begun, and how the run stands. Nothing is contacted.
    pub async fn sync_targets(&self, run: &str) -> Result<(RunStatus, Vec<Target>), ExecutorError> {
        let folded = start::read(&self.journal, run).await?;
        let session = Arc::new(Session::looking(self, run, folded.started_at, &folded.document));
        let loaded = folded.document.load(self.registry.catalogue())?;
        let level = Level::open(&session, None, loaded.pipeline.clone(), folded.document.inputs.clone(), None).await?;
        let mut targets = Vec::new();
        for node in folded.engine.steps().filter(|node| node.def.uses == "object.sync") {
            for (number, inspection) in node.inspections.iter().enumerate() {
                let Some(place) = inspection.config.pointer("/with/to").and_then(Value::as_str) else { continue };
                let around = Surroundings::recorded(&level, &session, &inspection.surroundings);
                let name = if number == 0 { "scratch".to_owned() } else { format!("scratch-{}", number + 1) };
                let scratch = self.journal.run_dir(run).join(name).join(super::logs::folder_name(&node.path));
                let store = around.stores.open(place, &around.base);
                targets.push(Target { step: node.path.clone(), place: place.to_owned(), scratch, store });
            }
        }
        Ok((folded.engine.status(), targets))
    }
}
