//! Objects and their contents: bytes that are shared and never copied, or only counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures::StreamExt as _;
use hyper::body::Bytes;
use md5::{Digest as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Result, s3_error};

/// What an upload carries beside its bytes.
#[derive(Debug, Clone, Default)]
pub struct Properties {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`.
    pub expires: Option<s3s::dto::Timestamp>,
    /// `x-amz-storage-class`.
    pub storage_class: Option<String>,
    /// `x-amz-tagging`.
    pub tags: Option<String>,
    /// `x-amz-meta-…`.
    pub user: BTreeMap<String, String>,
}

/// What a client said that the bytes are. Kept and told again; not checked, because that would cost as much as the work
/// that is measured.
#[derive(Debug, Clone, Default)]
pub struct Checksums {
    /// By the name of its header: `x-amz-checksum-crc32`.
    pub by_header: BTreeMap<String, String>,
}

/// One stored object.
#[derive(Debug)]
pub struct Object {
    /// Its bytes.
    pub content: Content,
    /// Without quotes.
    pub etag: String,
    /// When it was stored.
    pub modified: SystemTime,
    /// Its properties.
    pub properties: Properties,
    /// Its checksums.
    pub checksums: Checksums,
}

/// Bytes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// How many there are.
    pub size: u64,
    /// The bytes; nothing when only the size was kept.
    pub pieces: Vec<Bytes>,
}

impl Content {
    /// The pieces of a range; `None` when only the size was kept.
    pub fn range(&self, range: &std::ops::Range<u64>) -> Option<Vec<Bytes>> {
        if self.pieces.is_empty() && !range.is_empty() {
            return None;
        }
        let mut at = 0;
        let mut found = Vec::new();
        for piece in &self.pieces {
            let length = piece.len() as u64;
            let (from, to) = (range.start.max(at), range.end.min(at + length));
            if from < to {
                found.push(piece.slice(small(from - at)..small(to - at)));
            }
            at += length;
        }
        Some(found)
    }

    /// This one with another behind it.
    pub fn append(&mut self, other: Self) {
        self.size += other.size;
        self.pieces.extend(other.pieces);
    }
}

fn small(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a place within a piece in memory")
}

/// How ETags are made, and whether bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// The MD5, as services do it; else a number that never comes twice.
    pub md5: bool,
    /// Only sizes and ETags are kept.
    pub drain: bool,
}

/// What was read from a request.
pub struct Taken {
    /// The bytes.
    pub content: Content,
    /// Their MD5, or the number in its place.
    pub digest: [u8; 16],
}

/// Reads a request's body. `md5` is what the client said of it, in base64.
pub async fn take(body: Option<StreamingBlob>, keeping: Keeping, md5: Option<&str>) -> S3Result<Taken> {
    let mut hash = (keeping.md5 || md5.is_some()).then(Md5::new);
    let mut content = Content::default();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| s3_error!(IncompleteBody, "{error}"))?;
            content.size += chunk.len() as u64;
            if let Some(hash) = &mut hash {
                hash.update(&chunk);
            }
            if !keeping.drain {
                content.pieces.push(chunk);
            }
        }
    }
    // A small body is a slice of a large buffer that it would keep alive.
    if content.size <= 256 << 10 && !content.pieces.is_empty() {
        content.pieces = vec![Bytes::from(content.pieces.concat())];
    }
    let digest: [u8; 16] = hash.map_or_else(number, |hash| hash.finalize().into());
    if let Some(md5) = md5 {
        use base64::Engine as _;
        if base64::engine::general_purpose::STANDARD.encode(digest) != md5 {
            return Err(s3_error!(BadDigest));
        }
    }
    Ok(Taken { content, digest: if keeping.md5 { digest } else { number() } })
}

fn number() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ((u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 64) | 0xfe55_1e5c_0ffe_e000).to_be_bytes()
}

/// The ETag of an object in one part.
pub fn etag(digest: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(digest))
}

/// The ETag of an object in several parts.
pub fn etag_of_parts(digests: &[[u8; 16]]) -> String {
    let whole: [u8; 16] = Md5::digest(digests.concat()).into();
    format!("{}-{}", etag(whole), digests.len())
}
