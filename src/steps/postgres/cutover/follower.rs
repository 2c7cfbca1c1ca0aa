//! What clients are taken over to: a standby with the same files, or databases with the same rows.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::super::logical::Subscribed;
use super::super::replica::Replicated;
use crate::postgres::Server;

/// The outputs of `postgres.replica` or of `postgres.logical`.
#[derive(Debug, Clone, JsonSchema)]
#[serde(untagged)]
pub(super) enum Follower {
    /// A standby: it is promoted.
    Files(Replicated),
    /// Databases that follow: they take writes already, and their sequences are carried over.
    Rows(Subscribed),
}

/// How a cluster was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// File by file: a standby was promoted.
    #[default]
    Physical,
    /// Row by row.
    Logical,
}

impl<'de> Deserialize<'de> for Follower {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let is_rows = value.get("databases").is_some();
        let read = if is_rows {
            Subscribed::deserialize(value).map(Self::Rows)
        } else {
            Replicated::deserialize(value).map(Self::Files)
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl Follower {
    /// The server that clients leave.
    pub(super) fn from(&self) -> &Server {
        match self {
            Self::Files(replica) => &replica.from,
            Self::Rows(rows) => &rows.from,
        }
    }

    /// The server that they come to.
    pub(super) fn to(&self) -> &Server {
        match self {
            Self::Files(replica) => &replica.to,
            Self::Rows(rows) => &rows.to,
        }
    }

    /// The slots by which it follows.
    pub(super) fn slots(&self) -> Vec<String> {
        match self {
            Self::Files(replica) => vec![replica.slot.clone()],
            Self::Rows(rows) => rows.databases.iter().map(|database| rows.slot(database)).collect(),
        }
    }

    /// By what lines of `pg_hba.conf` that were added for it are known.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Files(replica) => &replica.slot,
            Self::Rows(rows) => &rows.name,
        }
    }

    pub(super) fn method(&self) -> Method {
        match self {
            Self::Files(_) => Method::Physical,
            Self::Rows(_) => Method::Logical,
        }
    }
}
