//! A backup out of the archive into a new data directory.
//!
//! A folder that is not empty and that no restore of this backup has begun is never touched. The control file, without
//! which no server starts, is written when all else is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};

use super::super::depot::disk;
use super::super::settings::Archive;
use super::files::CONTROL;
use super::index::{Backup, PartEntry, Piece, Summary};
use super::manifest::manifest;
use super::{OnSteps, Steps, part};
use crate::error::StepError;

/// Says that a restore has begun here, of which backup, and what is done. Gone when all is.
const MARK: &str = "ferry-restore";

/// Up to where the log is replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// To the end of what is archived.
    #[default]
    End,
    /// No further than the backup needs to be one state.
    Consistent,
    /// To this time, as PostgreSQL reads it: `2026-11-21 20:00:00+00`.
    Time(String),
    /// To this place in the log.
    Lsn(String),
    /// To this restore point.
    Name(String),
}

/// What the server does with the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// It follows: a standby, which replays what is archived as it comes.
    #[default]
    Standby,
    /// It replays up to the goal and then serves on a timeline of its own.
    Recover,
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The data directory: none yet, an empty one, or one that was begun.
    pub data: PathBuf,
    /// Where tablespaces go, by their number or by where they were.
    pub tablespaces: BTreeMap<String, PathBuf>,
    /// What the server does then.
    pub follow: Follow,
    /// Up to where.
    pub goal: Goal,
    /// `restore_command`.
    pub restore_command: String,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Restored {
    /// The backup.
    #[serde(flatten)]
    pub summary: Summary,
    /// Bytes that an earlier attempt had written.
    pub resumed: u64,
    /// Whether the data directory was there already, made of this backup.
    pub was_there: bool,
}

/// Makes a data directory of a backup.
pub async fn restore(archive: &Archive, name: &str, wanted: &Restore, told: OnSteps<'_>) -> Result<Restored, StepError> {
    let Some(backup) = Backup::read(archive, name).await? else {
        return Err(StepError::permanent(format!("there is no whole backup `{name}` in `{}`", archive.label()))
            .help("`ferry base ls --archive FILE` lists them; one that was not finished has no index and counts for nothing"));
    };
    let data = &wanted.data;
    let failed = |doing: &str, error| disk(format!("cannot {doing} `{}`", data.display()), error);
    let done = match begin(data, &backup, wanted)? {
        Begun::WasThere => return Ok(Restored { summary: backup.summary, resumed: 0, was_there: true }),
        Begun::Parts(done) => done,
    };
    lay_folders(&backup, wanted)?;
    let note = OpenOptions::new().append(true).open(data.join(MARK)).map_err(|error| failed("write to", error))?;
    let note = Mutex::new(note);
    let (written, total) = (AtomicU64::new(0), backup.summary.bytes);
    let length = |part: &PartEntry| part.pieces.iter().map(|piece| piece.2).sum::<u64>();
    let resumed: u64 = backup.parts.iter().filter(|part| done.contains(&part.hash)).map(length).sum();
    written.store(resumed, Ordering::Relaxed);
    let is_control = |part: &PartEntry| part.pieces.iter().any(|piece| backup.files[piece.0 as usize].path == CONTROL);
    let whole = std::sync::Arc::new(backup.clone());
    let todo = (0..backup.parts.len()).filter(|at| !done.contains(&backup.parts[*at].hash) && !is_control(&backup.parts[*at]));
    futures::stream::iter(todo.map(|at| {
        let (part, whole, note, written) = (&backup.parts[at], whole.clone(), &note, &written);
        async move {
            let content = bring(archive, name, part).await?;
            // Ranges of other files: side by side with those of other parts.
            let to = data.clone();
            tokio::task::spawn_blocking(move || write_part(&to, &whole, &whole.parts[at], &content))
                .await
                .map_err(|error| StepError::permanent("work on the disk has ended early").cause(error))??;
            if let Ok(mut note) = note.lock() {
                writeln!(note, "{}", part.hash).map_err(|error| failed("write to", error))?;
            }
            let bytes = written.fetch_add(length(part), Ordering::Relaxed) + length(part);
            told(Steps { bytes, bytes_total: total });
            Ok::<_, StepError>(())
        }
    }))
    .buffer_unordered(archive.settings.at_once.max(1))
    .try_collect::<()>()
    .await?;
    finish_files(data, &backup).map_err(|error| failed("write to", error))?;
    write_recovery(data, &backup, wanted).map_err(|error| failed("write to", error))?;
    flush(data, &backup).map_err(|error| failed("flush", error))?;
    // Now it becomes a data directory.
    let control = backup.parts.iter().find(|part| is_control(part));
    let control = control.ok_or_else(|| StepError::permanent(format!("the backup `{name}` has no `{CONTROL}`")))?;
    let content = bring(archive, name, control).await?;
    write_control(data, &content).map_err(|error| failed("write to", error))?;
    std::fs::remove_file(data.join(MARK)).map_err(|error| failed("write to", error))?;
    flush(data, &backup).map_err(|error| failed("flush", error))?;
    told(Steps { bytes: total, bytes_total: total });
    Ok(Restored { summary: backup.summary, resumed, was_there: false })
}

