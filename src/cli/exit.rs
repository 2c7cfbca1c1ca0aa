//! How the process ends: one name for each exit status.

use std::process::ExitCode;

/// The exit statuses of `ferry`. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Succeeded,
    /// The run failed; it can be resumed.
    Failed,
    /// The pipeline or the command line is wrong; nothing was done.
    Wrong,
    /// The run failed and what it had started was undone.
    RolledBack,
    /// The run failed and something it had started could not be undone.
    RollbackFailed,
    /// A person has to do something before it goes on.
    WaitingForPerson,
    /// Interrupted; the run can be resumed.
    Interrupted,
    /// Of `ferry wal fetch` alone: nobody knows whether the archive has the file, and recovery must not go on.
    StopsRecovery,
}

impl Exit {
    /// Every exit status, for the manual; but for the one that one command has for itself.
    pub const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::Failed,
        Self::Wrong,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::WaitingForPerson,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Wrong => 2,
            Self::RolledBack => 3,
            Self::RollbackFailed => 4,
            Self::WaitingForPerson => 5,
            Self::Interrupted => 130,
            Self::StopsRecovery => 255,
        }
    }

    /// What it means, for the manual.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded: what was asked for is done",
            Self::Failed => "the run failed; it can be resumed",
            Self::Wrong => "the pipeline or the command line is wrong, nothing was done",
            Self::RolledBack => "the run failed and was rolled back",
            Self::RollbackFailed => "the run failed and the rollback failed too",
            Self::WaitingForPerson => "waiting for a person: an approval, or a paused step",
            Self::Interrupted => "interrupted or cancelled; the run can be resumed",
            Self::StopsRecovery => "`ferry wal fetch` does not know whether there is more: recovery must stop",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
