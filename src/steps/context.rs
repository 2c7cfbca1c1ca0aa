//! What a step is given to work with: its attempt, its hosts and stores, and the ways to tell how it is doing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::StepError;
use crate::hosts::{Host, Hosts};
use crate::postgres::Reach;
use crate::secret::{Text, UnknownSecret, Vault};
use crate::stores::Stores;

/// Which try of which step this is. Serialisable, so that a driver may send it to a worker elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The run's id.
    pub run: String,
    /// The step's path: `replica/base`.
    pub step: String,
    /// Counts from 1 over the whole run; 0 in a plan.
    pub number: u32,
    /// Whether an earlier attempt's runner died: look before acting.
    pub interrupted: bool,
    /// Whether the run is past its pivot: an earlier attempt of a step that holds it inside may have passed it.
    #[serde(default)]
    pub past_pivot: bool,
    /// The last checkpoint that any attempt of the step wrote.
    pub checkpoint: Option<Value>,
    /// The host that `on` names; `local` unless said.
    pub host: String,
}

/// How far a step is. What is unknown stays `None`; totals may grow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub bytes: Option<u64>,
    /// Bytes to do.
    pub bytes_total: Option<u64>,
    /// Objects (files, rows, tables) done.
    pub objects: Option<u64>,
    /// Objects to do.
    pub objects_total: Option<u64>,
    /// How many objects have failed so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// How many requests are under way at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u64>,
    /// What is being done now, a few words.
    pub message: Option<String>,
}

/// Where a line of a step's log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// The step itself.
    Ferry,
    /// A child's standard output.
    Stdout,
    /// A child's standard error.
    Stderr,
}

/// Where a step's signals go. The executor implements it; text is masked there, once for all.
pub trait Signals: Send + Sync {
    /// How far the step is. Cheap; also proves to the idle timeout that something moves.
    fn progress(&self, progress: Progress);
    /// Writes a progress token; returns when it is durable.
    fn checkpoint(&self, token: Value) -> BoxFuture<'_, Result<(), StepError>>;
    /// Passes the pivot inside the step; returns when that is durable and counts.
    fn pass_pivot(&self) -> BoxFuture<'_, Result<(), StepError>>;
    /// The step now serves its dependants (background steps).
    fn ready(&self);
    /// Something the person should know that is no failure. Counted.
    fn warn(&self, text: &str);
    /// A line for the step's log.
    fn log(&self, stream: LogStream, line: &str);
}

/// How closely `inspect` looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// What undo needs, and whether the step can begin: a few requests.
    #[default]
    Brief,
    /// All that a plan can tell: the listing of a whole bucket, if need be.
    Thorough,
}

/// What a step is given to work with. Cheap to clone.
#[derive(Clone)]
pub struct StepContext {
    /// Which try of which step this is.
    pub attempt: Attempt,
    /// How closely `inspect` is to look.
    pub depth: Depth,
    /// Told to stop when the run is cancelled: write a checkpoint, then return `Stopped` by [`StepContext::stopped`].
    pub cancel: CancellationToken,
    /// Told when a background step has done its duty: end well and return the outputs.
    pub over: CancellationToken,
    /// The folder of the pipeline file: relative paths start here.
    pub base: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The machines that steps act on.
    pub hosts: Hosts,
    /// The named object stores.
    pub stores: Stores,
    /// The run's secrets.
    pub vault: Vault,
    /// One HTTP client for all: connections are kept.
    pub http: reqwest::Client,
    /// Where signals go.
    pub signals: Arc<dyn Signals>,
    /// A folder that belongs to this step of this run and is kept with the run: manifests, lists. Created on demand.
    pub scratch: PathBuf,
}

impl StepContext {
    /// The value of a text that may hold secrets. Call it at the sink, and drop it at once.
    pub fn reveal(&self, text: &Text) -> Result<SecretString, StepError> {
        self.vault.reveal(text.marked()).map_err(|unknown| not_at_hand(&unknown))
    }

    /// A value with its secrets in, as [`StepContext::reveal`].
    pub fn reveal_value(&self, value: &Value) -> Result<Value, StepError> {
        self.vault.reveal_value(value).map_err(|unknown| not_at_hand(&unknown))
    }

    /// The host that the step's `on` names.
    pub fn host(&self) -> Result<Arc<dyn Host>, StepError> {
        self.hosts.get(&self.attempt.host)
    }

    /// The way to PostgreSQL servers. What is shown there as the one who is connected carries the step's key.
    pub fn reach(&self) -> Reach {
        Reach {
            hosts: self.hosts.clone(),
            vault: self.vault.clone(),
            cancel: self.cancel.clone(),
            base: self.base.clone(),
            application: format!("ferry_{}", &self.idempotence_key()[..12]),
        }
    }

    /// The last checkpoint, if there is one and it is of this shape.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Option<T> {
        self.attempt.checkpoint.as_ref().and_then(|token| T::deserialize(token).ok())
    }

    /// Writes a progress token; returns when it is durable. At least every few seconds in a long step.
    pub async fn save(&self, token: &impl Serialize) -> Result<(), StepError> {
        let token = serde_json::to_value(token)
            .map_err(|error| StepError::permanent("cannot write the checkpoint as JSON").cause(error))?;
        self.signals.checkpoint(token).await
    }

    /// To be called just before the first act that cannot be undone, by a type with `Pivot::Inside`. Once it has
    /// returned well, that is durable and the run goes forward only. An error means that the run is going back, or
    /// stopping: the step must not go on, puts back what it has done so far and returns the error. A call by a later
    /// attempt does no harm.
    pub async fn pass_pivot(&self) -> Result<(), StepError> {
        self.signals.pass_pivot().await
    }

    /// Says how far the step is.
    pub fn progress(&self, progress: Progress) {
        self.signals.progress(progress);
    }

    /// Says that a background step now serves its dependants.
    pub fn ready(&self) {
        self.signals.ready();
    }

    /// Says something that the person should know and that is no failure.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.signals.warn(text.as_ref());
    }

    /// Writes a line to the step's log.
    pub fn log(&self, line: impl AsRef<str>) {
        self.signals.log(LogStream::Ferry, line.as_ref());
    }

    /// What `run` returns after it was told to stop and has written its checkpoint. The executor turns any error that
    /// follows a cancel into `Outcome::Stopped`.
    pub fn stopped(&self) -> StepError {
        StepError::transient("stopped on request")
    }

    /// Goes into every API call, tag and object name that can carry one: the same for every attempt of this step in
    /// this run, different for every other. 32 hexadecimal digits.
    pub fn idempotence_key(&self) -> String {
        let digest = Sha256::digest(format!("{}\0{}", self.attempt.run, self.attempt.step));
        digest.iter().take(16).fold(String::with_capacity(32), |mut key, byte| {
            use std::fmt::Write as _;
            let _ = write!(key, "{byte:02x}");
            key
        })
    }

    /// A path of the configuration: relative ones start at the pipeline's folder.
    pub fn resolve_path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.base.join(path)
    }
}

fn not_at_hand(unknown: &UnknownSecret) -> StepError {
    StepError::permanent(unknown.to_string()).help("list it under `secrets:` in the pipeline")
}
