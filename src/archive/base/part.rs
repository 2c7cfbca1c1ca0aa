//! Parts: ranges of files up to a fixed length, packed into one object that is named after its content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use crc_fast::CrcAlgorithm;

use super::super::depot::disk;
use super::super::frame::pack_hashed;
use super::super::settings::Archive;
use super::files::Found;
use super::index::{PartEntry, Piece};
use crate::error::StepError;

/// A part is this long before it is packed, unless a file's end or the last file comes first.
pub(super) const LENGTH: u64 = 32 << 20;

/// Which ranges make which part: large files in ranges of their own, small ones many to a part.
pub(super) fn divide(files: &[Found], length: u64) -> Vec<Vec<Piece>> {
    let mut parts = Vec::new();
    let (mut gathered, mut bytes) = (Vec::new(), 0);
    for (at, file) in files.iter().enumerate() {
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        let mut offset = 0;
        while file.size - offset >= length {
            parts.push(vec![Piece(number, offset, length)]);
            offset += length;
        }
        let rest = file.size - offset;
        if rest == 0 && offset > 0 {
            continue;
        }
        gathered.push(Piece(number, offset, rest));
        bytes += rest;
        if bytes >= length {
            parts.push(std::mem::take(&mut gathered));
            bytes = 0;
        }
    }
    if !gathered.is_empty() {
        parts.push(gathered);
    }
    parts
}

/// What was read of a part.
pub(super) struct Read {
    pub content: Vec<u8>,
    pub hash: String,
    /// Each range with what was found of it: `None` when its file is gone.
    pub pieces: Vec<(Piece, Option<u32>)>,
}

/// Reads the ranges of a part. A running server drops and cuts files at any time; its log tells of it, and replay does it
/// again: what is gone is left out, and what a range of a large file lacks is filled with zeros.
pub(super) fn read(data: &Path, files: &[Found], wanted: &[Piece]) -> Result<Read, StepError> {
    let mut content = Vec::with_capacity(usize::try_from(wanted.iter().map(|piece| piece.2).sum::<u64>()).unwrap_or_default());
    let mut pieces = Vec::with_capacity(wanted.len());
    for &Piece(file, offset, length) in wanted {
        let found = &files[file as usize];
        let failed = |error| disk(format!("cannot read `{}`", found.path), error);
        let opened = match File::open(data.join(&found.path)) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                pieces.push((Piece(file, offset, 0), None));
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        let begin = content.len();
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        content.resize(begin + wanted, 0);
        let mut have = 0;
        while have < wanted {
            match opened.read_at(&mut content[begin + have..], offset + have as u64) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let is_whole_file = offset == 0 && length == found.size;
        if is_whole_file {
            content.truncate(begin + have);
        }
        let bytes = &content[begin..];
        let crc = u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes)).unwrap_or_default();
        pieces.push((Piece(file, offset, bytes.len() as u64), Some(crc)));
    }
    let hash = blake3::hash(&content).to_hex().to_string();
    Ok(Read { content, hash, pieces })
}

/// Where a part lies.
pub(super) fn key(backup: &str, hash: &str) -> String {
    format!("base/{backup}/parts/{hash}")
}

/// The parts that are in the archive already, of an attempt that was not finished: hash and key.
pub(super) async fn stored(archive: &Archive, backup: &str) -> Result<BTreeMap<String, String>, StepError> {
    let prefix = format!("base/{backup}/parts/");
    let mut stored = BTreeMap::new();
    let mut listing = archive.depot.store().list(Some(&prefix));
    while let Some(listed) = listing.next().await? {
        let Some(hash) = listed.key.strip_prefix(&prefix) else { break };
        stored.insert(hash.to_owned(), listed.key.clone());
    }
    Ok(stored)
}

/// Packs and stores a part. Its size as an object.
pub(super) async fn store(archive: &Archive, backup: &str, hash: &str, content: Vec<u8>) -> Result<u64, StepError> {
    let (name, level) = (hash.to_owned(), archive.settings.level);
    let packed = tokio::task::spawn_blocking(move || pack_hashed(&name, &content, &name, level))
        .await
        .map_err(|error| StepError::permanent("packing has ended early").cause(error))??;
    let stored = packed.len() as u64;
    // The name is the content: one that is there is the same.
    archive.depot.write_new(&key(backup, hash), Bytes::from(packed)).await?;
    Ok(stored)
}

/// The entry of a part in the index, with its pieces' files numbered as in the index.
pub(super) fn entry(hash: String, stored: u64, pieces: &[(Piece, Option<u32>)], number: &[Option<u32>]) -> PartEntry {
    let kept = pieces.iter().filter_map(|(Piece(file, offset, length), _)| {
        let number = number[*file as usize]?;
        (*length > 0).then_some(Piece(number, *offset, *length))
    });
    PartEntry { hash, stored, pieces: kept.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, size: u64) -> Found {
        Found { path: path.to_owned(), size, mode: 0o600, modified: 0 }
    }

    #[test]
    fn large_files_are_divided_and_small_ones_gathered() {
        let files = [found("a", 3), found("b", 25), found("c", 0), found("d", 20), found("e", 8)];
        let parts = divide(&files, 10);
        let whole: u64 = parts.iter().flatten().map(|piece| piece.2).sum();
        assert_eq!(whole, 56);
        assert!(parts.iter().all(|part| part.iter().map(|piece| piece.2).sum::<u64>() < 20));
        assert_eq!(parts[0], [Piece(1, 0, 10)]);
        assert!(parts.iter().flatten().any(|piece| *piece == Piece(2, 0, 0)), "an empty file is one too");
        assert_eq!(parts.iter().flatten().filter(|piece| piece.0 == 3).count(), 2);
    }

    #[test]
    fn what_is_gone_or_shorter_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), b"abc").expect("room");
        std::fs::write(folder.path().join("b"), b"0123456789xy").expect("room");
        let files = [found("a", 5), found("gone", 4), found("b", 20)];
        let read = read(folder.path(), &files, &[Piece(0, 0, 5), Piece(1, 0, 4), Piece(2, 10, 10)]).expect("read");
        assert_eq!(read.content, b"abcxy\0\0\0\0\0\0\0\0");
        let lengths: Vec<(u64, bool)> = read.pieces.iter().map(|(piece, crc)| (piece.2, crc.is_some())).collect();
        assert_eq!(lengths, [(3, true), (0, false), (10, true)]);
    }
}
