//! What a sync has created, overwritten and deleted, line by line in a file, so that undo knows it after any death.
//!
//! A line about what is going to be done is on disk (fsync) before it is done; a line about what was done follows. One
//! fsync serves all lines that wait for it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};

pub use super::told::{Moved, Told, Touched, Unfinished};
use crate::error::StepError;
use crate::stores::bucket::Part;
use crate::stores::{Facts, Store};

pub const NAME: &str = "ledger.jsonl";
const UNDONE: &str = "ledger-undone.jsonl";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Line {
    /// Where the ledger's objects lie: undo must not touch another place.
    Place {
        /// The target, for people.
        target: String,
        /// [`Store::whereabouts`](crate::stores::Store::whereabouts).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// Another pass of a sync that follows begins.
    Pass {
        /// Its number; the first is 0 and has no such line.
        number: u64,
    },
    /// An object is about to be created where there was none.
    Create {
        /// Its name.
        key: String,
        /// Its size.
        size: u64,
    },
    /// A folder is about to be created for what comes next.
    Folder {
        /// Its name, with a slash at its end.
        key: String,
    },
    /// An object is about to be overwritten.
    Overwrite {
        /// Its name.
        key: String,
        /// What was there.
        was: Facts,
        /// The size of what comes.
        size: u64,
    },
    /// An object is about to be deleted.
    Delete {
        /// Its name.
        key: String,
        /// What was there.
        was: Facts,
    },
    /// It was done; this is there now.
    Done {
        /// Its name.
        key: String,
        /// What is there.
        is: Facts,
        /// The BLAKE3 of its content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blake3: Option<String>,
    },
    /// What the step left was read again, and is what was sent.
    Verified {
        /// Its name.
        key: String,
    },
    /// With `mode: move`: the object at the source of which that is a copy.
    From {
        /// Its name.
        key: String,
        /// What was read.
        of: Facts,
        /// Of a file in a directory: when it was last changed in any way, as it was listed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed: Option<jiff::Timestamp>,
    },
    /// An object is about to be deleted at the source: its copy is at the target.
    Remove {
        /// Its name.
        key: String,
        /// The object at the source.
        was: Facts,
        /// Its copy.
        copy: Facts,
        /// The BLAKE3 of its content, when this step has sent it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blake3: Option<String>,
    },
    /// An upload in parts was begun.
    Upload {
        /// The object's name.
        key: String,
        /// As the target calls it.
        id: String,
        /// Bytes of every part but the last.
        part: u64,
        /// The object at the source.
        of: Facts,
    },
    /// A part of an upload has arrived.
    Part {
        /// The object's name.
        key: String,
        /// The upload.
        id: String,
        /// The part, as the target has it.
        is: Part,
        /// Its hash: [`PartHash::to_hex`]. Unknown when the service copied it within itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hash: Option<String>,
    },
    /// An upload was thrown away.
    Dropped {
        /// The object's name.
        key: String,
        /// The upload.
        id: String,
    },
    /// Undo has put it back: the next undo has nothing to do with it.
    Back {
        /// The object's name.
        key: String,
    },
}

/// How much of a ledger there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// Ends of lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Length {
    fn add(&mut self, text: &[u8]) {
        self.lines += text.split(|byte| *byte == b'\n').count() as u64 - 1;
        self.bytes += text.len() as u64;
    }
}

/// A ledger that is being written.
pub struct Ledger {
    path: PathBuf,
    file: Arc<File>,
    written: Mutex<Length>,
    on_disk: tokio::sync::Mutex<Length>,
    sync: Sync,
}

/// How a file is brought to disk.
type Sync = fn(&File) -> std::io::Result<()>;

#[cfg(test)]
thread_local! {
    /// What ledgers that are opened on this thread use instead: a slow disk.
    pub static SYNC: std::cell::Cell<Sync> = const { std::cell::Cell::new(File::sync_data) };
}

fn failed(path: &Path, doing: &str, error: std::io::Error) -> StepError {
    let class = if error.kind() == std::io::ErrorKind::StorageFull {
        crate::error::ErrorClass::NeedsPerson
    } else {
        crate::error::ErrorClass::Permanent
    };
    let see = if doing == "read" { "that it can be read" } else { "that there is room, and that it can be written" };
    StepError::new(class, format!("cannot {doing} `{}`", path.display()))
        .help(format!("it lists what the step creates, so that it can be undone: make sure {see}"))
        .cause(error)
}

/// The ledger is not what the journal says it was.
pub fn not_whole(scratch: &Path, target: &str, how: &str) -> StepError {
    StepError::needs_person(format!("the list of what was created in `{target}` {how}")).help(format!(
        "it is `{}`: bring it back as it was; without it nobody knows what to undo, and what the step created is to be deleted by hand",
        scratch.join(NAME).display()
    ))
}

