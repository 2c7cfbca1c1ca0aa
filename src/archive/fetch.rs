//! One file out of the archive, and those that recovery will ask for next.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;

use super::depot::disk;
use super::identity::Identity;
use super::name::WalFile;
use super::settings::Archive;
use super::spool::Spool;
use crate::error::StepError;

/// The right to fetch ahead.
const AHEAD: &str = "fetched/.ahead";

/// What a fetch has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The file is where it is wanted.
    There {
        /// The spool's folder, when a process of its own should fetch more into it now.
        more: Option<PathBuf>,
    },
    /// The archive has no such file: that is how recovery finds the log's end.
    Missing,
}

/// Brings a file to where `restore_command` wants it, whole or not at all, held against what was archived.
pub async fn fetch(archive: &Archive, name: &str, to: &Path) -> Result<Fetched, StepError> {
    let name = WalFile::parse(name).ok_or_else(|| {
        StepError::permanent(format!("`{name}` is no file that PostgreSQL archives"))
            .help("`restore_command = 'ferry wal fetch --archive FILE %f %p'`")
    })?;
    let spool = Spool::new(archive.settings.spool.as_deref(), to);
    let looks_ahead = name.is_segment() && archive.settings.ahead > 0;
    if looks_ahead {
        spool.make()?;
        let lock = lock_of(&name);
        let waiter = spool.clone();
        let ready = spool.fetched(&name);
        if !ready.exists() {
            // It may be on its way.
            let _ = tokio::task::spawn_blocking(move || waiter.wait(&lock)).await;
        }
        if ready.exists() && take(&ready, to).is_ok() {
            return Ok(Fetched::There { more: more(archive, &spool, &name) });
        }
    }
    let Some(content) = archive.depot.content(name.as_str(), &name.key()).await? else {
        // Nothing by that name in an archive is the log's end; no archive at all is a mistake, and recovery must not
        // take it for the end.
        if archive.depot.identity().await?.is_none() {
            return Err(StepError::permanent(format!("there is no archive in `{}`", archive.label()))
                .help("see that the settings name the place to which `ferry wal push` archives"));
        }
        return Ok(Fetched::Missing);
    };
    place(to, &content).map_err(|error| disk(format!("cannot write `{}`", to.display()), error))?;
    Ok(Fetched::There { more: if looks_ahead { more(archive, &spool, &name) } else { None } })
}

/// Whether it is time to fetch ahead: less than half of it lies ready, and nobody is at it.
fn more(archive: &Archive, spool: &Spool, name: &WalFile) -> Option<PathBuf> {
    let few = spool.ready_behind(name) <= archive.settings.ahead / 2;
    (few && spool.lock(AHEAD).is_some()).then(|| spool.folder().to_owned())
}

/// Fetches the segments behind this one into a spool, until the archive has no more or as many as the settings say lie
/// ready. How many were fetched.
pub async fn ahead(archive: &Archive, name: &str, spool: &Path) -> Result<usize, StepError> {
    let Some(name) = WalFile::parse(name).filter(WalFile::is_segment) else { return Ok(0) };
    let spool = Spool::at(spool);
    let Some(_lock) = spool.lock(AHEAD) else { return Ok(0) };
    let Some(Identity { segment, .. }) = archive.depot.identity().await? else { return Ok(0) };
    let next = std::iter::successors(name.next(segment), |last| last.next(segment)).take(archive.settings.ahead);
    let wanted: Vec<WalFile> = next.filter(|name| !spool.fetched(name).exists()).collect();
    let mut fetched = 0;
    let mut coming = futures::stream::iter(wanted.into_iter().map(|name| bring(archive, &spool, name)))
        .buffered(archive.settings.at_once.max(1));
    while let Some(came) = coming.next().await {
        // What is missing now may be archived in a moment: nothing is noted of it.
        if !came? {
            break;
        }
        fetched += 1;
    }
    Ok(fetched)
}

async fn bring(archive: &Archive, spool: &Spool, name: WalFile) -> Result<bool, StepError> {
    let Some(lock) = spool.lock(&lock_of(&name)) else { return Ok(true) };
    let content = archive.depot.content(name.as_str(), &name.key()).await;
    let ready = spool.fetched(&name);
    let placed = match content {
        Ok(Some(content)) => {
            // Beside the others: all of them are waited for in one task.
            let shown = ready.display().to_string();
            let placing = tokio::task::spawn_blocking(move || place(&ready, &content)).await;
            placing
                .map_err(std::io::Error::other)
                .flatten()
                .map(|()| true)
                .map_err(|error| disk(format!("cannot write `{shown}`"), error))
        }
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    let _ = std::fs::remove_file(spool.folder().join(lock_of(&name)));
    drop(lock);
    placed
}

fn lock_of(name: &WalFile) -> String {
    format!("fetched/.{name}")
}

/// Writes a file under another name and gives it its own when it is whole.
fn place(to: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".ferry-").tempfile_in(folder)?;
    file.write_all(content)?;
    file.persist(to)?;
    Ok(())
}

/// Moves a file that was fetched ahead to where it is wanted.
fn take(ready: &Path, to: &Path) -> std::io::Result<()> {
    if std::fs::rename(ready, to).is_ok() {
        return Ok(());
    }
    // Another file system.
    place(to, &std::fs::read(ready)?)?;
    std::fs::remove_file(ready)
}
