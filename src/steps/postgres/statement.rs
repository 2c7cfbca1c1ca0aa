//! Statements as pipelines write them: with values beside them, and answers as JSON.

use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

use crate::error::StepError;
use crate::postgres::{Database, Server, quote_literal};
use crate::secret::Text;
use crate::steps::StepContext;
use crate::steps::scalar::Scalar;

/// How long an order to end what still works on the server may take.
const LAST_WORD: std::time::Duration = std::time::Duration::from_secs(5);

/// One statement or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Statements {
    /// One.
    One(Text),
    /// Several, in this order.
    Many(Vec<Text>),
}

impl Statements {
    pub(super) fn all(&self) -> &[Text] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// The beginning of it, for people; secrets masked.
    pub(super) fn title(&self) -> String {
        title(self.all().first().unwrap_or(&Text::default()), self.all().len())
    }
}

/// The beginning of a statement, for people.
pub(in crate::steps) fn title(statement: &Text, count: usize) -> String {
    const LONGEST: usize = 60;
    let whole = statement.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = whole.chars().take(LONGEST).collect();
    if short.len() < whole.len() || count > 1 { format!("{} …", short.trim_end()) } else { short }
}

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::steps) struct Answer {
    /// Its rows, as far as they are kept: a mapping each.
    pub(in crate::steps) rows: Vec<Value>,
    /// The first column of the first row.
    pub(in crate::steps) scalar: Option<Value>,
    /// How many rows it gave or changed.
    pub(in crate::steps) count: u64,
}

/// A connection for statements, which ends what it has begun when the step is told to stop.
pub(in crate::steps) struct Session<'a> {
    ctx: &'a StepContext,
    server: &'a Server,
    database: Database,
    process: String,
}

impl<'a> Session<'a> {
    /// To the server's own database, or another one.
    pub(in crate::steps) async fn open(ctx: &'a StepContext, server: &'a Server, name: Option<&str>) -> Result<Self, StepError> {
        let database = ctx.reach().connect_to(server, name.unwrap_or(&server.database)).await?;
        // A server that can looks whether its client still lives: what a killed runner has begun is not worked on for hours.
        let sql = "select pg_backend_pid(), set_config('client_connection_check_interval', '2s', false) from pg_settings \
                   where name = 'client_connection_check_interval' union all select pg_backend_pid(), null limit 1";
        let said = database.said("begin a session", sql).await?;
        let process = said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(Self { ctx, server, database, process: process.unwrap_or_default() })
    }

    /// An order without an answer.
    pub(in crate::steps) async fn order(&self, doing: &str, sql: &str) -> Result<(), StepError> {
        self.until_told(self.database.orders(doing, sql)).await
    }

