//! Looking before a logical copy: what can follow, and what cannot.

use super::super::replica::Replica;
use super::{Before, Logical};
use crate::error::StepError;
use crate::postgres::{Database, Owner};
use crate::steps::StepContext;

const DATABASES: &str =
    "select datname from pg_database where not datistemplate and datallowconn and datname <> 'postgres' order by 1";

/// Tables of people, with what they lack to be followed.
const TABLES: &str = "select n.nspname || '.' || c.relname, c.relreplident = 'n' or (c.relreplident = 'd' and not exists
        (select from pg_index i where i.indrelid = c.oid and i.indisprimary)), c.relpersistence = 'u'
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r' and c.relpersistence in ('p', 'u') and n.nspname not in ('pg_catalog', 'information_schema')
    and n.nspname not like 'pg\\_toast%' and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e') order by 1";

const ROLES: &str = "select rolname from pg_roles where rolname not like 'pg\\_%' and rolname not like 'ferry\\_%' order by 1";

impl Logical {
    pub(super) async fn look(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let reach = ctx.reach();
        let (database, source) = reach.cluster(&self.from).await?;
        let (other, target) = reach.cluster(&self.to).await?;
        let (from, to) = (self.from.title(), self.to.title());
        if source.wal_level != "logical" {
            return Err(StepError::permanent(format!("`wal_level` of `{from}` is `{}`, and rows follow only with `logical`", source.wal_level))
                .help("at the source: `alter system set wal_level = logical`, then restart it; ferry restarts no server that clients use"));
        }
        if source.system_identifier == target.system_identifier || target.in_recovery {
            return Err(StepError::permanent(format!("`{to}` is `{from}` itself, or its standby"))
                .help("rows are copied into another cluster"));
        }
        if target.major() < source.major() {
            return Err(StepError::permanent(format!(
                "`{to}` is PostgreSQL {}, older than `{from}`, {}",
                target.major(),
                source.major()
            ))
            .help("a schema cannot be taken to an older version"));
        }
        let names = list(&database, DATABASES).await?;
        if let Some(missing) = self.databases.iter().find(|name| !names.contains(name)) {
            return Err(StepError::permanent(format!("`{from}` has no database `{missing}`"))
                .help(format!("it has {}", names.join(", "))));
        }
        let databases = if self.databases.is_empty() { names } else { self.databases.clone() };
        if databases.is_empty() {
            return Err(StepError::permanent(format!("`{from}` has no databases to copy")).help("name them with `databases`"));
        }
        let there = list(&other, "select datname from pg_database").await?;
        if let Some(taken) = databases.iter().find(|name| there.contains(name)) {
            return Err(StepError::permanent(format!("`{to}` has a database `{taken}` already"))
                .help("nothing that others have made is ever overwritten: rename it, or copy into another cluster"));
        }
        let known = list(&other, ROLES).await?;
        let roles = list(&database, ROLES).await?.into_iter().filter(|role| !known.contains(role)).collect();
        let mut warnings = Vec::new();
        let (mut tables, mut bytes) = (0, 0);
        for name in &databases {
            let asked = reach.connect_to(&self.from, name).await?;
            tables += self.tables(&asked, name, &mut warnings).await?;
            bytes += asked
                .one::<i64>("ask how large it is", "select pg_database_size(current_database())", &[])
                .await?
                .cast_unsigned();
        }
        let owner = Owner::of(&reach, &self.to)?;
        let bin = owner.programs(&self.to, target.major()).await?;
        let address = Replica::back(self.from.clone(), self.to.clone()).address(ctx, &owner, &bin).await?;
        Ok(Before { source, databases, roles, bytes, tables, address, name: reach.application, warnings })
    }

    /// Counts the tables that will follow, and refuses those that cannot.
    async fn tables(&self, database: &Database, name: &str, warnings: &mut Vec<String>) -> Result<u64, StepError> {
        let doing = "look at its tables";
        let rows = database.rows(doing, TABLES, &[]).await?;
        let mut bare = Vec::new();
        let mut unlogged = Vec::new();
        for row in &rows {
            let failed = |error| database.failed(doing, error);
            let table: String = row.try_get(0).map_err(failed)?;
            match (row.try_get::<_, bool>(1).map_err(failed)?, row.try_get::<_, bool>(2).map_err(failed)?) {
                (_, true) => unlogged.push(table),
                (true, _) => bare.push(table),
                _ => {}
            }
        }
        if !bare.is_empty() {
            return Err(StepError::permanent(format!(
                "tables of `{name}` have no primary key and no replica identity: {}",
                bare.join(", ")
            ))
            .help("their updates and deletes would fail at the source: add a key, or `alter table … replica identity full`"));
        }
        if !unlogged.is_empty() {
            warnings.push(format!("unlogged tables of `{name}` do not follow: {}", unlogged.join(", ")));
        }
        let large: i64 = database.one("count large objects", "select count(*) from pg_largeobject_metadata", &[]).await?;
        if large > 0 && !self.without_large_objects {
            return Err(StepError::permanent(format!("`{name}` has {large} large objects, which do not follow"))
                .help("move them into `bytea` columns, copy them by other means and say `without_large_objects: true`, or use `postgres.replica`"));
        }
        let views: i64 = database.one("count materialized views", "select count(*) from pg_matviews", &[]).await?;
        if views > 0 {
            warnings.push(format!("{views} materialized views of `{name}` come over empty: refresh them after the cutover"));
        }
        Ok(u64::try_from(rows.len() - unlogged.len()).unwrap_or(0))
    }
}

/// The first column of all rows.
pub(super) async fn list(database: &Database, sql: &str) -> Result<Vec<String>, StepError> {
    let doing = "ask for names";
    let rows = database.rows(doing, sql, &[]).await?;
    rows.iter().map(|row| row.try_get(0).map_err(|error| database.failed(doing, error))).collect()
}
