//! Sequences do not follow with the rows: their values are carried over inside the pause.

use futures::future::try_join_all;

use super::follower::Follower;
use crate::error::StepError;
use crate::postgres::{Database, Reach, quote_name};

/// One database at both servers, open before the fence turns everybody away.
pub(super) struct Sequences {
    from: Database,
    to: Database,
    subscription: String,
}

const VALUES: &str =
    "select string_agg(format('select setval(%L, %s)', format('%I.%I', schemaname, sequencename), last_value), ';')
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

impl Sequences {
    /// Whether what is applied is flushed at once. As a rule it is not, for it costs speed; then the target's word that it
    /// has something on its disk comes some hundred milliseconds late.
    pub(super) async fn flush_at_once(&self, flush: bool) -> Result<(), StepError> {
        let (name, how) = (quote_name(&self.subscription), if flush { "on" } else { "off" });
        let sql = format!("alter subscription {name} set (synchronous_commit = '{how}')");
        self.to.orders("change how the subscription flushes", &sql).await
    }

    /// Carries them over as they are now. Done again it is done once.
    pub(super) async fn carry(&self) -> Result<(), StepError> {
        let said = self.from.said("read the sequences", VALUES).await?;
        let values = said.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
            _ => None,
        });
        match values {
            Some(values) => self.to.orders("set the sequences", &values).await,
            None => Ok(()),
        }
    }
}
