//! A base backup of a running cluster, taken on its host, into the archive.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};

use super::super::depot::disk;
use super::super::name::WalFile;
use super::super::push::store as store_wal;
use super::super::settings::Archive;
use super::super::spool::Spool;
use super::files::{CONTROL, Found, Inventory};
use super::index::{Backup, FileEntry, Piece, Summary};
use super::label::{Label, place};
use super::part::{self, Read};
use super::server::Session;
use super::{OnSteps, Steps, must_be_name};
use crate::error::StepError;

/// Where the cluster is.
#[derive(Debug, Clone)]
pub struct Source {
    /// The folder of the server's socket.
    pub socket: PathBuf,
    /// Its port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// To which database.
    pub database: String,
    /// Whether the server's checkpoint at the beginning is done at once, and not spread over minutes.
    pub at_once: bool,
}

/// What a backup has come to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Taken {
    /// The backup.
    #[serde(flatten)]
    pub summary: Summary,
    /// Bytes of objects that were there already, from an attempt before.
    pub resumed: u64,
    /// Whether the whole backup was there already.
    pub was_there: bool,
}

/// A part that is in the archive.
struct Sent {
    hash: String,
    stored: u64,
    pieces: Vec<(Piece, Option<u32>)>,
}

/// Takes a base backup under this name, or finds that it was taken. When this returns well, the archive holds all that is
/// needed to make the cluster anew: the files, and the log from the backup's beginning to its end.
pub async fn backup(archive: &Archive, source: &Source, name: &str, told: OnSteps<'_>) -> Result<Taken, StepError> {
    must_be_name(name)?;
    let session = Session::open(source).await?;
    let data = session.data.clone();
    let log = data.join("pg_wal");
    let spool = Spool::new(archive.settings.spool.as_deref(), &log.join("any"));
    spool.make()?;
    archive.depot.claim(&session.identity, &spool).await?;
    if let Some(there) = Backup::read(archive, name).await? {
        return Ok(Taken { summary: there.summary, resumed: 0, was_there: true });
    }
    let stored = part::stored(archive, name).await?;
    let began = now();
    session.start(&format!("ferry {name}"), source.at_once).await?;
    let major = session.version / 10_000;
    let inventory = {
        let data = data.clone();
        blocking(move || Inventory::of(&data, major).map_err(|error| disk(format!("cannot read `{}`", data.display()), error)))
            .await?
    };
    let total = inventory.files.iter().map(|file| file.size).sum();
    let (done, resumed) = (AtomicU64::new(0), AtomicU64::new(0));
    let files = std::sync::Arc::new(inventory.files);
    let wanted = part::divide(&files, part::LENGTH);
    let sending = futures::stream::iter(wanted.into_iter().map(|pieces| {
        let (data, files, stored, done, resumed) = (data.clone(), files.clone(), &stored, &done, &resumed);
        async move {
            let length: u64 = pieces.iter().map(|piece| piece.2).sum();
            let read = blocking(move || part::read(&data, &files, &pieces)).await?;
            let sent = send(archive, name, read, stored, resumed).await?;
            let bytes = done.fetch_add(length, Ordering::Relaxed) + length;
            told(Steps { bytes, bytes_total: total });
            Ok::<_, StepError>(sent)
        }
    }))
    .buffer_unordered(archive.settings.at_once.max(1));
    let sent: Vec<Sent> = sending.try_collect().await?;
    // The control file last: what it says of the log is then behind all that was read.
    let control = {
        let data = data.clone();
        blocking(move || read_control(&data)).await?
    };
    let read = Read { hash: blake3::hash(&control.1).to_hex().to_string(), content: control.1, pieces: Vec::new() };
    let crc = crc(&read.content);
    let sent_control = send(archive, name, read, &stored, &resumed).await?;
    let stopped = session.stop().await?;
    let label = Label::parse(&stopped.label)?;
    let timeline = label.segment.timeline();
    secure_log(archive, &spool, &log, &label.segment, &stopped.stop, session.identity.segment).await?;

    let (mut entries, number) = entries(&files, &sent);
    let mut parts: Vec<_> = sent
        .into_iter()
        .map(|sent| part::entry(sent.hash, sent.stored, &sent.pieces, &number))
        .filter(|part| !part.pieces.is_empty())
        .collect();
    let last = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    parts.push(super::index::PartEntry {
        hash: sent_control.hash,
        stored: sent_control.stored,
        pieces: vec![Piece(last, 0, control.0.size)],
    });
    entries.push(FileEntry {
        path: control.0.path,
        size: control.0.size,
        mode: control.0.mode,
        modified: control.0.modified,
        crc,
    });
    let backup = Backup {
        summary: Summary {
            ferry: 1,
            name: name.to_owned(),
            system: session.identity.system.clone(),
            version: session.version,
            segment: session.identity.segment,
            timeline,
            start: label.start,
            stop: stopped.stop,
            times: (began, now()),
            bytes: entries.iter().map(|file| file.size).sum(),
            stored: parts.iter().map(|part| part.stored).sum(),
            files: entries.len() as u64,
            tablespaces: inventory.tablespaces,
        },
        label: stopped.label,
        tablespace_map: stopped.tablespace_map,
        folders: inventory.folders,
        files: entries,
        parts,
    };
    backup.write(archive).await?;
    // What an earlier attempt has stored and the files are not any more.
    for (hash, key) in stored {
        if !backup.parts.iter().any(|part| part.hash == hash) {
            archive.depot.store().remove(&key).await?;
        }
    }
    Ok(Taken { summary: backup.summary, resumed: resumed.into_inner(), was_there: false })
}