impl Ledger {
    /// Opens the ledger of a step, or begins it.
    pub async fn open(scratch: &Path, target: &str, at: String) -> Result<Self, StepError> {
        let path = scratch.join(NAME);
        let io = |error| failed(&path, "write", error);
        std::fs::create_dir_all(scratch).map_err(io)?;
        let file = File::options().create(true).append(true).read(true).open(&path).map_err(io)?;
        // A new file is in its folder for good only once the folder is on disk too.
        File::open(scratch).and_then(|folder| folder.sync_all()).map_err(io)?;
        // What was undone is about the ledger before: that this one is lost must not look the same.
        match std::fs::remove_file(scratch.join(UNDONE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let (length, ends_in_a_line) = length(&file).map_err(io)?;
        let (written, on_disk) = (Mutex::new(length), tokio::sync::Mutex::new(Length::default()));
        #[cfg(not(test))]
        let sync = File::sync_data;
        #[cfg(test)]
        let sync = SYNC.get();
        let ledger = Self { path, file: Arc::new(file), written, on_disk, sync };
        if !ends_in_a_line {
            // The last runner died in mid-line: that line was never acted upon.
            ledger.write("\n")?;
        }
        ledger.intend(&[Line::Place { target: target.to_owned(), at: Some(at) }]).await?;
        Ok(ledger)
    }

    /// How much of it is on disk for good: what a checkpoint vouches for.
    pub async fn on_disk(&self) -> Length {
        *self.on_disk.lock().await
    }

    /// Some hundred bytes into the page cache: faster than any way around it, and they outlive the process.
    fn write(&self, text: &str) -> Result<Length, StepError> {
        use std::io::Write as _;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        (&*self.file).write_all(text.as_bytes()).map_err(|error| failed(&self.path, "write", error))?;
        written.add(text.as_bytes());
        Ok(*written)
    }

    /// Says what is going to be done; returns when that is on disk. One flush serves all who wait for it.
    pub async fn intend(&self, lines: &[Line]) -> Result<(), StepError> {
        let length = self.write(&text_of(lines))?;
        self.flush_to(length).await
    }

    /// Says what has been done, or what comes with the next intention: the death of the runner does not undo it, a
    /// power cut may. It reaches the disk with the next intention, or with [`Ledger::flush`].
    pub fn tell(&self, line: &Line) -> Result<(), StepError> {
        self.write(&text_of(std::slice::from_ref(line))).map(drop)
    }

    /// Brings everything to disk.
    pub async fn flush(&self) -> Result<(), StepError> {
        let length = self.length();
        self.flush_to(length).await
    }

    fn length(&self) -> Length {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn flush_to(&self, length: Length) -> Result<(), StepError> {
        let mut on_disk = self.on_disk.lock().await;
        if on_disk.bytes >= length.bytes {
            return Ok(());
        }
        let last = self.length();
        let (file, sync) = (self.file.clone(), self.sync);
        let synced = tokio::task::spawn_blocking(move || sync(&file)).await;
        synced.map_err(std::io::Error::other).and_then(|synced| synced).map_err(|error| failed(&self.path, "write", error))?;
        *on_disk = last;
        Ok(())
    }
}

fn text_of(lines: &[Line]) -> String {
    let mut text = String::with_capacity(lines.len() * 80);
    for line in lines {
        text.push_str(&serde_json::to_string(line).expect("a line has only strings for keys"));
        text.push('\n');
    }
    text
}

/// How much there is, and whether it is empty or ends with a line's end.
fn length(mut file: &File) -> std::io::Result<(Length, bool)> {
    use std::io::Read as _;
    let mut length = Length::default();
    let (mut piece, mut last) = (vec![0; 128 << 10], b'\n');
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok((length, last == b'\n'));
        }
        length.add(&piece[..count]);
        last = piece[count - 1];
    }
}

/// What a ledger says, of names behind `after`; `None` when there is none and none is vouched for. The first line about a
/// name tells what was there; later ones come from later attempts, which found what the first had left.
pub async fn read(
    scratch: &Path,
    target: &Store,
    after: Option<&str>,
    vouched: Option<Length>,
) -> Result<Option<Told>, StepError> {
    let path = scratch.join(NAME);
    let io = |error| failed(&path, "read", error);
    let file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if vouched.is_some() && !is_put_away(scratch) {
                return Err(not_whole(scratch, target.label(), "is gone"));
            }
            return Ok(None);
        }
        Err(error) => return Err(io(error)),
    };
    let vouched = vouched.unwrap_or_default();
    let there = file.metadata().await.map_err(io)?.len();
    if there < vouched.bytes {
        let how = format!("was cut: {there} of {} bytes are there", vouched.bytes);
        return Err(not_whole(scratch, target.label(), &how));
    }
    let (mut told, mut read, mut bad) = (Told::default(), Length::default(), false);
    let garbled = |lines: u64| not_whole(scratch, target.label(), &format!("was changed: line {lines} is none of its own"));
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut text = Vec::new();
    while file.read_until(b'\n', &mut text).await.map_err(io)? > 0 {
        let is_vouched = read.bytes < vouched.bytes;
        read.add(&text);
        let line = serde_json::from_slice::<Line>(&text);
        // A line that was cut off was never acted upon; the next runner ends it, and begins with the place. What is not
        // vouched for may be gone after a power cut.
        if is_vouched && bad && !matches!(line, Ok(Line::Place { .. } | Line::Back { .. })) {
            return Err(garbled(read.lines - 1));
        }
        bad = line.is_err() && text != b"\n";
        if is_vouched && read.bytes >= vouched.bytes && (bad || read != vouched) {
            return Err(garbled(read.lines));
        }
        match line {
            Ok(Line::Place { at: Some(at), .. }) if at != target.whereabouts() => {
                let how = format!("is about another place, {at}: now it is {}", target.whereabouts());
                return Err(not_whole(scratch, target.label(), &how));
            }
            Ok(line) => told.add(line, after),
            Err(_) => {}
        }
        text.clear();
    }
    Ok(Some(told))
}

