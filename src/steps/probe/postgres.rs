//! `probe.postgres`: what clients of a database see, and whether each write that was acknowledged to them is kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::Severity;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Client, Kind};
use super::ledger::{Found, Ledger, Proof};
use super::ranges::Ranges;
use super::record::Seen;
use super::terms::{Terms, half_minute, ten_seconds, twenty, ways};
use super::watch::Watch;
use crate::catalogue::{Background, Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::Endpoint;
use crate::postgres::{Connect, Database, Login, Server, Trust, open};
use crate::secret::Text;
use crate::steps::{Preview, Step, StepContext};
use crate::units::Span;

/// The schema of the ledgers.
const SCHEMA: &str = "ferry_probe";
/// What was proven, kept before the table is dropped.
const PROVEN: &str = "proven.json";

/// Watches a PostgreSQL database as its clients do, and proves that no write which was acknowledged to them is lost.
///
/// The clients go where real ones go: to the public name, through the pooler or the proxy. One keeps its connection, the
/// other makes a new one each time and looks the name up anew. Each question is one statement of its own, without anything
/// that a pooler in transaction mode could not pass on.
///
/// The statement is a write into a ledger, `ferry_probe.ledger_…`, which the step makes if it is not there: numbers that
/// increase, each noted when it is sent and when it is acknowledged. At the end the step asks, by the same route and so
/// wherever that leads by then, whether each acknowledged number is there exactly once, and nothing that was never sent. If
/// not, it fails and names the numbers. A write whose answer did not come may or may not be there: those are counted apart.
/// With `ledger: false` the clients only read.
///
/// The step belongs into the background: it is ready after three good answers in a row of each kind, and ends when the step
/// under `until` is over and `after` good answers of each kind have come since. A gap is the time between two good answers
/// that came, on a clock that nobody sets. An error does not make the step fail; `max_gap` and `max_errors` say what does, at
/// its end. `probe.json` in the step's folder of the run has the fifty longest gaps.
///
/// After an interruption it watches again with the same ledger, and adds to what was seen; the time in which nobody watched
/// is no gap. The ledger's table is dropped at the end, unless `keep: true`, and by undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbePostgres {
    /// The `host:port` that clients use: of the pooler, if there is one. The port is 5432, unless given.
    route: String,
    /// Who logs in.
    user: String,
    /// The password, if one is asked for.
    #[serde(default)]
    password: Option<Text>,
    /// The database; that with the user's name, unless given.
    #[serde(default)]
    database: Option<String>,
    /// What TLS has to prove: `disable`, `prefer`, `require`, `verify-ca` or `verify-full`. Without it, TLS is used where it
    /// is offered.
    #[serde(default)]
    tls: Trust,
    /// A file with the certificates of who may sign the server's; the system's own, unless given.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// Whether the clients write into a ledger; else they only read.
    #[serde(default = "yes")]
    ledger: bool,
    /// Whether the ledger's table stays when the step has succeeded.
    #[serde(default)]
    keep: bool,
    /// The kinds of clients; both, unless given.
    #[serde(default = "ways")]
    clients: Vec<Kind>,
    /// How often the kept connection is used; 5 ms, unless given.
    #[serde(default = "five_millis")]
    every: Span,
    /// How often a new connection is made; 100 ms, unless given.
    #[serde(default = "hundred_millis")]
    fresh_every: Span,
    /// How long an answer may take before it is an error; 10 seconds, unless given.
    #[serde(default = "ten_seconds")]
    at_most: Span,
    /// How many good answers of each kind have to come once the watched step is over; 20, unless given.
    #[serde(default = "twenty")]
    after: u64,
    /// How long it may take to get ready; half a minute, unless given.
    #[serde(default = "half_minute")]
    ready_within: Span,
    /// How long to watch when the step does not run in the background: `30s`.
    #[serde(default, rename = "for")]
    lasts: Option<Span>,
    /// A longer gap than this makes the step fail at its end.
    #[serde(default)]
    max_gap: Option<Span>,
    /// More errors than this make the step fail at its end.
    #[serde(default)]
    max_errors: Option<u64>,
}

fn yes() -> bool {
    true
}

fn five_millis() -> Span {
    Span(Duration::from_millis(5))
}