/// Stores a part unless it is there.
async fn send(
    archive: &Archive,
    name: &str,
    read: Read,
    there: &std::collections::BTreeMap<String, String>,
    resumed: &AtomicU64,
) -> Result<Sent, StepError> {
    let Read { content, hash, pieces } = read;
    let stored = match there.get(&hash) {
        Some(key) => {
            let size = archive.depot.store().stat(key).await?.map_or(0, |facts| facts.size);
            resumed.fetch_add(size, Ordering::Relaxed);
            size
        }
        None => part::store(archive, name, &hash, content).await?,
    };
    Ok(Sent { hash, stored, pieces })
}

/// The files that were there when they were read, and their numbers in the index by those of the inventory.
fn entries(files: &[Found], sent: &[Sent]) -> (Vec<FileEntry>, Vec<Option<u32>>) {
    // By file: how long it is by its ranges, and its checksum so far. A range whose file was gone counts as zeros when
    // others of it were there.
    let mut seen: Vec<Option<(u64, u64)>> = vec![None; files.len()];
    let mut ranges: Vec<(Piece, Option<u32>)> = sent.iter().flat_map(|sent| sent.pieces.iter().copied()).collect();
    ranges.sort_by_key(|(Piece(file, offset, _), _)| (*file, *offset));
    for (Piece(file, offset, length), crc) in ranges {
        let Some(crc) = crc else { continue };
        let known = &mut seen[file as usize];
        let (size, before) = known.unwrap_or((0, 0));
        let before = combine(before, zeros(offset - size), offset - size);
        *known = Some((offset + length, combine(before, u64::from(crc), length)));
    }
    let mut number = vec![None; files.len()];
    let mut entries = Vec::with_capacity(files.len() + 1);
    for (at, (file, seen)) in files.iter().zip(seen).enumerate() {
        let Some((size, crc)) = seen else { continue };
        number[at] = u32::try_from(entries.len()).ok();
        entries.push(FileEntry {
            path: file.path.clone(),
            size,
            mode: file.mode,
            modified: file.modified,
            crc: u32::try_from(crc).unwrap_or_default(),
        });
    }
    (entries, number)
}

fn combine(first: u64, second: u64, length: u64) -> u64 {
    if length == 0 { first } else { crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc32Iscsi, first, second, length) }
}

fn zeros(length: u64) -> u64 {
    let zeros = vec![0; usize::try_from(length).unwrap_or_default()];
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &zeros)
}

fn crc(content: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content)).unwrap_or_default()
}

/// The control file, read twice the same: the server may be writing it.
fn read_control(data: &Path) -> Result<(Found, Vec<u8>), StepError> {
    use std::os::unix::fs::MetadataExt as _;
    let path = data.join(CONTROL);
    let failed = |error| disk(format!("cannot read `{CONTROL}`"), error);
    let mut last = std::fs::read(&path).map_err(failed)?;
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(1));
        let again = std::fs::read(&path).map_err(failed)?;
        if again == last {
            let metadata = std::fs::metadata(&path).map_err(failed)?;
            let found = Found {
                path: CONTROL.to_owned(),
                size: again.len() as u64,
                mode: metadata.mode() & 0o7777,
                modified: metadata.mtime(),
            };
            return Ok((found, again));
        }
        last = again;
    }
    Err(StepError::transient(format!("`{CONTROL}` is not the same twice")))
}

/// Sees to it that the archive holds the log from the beginning of a backup to its end, whether the server archives or
/// not, and the histories of its timelines.
async fn secure_log(
    archive: &Archive,
    spool: &Spool,
    log: &Path,
    first: &WalFile,
    stop: &str,
    segment: u64,
) -> Result<(), StepError> {
    let stop = place(stop).ok_or_else(|| StepError::permanent(format!("`{stop}` is no place in the log")))?;
    let last = WalFile::at(first.timeline(), stop.saturating_sub(1), segment);
    let histories = std::fs::read_dir(log)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| WalFile::parse(entry.file_name().to_str()?))
        .filter(|name| name.as_str().ends_with(".history"));
    let segments = std::iter::successors(Some(first.clone()), |name| name.next(segment)).take_while(|name| *name <= last);
    let wanted: Vec<WalFile> = histories.chain(segments).collect();
    futures::stream::iter(wanted.into_iter().map(|name| async move {
        if archive.depot.store().stat(&name.key()).await?.is_some() {
            return Ok(());
        }
        let path = log.join(name.as_str());
        if !path.exists() {
            return Err(StepError::permanent(format!(
                "the log that belongs to the backup is gone: `{name}` is neither archived nor in `pg_wal`"
            ))
            .help("let the server archive while it is backed up (`postgres.wal_ship`), or raise `wal_keep_size`"));
        }
        store_wal(archive, spool, &name, &path).await.map(drop)
    }))
    .buffer_unordered(archive.settings.at_once.max(1))
    .try_collect()
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StepError> + Send + 'static) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StepError::permanent("work on the disk has ended early").cause(error))?
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
