//! `postgres.compare`: proves that two PostgreSQL servers hold the same, or says where they differ.

mod facts;
mod rows;
mod session;
mod table;
mod work;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::session::{live, one};
use self::table::{Range, Table};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::{Database, Server};
use crate::steps::{Preview, Step, StepContext};
use crate::units::{ByteSize, Rate, Span};

/// How many differences and tables fit into the outputs; all of them are in files.
const SHOWN: usize = 100;

/// Proves that two PostgreSQL servers hold the same, and fails when they do not.
///
/// Every table of every database is compared by the number of its rows and by two 64-bit checksums over them that do not
/// depend on their order; large tables in parts, several at once. Where they differ, the parts are halved until the rows
/// are known, and named. Beside the tables: schema, sequences (the target's must not be behind), extensions, versions of
/// collations, roles, databases and large objects. Settings that differ are told and make nothing fail.
///
/// It may run while clients write, when one of the two is a standby of the other or follows it by `postgres.logical`: rows
/// that differ are looked at again, as they are then, until each has been seen equal, or seen different while nobody changed
/// it. On servers of which none follows nobody may write meanwhile. What does not follow by rows makes nothing fail then:
/// sequences that are behind, unlogged tables, materialized views.
///
/// Nothing is locked but as by reading, nothing is written; where a standby follows through an archive, the source ends a
/// segment of its log each time that the standby has to catch up. Foreign tables are left out, and unlogged ones on a standby.
/// Columns are compared as text; a copy on another machine has the same text in the same settings, which are set for the
/// step's own connections. The user has to be allowed to read everything.
///
/// `tables.jsonl` and `differences.jsonl` in the step's folder of the run have every table and every difference. After an
/// interruption it begins anew. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// One server.
    from: Server,
    /// The other.
    to: Server,
    /// The databases; all, unless given.
    #[serde(default)]
    databases: Vec<String>,
    /// Only tables whose `schema.name` matches one of these.
    #[serde(default)]
    include: Vec<String>,
    /// No tables whose `schema.name` matches one of these. Wins over `include`.
    #[serde(default)]
    exclude: Vec<String>,
    /// How many parts are compared at once, with a connection to each side for each; 4, unless given.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 64))]
    parallel: usize,
    /// Tables that are larger are compared in parts of about this size; 128 MiB, unless given.
    #[serde(default = "chunk")]
    chunk: ByteSize,
    /// Whether the schema and all else beside the rows is compared.
    #[serde(default = "yes")]
    schema: bool,
    /// Large objects were left behind on purpose, and their difference is only told.
    #[serde(default)]
    without_large_objects: bool,
    /// Whether differences make the step fail. With `fail: false` it succeeds, and they are in its outputs.
    #[serde(default = "yes")]
    fail: bool,
}

fn four() -> usize {
    4
}

fn chunk() -> ByteSize {
    ByteSize(128 << 20)
}

fn yes() -> bool {
    true
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A table: there or not.
    Table,
    /// A row of a table.
    Row,
    /// A range of rows.
    Range,
    /// The definition of something.
    Schema,
    /// A sequence that is behind.
    Sequence,
    /// An extension or its version.
    Extension,
    /// How a collation sorts.
    Collation,
    /// Large objects.
    LargeObject,
    /// A role.
    Role,
    /// A database.
    Database,
    /// A setting.
    Setting,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Table => "tables",
            Self::Row => "rows",
            Self::Range => "ranges",
            Self::Schema => "the schema",
            Self::Sequence => "sequences",
            Self::Extension => "extensions",
            Self::Collation => "collations",
            Self::LargeObject => "large objects",
            Self::Role => "roles",
            Self::Database => "databases",
            Self::Setting => "settings",
        }
    }
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Difference {
    /// What differs.
    kind: Kind,
    /// In which database; empty for what belongs to the whole cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    database: String,
    /// Its name.
    name: String,
    /// How it differs.
    what: String,
}

/// A table that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Told {
    /// The database.
    database: String,
    /// Schema and name.
    table: String,
    /// How many rows the source has.
    rows: u64,
    /// How large it is there.
    bytes: u64,
    /// Whether the target has the same.
    equal: bool,
}