fn hundred_millis() -> Span {
    Span(Duration::from_millis(100))
}

/// Whether the schema of the ledgers was there before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    schema: bool,
}

/// What clients saw, and what the ledger proves.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// What clients saw.
    #[serde(flatten)]
    seen: Seen,
    /// What the ledger proves.
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<Proof>,
}

impl ProbePostgres {
    fn terms(&self) -> Terms {
        Terms {
            title: format!("`{}`", self.route),
            clients: self.clients.clone(),
            every: self.every,
            fresh_every: self.fresh_every,
            at_most: self.at_most,
            after: self.after,
            ready_within: self.ready_within,
            lasts: self.lasts,
            max_gap: self.max_gap,
            max_errors: self.max_errors,
        }
    }

    fn door<'a>(&'a self, ctx: &'a StepContext) -> Result<Door<'a>, StepError> {
        let server = Server { connect: Connect::Tcp, address: Some(self.route.clone()), ..Server::on("local") };
        let Endpoint::Tcp(machine, port) = server.endpoint() else { unreachable!("a server by TCP is at an address") };
        let login = Login {
            user: self.user.clone(),
            password: self.password.as_ref().map(|password| ctx.reveal(password)).transpose()?,
            database: self.database.clone().unwrap_or_else(|| self.user.clone()),
            application: "ferry probe".to_owned(),
            trust: self.tls,
            ca: self.ca.as_ref().map(|ca| ctx.resolve_path(ca)),
            name: machine.clone(),
            title: self.route.clone(),
        };
        Ok(Door {
            config: self,
            ctx,
            machine,
            port,
            login: Arc::new(login),
            table: format!("{SCHEMA}.ledger_{}", ctx.idempotence_key()),
        })
    }
}

/// The way into the database.
struct Door<'a> {
    config: &'a ProbePostgres,
    ctx: &'a StepContext,
    machine: String,
    port: u16,
    login: Arc<Login>,
    table: String,
}

