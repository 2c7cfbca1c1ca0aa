//! The manifest of a sync: a line for every object that is at the target now, in the order of the names.
//!
//! JSON lines, compressed with Zstandard (`zstdcat manifest.jsonl.zst`), beside the journal. It is written as the sync
//! goes on, and cut back to the last checkpoint when an attempt takes up where another one died.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zstd::stream::write::Encoder;

use crate::error::{ErrorClass, StepError};
use crate::stores::Facts;

/// Its name in the step's folder.
pub const NAME: &str = "manifest.jsonl.zst";
/// The name of the one that a later pass writes, until it takes the place of the first.
const NEXT: &str = "manifest-next.jsonl.zst";
/// Text that is kept before it is compressed.
const KEEP: usize = 256 << 10;

/// What the manifest says of an object.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    /// Its name below the place.
    pub key: &'a str,
    /// Bytes.
    pub size: u64,
    /// The BLAKE3 of what was sent, as `b3sum` prints it. Not there for what was at the target already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<&'a str>,
    /// The target's `ETag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<&'a str>,
    /// The MD5 that both stores list, for what was there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub md5: Option<&'a str>,
    /// Whether this sync copied it.
    pub copied: bool,
    /// With `mode: move` and `follow`: both objects, as they were when the copy was known to be whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sides: Option<Sides>,
}

/// What a move has to find again before it deletes an object at the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    /// The object that was copied.
    pub source: Facts,
    /// Of a file in a directory: when it was last changed in any way, as it was listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<jiff::Timestamp>,
    /// The copy.
    pub target: Facts,
}

impl Entry<'_> {
    /// The line, with its end.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a line has only strings for keys");
        line.push('\n');
        line
    }
}

/// A manifest that is being written.
pub struct Manifest {
    path: PathBuf,
    file: File,
    kept: String,
    /// Of the whole text; not known any more when an earlier attempt wrote the beginning.
    digest: Option<Sha256>,
}

fn failed(path: &Path, doing: &str, error: std::io::Error) -> StepError {
    let is_full = error.kind() == std::io::ErrorKind::StorageFull;
    let class = if is_full { ErrorClass::NeedsPerson } else { ErrorClass::Permanent };
    StepError::new(class, format!("cannot {doing} the manifest `{}`", path.display()))
        .help("make sure that there is room, and that it can be written; then resume")
        .cause(error)
}

impl Manifest {
    /// Opens the whole manifest of a sync that has followed.
    pub fn open_whole(scratch: &Path) -> Result<Self, StepError> {
        let path = scratch.join(NAME);
        let length = std::fs::metadata(&path).map_err(|error| failed(&path, "open", error))?.len();
        let _ = std::fs::remove_file(scratch.join(NEXT));
        Self::open(scratch, 0, length)
    }

    /// Opens the manifest of a pass and cuts it back to this length, the last that [`Manifest::sync`] gave.
    pub fn open(scratch: &Path, pass: u64, length: u64) -> Result<Self, StepError> {
        let path = scratch.join(if pass == 0 { NAME } else { NEXT });
        let io = |error| failed(&path, "open", error);
        std::fs::create_dir_all(scratch).map_err(io)?;
        let mut file = File::options().create(true).read(true).write(true).truncate(false).open(&path).map_err(io)?;
        if file.metadata().map_err(io)?.len() < length {
            return Err(StepError::needs_person(format!("the manifest `{}` is shorter than it was", path.display()))
                .help("it was cut or replaced: start the sync as a new run"));
        }
        file.set_len(length).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self { path, file, kept: String::new(), digest: (length == 0).then(Sha256::new) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line of [`Entry::line`].
    pub fn push(&mut self, line: &str) -> Result<(), StepError> {
        self.kept.push_str(line);
        if self.kept.len() >= KEEP { self.write() } else { Ok(()) }
    }

    /// Each writing is a frame of its own: the file is whole after each of them.
    fn write(&mut self) -> Result<(), StepError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        if let Some(digest) = &mut self.digest {
            digest.update(self.kept.as_bytes());
        }
        let packed = (|| {
            let mut encoder = Encoder::new(Vec::with_capacity(self.kept.len() / 4), 1)?;
            encoder.write_all(self.kept.as_bytes())?;
            encoder.finish()
        })();
        let written = packed.and_then(|packed| self.file.write_all(&packed));
        written.map_err(|error| failed(&self.path, "write", error))?;
        self.kept.clear();
        Ok(())
    }

    /// Brings all lines into the file; gives its length, for the checkpoint.
    pub fn flush(&mut self) -> Result<u64, StepError> {
        self.write()?;
        self.file.stream_position().map_err(|error| failed(&self.path, "write", error))
    }

    /// Brings it to disk.
    pub fn settle(&mut self) -> Result<(), StepError> {
        self.flush()?;
        self.file.sync_data().map_err(|error| failed(&self.path, "write", error))
    }

    /// Ends it: gives its path and the SHA-256 of its text.
    pub fn finish(mut self) -> Result<(PathBuf, String), StepError> {
        self.flush()?;
        let io = |error| failed(&self.path, "read", error);
        self.file.sync_data().map_err(io)?;
        let digest = if let Some(digest) = self.digest {
            digest
        } else {
            let mut digest = Sha256::new();
            self.file.rewind().map_err(io)?;
            let mut text = zstd::stream::read::Decoder::new(&self.file).map_err(io)?;
            let mut piece = vec![0; 128 << 10];
            loop {
                match text.read(&mut piece).map_err(io)? {
                    0 => break,
                    count => digest.update(&piece[..count]),
                }
            }
            digest
        };
        Ok((self.path, format!("{:x}", digest.finalize())))
    }
}

/// An object as a manifest names it.
#[derive(Debug, Deserialize)]
pub struct Named {
    /// Its name below the place.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The BLAKE3 of what was sent.
    #[serde(default)]
    pub blake3: Option<String>,
    /// The target's `ETag`.
    #[serde(default)]
    pub etag: Option<String>,
    /// The MD5 that both stores list.
    #[serde(default)]
    pub md5: Option<String>,
    /// Whether this sync copied it.
    pub copied: bool,
    /// What a move has to find again.
    #[serde(default)]
    pub sides: Option<Sides>,
}

impl Named {
    /// As it was written.
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            key: &self.key,
            size: self.size,
            blake3: self.blake3.as_deref(),
            etag: self.etag.as_deref(),
            md5: self.md5.as_deref(),
            copied: self.copied,
            sides: self.sides.clone(),
        }
    }

    /// Whether what is at the target now is what was there then.
    pub fn is_still(&self, there: &Facts) -> bool {
        self.sides.as_ref().is_some_and(|sides| sides.target.is_surely(there))
    }
}

