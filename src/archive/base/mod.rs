//! Base backups: a running cluster's files in an archive, and out of it into a new data directory.
//!
//! The files are read side by side between `pg_backup_start` and `pg_backup_stop`, packed into parts that are named after
//! their content, and the index that makes a backup of them is written last.

mod fetch;
mod files;
mod index;
mod label;
mod manifest;
mod part;
mod push;
mod server;

pub use fetch::{Follow, Goal, Restore, Restored, restore};
pub use index::{Backup, Summary};
pub use push::{Source, Taken, backup};

use super::settings::Archive;
use crate::error::StepError;

/// How far it is: bytes and files done, and to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Steps {
    /// Bytes of the cluster's files.
    pub bytes: u64,
    /// All of them.
    pub bytes_total: u64,
}

/// Told how far it is, from time to time.
pub type OnSteps<'a> = &'a (dyn Fn(Steps) + Send + Sync);

/// The names of the whole backups in an archive, in the order of their names.
pub async fn names(archive: &Archive) -> Result<Vec<String>, StepError> {
    let mut names = Vec::new();
    // The log lies behind all of these.
    let mut listing = archive.depot.store().list(Some("base/"));
    while let Some(listed) = listing.next().await? {
        let Some(rest) = listed.key.strip_prefix("base/") else { break };
        names.extend(rest.strip_suffix("/index").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Removes a backup, whole or not: the index first, so that what is half removed does not look usable.
pub async fn remove(archive: &Archive, name: &str) -> Result<u64, StepError> {
    must_be_name(name)?;
    let store = archive.depot.store();
    store.remove(&index::key(name)).await?;
    let mut removed = 0;
    for key in part::stored(archive, name).await?.into_values() {
        store.remove(&key).await?;
        removed += 1;
    }
    Ok(removed)
}

/// Fails for what cannot be the name of a backup.
pub fn must_be_name(name: &str) -> Result<(), StepError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(StepError::permanent(format!("`{name}` cannot be the name of a backup"))
        .help("letters, digits, `-`, `_` and `.`, at most 100"))
}
