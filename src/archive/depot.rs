//! The archive's objects: written once, never over another, read whole.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::frame::{pack_hashed, unpack};
use crate::error::{ErrorClass, StepError};
use crate::stores::bucket::{BucketError, Condition, Properties};
use crate::stores::{Store, classify, is_missing};

/// Whether an object had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It was not there.
    New,
    /// The same was there.
    Same,
}

/// A store seen as an archive.
#[derive(Debug, Clone)]
pub(super) struct Depot {
    store: Store,
}

impl Depot {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub fn label(&self) -> &str {
        self.store.label()
    }

    pub fn whereabouts(&self) -> String {
        self.store.whereabouts()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps a content under a key, packed. The same under that key is fine, another is refused: whoever has archived it
    /// relies on it. With the BLAKE3 of the content.
    pub async fn keep(&self, name: &str, key: &str, content: Bytes, level: i32) -> Result<(Kept, String), StepError> {
        let packing = {
            let name = name.to_owned();
            // Whoever waits for several of these does so in one task: nothing that takes long is done in it.
            tokio::task::spawn_blocking(move || {
                let hash = blake3::hash(&content).to_hex().to_string();
                Ok::<_, StepError>((pack_hashed(&name, &content, &hash, level)?, hash))
            })
        };
        // A service may ignore the condition of the write without a word: so it is asked, while the content is packed.
        let (there, packed) = tokio::join!(self.store.stat(key), packing);
        let (packed, hash) = packed.map_err(|error| StepError::permanent("packing has ended early").cause(error))??;
        if there?.is_none() && self.write_new(key, packed.into()).await? {
            return Ok((Kept::New, hash));
        }
        let Some(old) = self.read(key).await? else {
            return Err(StepError::transient(format!("`{name}` has just vanished from `{}`", self.label())));
        };
        let name_there = name.to_owned();
        let (header, _) = tokio::task::spawn_blocking(move || unpack(&name_there, &old))
            .await
            .map_err(|error| StepError::permanent("unpacking has ended early").cause(error))??;
        if header.blake3 == hash {
            return Ok((Kept::Same, hash));
        }
        Err(StepError::needs_person(format!("the archive `{}` holds another `{name}` already", self.label())).help(
            "two clusters must not share an archive, and one that was put back to an earlier state needs a timeline of its \
             own: give this one another place, or find out which of the two files is right",
        ))
    }

    /// Writes an object that is not there. `false`: it is there after all.
    pub async fn write_new(&self, key: &str, body: Bytes) -> Result<bool, StepError> {
        let doing = || format!("cannot write `{key}` to `{}`", self.label());
        if let Some(bucket) = self.store.bucket() {
            let properties = Properties { content_type: Some("application/zstd".to_owned()), ..Properties::default() };
            return match bucket.put(&self.store.whole_key(key), &properties, body, &Condition::Absent).await {
                Ok(_) => Ok(true),
                Err(BucketError::Changed) => Ok(false),
                Err(error) => Err(error.into_step(&doing())),
            };
        }
        let path = self.store.path(key)?;
        if self.store.scheme() == "fs" {
            let (path, folder) = (Path::new("/").join(path), Path::new("/").join(self.store.prefix()));
            let written = tokio::task::spawn_blocking(move || write_file(&folder, &path, &body)).await;
            return written.map_err(|error| StepError::permanent(doing()).cause(error))?.map_err(|error| disk(doing(), error));
        }
        let operator = self.store.operator();
        let can = operator.info().capability();
        if can.write_with_if_not_exists {
            return match operator.write_with(&path, body).if_not_exists(true).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == opendal::ErrorKind::ConditionNotMatch => Ok(false),
                Err(error) => Err(classify(&doing(), error)),
            };
        }
        if self.store.abilities().appears_whole || !can.rename {
            operator.write(&path, body).await.map_err(|error| classify(&doing(), error))?;
            return Ok(true);
        }
        let part = format!("{path}.{}.part", std::process::id());
        operator.write(&part, body).await.map_err(|error| classify(&doing(), error))?;
        operator.rename(&part, &path).await.map_err(|error| classify(&doing(), error))?;
        Ok(true)
    }

    /// An object, whole; `None` when there is none.
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>, StepError> {
        let doing = || format!("cannot read `{key}` from `{}`", self.label());
        if let Some(bucket) = self.store.bucket() {
            return match bucket.get(&self.store.whole_key(key), None, None).await {
                Ok(got) => Ok(Some(got.body)),
                Err(BucketError::Missing) => Ok(None),
                Err(error) => Err(error.into_step(&doing())),
            };
        }
        match self.store.operator().read(&self.store.path(key)?).await {
            Ok(buffer) => Ok(Some(buffer.to_bytes())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(classify(&doing(), error)),
        }
    }

    /// The content of an object; `None` when there is none.
    pub async fn content(&self, name: &str, key: &str) -> Result<Option<Vec<u8>>, StepError> {
        let Some(packed) = self.read(key).await? else { return Ok(None) };
        let name = name.to_owned();
        let unpacked = tokio::task::spawn_blocking(move || unpack(&name, &packed)).await;
        let (_, content) = unpacked.map_err(|error| StepError::permanent("unpacking has ended early").cause(error))??;
        Ok(Some(content))
    }
}

/// Writes a file so that it is on the disk, whole, when this returns. `false`: it is there.
fn write_file(root: &Path, path: &Path, body: &[u8]) -> std::io::Result<bool> {
    let folder = path.parent().unwrap_or(root);
    make_folders(folder)?;
    let mut file = tempfile::Builder::new().prefix(".ferry-unfinished-").tempfile_in(folder)?;
    file.write_all(body)?;
    file.as_file().sync_all()?;
    let (_, unfinished) = file.into_parts();
    match renameat_with(CWD, &*unfinished, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => drop(unfinished.keep()),
        Err(rustix::io::Errno::EXIST) => return Ok(false),
        // Some file systems of the network do not know it.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            if path.exists() {
                return Ok(false);
            }
            unfinished.persist(path)?;
        }
        Err(error) => return Err(error.into()),
    }
    std::fs::File::open(folder)?.sync_all()?;
    Ok(true)
}

/// What the disk of this machine says.
pub(super) fn disk(doing: String, error: std::io::Error) -> StepError {
    let class = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => ErrorClass::NeedsPerson,
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle => ErrorClass::Transient,
        _ => ErrorClass::Permanent,
    };
    StepError::new(class, doing).cause(error)
}

/// Makes folders so that they are on the disk.
pub(super) fn make_folders(folder: &Path) -> std::io::Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = folder;
    while !at.exists() {
        missing.push(at.to_owned());
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(parent) = folder.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}
