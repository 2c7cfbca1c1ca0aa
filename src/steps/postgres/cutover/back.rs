//! What keeps the way back open after a cutover by rows: publications and slots at the new primary, from before the first
//! client writes there.
//!
//! A slot that is made later would not have what was written until then, and rows that are copied once more would meet those
//! that are there. So the slots are made before the pause. What the subscription still applies then would be sent back to
//! where it came from; hence the mark `ferry.pivot` of each database: where its log was when the last of it was applied and
//! no client was let in yet. `postgres.failback` moves the slots there before anybody reads them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::logical::Subscribed;
use crate::error::StepError;
use crate::postgres::{Reach, quote_literal, quote_name};

/// By what the old primary can follow the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WayBack {
    /// The name of the publications, and the beginning of the names of the slots, at the new primary.
    pub name: String,
    /// The name of what served the way there, at the old one.
    pub there: String,
    /// The databases.
    pub databases: Vec<String>,
}

impl WayBack {
    pub(super) fn of(rows: &Subscribed, key: &str) -> Self {
        Self { name: key.to_owned(), there: rows.name.clone(), databases: rows.databases.clone() }
    }
}

/// Makes publications and slots. Done again it is done once.
pub(super) async fn lay(reach: &Reach, rows: &Subscribed, key: &str) -> Result<(), StepError> {
    let back = Subscribed { name: key.to_owned(), ..rows.clone() };
    for database in &rows.databases {
        let target = reach.connect_to(&rows.to, database).await?;
        let (name, literal) = (quote_name(key), quote_literal(key));
        // First: what is sent from a slot is looked up as it was then.
        let sql = format!(
            "do $$ begin if not exists (select from pg_publication where pubname = {literal}) then create publication {name} for all tables; end if; end $$"
        );
        target.orders("publish the tables", &sql).await?;
        // It waits for transactions that are under way, and somebody may have a long one.
        target.orders("limit the wait", "set statement_timeout = '60s'").await?;
        let slot = "select 1 from pg_create_logical_replication_slot($1, 'pgoutput')";
        let there = "select 1 from pg_replication_slots where slot_name = $1";
        if target.maybe::<i32>("look for a slot", there, &[&back.slot(database)]).await?.is_none() {
            target.rows("create a replication slot", slot, &[&back.slot(database)]).await?;
        }
    }
    Ok(())
}

/// Drops them again.
pub(super) async fn take_back(reach: &Reach, rows: &Subscribed, key: &str) -> Result<(), StepError> {
    for database in &rows.databases {
        let sql = format!("drop publication if exists {}", quote_name(key));
        reach.connect_to(&rows.to, database).await?.orders("drop the publication", &sql).await?;
    }
    let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like $1 || '\\_%'";
    reach.connect(&rows.to).await?.rows("drop the slots", drop, &[&key]).await.map(|_| ())
}
