//! What all tasks of one session share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::level::Level;
use super::meter::Meters;
use super::{Document, Executor, Observer, Settings};
use crate::clock::Clock;
use crate::engine::StepPath;
use crate::error::Failure;
use crate::hosts::Reached;
use crate::secret::{Vault, each_name};
use crate::steps::{Depth, Registry};

/// Answers of commands, by folder and command.
pub(super) type Asked = Arc<Mutex<BTreeMap<(PathBuf, String), secrecy::SecretString>>>;

pub(super) struct Session {
    pub(super) run: String,
    pub(super) started_at: Timestamp,
    pub(super) registry: Registry,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) observers: Vec<Arc<dyn Observer>>,
    pub(super) settings: Settings,
    /// How closely steps look at the world.
    pub(super) depth: Depth,
    pub(super) vault: Vault,
    pub(super) http: reqwest::Client,
    /// The run's own folder: logs, and what its steps keep. A plan has none and writes nothing.
    pub(super) dir: Option<PathBuf>,
    /// Where relative paths of pipeline files begin.
    pub(super) folder: PathBuf,
    pub(super) env: Map<String, Value>,
    /// Secrets that could not be had, by the name in their mark. A step that needs one fails with this.
    pub(super) missing: Mutex<BTreeMap<String, Failure>>,
    /// How much of a log is held back so that a secret of several lines is seen whole.
    pub(super) hold_back: AtomicUsize,
    /// What commands for secrets have answered: a preflight and the run behind it do not ask a person twice.
    pub(super) asked: Asked,
    /// How fast those go whose number at once is found out.
    pub(super) meters: Meters,
    levels: Mutex<HashMap<Option<StepPath>, Arc<Level>>>,
    /// The machines by SSH: pipelines that are used as steps share the connections of the one around them.
    pub(super) reached: Reached,
}

impl Session {
    pub(super) fn of_run(executor: &Executor, run: &str, started_at: Timestamp, document: &Document) -> Self {
        Self {
            observers: executor.observers.clone(),
            settings: executor.settings.clone(),
            dir: Some(executor.journal.run_dir(run)),
            ..Self::looking(executor, run, started_at, document)
        }
    }

    /// A session on a run that looks and never acts.
    pub(super) fn looking(executor: &Executor, run: &str, started_at: Timestamp, document: &Document) -> Self {
        Self::of_plan(&executor.registry, executor.clock.clone(), executor.asked.clone(), run, started_at, document)
    }

    /// A session that looks and never acts.
    pub(super) fn of_plan(
        registry: &Registry,
        clock: Arc<dyn Clock>,
        asked: Asked,
        run: &str,
        started_at: Timestamp,
        document: &Document,
    ) -> Self {
        Self {
            run: run.to_owned(),
            started_at,
            registry: registry.clone(),
            clock,
            observers: Vec::new(),
            settings: Settings::default(),
            depth: Depth::Brief,
            vault: Vault::default(),
            http: http(),
            dir: None,
            folder: document.folder.clone(),
            env: document.env.clone(),
            missing: Mutex::default(),
            hold_back: AtomicUsize::new(0),
            asked,
            meters: Meters::default(),
            levels: Mutex::default(),
            reached: Reached::default(),
        }
    }

    /// The pipeline around a step: the run's own, or that of the step it is inside of.
    pub(super) fn level(&self, inside: Option<&StepPath>) -> Option<Arc<Level>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).get(&inside.cloned()).cloned()
    }

    pub(super) fn enter(&self, level: Level) -> Arc<Level> {
        let level = Arc::new(level);
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        levels.insert(level.path.clone(), level.clone());
        level
    }

    /// Where a step may keep what belongs to the run. In a plan it is a name that nobody has. A step that looked at the
    /// world anew, because it was edited or runs again on purpose, starts with an empty one: what it kept before belongs
    /// to the undo of what it did before.
    pub(super) fn scratch(&self, step: &StepPath, inspection: usize) -> PathBuf {
        let dir = self.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("ferry-plan-{}", self.run)));
        let name = if inspection == 0 { "scratch".to_owned() } else { format!("scratch-{}", inspection + 1) };
        dir.join(name).join(super::logs::folder_name(step))
    }

    pub(super) fn held_back(&self) -> usize {
        self.hold_back.load(Ordering::Relaxed)
    }

    /// Why a rendered value cannot be used: a secret in it could not be had.
    pub(super) fn missing_in(&self, value: &Value) -> Option<Failure> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.is_empty() {
            return None;
        }
        let mut found = None;
        each_name(value, &mut |name| {
            if found.is_none() {
                found = missing.get(name).cloned();
            }
        });
        found
    }
}

/// The path of the step whose pipeline a step is inside of: of `a[k]/b` it is `a[k]`, of `a[k]` nothing.
pub(super) fn inside(step: &StepPath) -> Option<StepPath> {
    step.as_str().rsplit_once('/').map(|(around, _)| StepPath::from(around))
}

/// The client of a session. It follows redirects within one server only: headers and bodies may hold secrets, and only
/// the standard ones would be taken out on the way to another.
fn http() -> reqwest::Client {
    let policy = reqwest::redirect::Policy::custom(|attempt| {
        let is_same = attempt.previous().last().is_some_and(|last| last.origin() == attempt.url().origin());
        if attempt.previous().len() > 10 {
            attempt.error("more than 10 redirects")
        } else if is_same {
            attempt.follow()
        } else {
            attempt.stop()
        }
    });
    // Without its settings a client cannot fail to be built but for a broken TLS setup, which the default tells too.
    reqwest::Client::builder().redirect(policy).build().unwrap_or_default()
}