    /// A text that the server gives.
    pub(in crate::steps) async fn text(&self, doing: &str, sql: &str) -> Result<Option<String>, StepError> {
        let said = self.until_told(self.database.said(doing, sql)).await?;
        Ok(said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Runs a statement with values for its `$1`, `$2`, …; keeps so many rows.
    pub(in crate::steps) async fn ask(&self, statement: &Text, values: &[Scalar], keep: usize) -> Result<Answer, StepError> {
        let doing = format!("run `{}`", title(statement, 1));
        let sql = self.ctx.reveal(statement)?;
        // Its columns' types; a statement that does not stand alone has none, and gives texts.
        let types: Vec<Type> = match self.until_told(self.prepared(sql.expose_secret())).await? {
            Ok(types) => types,
            Err(error) => return Err(with_help(self.database.failed(&doing, error))),
        };
        let sql = if values.is_empty() {
            sql.expose_secret().to_owned()
        } else {
            let values: Vec<String> = values
                .iter()
                .map(|Scalar(value)| Ok(quote_literal(self.ctx.reveal(value)?.expose_secret())))
                .collect::<Result<_, StepError>>()?;
            let sql = sql.expose_secret().trim().trim_end_matches(';');
            format!("prepare ferry_statement as {sql}; execute ferry_statement ({})", values.join(", "))
        };
        let said = self.until_told(self.database.said(&doing, &sql)).await.map_err(with_help)?;
        Ok(answer(&said, &types, keep))
    }

    async fn prepared(&self, sql: &str) -> Result<Result<Vec<Type>, tokio_postgres::Error>, StepError> {
        Ok(match self.database.client().prepare(sql).await {
            Ok(statement) => Ok(statement.columns().iter().map(|column| column.type_().clone()).collect()),
            // Several statements in one text cannot be prepared, and are run all the same.
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::SYNTAX_ERROR) && sql.contains(';') => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        })
    }

    async fn until_told<T>(&self, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        tokio::select! {
            done = work => done,
            () = self.ctx.cancel.cancelled() => {
                // The connection's end alone is noticed late. The reach of this attempt is told to stop as well.
                let reach = crate::postgres::Reach { cancel: tokio_util::sync::CancellationToken::new(), ..self.ctx.reach() };
                let ending = async {
                    let other = reach.connect(self.server).await?;
                    other.orders("end a statement", &format!("select pg_terminate_backend({})", self.process)).await
                };
                let _ = tokio::time::timeout(LAST_WORD, ending).await;
                Err(self.ctx.stopped())
            }
        }
    }
}

/// What PostgreSQL says is most often all there is to say.
fn with_help(error: StepError) -> StepError {
    if error.help.is_some() {
        error
    } else {
        error.help("correct the statement or its values, or what they are about, then resume the run")
    }
}

fn answer(said: &[SimpleQueryMessage], types: &[Type], keep: usize) -> Answer {
    let mut answer = Answer::default();
    for message in said {
        match message {
            // The answer is that of the last one.
            SimpleQueryMessage::RowDescription(_) => answer = Answer::default(),
            SimpleQueryMessage::Row(row) => {
                let value = |at: usize| json(row.get(at), types.get(at));
                if answer.rows.is_empty() && answer.scalar.is_none() && !row.is_empty() {
                    answer.scalar = Some(value(0));
                }
                if answer.rows.len() < keep {
                    let fields = row.columns().iter().enumerate().map(|(at, column)| (column.name().to_owned(), value(at)));
                    answer.rows.push(Value::Object(fields.collect::<Map<_, _>>()));
                }
            }
            SimpleQueryMessage::CommandComplete(count) => answer.count = *count,
            _ => {}
        }
    }
    answer
}

/// A value as JSON: truths, numbers and JSON as what they are, all else as text.
fn json(text: Option<&str>, kind: Option<&Type>) -> Value {
    let Some(text) = text else { return Value::Null };
    let number = |text: &str| {
        let whole = text.parse::<i64>().ok().map(Number::from);
        // A number that JSON's readers would change stays text.
        let exact = || text.parse::<f64>().ok().filter(|_| text.len() <= 15).and_then(Number::from_f64);
        whole.or_else(exact).map(Value::Number)
    };
    let known = match kind {
        Some(&Type::BOOL) => Some(Value::Bool(text == "t")),
        Some(&(Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::NUMERIC)) => number(text),
        Some(&(Type::FLOAT4 | Type::FLOAT8)) => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
        Some(&(Type::JSON | Type::JSONB)) => serde_json::from_str(text).ok(),
        _ => None,
    };
    known.unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

    use super::*;

    #[test]
    fn values_keep_their_types() {
        for (text, kind, wanted) in [
            ("t", Type::BOOL, value!(true)),
            ("42", Type::INT8, value!(42)),
            ("1.50", Type::NUMERIC, value!(1.5)),
            ("123456789012345678901", Type::NUMERIC, value!("123456789012345678901")),
            ("NaN", Type::FLOAT8, value!("NaN")),
            ("0.1", Type::FLOAT8, value!(0.1)),
            ("{\"a\": [1]}", Type::JSONB, value!({ "a": [1] })),
            ("42", Type::TEXT, value!("42")),
        ] {
            assert_eq!(json(Some(text), Some(&kind)), wanted);
        }
        assert_eq!(json(None, Some(&Type::TEXT)), Value::Null);
        assert_eq!(json(Some("1"), None), value!("1"));
    }

    #[test]
    fn a_title_is_short_and_masked() {
        let secret = Text::new(format!("alter role app\n  password '{}'", crate::secret::mark("p")));
        assert_eq!(title(&secret, 1), "alter role app password '***'");
        assert_eq!(title(&Text::new("begin"), 2), "begin …");
    }
}
