//! As many objects as one likes, made up while they are listed: for what is measured of listings alone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::content::{Checksums, Content, Object, Properties, etag};
use super::memory::{Page, Query};

/// What `--numbered` says: `BUCKET:COUNT`.
#[derive(Debug, Clone)]
pub struct Numbering {
    /// The bucket.
    pub bucket: String,
    /// How many.
    pub count: u64,
}

impl std::str::FromStr for Numbering {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = text.split_once(':').and_then(|(bucket, count)| Some((bucket, count.parse().ok()?)));
        let (bucket, count) = found.ok_or_else(|| format!("`{text}` is not BUCKET:COUNT"))?;
        Ok(Self { bucket: bucket.to_owned(), count })
    }
}

/// Objects by number, all alike.
pub struct Numbered {
    count: u64,
    object: Arc<Object>,
}

impl Numbered {
    /// So many, without content.
    pub fn new(count: u64) -> Self {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
        let etag = etag([7; 16]);
        let (content, properties, checksums) = (Content::default(), Properties::default(), Checksums::default());
        Self { count, object: Arc::new(Object { content, etag, modified, properties, checksums }) }
    }

    /// One page of a listing, without folders.
    pub fn list(&self, query: &Query<'_>) -> Page {
        // The keys are as long as one another, so that they sort as their numbers do.
        let (mut first, mut end) = (0, self.count);
        while first < end {
            let middle = u64::midpoint(first, end);
            if key(middle).as_str() < query.from.as_str() { first = middle + 1 } else { end = middle }
        }
        let last = self.count.min(first + query.most as u64);
        let all = (first..last).map(key).filter(|key| key.starts_with(query.prefix));
        let objects = all.map(|key| (key, Arc::clone(&self.object))).collect();
        Page { objects, prefixes: Vec::new(), next: (last < self.count).then(|| key(last)) }
    }
}

fn key(number: u64) -> String {
    format!("archive/2026/object-{number:010}.bin")
}
