//! Which process is meant, and what every step type with CRIU is told.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::StepError;
use crate::hosts::Shell;

/// Which process: by its number, or by a file that holds it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Named {
    /// Its number at the source.
    Pid(u32),
    /// A file at the source that holds its number.
    PidFile(String),
}

impl Named {
    /// Its number on this host.
    pub(super) async fn pid(&self, shell: &Shell) -> Result<u32, StepError> {
        match self {
            Self::Pid(pid) => Ok(*pid),
            Self::PidFile(path) => {
                let said = shell.read(path).await?.unwrap_or_default();
                said.trim().parse().map_err(|_| {
                    StepError::permanent(format!("`{path}` on `{}` holds no process number", shell.host()))
                        .help("correct `pid_file`, or start the service")
                })
            }
        }
    }
}

/// CRIU, on the path.
pub(in crate::steps) fn criu() -> String {
    "criu".to_owned()
}

/// The user whom CRIU asks for.
pub(in crate::steps) fn root() -> String {
    "root".to_owned()
}

/// A folder in memory.
pub(in crate::steps) fn shm() -> String {
    "/dev/shm".to_owned()
}
