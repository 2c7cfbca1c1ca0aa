//! `postgres.logical`: databases copied row by row into another cluster, which follows.

mod look;
mod schema;
mod subscribe;

pub(super) use subscribe::{let_clients_in, subscribe_to, unsubscribe};

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::{Cluster, Server};
use crate::steps::{Preview, Step, StepContext};
use crate::units::{ByteSize, Span};

/// Copies databases row by row into another running cluster and lets them follow, by logical replication.
///
/// For what a standby cannot do: another major version, another machine type, another text order, some databases of many,
/// a service that lets nobody copy its files. Schema, roles that the target lacks, and rows are copied while clients go on
/// working; then every change follows. Sequences do not follow by themselves: `postgres.cutover` carries them over.
///
/// Each table needs a primary key or a replica identity: one without is an error in the plan, for its updates would fail
/// at the source. Large objects do not follow, nor do changes of the schema while the step is in force. The databases must
/// not be there at the target, and are closed there to everybody but superusers (`connection limit 0`) until the cutover.
///
/// After an interruption it looks first: a copy that is under way goes on. Undo drops subscriptions, publications, slots,
/// the user and its line of `pg_hba.conf`, and at the target the databases and roles that it made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logical {
    /// The server to copy from.
    pub from: Server,
    /// The server to copy to.
    pub to: Server,
    /// The databases; all but templates and `postgres`, unless given.
    #[serde(default)]
    databases: Vec<String>,
    /// Large objects are left behind without an error.
    #[serde(default)]
    without_large_objects: bool,
}

/// Both servers as they were before the first attempt.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    /// The source's cluster.
    source: Cluster,
    /// The databases to copy.
    databases: Vec<String>,
    /// Roles that the target lacks.
    roles: Vec<String>,
    /// How large the databases are.
    bytes: u64,
    /// How many tables they have.
    tables: u64,
    /// Where the target reaches the source.
    address: String,
    /// The name of all that is made.
    name: String,
    /// What the person should know.
    warnings: Vec<String>,
}

/// Databases that follow. `postgres.cutover` takes it whole: `logical: "{{ steps.logical.outputs }}"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribed {
    /// The server that is followed.
    pub from: Server,
    /// The server that follows.
    pub to: Server,
    /// The databases.
    pub databases: Vec<String>,
    /// The name of publications, subscriptions, user, and the beginning of the names of slots.
    pub name: String,
    /// How many tables follow.
    pub tables: u64,
    /// How large the databases were.
    pub bytes: ByteSize,
    /// How long it took until all of them followed.
    pub took: Span,
}

impl Subscribed {
    /// The slot of a database.
    pub(in crate::steps::postgres) fn slot(&self, database: &str) -> String {
        slot(&self.name, &self.databases, database)
    }
}

/// Slots are the cluster's, and publications a database's: a number parts them.
fn slot(name: &str, databases: &[String], database: &str) -> String {
    let at = databases.iter().position(|known| known == database).unwrap_or(0);
    format!("{name}_{at}")
}

impl Step for Logical {
    const TYPE: &'static str = "postgres.logical";
    const EXAMPLE: &'static str = r"
id: rows
uses: postgres.logical
with:
  from: source
  to: target
  databases: [shop]
";

    type Before = Before;
    type Output = Subscribed;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        self.look(ctx).await
    }

    fn preview(&self, before: &Before) -> Preview {
        let (from, to) = (self.from.title(), self.to.title());
        let databases = before.databases.join("`, `");
        Preview {
            does: format!(
                "copies `{databases}` of `{from}`, {} tables, {}, to `{to}`, which follows",
                before.tables,
                ByteSize(before.bytes)
            ),
            undo: format!("drops `{databases}` at `{to}`, and at `{from}` publications, slots and user `{}`", before.name),
            bytes: Some(before.bytes),
            objects: Some(before.tables),
            warnings: before.warnings.clone(),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Subscribed, StepError> {
        let start = ctx.clock.monotonic();
        if ctx.attempt.interrupted || ctx.attempt.number > 1 {
            self.end_left(ctx, before).await?;
        }
        let password = self.let_in(ctx, before).await?;
        self.copy_roles(ctx, before).await?;
        for database in &before.databases {
            self.copy_schema(ctx, before, database).await?;
            self.publish(ctx, before, database).await?;
            self.subscribe(ctx, before, database, &password).await?;
        }
        self.follow(ctx, before).await?;
        let took = ctx.clock.monotonic().saturating_sub(start);
        Ok(Subscribed {
            from: before.source.known_as(&self.from),
            to: self.to.clone(),
            databases: before.databases.clone(),
            name: before.name.clone(),
            tables: before.tables,
            bytes: ByteSize(before.bytes),
            took: Span(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))),
        })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        self.end_left(ctx, before).await?;
        for database in &before.databases {
            self.drop_copy(ctx, before, database).await?;
        }
        self.drop_roles(ctx, before).await?;
        self.take_back(ctx, before).await
    }
}
