//! The index of a backup: what makes its parts one. Written last, so that a backup that is not whole has none.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::settings::Archive;
use crate::error::StepError;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the data directory.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// When it was last written, seconds since 1970.
    pub modified: i64,
    /// CRC-32C of its content: `pg_verifybackup` holds the restored file against it.
    pub crc: u32,
}

/// A range of a file inside a part: which file, from where, how many bytes. Ranges lie one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece(pub u32, pub u64, pub u64);

/// A part: an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// BLAKE3 of its content, and its name.
    pub hash: String,
    /// Bytes of the object.
    pub stored: u64,
    /// What is in it.
    pub pieces: Vec<Piece>,
}

/// A tablespace outside of the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its number, the name of its link in `pg_tblspc`.
    pub oid: String,
    /// Where it was.
    pub path: String,
}

/// What one knows of a backup without its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The format: 1.
    pub ferry: u32,
    /// Its name.
    pub name: String,
    /// The cluster's system identifier.
    pub system: String,
    /// The server's version: 150018.
    pub version: u32,
    /// Bytes of a segment of the log.
    pub segment: u64,
    /// The timeline.
    pub timeline: u32,
    /// Where in the log replay begins.
    pub start: String,
    /// From where on a restored cluster is consistent.
    pub stop: String,
    /// When it began and ended, seconds since 1970.
    pub times: (i64, i64),
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its objects.
    pub stored: u64,
    /// How many files it has.
    pub files: u64,
    /// The tablespaces outside of the data directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<Tablespace>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// What one knows without its files.
    pub summary: Summary,
    /// What the server gave at the end: `backup_label`.
    pub label: String,
    /// And `tablespace_map`.
    pub tablespace_map: String,
    /// The folders, empty ones too, parents first, with their permission bits.
    pub folders: Vec<(String, u32)>,
    /// The files; `global/pg_control` is the last.
    pub files: Vec<FileEntry>,
    /// The parts; that with `global/pg_control` is the last.
    pub parts: Vec<PartEntry>,
}

/// Where the index of a backup lies.
pub(super) fn key(name: &str) -> String {
    format!("base/{name}/index")
}

fn title(name: &str) -> String {
    format!("index of {name}")
}

impl Backup {
    /// Reads a backup's index; `None` when there is no whole backup of that name.
    pub async fn read(archive: &Archive, name: &str) -> Result<Option<Self>, StepError> {
        let Some(content) = archive.depot.content(&title(name), &key(name)).await? else { return Ok(None) };
        let backup: Self = serde_json::from_slice(&content).map_err(|error| {
            StepError::permanent(format!("cannot read the index of the backup `{name}`"))
                .cause(error)
                .help("it was written by another version of ferry: use that one")
        })?;
        Ok(Some(backup))
    }

    /// The newest whole backup's name; `None` when there is none.
    pub async fn newest(archive: &Archive) -> Result<Option<String>, StepError> {
        let mut newest: Option<(i64, String)> = None;
        for name in super::names(archive).await? {
            if let Some(backup) = Self::read(archive, &name).await? {
                newest = newest.max(Some((backup.summary.times.1, name)));
            }
        }
        Ok(newest.map(|(_, name)| name))
    }

    /// Writes the index. From here on the backup is one.
    pub(super) async fn write(&self, archive: &Archive) -> Result<(), StepError> {
        let name = &self.summary.name;
        let content = serde_json::to_vec(self)
            .map_err(|error| StepError::permanent(format!("cannot write the index of the backup `{name}`")).cause(error))?;
        archive.depot.keep(&title(name), &key(name), Bytes::from(content), archive.settings.level).await?;
        Ok(())
    }
}
