//! `backup_manifest` as PostgreSQL writes it, so that `pg_verifybackup` can hold a restored cluster against its backup.

use std::fmt::Write as _;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::index::{Backup, FileEntry};

/// The manifest of a backup. Its last line is a hash of all before.
pub(super) fn manifest(backup: &Backup) -> String {
    let summary = &backup.summary;
    // With version 17 the manifest names the cluster.
    let is_named = summary.version >= 170_000;
    let mut text = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {},\n", if is_named { 2 } else { 1 });
    if is_named {
        let _ = writeln!(text, "\"System-Identifier\": {},", summary.system);
    }
    text.push_str("\"Files\": [\n");
    let label = FileEntry {
        path: "backup_label".to_owned(),
        size: backup.label.len() as u64,
        mode: 0o600,
        modified: backup.summary.times.1,
        crc: u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, backup.label.as_bytes())).unwrap_or_default(),
    };
    for (at, file) in std::iter::once(&label).chain(&backup.files).enumerate() {
        let modified = jiff::Timestamp::from_second(file.modified).unwrap_or_default();
        let modified = modified.strftime("%Y-%m-%d %H:%M:%S GMT").to_string();
        // The number as it lies in the memory of most machines, and so as the server's own code writes it.
        let crc = file.crc.to_le_bytes().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let entry = json!({
            "Path": file.path, "Size": file.size, "Last-Modified": modified, "Checksum-Algorithm": "CRC32C", "Checksum": crc,
        });
        let _ = write!(text, "{}{entry}", if at == 0 { "" } else { ",\n" });
    }
    let range = json!({ "Timeline": summary.timeline, "Start-LSN": summary.start, "End-LSN": summary.stop });
    let _ = write!(text, "\n],\n\"WAL-Ranges\": [\n{range}\n],\n");
    let hash = Sha256::digest(text.as_bytes());
    let _ = writeln!(text, "\"Manifest-Checksum\": \"{hash:x}\"}}");
    text
}
