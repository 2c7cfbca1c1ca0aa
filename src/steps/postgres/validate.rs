//! `validate.query`: what a PostgreSQL server answers has to be what is expected.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::statement::{Answer, Session, title};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::Server;
use crate::secret::Text;
use crate::steps::http::differs;
use crate::steps::scalar::Scalar;
use crate::steps::validate::{in_time, rounded};
use crate::steps::{Preview, Step, StepContext};
use crate::units::Span;

/// Rows that are kept for `json` and for messages.
const KEPT: usize = 1000;

/// Asks a PostgreSQL server, and fails unless the answer is as expected.
///
/// The question cannot change anything. The value is the first column of the first row; it has to be what `equals` says,
/// to contain what `contains` says, and to lie between `at_least` and `at_most`; `rows` is how many rows there have to be,
/// and `json` what they have to hold. Without any of these there has to be a row, and its value has to be anything but null
/// and false.
///
/// Anything else than expected fails at once; an answer that comes too late, or none, is asked for again as `retry` says.
///
/// After an interruption it is run again. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateQuery {
    /// The server.
    server: Server,
    /// The database; the server's own `database`, unless given.
    #[serde(default)]
    database: Option<String>,
    /// The question.
    sql: Text,
    /// What `$1`, `$2`, … in it stand for.
    #[serde(default)]
    values: Vec<Scalar>,
    /// What the value has to be, as text.
    #[serde(default)]
    equals: Option<Scalar>,
    /// What the value as text has to contain.
    #[serde(default)]
    contains: Option<Scalar>,
    /// The least that the value may be, as a number.
    #[serde(default)]
    at_least: Option<f64>,
    /// The most that the value may be, as a number.
    #[serde(default)]
    at_most: Option<f64>,
    /// How many rows there have to be.
    #[serde(default)]
    rows: Option<u64>,
    /// What the rows have to hold: a list of mappings. Columns that are not named may be anything.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    json: Option<Value>,
    /// How long the answer may take to be good enough.
    #[serde(default)]
    within: Option<Span>,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Validated {
    /// The first column of the first row, when there are rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// How many rows there are.
    rows: u64,
    /// How long it took.
    took: Span,
}

impl ValidateQuery {
    /// What the answer differs in.
    fn differs(&self, ctx: &StepContext, answer: &Answer) -> Result<Option<String>, StepError> {
        use secrecy::ExposeSecret as _;
        let value = answer.scalar.clone().unwrap_or(Value::Null);
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let shown: String = if answer.scalar.is_none() {
            "there is no row".to_owned()
        } else {
            format!("it is `{}`", ctx.vault.mask(&text).chars().take(120).collect::<String>())
        };
        if let Some(wanted) = self.rows
            && answer.count != wanted
        {
            return Ok(Some(format!("there are {} rows, not {wanted}", answer.count)));
        }
        if let Some(Scalar(wanted)) = &self.equals
            && (answer.scalar.is_none() || text != ctx.reveal(wanted)?.expose_secret())
        {
            return Ok(Some(format!("{shown}, not `{wanted}`")));
        }
        if let Some(Scalar(wanted)) = &self.contains
            && (answer.scalar.is_none() || !text.contains(ctx.reveal(wanted)?.expose_secret()))
        {
            return Ok(Some(format!("{shown}, and has nothing of `{wanted}`")));
        }
        if self.at_least.is_some() || self.at_most.is_some() {
            let Some(number) = value.as_f64().or_else(|| text.parse::<f64>().ok()).filter(|number| !number.is_nan()) else {
                return Ok(Some(format!("{shown}, and no number")));
            };
            if let Some(least) = self.at_least.filter(|least| number < *least) {
                return Ok(Some(format!("{shown}, less than {least}")));
            }
            if let Some(most) = self.at_most.filter(|most| number > *most) {
                return Ok(Some(format!("{shown}, more than {most}")));
            }
        }
        if let Some(wanted) = &self.json {
            return Ok(differs(ctx, wanted, &Value::Array(answer.rows.clone()), ""));
        }
        let is_bare = self.rows.is_none() && self.equals.is_none() && self.contains.is_none();
        let is_no = matches!(value, Value::Null | Value::Bool(false));
        Ok((is_bare && self.at_least.is_none() && self.at_most.is_none() && is_no).then_some(shown))
    }
}

impl Step for ValidateQuery {
    const TYPE: &'static str = "validate.query";
    const EXAMPLE: &'static str = r"
id: orders
uses: validate.query
with:
  server: new-db
  database: shop
  sql: select count(*) from orders where placed > now() - interval '1 hour'
  at_least: 1
  within: 2s
";

    type Before = ();
    type Output = Validated;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    /// Asks nothing: the server may be one that an earlier step makes.
    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        if self.sql.marked().trim().is_empty() {
            return Err(StepError::permanent("there is nothing to ask").help("write a question under `sql`"));
        }
        Ok(())
    }

    fn preview(&self, (): &()) -> Preview {
        let does = format!("asks `{}` on `{}` and looks at the answer", title(&self.sql, 1), self.server.title());
        Preview { does, undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Validated, StepError> {
        let session = Session::open(ctx, &self.server, self.database.as_deref()).await?;
        session.order("begin to read", "begin read only").await?;
        let start = ctx.clock.monotonic();
        let answer = session.ask(&self.sql, &self.values, KEPT).await?;
        let took = ctx.clock.monotonic().saturating_sub(start);
        let what = format!("the answer to `{}` on `{}`", title(&self.sql, 1), self.server.title());
        if let Some(difference) = self.differs(ctx, &answer)? {
            return Err(StepError::permanent(format!("{what} is not as expected: {difference}"))
                .help("find out why it is not so and put it right, then resume the run"));
        }
        in_time(&what, took, self.within)?;
        Ok(Validated { value: answer.scalar, rows: answer.count, took: rounded(took) })
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
