//! What a sync has created, overwritten and deleted, line by line in a file, so that undo knows it after any death.
//!
//! A line about what is going to be done is on disk (fsync) before it is done; a line about what was done follows. One
//! fsync serves all lines that wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::error::StepError;
use crate::stores::Facts;

const NAME: &str = "ledger.jsonl";
const UNDONE: &str = "ledger-undone.jsonl";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Line {
    /// Where the ledger's objects lie: undo must not touch another place.
    Place {
        /// The target.
        target: String,
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
    },
}

/// What the ledger says of one name: what was there before the step first touched it, and what the step left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// `None`: nothing was there.
    pub was: Option<Facts>,
    /// Whether the step deleted it.
    pub is_deleted: bool,
    /// What the step left, when that is known.
    pub left: Option<Facts>,
    /// The sizes that the step was about to write.
    pub sizes: Vec<u64>,
}

impl Touched {
    /// Whether what is there now is what an attempt left. Without a word about the end its runner died in between, and
    /// a whole object of the right size in an empty place is its work.
    pub fn is_ours(&self, now: &Facts) -> bool {
        match &self.left {
            Some(left) => left.agree(now),
            None => self.was.is_none() && self.sizes.contains(&now.size),
        }
    }
}

/// A ledger that is being written.
pub struct Ledger {
    path: PathBuf,
    file: tokio::sync::Mutex<File>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    text: String,
    /// How many lines were handed in, and how many of them are on disk.
    handed_in: u64,
    on_disk: u64,
}

fn failed(path: &Path, doing: &str, error: std::io::Error) -> StepError {
    let class = if error.kind() == std::io::ErrorKind::StorageFull {
        crate::error::ErrorClass::NeedsPerson
    } else {
        crate::error::ErrorClass::Permanent
    };
    StepError::new(class, format!("cannot {doing} `{}`", path.display()))
        .help(
            "it lists what the step creates, so that it can be undone: make sure that there is room, and that it can be written",
        )
        .cause(error)
}

impl Ledger {
    /// Opens the ledger of a step, or begins it.
    pub async fn open(scratch: &Path, target: &str) -> Result<Self, StepError> {
        let path = scratch.join(NAME);
        let io = |error| failed(&path, "write", error);
        tokio::fs::create_dir_all(scratch).await.map_err(io)?;
        let file = File::options().create(true).append(true).open(&path).await.map_err(io)?;
        // A new file is in its folder for good only once the folder is on disk too.
        File::open(scratch).await.map_err(io)?.sync_all().await.map_err(io)?;
        let mut ends_in_a_line = true;
        if let Ok(end) = tail(&path).await {
            ends_in_a_line = end;
        }
        let ledger = Self { path, file: tokio::sync::Mutex::new(file), waiting: Mutex::default() };
        if !ends_in_a_line {
            // The last runner died in mid-line: that line was never acted upon.
            ledger.lock().text.push('\n');
        }
        ledger.intend(&Line::Place { target: target.to_owned() }).await?;
        Ok(ledger)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_in(&self, line: &Line) -> u64 {
        let text = serde_json::to_string(line).expect("a line has only strings for keys");
        let mut waiting = self.lock();
        waiting.text.push_str(&text);
        waiting.text.push('\n');
        waiting.handed_in += 1;
        waiting.handed_in
    }

    /// Says what is going to be done; returns when that is on disk.
    pub async fn intend(&self, line: &Line) -> Result<(), StepError> {
        let number = self.hand_in(line);
        let mut file = self.file.lock().await;
        let (text, last) = {
            let mut waiting = self.lock();
            if waiting.on_disk >= number {
                return Ok(());
            }
            (std::mem::take(&mut waiting.text), waiting.handed_in)
        };
        let io = |error| failed(&self.path, "write", error);
        file.write_all(text.as_bytes()).await.map_err(io)?;
        file.sync_data().await.map_err(io)?;
        self.lock().on_disk = last;
        Ok(())
    }

    /// Says what comes with the next intention, and reaches the disk with it.
    pub fn beside(&self, line: &Line) {
        self.hand_in(line);
    }

    /// Says what was done. It reaches the disk with the next intention, or with [`Ledger::flush`].
    pub fn done(&self, key: &str, is: Facts) {
        self.hand_in(&Line::Done { key: key.to_owned(), is });
    }

    /// Brings everything to disk.
    pub async fn flush(&self) -> Result<(), StepError> {
        let io = |error| failed(&self.path, "write", error);
        let mut file = self.file.lock().await;
        let (text, last) = {
            let mut waiting = self.lock();
            (std::mem::take(&mut waiting.text), waiting.handed_in)
        };
        if !text.is_empty() {
            file.write_all(text.as_bytes()).await.map_err(io)?;
            file.sync_data().await.map_err(io)?;
            self.lock().on_disk = last;
        }
        Ok(())
    }
}

/// Whether the file is empty or ends with a line's end.
async fn tail(path: &Path) -> std::io::Result<bool> {
    use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    let mut file = File::open(path).await?;
    if file.metadata().await?.len() == 0 {
        return Ok(true);
    }
    file.seek(std::io::SeekFrom::End(-1)).await?;
    Ok(file.read_u8().await? == b'\n')
}

/// What a ledger says, by name, for names behind `after`; `None` when there is no ledger. The first line about a name
/// tells what was there; later ones come from later attempts, which found what the first had left.
pub async fn read(scratch: &Path, after: Option<&str>) -> Result<Option<BTreeMap<String, Touched>>, StepError> {
    let path = scratch.join(NAME);
    let file = match File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, "read", error)),
    };
    let mut touched: BTreeMap<String, Touched> = BTreeMap::new();
    let mut lines = BufReader::new(file).lines();
    while let Some(text) = lines.next_line().await.map_err(|error| failed(&path, "read", error))? {
        // A line that was cut off was never acted upon.
        let Ok(line) = serde_json::from_str::<Line>(&text) else { continue };
        let (key, was, size, is) = match line {
            Line::Place { .. } | Line::Folder { .. } => continue,
            Line::Create { key, size } => (key, None, Some(size), None),
            Line::Overwrite { key, was, size } => (key, Some(was), Some(size), None),
            Line::Delete { key, was } => (key, Some(was), None, None),
            Line::Done { key, is } => (key, None, None, Some(is)),
        };
        if after.is_some_and(|after| key.as_str() <= after) {
            continue;
        }
        if let Some(is) = is {
            if let Some(known) = touched.get_mut(&key) {
                known.left = Some(is);
            }
            continue;
        }
        let known = touched.entry(key).or_insert(Touched { was, is_deleted: false, left: None, sizes: Vec::new() });
        known.left = None;
        known.is_deleted = size.is_none();
        known.sizes.extend(size);
    }
    Ok(Some(touched))
}

