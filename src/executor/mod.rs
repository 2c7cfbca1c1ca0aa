//! Carries out the engine's commands and never decides.
//!
//! In: a checked pipeline, or the journal of a run. Out: the run's status when nothing is left to do in this session.
//! The loop is: take every event that has come in, append them as one transaction, feed them to the engine, show them,
//! carry out its commands. This is the only place that spawns. Never here: a retry, a backoff, an order of steps, an
//! outcome; the engine owns those, and a driver for another engine can be put beside this one.

mod attempt;
mod bounds;
mod carry;
mod document;
mod edit;
mod error;
mod guard;
mod guard_signals;
mod inbox;
mod level;
mod logs;
mod meter;
mod plan;
mod planned;
mod render;
mod resolve;
mod run;
mod samples;
mod scope;
mod secrets;
mod session;
mod signals;
mod start;
mod surroundings;
mod targets;
mod tasks;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub use document::Document;
pub use edit::{Difference, EditTable, Resume};
pub use error::ExecutorError;
pub use logs::{LogFile, LogLine, log_files};
pub use plan::{plan, preflight, stores};
pub use planned::{Half, Plan, PlanState, Planned};
pub use samples::{Sample, Samples, samples};
pub use start::fold_run;
pub use targets::Target;

use crate::clock::{Clock, SystemClock};
use crate::engine::{Engine, OnFailure, StepPath};
use crate::journal::{Journal, Record};
use crate::pipeline::Loaded;
use crate::steps::{LogStream, Progress, Registry};

/// The largest outputs and checkpoints, in bytes of JSON.
pub const MAX_OUTPUT: usize = 256 * 1024;

/// Told of everything that happens in a run, from whichever task it happens in. Must not block.
pub trait Observer: Send + Sync {
    /// An event is on disk, and the engine has taken it in.
    fn record(&self, record: &Record, engine: &Engine);
    /// How far an attempt is; at most ten times a second for each.
    fn progress(&self, step: &StepPath, attempt: u32, progress: &Progress) {
        let _ = (step, attempt, progress);
    }
    /// A line of a step's log, masked.
    fn log(&self, step: &StepPath, stream: LogStream, line: &str) {
        let _ = (step, stream, line);
    }
}

/// How a session behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether to stay when nothing but an answer of a person is awaited; else the run ends as `waiting`.
    pub waits_for_people: bool,
    /// Whether SIGINT and SIGTERM are taken as requests: once cancels, SIGINT twice ends at once.
    pub listens_to_signals: bool,
    /// How long a step that was told to stop may take.
    pub grace: Duration,
    /// How often the inbox is looked at.
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            waits_for_people: true,
            listens_to_signals: false,
            grace: Duration::from_secs(30),
            poll: Duration::from_millis(100),
        }
    }
}

/// The embedded driver: runs on this machine, with the journal in SQLite.
#[derive(Clone)]
pub struct Executor {
    /// Where events go.
    pub journal: Journal,
    /// The step types.
    pub registry: Registry,
    /// Time, for records and steps. Waits are monotonic.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub observers: Vec<Arc<dyn Observer>>,
    /// Who acts: `user@host`.
    pub by: String,
    /// How sessions behave.
    pub settings: Settings,
    asked: session::Asked,
}

/// A run that is to be started.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id; [`NewRun::new`] draws one.
    pub id: String,
    /// The pipeline, read and checked.
    pub loaded: Loaded,
    /// The file it was read from, as it was given to `pipeline::load`.
    pub path: PathBuf,
    /// What the person gave; checked against the pipeline's inputs.
    pub inputs: Map<String, Value>,
    /// In place of the pipeline's own policy.
    pub on_failure: Option<OnFailure>,
    /// Only this step and what it needs.
    pub until: Option<String>,
    /// Whether everything is looked at first, and nothing is started if something is wrong.
    pub preflight: bool,
    /// What commands for secrets answered to [`preflight`].
    asked: session::Asked,
}

impl NewRun {
    /// A run of this pipeline with these inputs.
    pub fn new(path: impl Into<PathBuf>, loaded: Loaded, inputs: Map<String, Value>) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let asked = session::Asked::default();
        Self { id, loaded, path: path.into(), inputs, on_failure: None, until: None, preflight: true, asked }
    }
}

impl Executor {
    /// An executor on this journal with these step types. `by` names the person: `user@host`.
    pub fn new(journal: Journal, registry: Registry, by: impl Into<String>) -> Self {
        Self {
            journal,
            registry,
            clock: SystemClock::shared(),
            observers: Vec::new(),
            by: by.into(),
            settings: Settings::default(),
            asked: session::Asked::default(),
        }
    }

    /// Adds somebody who is told what happens.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// With these settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }
}
