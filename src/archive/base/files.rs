//! Which files belong to a backup: what `pg_basebackup` takes of a data directory, no more and no less.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::index::Tablespace;

/// Folders whose content is of this server's life only. They are there again, empty.
const EMPTIED: &[&str] =
    &["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"];

/// Files that say something of this server's life, or of another backup.
const LEFT_OUT: &[&str] = &[
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles.tmp",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "tablespace_map.old",
];

/// The file that makes a data directory one; it goes last, both ways.
pub(super) const CONTROL: &str = "global/pg_control";

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub path: String,
    pub size: u64,
    pub mode: u32,
    pub modified: i64,
}

/// What a data directory holds.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// Parents first.
    pub folders: Vec<(String, u32)>,
    /// In the order of their paths, without `global/pg_control`.
    pub files: Vec<Found>,
    pub tablespaces: Vec<Tablespace>,
    /// What the folder of this server begins with in a tablespace.
    version: String,
}

impl Inventory {
    /// Walks through a data directory of a running server.
    pub fn of(data: &Path, major: u32) -> std::io::Result<Self> {
        let mut all = Self { version: format!("PG_{major}_"), ..Self::default() };
        all.walk(data, "")?;
        all.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    fn walk(&mut self, data: &Path, folder: &str) -> std::io::Result<()> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(data.join(folder))? {
            // A name that is no text is nothing of PostgreSQL's.
            if let Ok(name) = entry?.file_name().into_string() {
                entries.push(name);
            }
        }
        entries.sort();
        let holds_relations = holds_relations(folder);
        let unlogged: HashSet<&str> =
            if holds_relations { entries.iter().filter_map(|name| name.strip_suffix("_init")).collect() } else { HashSet::new() };
        for name in &entries {
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if is_left_out(folder, name, &self.version) || holds_relations && (is_temporary(name) || is_reset(name, &unlogged)) {
                continue;
            }
            let at = data.join(&path);
            let link = match std::fs::symlink_metadata(&at) {
                Ok(link) => link,
                // Dropped since.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let metadata = if link.is_symlink() { std::fs::metadata(&at)? } else { link.clone() };
            if metadata.is_dir() {
                if folder == "pg_tblspc" && link.is_symlink() {
                    let target = std::fs::read_link(&at)?.to_string_lossy().into_owned();
                    self.tablespaces.push(Tablespace { oid: name.clone(), path: target });
                } else {
                    self.folders.push((path.clone(), metadata.mode() & 0o7777));
                }
                if folder.is_empty() && EMPTIED.contains(&name.as_str()) {
                    if name == "pg_wal" {
                        self.folders.push(("pg_wal/archive_status".to_owned(), metadata.mode() & 0o7777));
                    }
                    continue;
                }
                self.walk(data, &path)?;
            } else if metadata.is_file() && path != CONTROL {
                self.files.push(Found { path, size: metadata.len(), mode: metadata.mode() & 0o7777, modified: metadata.mtime() });
            }
        }
        Ok(())
    }
}

/// Whether a folder holds a database's relations, which are named after numbers.
fn holds_relations(folder: &str) -> bool {
    let parts: Vec<&str> = folder.split('/').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match parts[..] {
        ["base", database] => is_number(database),
        ["pg_tblspc", _, version, database] => version.starts_with("PG_") && is_number(database),
        _ => false,
    }
}

fn is_left_out(folder: &str, name: &str, version: &str) -> bool {
    // A tablespace may be shared with servers of other versions.
    let is_foreign = folder.strip_prefix("pg_tblspc/").is_some_and(|rest| !rest.contains('/')) && !name.starts_with(version);
    (folder.is_empty() && LEFT_OUT.contains(&name))
        || is_foreign
        || name.starts_with("pgsql_tmp")
        || name.starts_with("pg_internal.init")
}

/// Whether a file is of a temporary table: `t3_16450`, `t3_16450_fsm.1`.
fn is_temporary(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('t') else { return false };
    let mut parts = rest.splitn(3, '_');
    let is_number = |part: Option<&str>| {
        part.and_then(|part| part.split('.').next())
            .is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    is_number(parts.next()) && is_number(parts.next())
}

/// Whether a file is of an unlogged table, and not what it is made anew from after a crash.
fn is_reset(name: &str, unlogged: &HashSet<&str>) -> bool {
    let relation = name.split(['_', '.']).next().unwrap_or(name);
    unlogged.contains(relation) && name.strip_prefix(relation) != Some("_init")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_makes_anew_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("one")).expect("room");
            std::fs::write(path, "x").expect("room");
        };
        for path in [
            "PG_VERSION",
            "backup_label",
            "base/5/1259",
            "base/5/1259_fsm",
            "base/5/16384",
            "base/5/16384.1",
            "base/5/16384_fsm",
            "base/5/16384_init",
            "base/5/pg_internal.init",
            "base/5/t3_16400",
            "base/5/t3_16400_fsm.1",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "global/pg_control",
            "global/1260",
            "pg_replslot/slot/state",
            "pg_wal/000000010000000000000001",
            "postmaster.pid",
            "postgresql.auto.conf",
        ] {
            file(path);
        }
        let elsewhere = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(elsewhere.path().join("PG_15_202209061/5")).expect("room");
        std::fs::write(elsewhere.path().join("PG_15_202209061/5/16500"), "y").expect("room");
        std::fs::create_dir_all(elsewhere.path().join("PG_14_202107181/5")).expect("room");
        std::fs::write(elsewhere.path().join("PG_14_202107181/5/16500"), "y").expect("room");
        std::fs::write(elsewhere.path().join("other"), "y").expect("room");
        std::fs::create_dir(folder.path().join("pg_tblspc")).expect("room");
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("pg_tblspc/16390")).expect("a link");
        let all = Inventory::of(folder.path(), 15).expect("walked");
        let files: Vec<&str> = all.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            files,
            [
                "PG_VERSION",
                "base/5/1259",
                "base/5/1259_fsm",
                "base/5/16384_init",
                "global/1260",
                "pg_tblspc/16390/PG_15_202209061/5/16500",
                "postgresql.auto.conf",
            ]
        );
        let folders: Vec<&str> = all.folders.iter().map(|(path, _)| path.as_str()).collect();
        assert!(folders.contains(&"pg_replslot") && folders.contains(&"pg_wal/archive_status"), "{folders:?}");
        assert!(!folders.contains(&"pg_replslot/slot") && !folders.contains(&"pg_tblspc/16390"), "{folders:?}");
        assert_eq!(all.tablespaces.len(), 1);
    }
}
