//! One folder of a directory store, read without OpenDAL: its listing follows links, and takes names for UTF-8.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::listing::{Kind, Listed};
use super::store::Facts;
use crate::error::{ErrorClass, StepError};

/// An entry: a folder's name ends with `/`.
pub(super) enum Found {
    /// A file, or what is neither file nor folder.
    Entry(Listed),
    /// A folder.
    Folder(String),
}

/// What is in a folder; nothing when it is not there. `key` is the folder's name below the place: empty, or ends
/// with `/`.
pub(super) async fn read(folder: &Path, key: &str, label: &str) -> Result<Vec<Found>, StepError> {
    let mut found = Vec::new();
    // No key leads into a folder whose name is not UTF-8: it is read along with the one that it is in.
    let mut work = vec![(folder.to_path_buf(), key.to_owned(), false)];
    while let Some((folder, key, is_bad)) = work.pop() {
        let failed = |error: std::io::Error| cannot_read(&key, label, error);
        let mut entries = match tokio::fs::read_dir(folder).await {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(failed(error)),
        };
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            let metadata = match entry.metadata().await {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let is_bad = is_bad || entry.file_name().to_str().is_none();
            let name = format!("{key}{}", shown(&entry.file_name()));
            if metadata.is_dir() {
                let name = format!("{name}/");
                if is_bad {
                    work.push((entry.path(), name, true));
                } else {
                    found.push(Found::Folder(name));
                }
                continue;
            }
            let kind = match metadata.file_type() {
                kind if kind.is_symlink() => Kind::Link,
                kind if !kind.is_file() => Kind::Other,
                _ if is_bad => Kind::BadName,
                _ => Kind::Object,
            };
            let modified = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
            let changed = i32::try_from(metadata.ctime_nsec()).ok();
            let changed = changed.and_then(|nanos| jiff::Timestamp::new(metadata.ctime(), nanos).ok());
            let facts = Facts { size: metadata.len(), modified, ..Facts::default() };
            found.push(Found::Entry(Listed { key: name, kind, facts, md5: None, storage_class: None, changed }));
        }
    }
    Ok(found)
}

fn cannot_read(key: &str, label: &str, error: std::io::Error) -> StepError {
    let class = if error.kind() == ErrorKind::PermissionDenied { ErrorClass::Permanent } else { ErrorClass::Transient };
    StepError::new(class, format!("cannot read the folder `{key}` of `{label}`"))
        .help("see that the user who runs ferry may read it, or leave it out with `exclude`")
        .cause(error)
}

/// A name, bytes in it that are not UTF-8 as `\xff`.
fn shown(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