/// Writes down what undo has put back.
pub async fn tell_back(scratch: &Path, keys: Vec<String>) -> Result<(), StepError> {
    let path = scratch.join(NAME);
    let lines: Vec<Line> = keys.into_iter().map(|key| Line::Back { key }).collect();
    // A line that was cut off is ended first; an empty one means nothing.
    let text = format!("\n{}", text_of(&lines));
    let written = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            use std::io::Write as _;
            let mut file = File::options().append(true).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()
        }
    });
    written.await.map_err(std::io::Error::other).and_then(|written| written).map_err(|error| failed(&path, "write", error))
}

/// Puts a ledger away whose every line was undone: a later run of the step begins another.
pub async fn put_away(scratch: &Path) -> Result<(), StepError> {
    let path = scratch.join(NAME);
    match tokio::fs::rename(&path, scratch.join(UNDONE)).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(&path, "rename", error)),
    }
}

/// Whether a ledger was put away here.
pub fn is_put_away(scratch: &Path) -> bool {
    scratch.join(UNDONE).exists()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn size(size: u64) -> Facts {
        Facts { size, ..Facts::default() }
    }

    #[tokio::test]
    async fn the_first_line_about_a_name_tells_what_was_there() {
        let scratch = tempfile::tempdir().expect("a directory");
        let ledger = Ledger::open(scratch.path(), "new:", "memory /here/".to_owned()).await.expect("opened");
        let create = |key: &str| Line::Create { key: key.to_owned(), size: 3 };
        ledger.intend(&[create("a")]).await.expect("on disk");
        drop(ledger);
        // The runner dies in mid-line; the next attempt finds its half object and overwrites it.
        let path = scratch.path().join(NAME);
        let text = std::fs::read_to_string(&path).expect("there");
        std::fs::write(&path, format!("{text}{{\"what\":\"cre")).expect("written");
        let ledger = Ledger::open(scratch.path(), "new:", "memory /here/".to_owned()).await.expect("opened");
        ledger.intend(&[Line::Overwrite { key: "a".to_owned(), was: size(1), size: 3 }]).await.expect("on disk");
        ledger.tell(&Line::Done { key: "a".to_owned(), is: size(3), blake3: None }).expect("written");
        ledger.intend(&[Line::Overwrite { key: "b".to_owned(), was: size(9), size: 4 }]).await.expect("on disk");
        ledger.flush().await.expect("on disk");
        let stores = crate::stores::Stores::new(BTreeMap::new(), crate::secret::Vault::default());
        let store = stores.open("memory://here/", Path::new("/")).expect("it opens");
        let read = read(scratch.path(), &store, None, Some(ledger.on_disk().await)).await.expect("read").expect("there").touched;
        assert_eq!((&read["a"].was, &read["a"].left, &read["a"].sizes), (&None, &Some(size(3)), &vec![3, 3]));
        assert_eq!((&read["b"].was, &read["b"].left, &read["b"].sizes), (&Some(size(9)), &None, &vec![4]));
    }
}
