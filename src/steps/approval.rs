//! `approval`: the run goes on when a person says so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Preview, Step, StepContext};
use crate::catalogue::{Interrupted, Kind, Traits, Undo};
use crate::error::StepError;
use crate::units::Span;

/// Waits for a person's yes.
///
/// The run shows the message and waits; `ferry approve RUN STEP` says yes, `ferry approve RUN STEP --deny` says no. An
/// answer is bound to the run, the step and what was shown: when the message changes, the question is put again. A
/// restart never implies a yes, and a yes once given stays given.
///
/// There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What the person is asked; name the figures the answer depends on.
    #[schemars(extend("x-secret" = true))]
    message: String,
    /// Who may answer, by user name. Anybody, unless given.
    #[serde(default)]
    approvers: Vec<String>,
    /// How long the run waits for an answer before the step fails. For ever, unless given.
    #[serde(default)]
    at_most: Option<Span>,
}

/// Who said yes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Approved {
    /// Who said yes.
    by: String,
    /// What the person said with it.
    comment: Option<String>,
}

impl Step for Approval {
    const TYPE: &'static str = "approval";
    const EXAMPLE: &'static str = r#"
id: go
uses: approval
with:
  message: "{{ steps.copy.outputs.objects }} objects are over. Cut over now?"
  approvers: [ada, grace]
  at_most: 12h
"#;
    const KIND: Kind = Kind::Approval;

    type Before = ();
    type Output = Approved;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    fn preview(&self, (): &()) -> Preview {
        let who = if self.approvers.is_empty() { "somebody".to_owned() } else { self.approvers.join(" or ") };
        let limit = self.at_most.map(|limit| format!(", at most {limit}")).unwrap_or_default();
        Preview {
            does: format!("waits until {who} says yes{limit}: {}", self.message),
            undo: "nothing to undo".to_owned(),
            ..Preview::default()
        }
    }

    /// The engine waits for the answer itself; a driver that runs an approval is told so.
    async fn run(&self, _: &StepContext, (): &()) -> Result<Approved, StepError> {
        Err(StepError::needs_person("an approval is given by a person, not by running it")
            .help("`ferry approve RUN STEP` gives it"))
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
