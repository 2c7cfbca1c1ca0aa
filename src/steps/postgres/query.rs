//! `postgres.query`: statements on a PostgreSQL server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::statement::{Answer, Session, Statements};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::Server;
use crate::steps::scalar::Scalar;
use crate::steps::{Preview, Step, StepContext};

/// Runs statements on a PostgreSQL server, and leaves what the last one gave.
///
/// The statements are one transaction: all of them count, or none does. With `transaction: false` each counts by itself, as
/// `vacuum` and `create index concurrently` need it; with `read_only: true` the server refuses to change anything.
///
/// After an interruption a transaction is looked for first, by its number: if it was committed, the step is done; if not,
/// it is run again. Without a transaction a person is asked, unless `idempotent: true` says that running it twice does no
/// harm.
///
/// Values go beside the statement, not into it: `$1`, `$2` and so on stand for the items of `values`, whatever these hold.
/// Undo runs the statements under `undo`, if there are any. Without them there is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The server.
    server: Server,
    /// The database; the server's own `database`, unless given.
    #[serde(default)]
    database: Option<String>,
    /// The statement, or a list of them.
    sql: Statements,
    /// What `$1`, `$2`, … stand for; only with a single statement.
    #[serde(default)]
    values: Vec<Scalar>,
    /// Whether all of it is one transaction.
    #[serde(default = "yes")]
    transaction: bool,
    /// Whether it only reads; then nothing else is allowed to it.
    #[serde(default)]
    read_only: bool,
    /// Whether running it twice does no more than running it once.
    #[serde(default)]
    #[expect(dead_code, reason = "only its traits ask")]
    idempotent: bool,
    /// How many rows the outputs keep; 100, unless given.
    #[serde(default = "hundred")]
    limit: usize,
    /// Statements that take back what these do, as one transaction. They may be run though these were not, and twice.
    #[serde(default)]
    undo: Option<Statements>,
}

fn yes() -> bool {
    true
}

fn hundred() -> usize {
    100
}

/// What the last statement gave.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// How many rows it gave or changed.
    count: u64,
    /// The first column of the first row, when there are rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scalar: Option<Value>,
    /// Its rows, each a mapping by column.
    rows: Vec<Value>,
    /// Whether `rows` has all of them.
    is_complete: bool,
}

impl From<Answer> for Output {
    fn from(answer: Answer) -> Self {
        let is_complete = answer.rows.is_empty() || answer.rows.len() as u64 == answer.count;
        Self { count: answer.count, scalar: answer.scalar, rows: answer.rows, is_complete }
    }
}

/// Written before a transaction is committed.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    transaction: String,
    output: Output,
}

impl Query {
    fn check(&self) -> Result<(), StepError> {
        let all = self.sql.all();
        if all.is_empty() || all.iter().any(|sql| sql.marked().trim().is_empty()) {
            return Err(StepError::permanent("there is no statement to run").help("write one under `sql`"));
        }
        if !self.values.is_empty() && all.len() > 1 {
            return Err(StepError::permanent("`values` go with a single statement").help("part the step in several"));
        }
        Ok(())
    }

    async fn statements(&self, session: &Session<'_>, all: &Statements, values: &[Scalar]) -> Result<Answer, StepError> {
        let mut answer = Answer::default();
        for sql in all.all() {
            answer = session.ask(sql, values, self.limit).await?;
        }
        Ok(answer)
    }

    /// What an earlier attempt has left, if its transaction was committed.
    async fn earlier(&self, ctx: &StepContext, session: &Session<'_>) -> Result<Option<Output>, StepError> {
        let Some(intent) = ctx.checkpoint::<Intent>() else { return Ok(None) };
        let number: u64 = intent.transaction.parse().unwrap_or(0);
        let status = session.text("look for the transaction", &format!("select txid_status({number})")).await?;
        match status.as_deref() {
            Some("committed") => Ok(Some(intent.output)),
            Some("aborted") => Ok(None),
            Some(_) => Err(StepError::transient(format!("transaction {number} of an earlier attempt is still at work")).help(
                "it ends by itself when the server notices that its client is gone; it is looked for again as `retry` says",
            )),
            None => Err(StepError::needs_person(format!("nobody knows any more what became of transaction {number}"))
                .help("look whether what the statements do is done; then edit the pipeline, or accept the step as done")),
        }
    }
}

impl Step for Query {
    const TYPE: &'static str = "postgres.query";
    const EXAMPLE: &'static str = r#"
id: flag
uses: postgres.query
with:
  server: old-db
  database: shop
  sql: insert into notes (run, text) values ($1, $2) returning id
  values: ["{{ run.id }}", moved]
  undo: delete from notes where text = 'moved'
"#;

    type Before = ();
    type Output = Output;

    fn traits(with: &Value) -> Traits {
        let is = |key: &str, value: bool| with.get(key) == Some(&Value::Bool(value));
        let interrupted = if is("read_only", true) || is("idempotent", true) {
            Interrupted::RunAgain
        } else if with.get("transaction").is_none_or(|transaction| transaction == &Value::Bool(true)) {
            Interrupted::LookFirst
        } else {
            Interrupted::AskPerson
        };
        let undo = if with.get("undo").is_some_and(|undo| !undo.is_null()) { Undo::Built } else { Undo::Nothing };
        Traits { undo, interrupted }
    }

    /// Asks nothing: the server may be one that an earlier step makes.
    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        self.check()
    }

    fn preview(&self, (): &()) -> Preview {
        let verb = if self.read_only { "asks" } else { "runs" };
        let undo = self.undo.as_ref().map(|undo| format!("runs `{}`", undo.title()));
        Preview {
            does: format!("{verb} `{}` on `{}`", self.sql.title(), self.server.title()),
            undo: undo.unwrap_or_else(|| "nothing to undo".to_owned()),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Output, StepError> {
        self.check()?;
        let session = Session::open(ctx, &self.server, self.database.as_deref()).await?;
        if self.read_only {
            let order = if self.transaction { "begin read only" } else { "set default_transaction_read_only = on" };
            session.order("begin to read", order).await?;
            return self.statements(&session, &self.sql, &self.values).await.map(Output::from);
        }
        if !self.transaction {
            return self.statements(&session, &self.sql, &self.values).await.map(Output::from);
        }
        if let Some(output) = self.earlier(ctx, &session).await? {
            return Ok(output);
        }
        session.order("begin a transaction", "begin").await?;
        let output = Output::from(self.statements(&session, &self.sql, &self.values).await?);
        let number = session.text("ask for the transaction's number", "select txid_current()").await?;
        // Whoever comes after a death between here and the journal's next line asks for it by this number.
        let intent = Intent { transaction: number.unwrap_or_default(), output };
        ctx.save(&intent).await?;
        session.order("commit", "commit").await?;
        Ok(intent.output)
    }

    async fn undo(&self, ctx: &StepContext, (): &()) -> Result<(), StepError> {
        let Some(undo) = &self.undo else { return Ok(()) };
        let session = Session::open(ctx, &self.server, self.database.as_deref()).await?;
        session.order("begin a transaction", "begin").await?;
        self.statements(&session, undo, &[]).await?;
        session.order("commit", "commit").await
    }
}
