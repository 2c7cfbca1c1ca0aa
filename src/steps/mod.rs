//! The step types: one file or folder each, and one line each in [`builtin`].
//!
//! In: a rendered configuration and a [`StepContext`]. Out: what `inspect` saw, outputs, or a `StepError`. Never here:
//! the journal, a retry of the whole work, a decision about the run.

mod address;
mod approval;
mod assert;
mod command;
mod container;
mod context;
mod criu;
mod file;
mod http;
mod object;
mod postgres;
mod probe;
mod registry;
mod scalar;
mod validate;
mod wait;

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use context::{Attempt, Depth, LogStream, Progress, Signals, StepContext};
pub use object::{Left, ObjectSync, left};
pub use registry::{DynStep, Registry};

use crate::catalogue::{Background, Interrupted, Kind, Pivot, Traits, Undo};
use crate::error::StepError;

/// A step type. The implementing struct is the configuration behind `with`: its doc comments are the user's manual,
/// its JSON Schema is what `check` and the editor hold a pipeline to.
pub trait Step: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name behind `uses`, object first, then action: `dns.record`.
    const TYPE: &'static str;
    /// One step of a pipeline that uses it, YAML. Checked by a test.
    const EXAMPLE: &'static str;
    /// Whether and how it can run in the background.
    const BACKGROUND: Background = Background::No;
    /// Where its pivot lies: `Inside` says that `run` calls [`StepContext::pass_pivot`].
    const PIVOT: Pivot = Pivot::AtStart;
    /// Whether the executor runs it at all.
    const KIND: Kind = Kind::Task;

    /// The programs that it needs on the host it acts on: `ferry doctor` looks for them.
    const TOOLS: &'static [&'static str] = &[];

    /// What `inspect` sees: all that undo needs.
    type Before: Serialize + DeserializeOwned + Send + Sync;
    /// What a completed step leaves for later steps.
    type Output: Serialize + JsonSchema + Send;

    /// What undo does and what an interruption means, for this `with` (its templates are not rendered yet).
    fn traits(with: &Value) -> Traits {
        let _ = with;
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    /// Looks at the world and changes nothing. `plan` shows it; a run journals it once, before the first attempt.
    fn inspect(&self, ctx: &StepContext) -> impl Future<Output = Result<Self::Before, StepError>> + Send;

    /// Looks ahead, for a plan, at what the step will need, when its configuration still waits for the outputs of other
    /// steps: `with` has those of its keys that are known. Changes nothing. Gives warnings, or what would be in its way.
    fn foresee(with: &Value, ctx: &StepContext) -> impl Future<Output = Result<Vec<String>, StepError>> + Send {
        let _ = (with, ctx);
        async { Ok(Vec::new()) }
    }

    /// What `plan` tells of the step: what `run` would do to the world that `inspect` saw, and what undo would.
    fn preview(&self, before: &Self::Before) -> Preview;

    /// Does the work. Doing it twice leaves the world as doing it once does.
    fn run(&self, ctx: &StepContext, before: &Self::Before) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Puts things back, however far `run` got. Undoing twice does no harm.
    fn undo(&self, ctx: &StepContext, before: &Self::Before) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// What a plan tells of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
pub struct Preview {
    /// What the step would do: `copies 120 objects, 3.4 GiB`.
    pub does: String,
    /// What undoing it would do: `deletes what it created`.
    pub undo: String,
    /// Whether the world is already as the step would leave it.
    #[serde(default)]
    pub already_done: bool,
    /// Bytes that would move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Objects, files or rows that would move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// What the reader should know before saying yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The built-in step types, one line each.
pub fn builtin() -> Registry {
    Registry::default()
        .with::<address::AddressMove>()
        .with::<approval::Approval>()
        .with::<assert::Assert>()
        .with::<command::Command>()
        .with::<container::ContainerCheckpoint>()
        .with::<container::ContainerMigrate>()
        .with::<container::ContainerRestore>()
        .with::<criu::CriuCheckpoint>()
        .with::<criu::CriuMigrate>()
        .with::<criu::CriuRestore>()
        .with::<file::FileWrite>()
        .with::<http::HttpRequest>()
        .with::<object::ObjectCompare>()
        .with::<object::ObjectDelete>()
        .with::<object::ObjectList>()
        .with::<object::ObjectSync>()
        .with::<postgres::BaseBackup>()
        .with::<postgres::RestoreCluster>()
        .with::<postgres::WalShip>()
        .with::<postgres::CatchUp>()
        .with::<postgres::Compare>()
        .with::<postgres::Cutover>()
        .with::<postgres::Failback>()
        .with::<postgres::Logical>()
        .with::<postgres::Query>()
        .with::<postgres::Replica>()
        .with::<http::ProbeHttp>()
        .with::<probe::ProbePostgres>()
        .with::<probe::ProbeTcp>()
        .with::<validate::ValidateCommand>()
        .with::<http::ValidateHttp>()
        .with::<postgres::ValidateQuery>()
        .with::<validate::ValidateTcp>()
        .with::<wait::Wait>()
}
