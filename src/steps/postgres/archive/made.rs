//! What `postgres.restore` leaves for later steps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::postgres::{Lsn, Server};
use crate::units::ByteSize;

/// A cluster that was made of a backup. `postgres.cutover` takes that of a standby whole:
/// `replica: "{{ steps.standby.outputs }}"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The server that it is a copy of, if the step was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Server>,
    /// The cluster.
    pub to: Server,
    /// The folder on its host with ferry and the archive's settings.
    pub folder: String,
    /// Its data directory.
    pub data: String,
    /// The backup it was made of.
    pub backup: String,
    /// Bytes of its files.
    pub bytes: ByteSize,
    /// Where replay began.
    pub start: String,
    /// From where on it is one state.
    pub stop: String,
    /// The cluster's system identifier.
    pub system: String,
    /// The server's version: 150018.
    pub version: u32,
    /// Whether it is a standby.
    pub is_standby: bool,
    /// How far the log was replayed when the step ended; none when it was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<Lsn>,
}
