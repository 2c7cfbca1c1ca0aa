//! One file of the log into the archive, and those that wait behind it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt as _;

use super::depot::{Kept, disk};
use super::identity::of_segment;
use super::name::WalFile;
use super::settings::Archive;
use super::spool::Spool;
use crate::error::StepError;

/// What a push has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Whether the file had to be sent: else the same was in the archive.
    pub was_new: bool,
    /// How many others were stored with it, before they are asked for.
    pub ahead: usize,
}

/// Stores a file of `pg_wal`, as `archive_command` asks for it: when this returns well, it is safely in the archive. Files
/// that wait for their turn are stored at the same time; a failure of one of those is told when it is asked for.
pub async fn push(archive: &Archive, path: &Path) -> Result<Pushed, StepError> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(WalFile::parse);
    let name = name.ok_or_else(|| {
        StepError::permanent(format!("`{}` is no file that PostgreSQL archives", path.display()))
            .help("`archive_command = 'ferry wal push --archive FILE %p'`")
    })?;
    let spool = Spool::new(archive.settings.spool.as_deref(), path);
    spool.make()?;
    if let Some((hash, stamp)) = spool.pushed(&name) {
        // A note is of a content, not of a name: a cluster that was put back uses names again. A file that nobody has touched
        // since has the content that it had; any other is read.
        let is_same =
            stamp_of(path).is_some_and(|now| now == stamp) || blake3::hash(&read(path).await?).to_hex().as_str() == hash;
        spool.forget_pushed(&name);
        if is_same {
            return Ok(Pushed { was_new: false, ahead: 0 });
        }
    }
    let waiting = waiting(path, &name, &spool, archive.settings.ahead);
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    // The one that is asked for goes first; it is one of those that are sent at once.
    let mut sending = futures::stream::iter(std::iter::once(name.clone()).chain(waiting).map(|each| {
        let (spool, own, path) = (&spool, &name, folder.join(each.as_str()));
        async move {
            let stamp = stamp_of(&path);
            let stored = store(archive, spool, &each, &path).await;
            if each == *own {
                return Sent::Own(stored.map(|(kept, _)| kept));
            }
            if let (Ok((_, hash)), Some(stamp)) = (&stored, stamp) {
                spool.note_pushed(&each, hash, &stamp);
            }
            Sent::Ahead(stored.is_ok())
        }
    }))
    .buffer_unordered(archive.settings.at_once.max(1));
    let (mut own, mut ahead) = (None, 0);
    while let Some(sent) = sending.next().await {
        match sent {
            Sent::Own(stored) => own = Some(stored),
            Sent::Ahead(was_stored) => ahead += usize::from(was_stored),
        }
    }
    let own = own.unwrap_or_else(|| Err(StepError::permanent(format!("`{name}` was not sent"))))?;
    Ok(Pushed { was_new: own == Kept::New, ahead })
}

/// What has come of one of several.
enum Sent {
    Own(Result<Kept, StepError>),
    Ahead(bool),
}

/// What changes whenever somebody writes to a file or puts another into its place, however it is done.
fn stamp_of(path: &Path) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    Some(format!("{}:{}:{}:{}.{}", found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

/// What PostgreSQL will ask for next: `archive_status` says it.
fn waiting(path: &Path, own: &WalFile, spool: &Spool, most: usize) -> Vec<WalFile> {
    let status = path.parent().unwrap_or(Path::new("")).join("archive_status");
    let mut waiting: Vec<WalFile> = std::fs::read_dir(status)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| WalFile::parse(entry.file_name().to_str()?.strip_suffix(".ready")?))
        .filter(|name| name != own && spool.pushed(name).is_none())
        .collect();
    waiting.sort();
    waiting.truncate(most);
    waiting
}

pub(super) async fn store(archive: &Archive, spool: &Spool, name: &WalFile, path: &Path) -> Result<(Kept, String), StepError> {
    let content = read(path).await?;
    if name.holds_log() {
        archive.depot.claim(&of_segment(name, &content)?, spool).await?;
    }
    archive.depot.keep(name.as_str(), &name.key(), content, archive.settings.level).await
}

async fn read(path: &Path) -> Result<Bytes, StepError> {
    let content = tokio::fs::read(path).await.map_err(|error| disk(format!("cannot read `{}`", path.display()), error))?;
    Ok(content.into())
}