/// What a manifest names, in order.
pub type Copies = Peekable<Box<dyn Iterator<Item = Result<Named, StepError>> + Send + Sync>>;

/// What the whole manifest in this folder names.
pub fn copies(scratch: &Path) -> Result<Copies, StepError> {
    let named: Box<dyn Iterator<Item = _> + Send + Sync> = Box::new(read(&scratch.join(NAME))?);
    Ok(named.peekable())
}

/// Puts the manifest of a later pass, of this length, in the place of the one before. Twice does no harm.
pub fn turn(scratch: &Path, length: u64) -> Result<(), StepError> {
    let next = scratch.join(NEXT);
    // A shorter one was begun behind it: then this one is in its place already.
    if std::fs::metadata(&next).is_ok_and(|next| next.len() >= length) {
        let renamed = std::fs::rename(&next, scratch.join(NAME)).and_then(|()| File::open(scratch)?.sync_all());
        renamed.map_err(|error| failed(&next, "rename", error))?;
    }
    Ok(())
}

/// The objects of a manifest that was flushed, in order.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Named, StepError>> + use<>, StepError> {
    let io = |error| failed(path, "read", error);
    let file = File::open(path).map_err(io)?;
    // Each writing is a frame: one behind the other. Nothing at all is none.
    let is_empty = file.metadata().map_err(io)?.len() == 0;
    let text: Box<dyn std::io::Read + Send + Sync> =
        if is_empty { Box::new(std::io::empty()) } else { Box::new(zstd::stream::read::Decoder::new(file).map_err(io)?) };
    let lines = BufReader::new(text).lines();
    let path = path.to_owned();
    Ok(lines.map(move |line| {
        let line = line.map_err(|error| failed(&path, "read", error))?;
        serde_json::from_str(&line).map_err(|error| failed(&path, "read", error.into()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str) -> String {
        Entry { key, size: 1, blake3: Some("ab"), etag: None, md5: None, copied: true, sides: None }.line()
    }

    #[test]
    fn an_attempt_that_goes_on_ends_with_the_same_digest() {
        let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let mut whole = Manifest::open(one.path(), 0, 0).expect("opened");
        for key in ["a", "b", "c"] {
            whole.push(&line(key)).expect("written");
        }
        let mut first = Manifest::open(two.path(), 0, 0).expect("opened");
        first.push(&line("a")).expect("written");
        let length = first.flush().expect("written");
        // Written after the last checkpoint: the next attempt writes it again.
        first.push(&line("b")).expect("written");
        first.flush().expect("written");
        let mut second = Manifest::open(two.path(), 0, length).expect("opened");
        for key in ["b", "c"] {
            second.push(&line(key)).expect("written");
        }
        let (path, digest) = second.finish().expect("finished");
        assert_eq!(digest, whole.finish().expect("finished").1);
        let text = zstd::decode_all(File::open(path).expect("there")).expect("whole frames");
        assert_eq!(String::from_utf8(text).expect("text"), ["a", "b", "c"].map(line).concat());
    }
}