enum Begun {
    /// All was made before.
    WasThere,
    /// These parts were written.
    Parts(BTreeSet<String>),
}

/// What the mark begins with: the backup, and the life of the machine in which it was begun. What was written before a
/// loss of power may not be on the disk.
fn headline(backup: &Backup) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{} {} {} {}", backup.summary.system, backup.summary.name, backup.summary.start, boot.trim())
}

fn begin(data: &Path, backup: &Backup, wanted: &Restore) -> Result<Begun, StepError> {
    let failed = |error| disk(format!("cannot make `{}`", data.display()), error);
    let headline = headline(backup);
    if let Ok(text) = std::fs::read_to_string(data.join(MARK)) {
        let mut lines = text.lines();
        let before = lines.next().unwrap_or_default();
        let same = |line: &str| line.rsplit_once(' ').map(|(backup, _)| backup.to_owned());
        if same(before) == same(&headline) {
            let is_same_life = before == headline;
            let done = if is_same_life { lines.map(str::to_owned).collect() } else { BTreeSet::new() };
            let mut text = format!("{headline}\n");
            for hash in &done {
                let _ = writeln!(text, "{hash}");
            }
            std::fs::write(data.join(MARK), text).map_err(failed)?;
            return Ok(Begun::Parts(done));
        }
        return Err(StepError::permanent(format!("`{}` holds the beginning of another restore", data.display()))
            .help("remove it, or restore to another folder"));
    }
    let made = std::fs::read_to_string(data.join("backup_manifest"));
    if made.is_ok_and(|text| text == manifest(backup)) && data.join(CONTROL).exists() {
        return Ok(Begun::WasThere);
    }
    let folders = backup.summary.tablespaces.iter().filter_map(|space| target(wanted, &space.oid, &space.path));
    for folder in std::iter::once(data.to_owned()).chain(folders) {
        let is_empty = match std::fs::read_dir(&folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(disk(format!("cannot read `{}`", folder.display()), error)),
        };
        if !is_empty {
            return Err(StepError::permanent(format!("`{}` is not empty", folder.display()))
                .help("a restore writes over nothing: name another folder, or remove what is there yourself"));
        }
    }
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
    // It may have been there, empty, with other bits; a server refuses these.
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let mut mark = OpenOptions::new().create_new(true).write(true).mode(0o600).open(data.join(MARK)).map_err(failed)?;
    mark.write_all(format!("{headline}\n").as_bytes()).and_then(|()| mark.sync_all()).map_err(failed)?;
    Ok(Begun::Parts(BTreeSet::new()))
}

/// Where a tablespace goes.
fn target(wanted: &Restore, oid: &str, path: &str) -> Option<PathBuf> {
    wanted.tablespaces.get(oid).or_else(|| wanted.tablespaces.get(path)).cloned().or_else(|| Some(path.into()))
}

fn lay_folders(backup: &Backup, wanted: &Restore) -> Result<(), StepError> {
    let data = &wanted.data;
    let failed = |path: &Path, error| disk(format!("cannot make `{}`", path.display()), error);
    let make = |path: &Path, mode: u32| match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(path, error)),
        _ => Ok(()),
    };
    for (folder, mode) in &backup.folders {
        // What lies in a tablespace has its link first.
        let oid = folder.strip_prefix("pg_tblspc/").and_then(|rest| rest.split('/').next());
        let space = oid.and_then(|oid| backup.summary.tablespaces.iter().find(|space| space.oid == oid));
        if let Some(space) = space
            && !data.join("pg_tblspc").join(&space.oid).exists()
            && let Some(target) = target(wanted, &space.oid, &space.path)
        {
            DirBuilder::new().recursive(true).mode(0o700).create(&target).map_err(|error| failed(&target, error))?;
            let link = data.join("pg_tblspc").join(&space.oid);
            std::os::unix::fs::symlink(&target, &link).map_err(|error| failed(&link, error))?;
        }
        make(&data.join(folder), *mode)?;
    }
    Ok(())
}

