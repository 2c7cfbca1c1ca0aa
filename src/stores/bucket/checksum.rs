//! Checksums that services check on arrival and keep: computed, compared, and put together from those of parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

/// Which checksum it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChecksumKind {
    /// CRC-64/NVME: S3's default; Azure's `x-ms-content-crc64` is the same.
    Crc64Nvme,
    /// CRC-32C.
    Crc32c,
    /// CRC-32 as in ZIP.
    Crc32,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
}

impl ChecksumKind {
    /// The word in S3's headers: `x-amz-checksum-crc64nvme`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Crc64Nvme => "crc64nvme",
            Self::Crc32c => "crc32c",
            Self::Crc32 => "crc32",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
        }
    }

    fn algorithm(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            _ => None,
        }
    }
}

/// A checksum of an object or a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// Which one.
    pub kind: ChecksumKind,
    /// Base64 of the bytes, the most significant first: as S3 writes it.
    pub value: String,
    /// Whether it is of the content itself; else of the checksums of the parts.
    pub is_whole: bool,
}

impl Checksum {
    /// Of some bytes. `None` for those that are not computed here.
    pub fn of(kind: ChecksumKind, bytes: &[u8]) -> Option<Self> {
        let value = match kind {
            ChecksumKind::Md5 => STANDARD.encode(Md5::digest(bytes)),
            _ => written(kind, crc_fast::checksum(kind.algorithm()?, bytes)),
        };
        Some(Self { kind, value, is_whole: true })
    }

    /// Whether it is as long as it has to be.
    pub(super) fn is_well_formed(&self) -> bool {
        let size = match self.kind {
            ChecksumKind::Crc64Nvme => 8,
            ChecksumKind::Crc32c | ChecksumKind::Crc32 => 4,
            ChecksumKind::Sha1 => 20,
            ChecksumKind::Sha256 => 32,
            ChecksumKind::Md5 => 16,
        };
        STANDARD.decode(&self.value).is_ok_and(|bytes| bytes.len() == size)
    }

    /// Whether these bytes have it. `None`: it cannot be told.
    pub fn holds(&self, bytes: &[u8]) -> Option<bool> {
        if !self.is_whole {
            return None;
        }
        Some(Self::of(self.kind, bytes)?.value == self.value)
    }

    /// Of the content that these parts make up in this order, each with its size. CRCs only, and all of one kind.
    pub fn joined<'a>(parts: impl IntoIterator<Item = (&'a Self, u64)>) -> Option<Self> {
        let mut sum: Option<(ChecksumKind, u64)> = None;
        for (part, size) in parts {
            let value = part.number().filter(|_| part.is_whole)?;
            sum = Some(match sum {
                None => (part.kind, value),
                Some((kind, _)) if kind != part.kind => return None,
                Some((kind, before)) => (kind, crc_fast::checksum_combine(kind.algorithm()?, before, value, size)),
            });
        }
        let (kind, value) = sum?;
        Some(Self { kind, value: written(kind, value), is_whole: true })
    }

    fn number(&self) -> Option<u64> {
        let bytes = STANDARD.decode(&self.value).ok()?;
        match self.kind {
            ChecksumKind::Crc64Nvme => Some(u64::from_be_bytes(bytes.try_into().ok()?)),
            ChecksumKind::Crc32c | ChecksumKind::Crc32 => Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?))),
            _ => None,
        }
    }
}

fn written(kind: ChecksumKind, value: u64) -> String {
    let bytes = value.to_be_bytes();
    STANDARD.encode(if kind == ChecksumKind::Crc64Nvme { &bytes[..] } else { &bytes[4..] })
}

/// The MD5 as hexadecimal digits.
pub(super) fn md5_hex(bytes: &[u8]) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::digest(bytes).into()))
}

/// The `ETag` of an object made of parts with these, without quotes: the MD5 of the parts' MD5s, and their number.
pub(super) fn etag_of_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut all = Md5::new();
    let mut count = 0;
    for etag in parts {
        all.update(u128::from_str_radix(md5_of_etag(etag)?, 16).ok()?.to_be_bytes());
        count += 1;
    }
    Some(format!("{:032x}-{count}", u128::from_be_bytes(all.finalize().into())))
}

/// The MD5 that an `ETag` is when it looks like one.
pub(super) fn md5_of_etag(etag: &str) -> Option<&str> {
    let etag = etag.trim_matches('"');
    (etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(etag)
}

/// How many parts an `ETag` tells of: `"…-3"`.
pub(super) fn parts_of_etag(etag: &str) -> Option<u32> {
    let (digest, count) = etag.trim_matches('"').split_once('-')?;
    md5_of_etag(digest)?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_services() {
        // The check value of the catalogue of CRCs for `123456789`.
        let sum = Checksum::of(ChecksumKind::Crc64Nvme, b"123456789").expect("computed");
        assert_eq!(sum.value, STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes()));
        let sum = Checksum::of(ChecksumKind::Crc32c, b"123456789").expect("computed");
        assert_eq!(sum.value, STANDARD.encode(0xe306_9283_u32.to_be_bytes()));
        assert_eq!(sum.holds(b"123456789"), Some(true));
        assert_eq!(sum.holds(b"12345678"), Some(false));
        assert_eq!(Checksum { is_whole: false, ..sum }.holds(b""), None);
    }

    #[test]
    fn checksums_of_parts_make_that_of_the_whole() {
        let whole = b"one part, another part, and the last";
        for kind in [ChecksumKind::Crc64Nvme, ChecksumKind::Crc32c, ChecksumKind::Crc32] {
            let parts = whole.chunks(10).map(|part| (Checksum::of(kind, part).expect("computed"), part.len() as u64));
            let parts: Vec<_> = parts.collect();
            let joined = Checksum::joined(parts.iter().map(|(sum, size)| (sum, *size)));
            assert_eq!(joined, Checksum::of(kind, whole), "{kind:?}");
        }
        assert_eq!(Checksum::joined([]), None);
    }

    #[test]
    fn an_etag_tells_of_its_parts() {
        assert_eq!(parts_of_etag("\"d41d8cd98f00b204e9800998ecf8427e-12\""), Some(12));
        assert_eq!(parts_of_etag("\"d41d8cd98f00b204e9800998ecf8427e\""), None);
        // Two parts, `a` and `b`, as any S3 server puts them together.
        let parts = [md5_hex(b"a"), md5_hex(b"b")];
        let etag = etag_of_parts(parts.iter().map(String::as_str));
        assert_eq!(etag.as_deref(), Some("96e024ba2074fe77e8e965ba43a704be-2"));
        assert_eq!(etag_of_parts(["0x8D"]), None);
    }
}
