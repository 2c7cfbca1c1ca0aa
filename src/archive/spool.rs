//! The folder beside the log in which is kept what was done ahead: notes of what was pushed, files that were fetched.
//!
//! Nothing in it counts by itself: a note holds the hash of what was stored and what its file was like, and a file lies there only once it is whole.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::depot::{disk, make_folders};
use super::name::WalFile;
use crate::error::StepError;

/// The folder's name inside `pg_wal`.
const NAME: &str = "ferry-spool";

#[derive(Debug, Clone)]
pub(super) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// The given folder, else one beside a file of `pg_wal`.
    pub fn new(given: Option<&Path>, beside: &Path) -> Self {
        let folder = given.map_or_else(|| beside.parent().unwrap_or(Path::new("")).join(NAME), Path::to_owned);
        Self { folder }
    }

    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes its folders.
    pub fn make(&self) -> Result<(), StepError> {
        for name in ["pushed", "fetched"] {
            let folder = self.folder.join(name);
            make_folders(&folder).map_err(|error| disk(format!("cannot make the folder `{}`", folder.display()), error))?;
        }
        // What was fetched ahead is not flushed to the disk: after a loss of power it may be there by name and not be whole.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let noted = self.folder.join("boot");
        if std::fs::read_to_string(&noted).is_ok_and(|known| known == boot) {
            return Ok(());
        }
        for entry in std::fs::read_dir(self.folder.join("fetched")).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        std::fs::write(&noted, boot).map_err(|error| disk(format!("cannot write `{}`", noted.display()), error))
    }

    /// The hash of what was stored under this name ahead, and the stamp of the file that it was.
    pub fn pushed(&self, name: &WalFile) -> Option<(String, String)> {
        let note = std::fs::read_to_string(self.note(name)).ok()?;
        let (hash, stamp) = note.split_once(' ').unwrap_or((&note, ""));
        Some((hash.to_owned(), stamp.to_owned()))
    }

    /// Notes that this was stored. Losing the note costs one look at the archive, nothing else.
    pub fn note_pushed(&self, name: &WalFile, hash: &str, stamp: &str) {
        let _ = std::fs::write(self.note(name), format!("{hash} {stamp}"));
    }

    pub fn forget_pushed(&self, name: &WalFile) {
        let _ = std::fs::remove_file(self.note(name));
    }

    fn note(&self, name: &WalFile) -> PathBuf {
        self.folder.join("pushed").join(name.as_str())
    }

    /// Where a file lies that was fetched ahead.
    pub fn fetched(&self, name: &WalFile) -> PathBuf {
        self.folder.join("fetched").join(name.as_str())
    }

    /// How many segments behind this one lie ready, and which are of no use any more: those that recovery is past.
    pub fn ready_behind(&self, name: &WalFile) -> usize {
        let mut ready = 0;
        for entry in std::fs::read_dir(self.folder.join("fetched")).into_iter().flatten().flatten() {
            let Some(other) = entry.file_name().to_str().and_then(WalFile::parse) else { continue };
            if other.timeline() == name.timeline() && other > *name {
                ready += 1;
            } else if other != *name {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        ready
    }

    /// The right to fetch ahead, of one process at a time. The kernel takes it back when that ends, however it does.
    pub fn lock(&self, what: &str) -> Option<File> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(what)).ok()?;
        file.try_lock().ok()?;
        Some(file)
    }

    /// Waits until nobody holds it.
    pub fn wait(&self, what: &str) {
        if let Ok(file) = OpenOptions::new().write(true).open(self.folder.join(what)) {
            let _ = file.lock();
        }
    }

    /// Whether this was found to be so before.
    pub fn knows(&self, fact: &str) -> bool {
        std::fs::read_to_string(self.folder.join("archive")).is_ok_and(|known| known == fact)
    }

    pub fn remember(&self, fact: &str) {
        let _ = std::fs::write(self.folder.join("archive"), fact);
    }
}