/// The folders that a ledger says were created.
pub async fn folders(scratch: &Path) -> Result<BTreeSet<String>, StepError> {
    let path = scratch.join(NAME);
    let io = |error| failed(&path, "read", error);
    let mut lines = BufReader::new(File::open(&path).await.map_err(io)?).lines();
    let mut folders = BTreeSet::new();
    while let Some(text) = lines.next_line().await.map_err(io)? {
        if let Ok(Line::Folder { key }) = serde_json::from_str::<Line>(&text) {
            folders.insert(key);
        }
    }
    Ok(folders)
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
    use super::*;

    fn size(size: u64) -> Facts {
        Facts { size, ..Facts::default() }
    }

    #[tokio::test]
    async fn the_first_line_about_a_name_tells_what_was_there() {
        let scratch = tempfile::tempdir().expect("a directory");
        let ledger = Ledger::open(scratch.path(), "new:").await.expect("opened");
        let create = |key: &str| Line::Create { key: key.to_owned(), size: 3 };
        ledger.intend(&create("a")).await.expect("on disk");
        drop(ledger);
        // The runner dies in mid-line; the next attempt finds its half object and overwrites it.
        let path = scratch.path().join(NAME);
        let text = std::fs::read_to_string(&path).expect("there");
        std::fs::write(&path, format!("{text}{{\"what\":\"cre")).expect("written");
        let ledger = Ledger::open(scratch.path(), "new:").await.expect("opened");
        ledger.intend(&Line::Overwrite { key: "a".to_owned(), was: size(1), size: 3 }).await.expect("on disk");
        ledger.done("a", size(3));
        ledger.intend(&Line::Overwrite { key: "b".to_owned(), was: size(9), size: 4 }).await.expect("on disk");
        ledger.flush().await.expect("on disk");
        let read = read(scratch.path(), None).await.expect("read").expect("there");
        assert_eq!(read["a"], Touched { was: None, is_deleted: false, left: Some(size(3)), sizes: vec![3, 3] });
        assert_eq!(read["b"], Touched { was: Some(size(9)), is_deleted: false, left: None, sizes: vec![4] });
    }
}
