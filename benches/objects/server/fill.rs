//! Objects that are there at the start, without an upload: slices of one block that looks random.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use md5::{Digest as _, Md5};

use super::content::{Checksums, Content, Object, Properties, etag, etag_of_parts};

/// The block, and the part size of objects that look like multipart uploads.
const BLOCK: usize = 8 << 20;

/// What `--fill` says: `BUCKET:COUNT,SIZE[,PREFIX]`, the size in bytes or with `K`, `M`, `G`.
#[derive(Debug, Clone)]
pub struct Fill {
    /// The bucket.
    pub bucket: String,
    /// How many.
    pub count: usize,
    /// How large each is, in bytes.
    pub size: u64,
    /// What their keys begin with.
    pub prefix: String,
}

impl std::str::FromStr for Fill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not BUCKET:COUNT,SIZE[,PREFIX]");
        let (bucket, rest) = text.split_once(':').ok_or_else(wrong)?;
        let mut words = rest.splitn(3, ',');
        let count = words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
        let size = words.next().and_then(size).ok_or_else(wrong)?;
        Ok(Self { bucket: bucket.to_owned(), count, size, prefix: words.next().unwrap_or_default().to_owned() })
    }
}

fn size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match &text[at..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    text[..at].parse::<u64>().ok()?.checked_mul(factor)
}

/// The bytes behind everything. The same ones in every process, so that two servers can be filled alike.
pub fn block() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    Bytes::from(words.take(BLOCK / 8).flatten().collect::<Vec<u8>>())
}

impl Fill {
    /// Keys and bytes, for a server that has to be sent them.
    pub fn objects(&self) -> Vec<(String, Vec<Bytes>)> {
        let block = block();
        (0..self.count).map(|n| (self.key(n), content(n, self.size, &block).0.pieces)).collect()
    }

    fn key(&self, n: usize) -> String {
        format!("{}{:02}/object-{n:07}.bin", self.prefix, n % 100)
    }
}

/// The objects of one `--fill`, in a hundred folders.
pub fn objects(fill: &Fill, block: &Bytes) -> Vec<(String, Arc<Object>)> {
    // Older than any run, as at any real source.
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
    let one = |n: usize| {
        let (content, etag) = content(n, fill.size, block);
        let properties = Properties { content_type: Some("application/octet-stream".to_owned()), ..Properties::default() };
        let object = Object { content, etag, modified, properties, checksums: Checksums::default() };
        (fill.key(n), Arc::new(object))
    };
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        let work = |first: usize| (first..fill.count).step_by(threads).map(one).collect::<Vec<_>>();
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || work(first))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("filling does not panic")).collect()
    })
}

fn content(n: usize, size: u64, block: &Bytes) -> (Content, String) {
    // Each object begins elsewhere in the block, and goes around it.
    let start = n * 4099 % BLOCK;
    let mut content = Content::default();
    let mut digests: Vec<[u8; 16]> = Vec::new();
    while content.size < size {
        let length = usize::try_from(size - content.size).unwrap_or(BLOCK).min(BLOCK);
        let first = block.slice(start..BLOCK.min(start + length));
        let second = block.slice(..length - first.len());
        // All whole parts of an object are alike: one hash is enough.
        digests.push(match digests.last() {
            Some(same) if length == BLOCK => *same,
            _ => Md5::new().chain_update(&first).chain_update(&second).finalize().into(),
        });
        content.size += length as u64;
        content.pieces.extend([first, second].into_iter().filter(|piece| !piece.is_empty()));
    }
    let tag = match digests.as_slice() {
        [] => etag(Md5::digest([]).into()),
        [one] => etag(*one),
        many => etag_of_parts(many),
    };
    (content, tag)
}
