//! Files of this machine: read whole, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;

use crate::error::StepError;
use crate::hosts::FileState;

/// What a new file may be done with unless the caller says: its owner writes, all read.
const NEW_FILE: u32 = 0o644;

pub(super) fn read(path: &Path) -> Result<Option<FileState>, StepError> {
    let doing = || format!("cannot read `{}`", path.display());
    let Some((path, metadata)) = look(path, &doing)? else { return Ok(None) };
    let content = fs::read(&path).map_err(|error| failed(doing(), error))?;
    Ok(Some(FileState {
        content: base64::engine::general_purpose::STANDARD.encode(content),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}

/// A file and what is known of it; nothing when there is none.
fn look(path: &Path, doing: &dyn Fn() -> String) -> Result<Option<(PathBuf, fs::Metadata)>, StepError> {
    let Some(path) = resolve(path)? else { return Ok(None) };
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(doing(), error)),
    };
    if !metadata.is_file() {
        return Err(StepError::permanent(format!("{}: it is not a regular file", doing()))
            .help("name a file; directories, sockets and devices are left alone"));
    }
    Ok(Some((path, metadata)))
}

/// A file to be read; nothing when there is none.
pub(super) fn open(path: &Path) -> Result<Option<File>, StepError> {
    let doing = || format!("cannot read `{}`", path.display());
    let Some((path, _)) = look(path, &doing)? else { return Ok(None) };
    File::open(path).map(Some).map_err(|error| failed(doing(), error))
}

pub(super) fn write(path: &Path, content: &[u8], mode: Option<u32>, owner: Option<(u32, u32)>) -> Result<(), StepError> {
    let mut new = begin(path, mode, owner)?;
    new.file.write_all(content).map_err(|error| new.failed(error))?;
    new.finish()
}

/// A file that is being written beside its place.
pub(super) struct New {
    path: PathBuf,
    file: File,
    temporary: Temporary,
    mode: u32,
    owner: Option<(u32, u32)>,
}

/// Begins a file: what is written to it is seen by nobody before [`New::finish`].
pub(super) fn begin(path: &Path, mode: Option<u32>, owner: Option<(u32, u32)>) -> Result<New, StepError> {
    let doing = || format!("cannot write `{}`", path.display());
    // A rename would replace a symbolic link by a file: what it points at is what is written.
    let path = resolve(path)?.unwrap_or_else(|| path.to_owned());
    let old = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Some(metadata),
        Ok(_) => return Err(StepError::permanent(format!("{}: it is not a regular file", doing()))),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(doing(), error)),
    };
    let owner = owner.or_else(|| old.as_ref().map(|old| (old.uid(), old.gid())));
    let mode = mode.or_else(|| old.as_ref().map(|old| old.mode() & 0o7777)).unwrap_or(NEW_FILE);
    let (file, temporary) = create(folder_of(&path), &path).map_err(|error| failed(doing(), error))?;
    Ok(New { path, file, temporary, mode, owner })
}

impl New {
    /// Where to write.
    pub(super) fn file(&self) -> Result<File, StepError> {
        self.file.try_clone().map_err(|error| self.failed(error))
    }

    /// Puts the file into its place, durably.
    pub(super) fn finish(mut self) -> Result<(), StepError> {
        let finished = (|| {
            let mine = self.file.metadata()?;
            if let Some((uid, gid)) = self.owner.filter(|owner| *owner != (mine.uid(), mine.gid())) {
                fchown(&self.file, Some(uid), Some(gid))?;
            }
            // After the owner: a change of owner takes the set-user bits away.
            self.file.set_permissions(fs::Permissions::from_mode(self.mode))?;
            self.file.sync_all()?;
            fs::rename(&self.temporary.path, &self.path)?;
            self.temporary.is_done = true;
            // Dying before this line may show the old file again after a power loss, never half of the new one.
            File::open(folder_of(&self.path))?.sync_all()
        })();
        finished.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> StepError {
        failed(format!("cannot write `{}`", self.path.display()), error)
    }
}

pub(super) fn remove(path: &Path) -> Result<(), StepError> {
    let doing = || format!("cannot remove `{}`", path.display());
    let Some(path) = resolve(path)? else { return Ok(()) };
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(doing(), error)),
    }
    File::open(folder_of(&path)).and_then(|folder| folder.sync_all()).map_err(|error| failed(doing(), error))
}

