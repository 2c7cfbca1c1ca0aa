//! One folder of a directory store, read without OpenDAL: its listing follows links and drops those that lead nowhere.

use std::io::ErrorKind;
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
    let failed = |error: std::io::Error| {
        let class = if error.kind() == ErrorKind::PermissionDenied { ErrorClass::Permanent } else { ErrorClass::Transient };
        StepError::new(class, format!("cannot read the folder `{key}` of `{label}`"))
            .help("see that the user who runs ferry may read it, or leave it out with `exclude`")
            .cause(error)
    };
    let mut entries = match tokio::fs::read_dir(folder).await {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        // A name that is not UTF-8 is listed with a sign in place of what cannot be read, and refused when it is used.
        let name = format!("{key}{}", entry.file_name().to_string_lossy());
        let metadata = match entry.metadata().await {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        if metadata.is_dir() {
            found.push(Found::Folder(format!("{name}/")));
            continue;
        }
        let kind = if metadata.is_file() { Kind::Object } else { Kind::Other };
        let modified = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        let facts = Facts { size: metadata.len(), modified, ..Facts::default() };
        found.push(Found::Entry(Listed { key: name, kind, facts, md5: None }));
    }
    Ok(found)
}
