//! What a run has come to.

use serde::{Deserialize, Serialize};

/// The status of a run: its worst truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// At work, or its runner died.
    Running,
    /// An approval is open.
    Waiting,
    /// A step needs a person, or `--until` was reached.
    Paused,
    /// A step failed; the run can be resumed.
    Failed,
    /// Being undone.
    RollingBack,
    /// Everything it started was undone.
    RolledBack,
    /// Something it started could not be undone.
    RollbackFailed,
    /// Stopped on request; the run can be resumed.
    Cancelled,
    /// Every step did what was expected.
    Succeeded,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [Self; 9] = [
        Self::Running,
        Self::Waiting,
        Self::Paused,
        Self::Failed,
        Self::RollingBack,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::Cancelled,
        Self::Succeeded,
    ];
}
