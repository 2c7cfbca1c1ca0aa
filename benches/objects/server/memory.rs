//! Buckets in memory: objects sorted by key, uploads in progress, and listings by page.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use s3s::{S3Result, s3_error};

use super::content::{Content, Keeping, Object, Properties, Taken, etag, etag_of_parts};
use super::numbered::Numbered;

/// All buckets of one server.
pub struct Memory {
    /// How bodies are kept.
    pub keeping: Keeping,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
}

/// One bucket.
#[derive(Default)]
pub struct Bucket {
    objects: RwLock<BTreeMap<String, Arc<Object>>>,
    /// Objects that are only listed, in place of those that are kept.
    numbered: RwLock<Option<Numbered>>,
    uploads: Mutex<BTreeMap<(String, String), Upload>>,
}

/// A multipart upload that is not complete.
pub struct Upload {
    /// When it was begun.
    pub started: SystemTime,
    properties: Properties,
    parts: BTreeMap<i32, Taken>,
}

/// What a listing asks for.
pub struct Query<'a> {
    /// What keys begin with.
    pub prefix: &'a str,
    /// What stands between folders; empty for a flat listing.
    pub delimiter: &'a str,
    /// The first key that may be listed.
    pub from: String,
    /// How many entries at most.
    pub most: usize,
}

/// A page of a listing.
#[derive(Default)]
pub struct Page {
    /// Keys and objects.
    pub objects: Vec<(String, Arc<Object>)>,
    /// What stands for more than one key.
    pub prefixes: Vec<String>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// What a write asks of the object that is there.
#[derive(Default)]
pub struct Condition {
    /// There has to be none.
    pub absent: bool,
    /// It has to have this ETag.
    pub etag: Option<String>,
}

impl Memory {
    /// No buckets yet.
    pub fn new(keeping: Keeping) -> Self {
        Self { keeping, buckets: RwLock::default() }
    }

    /// Makes a bucket, if there is none by that name.
    pub fn create(&self, name: &str) -> Arc<Bucket> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(buckets.entry(name.to_owned()).or_default())
    }

    /// A bucket by name.
    pub fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.get(name).cloned().ok_or_else(|| s3_error!(NoSuchBucket))
    }

    /// The names of all buckets.
    pub fn names(&self) -> Vec<String> {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Bucket {
    /// An object by key.
    pub fn get(&self, key: &str) -> S3Result<Arc<Object>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Stores an object if the one that is there meets the condition.
    pub fn put(&self, key: String, object: Object, condition: &Condition) -> S3Result<Arc<Object>> {
        let object = Arc::new(object);
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let there = objects.get(&key);
        let meets = match &condition.etag {
            Some(etag) => there.is_some_and(|there| there.etag == *etag),
            None => !(condition.absent && there.is_some()),
        };
        if !meets {
            return Err(s3_error!(PreconditionFailed));
        }
        objects.insert(key, Arc::clone(&object));
        Ok(object)
    }

    /// Stores many objects at once.
    pub fn fill(&self, filled: Vec<(String, Arc<Object>)>) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).extend(filled);
    }

    /// From now on the bucket lists these, which nobody has to keep.
    pub fn number(&self, numbered: Numbered) {
        *self.numbered.write().unwrap_or_else(PoisonError::into_inner) = Some(numbered);
    }

    /// Removes an object; one that is not there is no error.
    pub fn delete(&self, key: &str) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// One page of a listing.
    pub fn list(&self, query: &Query<'_>) -> Page {
        if let Some(numbered) = &*self.numbered.read().unwrap_or_else(PoisonError::into_inner) {
            return numbered.list(query);
        }
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let mut page = Page::default();
        let mut from = query.from.as_str().max(query.prefix).to_owned();
        'folders: loop {
            let mut range = objects.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded));
            loop {
                let Some((key, object)) = range.next().filter(|(key, _)| key.starts_with(query.prefix)) else { return page };
                if page.objects.len() + page.prefixes.len() == query.most {
                    page.next = Some(key.clone());
                    return page;
                }
                let rest = &key[query.prefix.len()..];
                let folder = if query.delimiter.is_empty() { None } else { rest.find(query.delimiter) };
                let Some(at) = folder else {
                    page.objects.push((key.clone(), Arc::clone(object)));
                    continue;
                };
                let folder = &key[..query.prefix.len() + at + query.delimiter.len()];
                page.prefixes.push(folder.to_owned());
                let Some(next) = behind(folder) else { return page };
                from = next;
                continue 'folders;
            }
        }
    }

    /// Begins an upload; gives its id.
    pub fn begin(&self, key: String, properties: Properties) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("upload-{:08}", NEXT.fetch_add(1, Ordering::Relaxed));
        let upload = Upload { started: SystemTime::now(), properties, parts: BTreeMap::new() };
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert((key, id.clone()), upload);
        id
    }

    /// Adds a part; gives its ETag.
    pub fn part(&self, key: String, id: String, number: i32, part: Taken) -> S3Result<String> {
        let tag = etag(part.digest);
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get_mut(&(key, id)).ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.parts.insert(number, part);
        Ok(tag)
    }

    /// Puts the named parts together.
    pub fn complete(&self, key: String, id: String, named: &[(i32, String)], condition: &Condition) -> S3Result<Arc<Object>> {
        let place = (key, id);
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get(&place).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let mut content = Content::default();
        let mut digests = Vec::new();
        let mut last = 0;
        for (number, tag) in named {
            if *number <= last {
                return Err(s3_error!(InvalidPartOrder));
            }
            last = *number;
            let part = upload.parts.get(number).filter(|part| etag(part.digest) == *tag).ok_or_else(|| s3_error!(InvalidPart))?;
            content.append(part.content.clone());
            digests.push(part.digest);
        }
        if digests.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        let object = Object {
            content,
            etag: etag_of_parts(&digests),
            modified: SystemTime::now(),
            properties: upload.properties.clone(),
            checksums: super::content::Checksums::default(),
        };
        let object = self.put(place.0.clone(), object, condition)?;
        uploads.remove(&place);
        Ok(object)
    }

    /// Forgets an upload.
    pub fn abort(&self, key: String, id: String) -> S3Result<()> {
        let removed = self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&(key, id));
        removed.map(drop).ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// Keys, ids and starts of the uploads below a prefix.
    pub fn uploads(&self, prefix: &str) -> Vec<(String, String, SystemTime)> {
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let below = uploads.iter().filter(|((key, _), _)| key.starts_with(prefix));
        below.map(|((key, id), upload)| (key.clone(), id.clone(), upload.started)).collect()
    }

    /// Number, ETag and size of the parts of an upload.
    pub fn parts(&self, key: String, id: String) -> S3Result<Vec<(i32, String, u64)>> {
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get(&(key, id)).ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(upload.parts.iter().map(|(number, part)| (*number, etag(part.digest), part.content.size)).collect())
    }
}

/// The first text behind all that begin with `prefix`.
fn behind(prefix: &str) -> Option<String> {
    let last = prefix.chars().next_back()?;
    let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32)?;
    Some(format!("{}{next}", &prefix[..prefix.len() - last.len_utf8()]))
}
