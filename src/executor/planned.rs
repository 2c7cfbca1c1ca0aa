//! What a plan says: for each step what would happen, and what was found wrong.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::{StepPath, UndoDef};
use crate::error::Failure;
use crate::steps::Preview;

/// On which side of the pivot a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// It can be undone, or is over, before the pivot.
    Before,
    /// It is the pivot, or holds it inside.
    Pivot,
    /// It starts when the pivot has been passed: from there the run goes forward only.
    After,
    /// It runs whatever the outcome.
    Finally,
}

/// What is known of a step before anything has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// The world was looked at: `preview` says what would happen.
    Ready,
    /// Something has to happen first: `waits_for` says what.
    Later,
    /// Its condition says no.
    Skipped,
    /// A `for_each` or a pipeline: what is inside follows.
    Group,
    /// A person will be asked.
    Approval,
    /// Something is wrong: `failure` says what.
    Failed,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    /// The step.
    pub step: StepPath,
    /// What people read in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its type, or the pipeline that it runs.
    pub uses: String,
    /// The steps that must be over before it starts.
    pub needs: Vec<StepPath>,
    /// What is known.
    pub state: PlanState,
    /// On which side of the pivot it stands.
    pub half: Half,
    /// As the pivot: it can be undone until it says that it has passed it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pivot_inside: bool,
    /// What undoing it would be.
    pub undo: UndoDef,
    /// What would happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// Why it cannot be looked at yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// What the reader should know of it all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreseen: Vec<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Whether `failure` keeps a run from starting. What a step finds missing that an earlier step may bring does not.
    pub is_blocking: bool,
    /// The question of an approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
}

/// What a run would do, as far as it can be known without doing it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// The inputs, defaults filled in, secrets as `***`.
    pub inputs: Map<String, Value>,
    /// Each step before what is inside it, in the order in which they may start.
    pub steps: Vec<Planned>,
    /// Whether a step is a pivot.
    pub has_pivot: bool,
    /// Bytes that would move, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Objects that would move, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
}

impl Plan {
    /// The steps that keep a run from starting.
    pub fn blocking(&self) -> impl Iterator<Item = &Planned> {
        self.steps.iter().filter(|step| step.is_blocking)
    }

    /// What the reader should know before saying yes, with the step that says it.
    pub fn warnings(&self) -> impl Iterator<Item = (&StepPath, &str)> {
        self.steps.iter().flat_map(|step| {
            let warnings = step.preview.iter().flat_map(|preview| &preview.warnings);
            warnings.chain(&step.foreseen).map(|warning| (&step.step, warning.as_str()))
        })
    }

    pub(super) fn sum_up(&mut self) {
        let previews = || self.steps.iter().filter_map(|step| step.preview.as_ref());
        let sum = |values: Vec<u64>| (!values.is_empty()).then(|| values.into_iter().fold(0, u64::saturating_add));
        let bytes = sum(previews().filter_map(|preview| preview.bytes).collect());
        let objects = sum(previews().filter_map(|preview| preview.objects).collect());
        (self.bytes, self.objects) = (bytes, objects);
    }
}
