//! One file of the log into the archive, and those that wait behind it.

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
    if let Some(noted) = spool.pushed(&name) {
        // A note is of a content, not of a name: a cluster that was put back uses names again.
        let content = read(path).await?;
        spool.forget_pushed(&name);
        if blake3::hash(&content).to_hex().as_str() == noted {
            return Ok(Pushed { was_new: false, ahead: 0 });
        }
    }
    let waiting = waiting(path, &name, &spool, archive.settings.ahead);
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let own = store(archive, &spool, &name, path);
    let others = futures::stream::iter(waiting.into_iter().map(|other| {
        let (spool, path) = (&spool, folder.join(other.as_str()));
        async move {
            let stored = store(archive, spool, &other, &path).await;
            stored.is_ok_and(|(_, hash)| {
                spool.note_pushed(&other, &hash);
                true
            })
        }
    }))
    .buffer_unordered(archive.settings.at_once.saturating_sub(1).max(1))
    .filter(|stored| std::future::ready(*stored))
    .count();
    let (own, ahead) = tokio::join!(own, others);
    Ok(Pushed { was_new: own?.0 == Kept::New, ahead })
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
    let hash = blake3::hash(&content).to_hex().to_string();
    let kept = archive.depot.keep(name.as_str(), &name.key(), content, archive.settings.level).await?;
    Ok((kept, hash))
}

async fn read(path: &Path) -> Result<Bytes, StepError> {
    let content = tokio::fs::read(path).await.map_err(|error| disk(format!("cannot read `{}`", path.display()), error))?;
    Ok(content.into())
}
