//! Folders of a directory store that come and go with the files in them. Buckets have none, and servers keep theirs.

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::store::Store;
use crate::error::StepError;

impl Store {
    fn folder(&self, key: &str) -> Option<PathBuf> {
        (self.scheme() == "fs").then(|| PathBuf::from(format!("/{}{key}", self.prefix())))
    }

    /// How many folders on the way to this place, itself among them, are not there.
    pub async fn missing_on_the_way(&self) -> usize {
        let Some(place) = self.folder("") else { return 0 };
        let mut missing = 0;
        for folder in place.ancestors() {
            if !is_missing(folder).await {
                break;
            }
            missing += 1;
        }
        missing
    }

    /// The first folder on the way from this place to an object that is a link: what is written there lands elsewhere.
    /// `seen` remembers the folders that are none.
    pub async fn link_on_the_way(&self, key: &str, seen: &Mutex<HashSet<String>>) -> Option<String> {
        let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, _) in key.match_indices('/') {
            let name = &key[..at];
            if lock().contains(name) {
                continue;
            }
            match tokio::fs::symlink_metadata(self.folder(name)?).await {
                Ok(metadata) if metadata.is_symlink() => return Some(name.to_owned()),
                Ok(_) => _ = lock().insert(name.to_owned()),
                // Below it is nothing yet.
                Err(_) => return None,
            }
        }
        None
    }

    /// The folders below this place that an object needs and that are not there.
    pub async fn missing_for(&self, key: &str) -> Vec<String> {
        let mut missing = Vec::new();
        let mut rest = key;
        while let Some(at) = rest.rfind('/') {
            rest = &rest[..at];
            match self.folder(rest) {
                Some(folder) if is_missing(&folder).await => missing.push(format!("{rest}/")),
                _ => break,
            }
        }
        missing
    }

    /// Removes these folders below this place, and so many on the way to it, as far as they are empty.
    pub async fn remove_empty(&self, below: &BTreeSet<String>, on_the_way: usize) -> Result<(), StepError> {
        let Some(place) = self.folder("") else { return Ok(()) };
        // What is inside a folder sorts behind it, and goes first.
        let below = below.iter().rev().filter_map(|key| self.folder(key));
        for folder in below.chain(place.ancestors().take(on_the_way).map(PathBuf::from)) {
            match tokio::fs::remove_dir(&folder).await {
                Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                    let message = format!("cannot remove the empty folder `{}`", folder.display());
                    return Err(StepError::permanent(message).cause(error).help("see that the user who runs ferry may do so"));
                }
                // Gone already, or somebody else's by now: a file in it, a mount, a link in its place.
                _ => {}
            }
        }
        Ok(())
    }
}

async fn is_missing(folder: &std::path::Path) -> bool {
    matches!(tokio::fs::symlink_metadata(folder).await, Err(error) if error.kind() == ErrorKind::NotFound)
}
