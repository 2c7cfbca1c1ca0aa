//! How a file lies in an archive: what it is, how long and with which hash, and behind that its content, compressed.
//!
//! The first bytes are a frame that zstd skips, so that `zstd -d` alone gives the content back.

use blake3::Hash;
use serde::{Deserialize, Serialize};

use crate::error::StepError;

/// A frame that decoders skip: one of the sixteen numbers that are kept for it.
const SKIPPED: u32 = 0x184D_2A5E;

/// No header is longer.
const LONGEST: usize = 4096;

/// What is longer once it is unpacked is not ours.
const LARGEST: u64 = 2 << 30;

/// What an object says of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format: 1.
    pub ferry: u32,
    /// The name under which it was stored.
    pub name: String,
    /// Bytes of the content.
    pub size: u64,
    /// BLAKE3 of the content, hexadecimal digits.
    pub blake3: String,
}

/// The content with its header, compressed at this level of zstd.
pub fn pack(name: &str, content: &[u8], level: i32) -> Result<Vec<u8>, StepError> {
    pack_hashed(name, content, blake3::hash(content).to_hex().as_str(), level)
}

/// The same of a content whose BLAKE3 is known.
pub(super) fn pack_hashed(name: &str, content: &[u8], hash: &str, level: i32) -> Result<Vec<u8>, StepError> {
    let header = Header { ferry: 1, name: name.to_owned(), size: content.len() as u64, blake3: hash.to_owned() };
    let failed = |what: &str, cause: std::io::Error| StepError::permanent(format!("cannot {what} `{name}`")).cause(cause);
    let header = serde_json::to_vec(&header).map_err(|error| failed("describe", error.into()))?;
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let body = zstd::bulk::compress(content, level).map_err(|error| failed("compress", error))?;
    let mut packed = Vec::with_capacity(8 + header.len() + body.len());
    packed.extend_from_slice(&SKIPPED.to_le_bytes());
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(&header);
    packed.extend_from_slice(&body);
    Ok(packed)
}

/// The content of an object, held against what the object says of it, and that against the name asked for.
pub fn unpack(name: &str, packed: &[u8]) -> Result<(Header, Vec<u8>), StepError> {
    let damaged = |what: String| {
        StepError::needs_person(format!("`{name}` is damaged in the archive: {what}"))
            .help("bring the object back from another copy of the archive, then try again; nothing was made of it")
    };
    let (header, body) = split(packed).ok_or_else(|| damaged("it does not begin as ferry's objects do".to_owned()))?;
    if header.name != name {
        return Err(damaged(format!("it says that it is `{}`", header.name)));
    }
    if header.size > LARGEST {
        return Err(damaged(format!("it says that it is {} bytes long", header.size)));
    }
    let size = usize::try_from(header.size).unwrap_or(usize::MAX);
    let content = zstd::bulk::decompress(body, size).map_err(|error| damaged(error.to_string()))?;
    let hash = Hash::from_hex(&header.blake3).map_err(|error| damaged(error.to_string()))?;
    if content.len() != size || blake3::hash(&content) != hash {
        return Err(damaged("its content is not what was archived".to_owned()));
    }
    Ok((header, content))
}

fn split(packed: &[u8]) -> Option<(Header, &[u8])> {
    let (magic, rest) = packed.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if u32::from_le_bytes(*magic) != SKIPPED || length > LONGEST {
        return None;
    }
    let header: Header = serde_json::from_slice(rest.get(..length)?).ok()?;
    (header.ferry == 1).then_some((header, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_and_zstd_alone_reads_it() {
        for content in [&b""[..], b"x", &vec![7; 300_000]] {
            let packed = pack("name", content, 3).expect("packed");
            let (header, back) = unpack("name", &packed).expect("unpacked");
            assert_eq!((header.size, &back[..]), (content.len() as u64, content));
            assert_eq!(zstd::stream::decode_all(&packed[..]).expect("a plain decoder skips the header"), content);
        }
    }

    #[test]
    fn a_bit_that_turned_over_anywhere_is_noticed() {
        let content: Vec<u8> = (0..2000_u32).flat_map(u32::to_le_bytes).collect();
        let packed = pack("name", &content, 3).expect("packed");
        for at in 0..packed.len() {
            let mut other = packed.clone();
            other[at] ^= 4;
            let same = unpack("name", &other).is_ok_and(|(_, back)| back == content);
            let failed = unpack("name", &other).is_err();
            assert!(same || failed, "a bit of byte {at} has made another content");
        }
        assert!(unpack("name", &packed[..packed.len() - 1]).is_err());
        assert!(unpack("other", &packed).expect_err("another name").message.contains("it says that it is `name`"));
    }
}
