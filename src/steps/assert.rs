//! `assert`: the run goes on only when something is true.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Preview, Step, StepContext};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;

/// Stops the run unless something is true.
///
/// `that` is usually a template that compares outputs of earlier steps. Anything but true is a failure that no retry
/// helps: not false alone, but an empty text, a number or a missing value too.
///
/// After an interruption it is run again. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assert {
    /// What must be true: `"{{ eq steps.count.outputs.text "42" }}"`.
    #[schemars(schema_with = "truth")]
    that: Value,
    /// What the failure says when it is not.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    message: Option<String>,
}

fn truth(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["boolean", "string"] })
}

impl Assert {
    /// A template of one expression keeps its type; one with text around its expressions yields a text.
    fn holds(&self) -> bool {
        self.that == Value::Bool(true) || self.that.as_str().is_some_and(|text| text.trim() == "true")
    }
}

/// What an assertion leaves: that it was found true.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Asserted {
    /// Always true.
    held: bool,
}

impl Step for Assert {
    const TYPE: &'static str = "assert";
    const EXAMPLE: &'static str = r#"
id: enough
uses: assert
with:
  that: "{{ gt steps.count.outputs.json 1000 }}"
  message: "only {{ steps.count.outputs.json }} orders have arrived"
"#;

    type Before = ();
    type Output = Asserted;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    fn preview(&self, (): &()) -> Preview {
        let warnings = if self.holds() { Vec::new() } else { vec!["it does not hold now".to_owned()] };
        Preview {
            does: "stops the run unless it holds".to_owned(),
            undo: "nothing to undo".to_owned(),
            warnings,
            ..Preview::default()
        }
    }

    async fn run(&self, _: &StepContext, (): &()) -> Result<Asserted, StepError> {
        if self.holds() {
            return Ok(Asserted { held: true });
        }
        let message = self.message.clone().unwrap_or_else(|| format!("`that` is `{}`, not true", self.that));
        Err(StepError::permanent(message)
            .help("find out why it is not so and put it right, then resume the run: the assertion is checked again"))
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