/// What was compared, and what differs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Compared {
    /// Whether nothing differs.
    equal: bool,
    /// How many tables were compared.
    tables: u64,
    /// How many of them are equal.
    equal_tables: u64,
    /// How many rows the source has.
    rows: u64,
    /// How large the tables are at the source.
    bytes: u64,
    /// How long it took.
    took: Span,
    /// How much of the source was compared in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    /// How many differences there are.
    differences: u64,
    /// The first hundred of them.
    first_differences: Vec<Difference>,
    /// Every table, the largest hundred of them.
    largest: Vec<Told>,
    /// What was left out and what else there is to know.
    notes: Vec<String>,
}

/// Count and checksums of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    rows: u64,
    first: i128,
    second: i128,
}

/// A connection to each side, each in its side's snapshot.
pub(super) struct Pair {
    from: Database,
    to: Database,
}

impl Pair {
    /// The sums of both sides when they differ.
    async fn differ(&self, table: &Table, range: &Range) -> Result<Option<(Sums, Sums)>, StepError> {
        let (from, to) = self.sums(table, range).await?;
        Ok((from != to).then_some((from, to)))
    }

    async fn sums(&self, table: &Table, range: &Range) -> Result<(Sums, Sums), StepError> {
        let sql = table.sums(range);
        tokio::try_join!(sums(&self.from, table, &sql), sums(&self.to, table, &sql))
    }
}

async fn sums(database: &Database, table: &Table, sql: &str) -> Result<Sums, StepError> {
    let row = session::rows(database, &format!("read `{}`", table.title()), sql).await?.into_iter().next().unwrap_or_default();
    let number = |at: usize| row.get(at).cloned().flatten().map_or(Ok(0), |text| text.parse::<i128>());
    match (number(0), number(1), number(2)) {
        (Ok(rows), Ok(first), Ok(second)) => Ok(Sums { rows: u64::try_from(rows).unwrap_or(0), first, second }),
        _ => Err(StepError::permanent(format!("the checksum of `{}` is no number", table.title())).help("is this PostgreSQL?")),
    }
}

impl Compare {
    fn title(&self) -> String {
        format!("`{}` with `{}`", self.from.title(), self.to.title())
    }

    /// The databases to compare.
    async fn databases(&self, ctx: &StepContext) -> Result<Vec<String>, StepError> {
        if !self.databases.is_empty() {
            return Ok(self.databases.clone());
        }
        let database = live(ctx, &self.from, &self.from.database).await?;
        let sql = "select datname from pg_database where datallowconn and not datistemplate order by 1";
        let rows = session::rows(&database, "list the databases", sql).await?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    /// Whether rows lie at the same places on both sides, and can be found by them quickly.
    async fn is_physical(&self, ctx: &StepContext) -> Result<bool, StepError> {
        let identity = async |server: &Server| {
            let database = live(ctx, server, &server.database).await?;
            let identity = one(&database, "ask who it is", "select system_identifier from pg_control_system()").await?;
            let version = one(&database, "ask its version", "show server_version_num").await?;
            Ok::<_, StepError>((identity, version.parse::<u32>().unwrap_or(0) >= 140_000))
        };
        let (from, to) = (identity(&self.from).await?, identity(&self.to).await?);
        Ok(from == to && from.1)
    }
}

impl Step for Compare {
    const TYPE: &'static str = "postgres.compare";
    const EXAMPLE: &'static str = r"
id: same
uses: postgres.compare
with:
  from: old-db
  to: { host: new-db, port: 5433 }
  exclude: [audit.*]
";

    type Before = ();
    type Output = Compared;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        self.filter().map(drop)
    }

    fn preview(&self, (): &()) -> Preview {
        let which = match &self.databases[..] {
            [] => "all databases".to_owned(),
            some => some.join(", "),
        };
        let does = format!("compares {}: {which}, {} parts at once", self.title(), self.parallel);
        Preview { does, undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Compared, StepError> {
        let compared = tokio::select! {
            compared = work::compare(ctx, self) => compared?,
            () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
        };
        if compared.equal || !self.fail {
            return Ok(compared);
        }
        let first: Vec<String> = compared.first_differences.iter().take(5).map(Difference::told).collect();
        let more = compared.differences.saturating_sub(5);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let count =
            if compared.differences == 1 { "1 difference".to_owned() } else { format!("{} differences", compared.differences) };
        Err(StepError::permanent(format!("{count} between {}: {}{more}", self.title(), first.join("; ")))
            .help("`differences.jsonl` in the step's folder of the run has all of them; put them right, then resume the run"))
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}

impl Difference {
    fn told(&self) -> String {
        let place = if self.database.is_empty() { String::new() } else { format!(" in `{}`", self.database) };
        format!("{}{place}: {}", self.name, self.what)
    }
}