impl Door<'_> {
    /// A new connection, to wherever the name leads now.
    fn enter(&self) -> BoxFuture<'_, Result<Database, StepError>> {
        let entering = async {
            let stream = TcpStream::connect((self.machine.as_str(), self.port)).await.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            let stream = stream.map_err(|error| {
                StepError::transient(format!("no connection to `{}`", self.config.route))
                    .cause(error)
                    .help("see whether the route leads to a server that runs; it is tried again as `retry` says")
            })?;
            // A task of its own: the password's proof takes the time of many answers, and the other client's answers come
            // meanwhile.
            let login = self.login.clone();
            let opening = tokio::spawn(async move { open(Box::new(stream), &login).await });
            AbortOnDropHandle::new(opening).await.unwrap_or_else(|_| {
                Err(StepError::transient(format!("logging in to `{}` was given up", self.config.route))
                    .help("it is tried again as `retry` says"))
            })
        };
        entering.boxed()
    }

    /// Something that is not measured: it is given up when the run is cancelled, or when it takes too long.
    async fn calmly<T>(&self, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        let limit = self.config.at_most.0.max(ten_seconds().0);
        tokio::select! {
            done = tokio::time::timeout(limit, work) => done.unwrap_or_else(|_| {
                let message = format!("`{}` did not answer within {}", self.config.route, Span(limit));
                Err(StepError::transient(message).help("see why clients get no answer; it is tried again as `retry` says"))
            }),
            () = self.ctx.cancel.cancelled() => Err(self.ctx.stopped()),
        }
    }

    async fn truths(&self, database: &Database, doing: &str, sql: &str) -> Result<Vec<bool>, StepError> {
        let said = database.said(doing, sql).await?;
        let row = said.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
        Ok(row.map(|row| (0..row.len()).map(|column| row.get(column) == Some("t")).collect()).unwrap_or_default())
    }

    /// Whether the schema and the table are there.
    async fn look(&self, database: &Database) -> Result<(bool, bool), StepError> {
        let sql = format!("select to_regnamespace('{SCHEMA}') is not null, to_regclass('{}') is not null", self.table);
        match self.truths(database, "look for the ledger", &sql).await?[..] {
            [schema, table] => Ok((schema, table)),
            _ => Err(StepError::transient(format!("`{}` gave an answer that is none", self.config.route))
                .help("it is asked again as `retry` says")),
        }
    }

    /// Makes the table if this is the first attempt; later ones find it.
    async fn prepare(&self, ledger: &Ledger) -> Result<(), StepError> {
        let database = self.enter().await?;
        let (schema, table) = self.look(&database).await?;
        match (table, ledger.is_new()) {
            (true, false) => Ok(()),
            (true, true) => {
                let found = self.found(&database).await?;
                ledger.adopt(&found.islands);
                Ok(())
            }
            (false, false) => Err(StepError::needs_person(format!(
                "the ledger `{}` of earlier attempts is not there any more, and all acknowledged writes with it",
                self.table
            ))
            .help("look at both servers: where does the route lead, and who dropped the table?")),
            (false, true) => {
                // That a number is there twice has to be seen, so it is not the key; a table without one is no good to
                // logical replication.
                let schema = if schema { String::new() } else { format!("create schema if not exists {SCHEMA};") };
                let sql = format!(
                    "{schema} create table if not exists {} \
                     (n bigint not null, at timestamptz not null default clock_timestamp(), primary key (n, at))",
                    self.table
                );
                database.orders("make the ledger", &sql).await
            }
        }
    }

    /// What the table holds.
    async fn found(&self, database: &Database) -> Result<Found, StepError> {
        let table = &self.table;
        let numbers = |said: Vec<SimpleQueryMessage>| -> Option<Vec<Vec<u64>>> {
            let rows =
                said.iter().filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
            rows.map(|row| (0..row.len()).map(|column| row.get(column)?.parse().ok()).collect()).collect()
        };
        let unreadable = || {
            StepError::permanent(format!("`{table}` holds what no ledger holds"))
                .help("somebody else wrote into it: find out who")
        };
        let islands = format!(
            "select min(n), max(n), count(*) from (select n, n - dense_rank() over (order by n) as island from {table}) as rows \
             group by island order by 1"
        );
        let rows = numbers(database.said("read the ledger", &islands).await?).ok_or_else(unreadable)?;
        let has_doubled = rows.iter().any(|row| row[2] != row[1] - row[0] + 1);
        let doubled = if has_doubled {
            let sql = format!("select n from {table} group by n having count(*) > 1 order by n limit 1000");
            numbers(database.said("read the ledger", &sql).await?).ok_or_else(unreadable)?
        } else {
            Vec::new()
        };
        let islands: Ranges = rows.iter().map(|row| (row[0], row[1])).collect();
        Ok(Found { islands, doubled: doubled.iter().map(|row| row[0]).collect() })
    }

    async fn drop_table(&self, database: &Database, with_schema: bool) -> Result<(), StepError> {
        let sql = format!("set client_min_messages = warning; drop table if exists {}; reset client_min_messages", self.table);
        database.orders("drop the ledger", &sql).await?;
        if with_schema {
            // Another probe's ledger may be in it: then it stays.
            let sql = format!(
                "do $$ begin drop schema {SCHEMA}; exception when dependent_objects_still_exist or invalid_schema_name then null; \
                 end $$"
            );
            database.orders("drop the ledger's schema", &sql).await?;
        }
        Ok(())
    }
}

/// A client that writes, or reads where there is no ledger.
struct Writer<'a> {
    door: &'a Door<'a>,
    ledger: Option<&'a Ledger>,
}

impl Client for Writer<'_> {
    type Connection = Database;

    async fn connect(&self, _: Kind) -> Result<Database, StepError> {
        self.door.enter().await
    }

    async fn ask(&self, database: &mut Database) -> Result<(), StepError> {
        let Some(ledger) = self.ledger else { return database.orders("ask", "select 1").await };
        let number = ledger.send()?;
        // Its outcome is unknown from here until the answer comes, also when nobody waits for that any more.
        match database.client().simple_query(&format!("insert into {} (n) values ({number})", self.door.table)).await {
            Ok(said) if said.iter().any(|message| matches!(message, SimpleQueryMessage::CommandComplete(1))) => {
                ledger.acknowledged(number);
                Ok(())
            }
            Ok(_) => Err(StepError::transient("the write was answered and not acknowledged").help("see what stands in between")),
            Err(error) => {
                if is_refused(&error) {
                    ledger.refused(number);
                }
                Err(database.failed("write", error))
            }
        }
    }
}

