//! What clients are taken over to: a standby with the same files, or databases with the same rows.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::super::archive::Made;
use super::super::logical::Subscribed;
use super::super::replica::Replicated;
use crate::error::StepError;
use crate::postgres::{Database, Lag, Server, lag};

/// The outputs of `postgres.replica`, of `postgres.logical`, or of a `postgres.restore` that follows.
#[derive(Debug, Clone, JsonSchema)]
#[serde(untagged)]
pub enum Follower {
    /// A standby: it is promoted.
    Files(Replicated),
    /// A standby that gets the log through an archive: it is promoted.
    Log(#[schemars(with = "Made")] Archived),
    /// Databases that follow: they take writes already, and their sequences are carried over.
    Rows(Subscribed),
}

/// A standby that follows through an archive.
#[derive(Debug, Clone)]
pub struct Archived {
    /// The server that is followed.
    pub from: Server,
    /// The standby.
    pub to: Server,
    /// The folder on its host with ferry and the archive's settings.
    pub folder: String,
    /// The backup that it was made of.
    pub backup: String,
}

impl TryFrom<Made> for Archived {
    type Error = &'static str;

    fn try_from(made: Made) -> Result<Self, Self::Error> {
        if !made.is_standby {
            return Err("the outputs are those of a cluster that does not follow: `follow: standby`");
        }
        let from = made.from.ok_or("the outputs do not say which server it follows: give `postgres.restore` its `primary`")?;
        Ok(Self { from, to: made.to, folder: made.folder, backup: made.backup })
    }
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
        let has = |name: &str| value.get(name).is_some();
        let read = if has("databases") {
            Subscribed::deserialize(value).map(Self::Rows)
        } else if has("is_standby") {
            let archived = Made::deserialize(value).map_err(serde::de::Error::custom)?;
            Ok(Self::Log(archived.try_into().map_err(serde::de::Error::custom)?))
        } else {
            Replicated::deserialize(value).map(Self::Files)
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl Follower {
    /// The server that clients leave.
    pub(in crate::steps::postgres) fn from(&self) -> &Server {
        match self {
            Self::Files(replica) => &replica.from,
            Self::Log(archived) => &archived.from,
            Self::Rows(rows) => &rows.from,
        }
    }

    /// The server that they come to.
    pub(in crate::steps::postgres) fn to(&self) -> &Server {
        match self {
            Self::Files(replica) => &replica.to,
            Self::Log(archived) => &archived.to,
            Self::Rows(rows) => &rows.to,
        }
    }

    /// The slots by which it follows: none through an archive.
    pub(in crate::steps::postgres) fn slots(&self) -> Vec<String> {
        match self {
            Self::Files(replica) => vec![replica.slot.clone()],
            Self::Log(_) => Vec::new(),
            Self::Rows(rows) => rows.databases.iter().map(|database| rows.slot(database)).collect(),
        }
    }

    /// How far it is behind: of several slots, the one that is furthest, `streaming` when all are. Nothing when one has
    /// nobody connected.
    pub(in crate::steps::postgres) async fn lag(&self, source: &Database) -> Result<Option<Lag>, StepError> {
        let mut furthest: Option<Lag> = None;
        for slot in self.slots() {
            let Some(mut lag) = lag(source, &slot).await? else { return Ok(None) };
            if let Some(known) = furthest {
                let (mut behind, other) = if lag.bytes() > known.bytes() { (lag, known) } else { (known, lag) };
                if behind.state == "streaming" {
                    behind.state = other.state;
                }
                lag = behind;
            }
            furthest = Some(lag);
        }
        Ok(furthest)
    }

    /// By what lines of `pg_hba.conf` that were added for it are known.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Files(replica) => &replica.slot,
            // None were added.
            Self::Log(archived) => &archived.backup,
            Self::Rows(rows) => &rows.name,
        }
    }

    pub(in crate::steps::postgres) fn method(&self) -> Method {
        match self {
            Self::Files(_) | Self::Log(_) => Method::Physical,
            Self::Rows(_) => Method::Logical,
        }
    }
}