async fn bring(archive: &Archive, name: &str, part: &PartEntry) -> Result<Vec<u8>, StepError> {
    let content = archive.depot.content(&part.hash, &part::key(name, &part.hash)).await?;
    content.ok_or_else(|| {
        StepError::needs_person(format!("a part of the backup `{name}` is gone: `{}`", part.hash))
            .help("somebody has removed objects of the backup: use another one")
    })
}

fn write_part(data: &Path, backup: &Backup, part: &PartEntry, content: &[u8]) -> Result<(), StepError> {
    let mut at = 0;
    for &Piece(file, offset, length) in &part.pieces {
        let entry = backup.files.get(file as usize);
        let end = at + usize::try_from(length).unwrap_or(usize::MAX);
        let (Some(entry), Some(bytes)) = (entry, content.get(at..end)) else {
            return Err(StepError::needs_person(format!("the index does not fit the part `{}`", part.hash)));
        };
        let path = data.join(&entry.path);
        let written = OpenOptions::new().create(true).truncate(false).write(true).mode(entry.mode).open(&path);
        let written = written.and_then(|file| file.write_all_at(bytes, offset));
        written.map_err(|error| disk(format!("cannot write `{}`", path.display()), error))?;
        at = end;
    }
    Ok(())
}

/// Files have their lengths: empty ones are there, and a hole at the end is one.
fn finish_files(data: &Path, backup: &Backup) -> std::io::Result<()> {
    for entry in backup.files.iter().filter(|entry| entry.path != CONTROL) {
        let path = data.join(&entry.path);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(entry.mode).open(&path)?;
        if file.metadata()?.len() != entry.size {
            file.set_len(entry.size)?;
        }
    }
    Ok(())
}

/// What tells the server where to begin, what to replay and when to stop.
fn write_recovery(data: &Path, backup: &Backup, wanted: &Restore) -> std::io::Result<()> {
    let write = |name: &str, text: &str| {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(data.join(name))?;
        file.write_all(text.as_bytes())
    };
    write("backup_label", &backup.label)?;
    // No map of tablespaces: their links are there, and some may lead elsewhere than they did.
    write("backup_manifest", &manifest(backup))?;
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut text = String::from("\n# Written by ferry when it restored a backup.\n");
    let mut set = |name: &str, value: &str| {
        let _ = writeln!(text, "{name} = {}", quoted(value));
    };
    set("restore_command", &wanted.restore_command);
    // Whom the old server followed is nobody here.
    set("primary_conninfo", "");
    set("primary_slot_name", "");
    // A copy that archived where the old server does would draw those that follow that one onto its own timeline, and
    // one whose command is not there would keep its log until the disk is full.
    set("archive_mode", "off");
    set("recovery_target_timeline", "latest");
    match &wanted.goal {
        Goal::End => {}
        Goal::Consistent => set("recovery_target", "immediate"),
        Goal::Time(time) => set("recovery_target_time", time),
        Goal::Lsn(lsn) => set("recovery_target_lsn", lsn),
        Goal::Name(point) => set("recovery_target_name", point),
    }
    set("recovery_target_action", "promote");
    let path = data.join("postgresql.auto.conf");
    // A second attempt writes it anew. Two goals are an error, an empty one and another too.
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let before = before.split("\n# Written by ferry when it restored").next().unwrap_or_default();
    let before: String =
        before.lines().filter(|line| !line.trim_start().starts_with("recovery_target")).fold(String::new(), |mut kept, line| {
            let _ = writeln!(kept, "{line}");
            kept
        });
    std::fs::write(&path, before + &text)?;
    write(if wanted.follow == Follow::Standby { "standby.signal" } else { "recovery.signal" }, "")
}

fn write_control(data: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = data.join("global");
    let mut file = tempfile::Builder::new().prefix(".ferry-").tempfile_in(&folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(data.join(CONTROL))?;
    File::open(folder)?.sync_all()
}

/// All file systems that were written to.
fn flush(data: &Path, backup: &Backup) -> std::io::Result<()> {
    rustix::fs::syncfs(File::open(data)?)?;
    for space in &backup.summary.tablespaces {
        rustix::fs::syncfs(File::open(data.join("pg_tblspc").join(&space.oid))?)?;
    }
    Ok(())
}
