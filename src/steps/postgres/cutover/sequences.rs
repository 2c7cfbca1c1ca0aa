//! Sequences do not follow with the rows: their values are carried over inside the pause, once the target has applied the
//! last of the log.

use futures::future::try_join_all;

use super::fence::{Fenced, too_late};
use super::follower::Follower;
use crate::error::StepError;
use crate::postgres::{Database, Reach, quote_literal};

/// One database at both servers, open before the fence turns everybody away.
pub(super) struct Sequences {
    from: Database,
    to: Database,
    subscription: String,
}

/// The statements that set them as they are now.
pub(super) const VALUES: &str =
    "select string_agg(format('select setval(%L, %s)', format('%I.%I', schemaname, sequencename), last_value), ';') as ferry_values
    from pg_sequences where last_value is not null";

/// Opens the databases of a copy by rows; none of a standby, whose sequences are in its files.
pub(super) async fn open(reach: &Reach, copy: &Follower) -> Result<Vec<Sequences>, StepError> {
    let Follower::Rows(rows) = copy else { return Ok(Vec::new()) };
    try_join_all(rows.databases.iter().map(async |name| {
        let (from, to) = tokio::try_join!(reach.connect_to(&rows.from, name), reach.connect_to(&rows.to, name))?;
        Ok(Sequences { from, to, subscription: rows.name.clone() })
    }))
    .await
}

/// Returns when the target has on its disk all that the old primary ever acknowledged, sequences too. `marks`: where the
/// target's own log is then becomes a mark of each database.
pub(super) async fn carry(all: &[Sequences], fenced: &Fenced, millis: u64, marks: bool) -> Result<(), StepError> {
    // Those of the first database came with the fence.
    try_join_all(all.iter().enumerate().map(async |(at, one)| {
        let values = if at == 0 { fenced.values.clone() } else { one.values().await? };
        one.carry(values.as_deref(), fenced, millis, marks).await
    }))
    .await
    .map(drop)
}

impl Sequences {
    /// The connection to the old primary.
    pub(super) fn source(&self) -> &Database {
        &self.from
    }

    /// The connections to the old primary and to the new, and the name of the subscription.
    pub(super) fn ends(&self) -> (&Database, &Database, &str) {
        (&self.from, &self.to, &self.subscription)
    }

    async fn values(&self) -> Result<Option<String>, StepError> {
        let said = self.from.said("read the sequences", VALUES).await?;
        Ok(said.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get("ferry_values").map(str::to_owned),
            _ => None,
        }))
    }

    /// One round trip. The subscription commits what it applies without waiting for the disk, and says so some hundred
    /// milliseconds later; a transaction that is committed behind its own flushes them all. It works off what it gets in
    /// order: when it has heard from its source that there is nothing more up to this place, it has applied what was there.
    async fn carry(&self, values: Option<&str>, fenced: &Fenced, millis: u64, marks: bool) -> Result<(), StepError> {
        let mark = if marks {
            "do $$ begin execute format('alter database %I set ferry.pivot = %L', current_database(), pg_current_wal_insert_lsn()); end $$;"
        } else {
            ""
        };
        let sql = format!(
            "set synchronous_commit = local;
             do $$ declare late timestamptz := clock_timestamp() + {millis} * interval '1 ms'; begin
               while not coalesce((select max(latest_end_lsn) >= '{at}' from pg_stat_subscription where relid is null and subid =
                                   (select oid from pg_subscription where subname = {name} and subdbid =
                                    (select oid from pg_database where datname = current_database()))), false) loop
                 if clock_timestamp() > late then raise 'the last of the log does not arrive' using errcode = 'query_canceled'; end if;
                 perform pg_sleep(0.0005);
               end loop;
             end $$;
             {values};
             {mark}
             select pg_logical_emit_message(true, 'ferry', 'carried')",
            at = fenced.lsn,
            name = quote_literal(&self.subscription),
            values = values.unwrap_or_default(),
        );
        self.to.client().batch_execute(&sql).await.map_err(|error| too_late(&self.to, "carry the sequences over", error))
    }
}
