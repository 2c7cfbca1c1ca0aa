//! What `postgres.replica` leaves for later steps.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Before, Replica};
use crate::error::StepError;
use crate::postgres::{Lag, Server};
use crate::units::{ByteSize, Span};

/// A standby and what it follows. Later steps take it whole: `replica: "{{ steps.replica.outputs }}"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replicated {
    /// The server that is followed.
    pub from: Server,
    /// The standby.
    pub to: Server,
    /// The replication slot at the source.
    pub slot: String,
    /// The user that replicates.
    pub user: String,
    /// Where the target reaches the source: `host:port`.
    pub address: String,
    /// The same in both clusters.
    pub system_identifier: String,
    /// PostgreSQL's version as a number: 150008 is 15.8.
    pub version: u32,
    /// How far the standby was behind when the step ended.
    pub lag: ByteSize,
    /// The same in time.
    pub lag_time: Span,
    /// How large the cluster was.
    pub bytes: ByteSize,
    /// How long the copy took; nothing when an earlier attempt had made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_took: Option<Span>,
}

impl Replica {
    #[expect(clippy::unnecessary_wraps, reason = "it ends a `run`")]
    pub(in crate::steps::postgres) fn outcome(
        &self,
        before: &Before,
        lag: &Lag,
        took: Option<Duration>,
    ) -> Result<Replicated, StepError> {
        Ok(Replicated {
            from: before.cluster.known_as(&self.from),
            to: self.standby(before),
            slot: before.name.clone(),
            user: self.user(before).to_owned(),
            address: before.address.clone(),
            system_identifier: before.cluster.system_identifier.clone(),
            version: before.cluster.version,
            lag: ByteSize(lag.bytes()),
            lag_time: Span(Duration::from_millis(lag.millis)),
            bytes: ByteSize(before.cluster.bytes),
            copy_took: took.map(|took| Span(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)))),
        })
    }
}