/// Where a path leads to through symbolic links; nothing when there is nothing. A link to nothing is an error: nobody
/// can tell whether the file it names may be created.
fn resolve(path: &Path) -> Result<Option<PathBuf>, StepError> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if fs::symlink_metadata(path).is_ok() {
                return Err(StepError::permanent(format!("`{}` is a symbolic link to nothing", path.display()))
                    .help("remove the link or create what it points at"));
            }
            Ok(None)
        }
        Err(error) => Err(failed(format!("cannot look at `{}`", path.display()), error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside its final place that removes itself unless it was renamed.
struct Temporary {
    path: PathBuf,
    is_done: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new file in the same folder, readable by nobody else until it has its mode. The name holds the process id, so
/// that what a killed ferry left behind is never in the way.
fn create(folder: &Path, path: &Path) -> io::Result<(File, Temporary)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 0_u32.. {
        let temporary = folder.join(format!(".{}.ferry-{}-{number}", shortened(&name), std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
            Ok(file) => return Ok((file, Temporary { path: temporary, is_done: false })),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop above ends at 1000")
}

/// Removes the half-written files beside this one whose writers are dead. A living process may be writing its own.
pub(super) fn clear_unfinished(path: &Path) -> Result<(), StepError> {
    let Some(path) = resolve(path)?.or_else(|| Some(path.to_owned())) else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!(".{}.ferry-", shortened(&name));
    // Where there is no folder, nothing was left in it.
    let Ok(entries) = fs::read_dir(folder_of(&path)) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let writer = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse().ok());
        if let Some(writer) = writer.and_then(rustix::process::Pid::from_raw)
            && rustix::process::test_kill_process(writer) == Err(rustix::io::Errno::SRCH)
        {
            let gone = fs::remove_file(entry.path());
            gone.map_err(|error| failed(format!("cannot remove the unfinished `{}`", entry.path().display()), error))?;
        }
    }
    Ok(())
}

/// File names end at 255 bytes, and ours are longer than the user's.
fn shortened(name: &str) -> &str {
    let end = (0..=name.len().min(200)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

pub(super) fn failed(doing: String, error: io::Error) -> StepError {
    let step = match error.kind() {
        ErrorKind::NotFound => {
            StepError::permanent(format!("{doing}: its folder does not exist")).help("create the folder first")
        }
        ErrorKind::PermissionDenied => StepError::permanent(format!("{doing}: it is not allowed"))
            .help("give the user who runs ferry the right to do it, or run ferry as another user"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            StepError::needs_person(format!("{doing}: the disk is full")).help("make room, then resume the run")
        }
        ErrorKind::ReadOnlyFilesystem => StepError::permanent(format!("{doing}: the file system is read-only")),
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::ResourceBusy => StepError::transient(doing),
        _ => StepError::permanent(doing),
    };
    step.cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_writer_left_is_cleared_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = std::process::Command::new("true").spawn().expect("it starts");
        child.wait().expect("it ends");
        let dead = folder.path().join(format!(".file.ferry-{}-0", child.id()));
        let living = folder.path().join(format!(".file.ferry-{}-7", std::process::id()));
        let other = folder.path().join(format!(".files.ferry-{}-0", child.id()));
        for path in [&dead, &living, &other] {
            fs::write(path, "half").expect("written");
        }
        clear_unfinished(&folder.path().join("file")).expect("cleared");
        assert!(!dead.exists() && living.exists() && other.exists());
    }

    #[test]
    fn a_file_keeps_its_mode_and_is_reached_through_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write(&file, b"one", Some(0o640), None).expect("written");
        std::os::unix::fs::symlink("file", &link).expect("linked");
        write(&link, b"two", None, None).expect("written");
        let state = read(&file).expect("read").expect("there");
        assert_eq!((state.content.as_str(), state.mode), ("dHdv", 0o640));
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2, "no temporary file stays");
    }

    #[test]
    fn nothing_is_left_of_a_write_that_failed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        // Nobody may give a file to a user number that cannot exist.
        let error = write(&file, b"one", None, Some((u32::MAX - 1, u32::MAX - 1)));
        if error.is_err() {
            assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
        }
        let error = write(&folder.path().join("no/such/folder"), b"one", None, None).expect_err("refused");
        assert_eq!(error.class, crate::error::ErrorClass::Permanent);
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(folder.path()).is_err());
        assert_eq!(read(&folder.path().join("none")).expect("looked"), None);
        remove(&folder.path().join("none")).expect("none there is no error");
    }
}
