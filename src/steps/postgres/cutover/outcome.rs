//! What a cutover leaves for later steps and for the report.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Before, Cutover, Follower, Method, WayBack};
use crate::postgres::{Lsn, Server};
use crate::units::Span;

/// The new primary, and how it became one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutOver {
    /// The new primary.
    pub primary: Server,
    /// The old one: stopped, and fenced.
    pub old: Server,
    /// How it was moved.
    #[serde(default)]
    pub method: Method,
    /// The old primary's fence.
    pub fence: Fence,
    /// Slots of the old primary that nobody uses any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<String>,
    /// Where the old primary's log ended for clients: all that was acknowledged lies before it. Nothing when an
    /// interrupted attempt had fenced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
    /// From the moment at which clients were held back to the moment at which they went on. Nothing when an interrupted
    /// attempt had begun it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Span>,
    /// What the pause was forecast to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Span>,
    /// How long each phase of the pause took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phases: Option<Phases>,
    /// How many sessions the fence ended: none of clients that a pooler held back.
    pub sessions_ended: u64,
    /// By what the old primary can follow the new one by rows, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBack>,
}

/// What keeps clients out of the old primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The file that lets nobody in.
    pub hba_file: String,
    /// What stood in its place before.
    pub kept: String,
    /// By what the fence is known.
    pub key: String,
}

/// The phases of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// Until the routers held clients back.
    pub hold: Span,
    /// Until nobody could write to the old primary and the standby had the last of the log; or, through an archive, until
    /// that was archived.
    pub fence: Span,
    /// Until a standby that follows through an archive had fetched and replayed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<Span>,
    /// Until the pivot was in the journal.
    pub pivot: Span,
    /// Until the new primary took writes.
    pub promote: Span,
    /// Until the routers led to it.
    pub switch: Span,
}

impl Cutover {
    pub(super) fn outcome(&self, before: &Before, key: &str) -> CutOver {
        let files = Self::files(before, key);
        CutOver {
            primary: self.replica.to().clone(),
            old: self.replica.from().clone(),
            method: self.replica.method(),
            fence: Fence { hba_file: files.hba, kept: files.kept, key: key.to_owned() },
            slots: self.replica.slots(),
            lsn: None,
            pause: None,
            forecast: None,
            phases: None,
            sessions_ended: 0,
            way_back: match &self.replica {
                Follower::Rows(rows) if self.way_back => Some(WayBack::of(rows, key)),
                _ => None,
            },
        }
    }
}

/// Milliseconds are as exact as a pause can be told.
pub(super) fn span(time: Duration) -> Span {
    Span(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}