/// Whether a failed statement has certainly done nothing. What ends the session may come after the commit, and so may what
/// a pooler says of a server that it lost.
fn is_refused(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        let class = &error.code().code()[..2];
        error.parsed_severity() == Some(Severity::Error) && matches!(class, "22" | "23" | "25" | "40" | "42" | "53" | "55")
    })
}

impl Step for ProbePostgres {
    const TYPE: &'static str = "probe.postgres";
    const EXAMPLE: &'static str = r#"
id: probe
uses: probe.postgres
background: { until: cutover }
with:
  route: db.acme.example:6432
  user: ferry
  password: "{{ secrets.ferry }}"
  database: shop
  max_gap: 2s
  max_errors: 0
"#;
    const BACKGROUND: Background = Background::ReadyWhenSaid;

    type Before = Before;
    type Output = Output;

    fn traits(with: &Value) -> Traits {
        let undo = if with.get("ledger") == Some(&Value::Bool(false)) { Undo::Nothing } else { Undo::Built };
        Traits { undo, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        self.terms().check()?;
        let door = self.door(ctx)?;
        let schema = door.calmly(async { door.look(&door.enter().await?).await }).await?.0;
        Ok(Before { schema })
    }

    fn preview(&self, _: &Before) -> Preview {
        let (does, undo) = match (self.ledger, self.keep) {
            (true, false) => (", writes into a ledger of its own that is dropped at the end", "drops the ledger"),
            (true, true) => (", writes into a ledger of its own", "drops the ledger"),
            (false, _) => ("", "nothing to undo"),
        };
        Preview { does: format!("{}{does}", self.terms().told()), undo: undo.to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Output, StepError> {
        let terms = self.terms();
        let door = self.door(ctx)?;
        let watch = Watch::new(ctx, &terms);
        if !self.ledger {
            let seen = watch.run(&Writer { door: &door, ledger: None }).await?;
            terms.hold(&seen)?;
            return Ok(Output { seen, ledger: None });
        }
        // An attempt that proved it and died before anybody knew has dropped the table.
        let proven = ctx.scratch.join(PROVEN);
        let (seen, proof) = if let Ok(text) = tokio::fs::read(&proven).await
            && let Ok(kept) = serde_json::from_slice::<(Seen, Proof)>(&text)
        {
            kept
        } else {
            let ledger = Ledger::open(&ctx.scratch).await?;
            door.calmly(door.prepare(&ledger)).await?;
            let seen = watch.run(&Writer { door: &door, ledger: Some(&ledger) }).await?;
            let ledger = ledger.close().await?;
            let found = door.calmly(async { door.found(&door.enter().await?).await }).await?;
            let proof = ledger.prove(&found, &door.table)?;
            terms.hold(&seen)?;
            (seen, proof)
        };
        if !self.keep {
            keep(&proven, &(&seen, &proof)).await?;
            door.calmly(async { door.drop_table(&door.enter().await?, !before.schema).await }).await?;
        }
        Ok(Output { seen, ledger: Some(proof) })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        if !self.ledger {
            return Ok(());
        }
        let door = self.door(ctx)?;
        door.calmly(async { door.drop_table(&door.enter().await?, !before.schema).await }).await
    }
}

/// Writes what was proven so that it is there whatever happens next.
async fn keep(path: &std::path::Path, what: &impl Serialize) -> Result<(), StepError> {
    let unwritable = |error: std::io::Error| {
        StepError::permanent(format!("cannot write `{PROVEN}` in the step's folder"))
            .cause(error)
            .help("make room, then resume the run")
    };
    let text = serde_json::to_vec(what).map_err(|error| unwritable(error.into()))?;
    let (path, next) = (path.to_owned(), path.with_extension("next"));
    let writing = tokio::task::spawn_blocking(move || {
        std::fs::write(&next, text)?;
        std::fs::File::open(&next)?.sync_all()?;
        std::fs::rename(&next, &path)?;
        path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
    });
    writing.await.map_err(|error| unwritable(error.into()))?.map_err(unwritable)
}
