//! All objects of a place in byte order of their keys, as a stream.
//!
//! Object stores list that way, page by page. What has folders is read folder by folder, and each folder is sorted, so
//! that memory grows with the largest folders only. Some servers claim an order and do not keep it: that is noticed,
//! and the listing falls back to folders.

mod folders;
mod guess;
mod pages;
#[cfg(test)]
mod synthetic;

use std::collections::VecDeque;

use futures::TryStreamExt as _;
use opendal::options::ListOptions;
use opendal::{Entry, EntryMode, Lister};

use self::folders::Folders;
pub(super) use self::folders::{Item, read_folder};
use self::pages::{Pages, Trouble};
use super::bucket;
use super::classify::classify;
use super::store::{Facts, Store};
use crate::error::StepError;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An object or a file.
    Object,
    /// An object whose name ends with `/`: the empty ones stand for folders.
    Marker,
    /// A file whose name, or a folder's on the way to it, is not UTF-8. Its key is for people: nothing is found by it.
    BadName,
    /// A symbolic link.
    Link,
    /// Neither a file nor a folder: a socket, a device.
    Other,
}

impl Kind {
    /// Whether it is something that can be copied and deleted.
    pub fn is_object(self) -> bool {
        matches!(self, Self::Object | Self::Marker)
    }

    /// Whether no step is about it.
    pub fn is_left_out(self) -> bool {
        matches!(self, Self::Link | Self::Other)
    }
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name below the place's prefix.
    pub key: String,
    /// What it is.
    pub kind: Kind,
    /// Its state.
    pub facts: Facts,
    /// The MD5 of its content as hexadecimal digits, when the store tells it.
    pub md5: Option<String>,
    /// Where it is kept: `STANDARD_IA`, `Cool`. `None`: where the store keeps what is put there without a word.
    pub storage_class: Option<String>,
    /// Of a file in a directory: when it was last written, renamed or otherwise changed (`ctime`). Unlike
    /// `facts.modified` nobody can set it back.
    pub changed: Option<jiff::Timestamp>,
}

/// How many entries of a flat listing are looked at before the first is given out: a server that does not sort shows
/// it there.
const LOOK_AHEAD: usize = 1000;

/// A listing in progress.
pub struct Listing {
    store: Store,
    after: Option<String>,
    last: Option<String>,
    way: Way,
}

enum Way {
    /// Nothing is asked yet.
    Start,
    /// The pages of a bucket that is asked directly.
    Pages { entries: std::vec::IntoIter<bucket::Entry>, pages: Box<Pages> },
    /// One recursive listing. `ahead` has been looked at.
    Flat { lister: Box<Lister>, ahead: VecDeque<Listed>, is_checked: bool },
    /// Folder by folder.
    Folders(Box<Folders>),
}

impl Listing {
    pub(super) fn new(store: Store, after: Option<&str>) -> Self {
        Self { store, after: after.map(str::to_owned), last: None, way: Way::Start }
    }

    /// The next entry.
    pub async fn next(&mut self) -> Result<Option<Listed>, StepError> {
        loop {
            let found = match &mut self.way {
                Way::Start => {
                    self.way = self.start().await?;
                    continue;
                }
                Way::Pages { entries, pages } => match entries.next() {
                    Some(entry) => match from_bucket(&self.store, entry) {
                        Some(listed) => Some(listed),
                        None => continue,
                    },
                    None => match pages.next().await {
                        Ok(None) => None,
                        Ok(Some(page)) => {
                            *entries = page.into_iter();
                            continue;
                        }
                        Err(Trouble::Failed(error)) => return Err(error),
                        Err(Trouble::Unordered) if self.last.is_none() => {
                            self.store.distrust_order();
                            self.way = Way::Start;
                            continue;
                        }
                        Err(Trouble::Unordered) => return Err(self.unordered("a name was left out")),
                    },
                },
                Way::Flat { lister, ahead, is_checked } => {
                    if !*is_checked {
                        while ahead.len() < LOOK_AHEAD {
                            match next_flat(&self.store, lister).await? {
                                Some(listed) => ahead.push_back(listed),
                                None => break,
                            }
                        }
                        *is_checked = true;
                        if ahead.iter().zip(ahead.iter().skip(1)).any(|(a, b)| a.key >= b.key) {
                            self.store.distrust_order();
                            self.way = Way::Start;
                            continue;
                        }
                    }
                    match ahead.pop_front() {
                        Some(listed) => Some(listed),
                        None => next_flat(&self.store, lister).await?,
                    }
                }
                Way::Folders(folders) => folders.next().await?,
            };
            let Some(found) = found else { return Ok(None) };
            if self.after.as_deref().is_some_and(|after| found.key.as_str() <= after) || self.store.is_unfinished(&found.key) {
                continue;
            }
            if let Some(last) = self.last.as_ref().filter(|last| found.key <= **last) {
                return Err(self.unordered(format!("`{}` came after `{last}`", found.key)));
            }
            self.last = Some(found.key.clone());
            return Ok(Some(found));
        }
    }

    fn unordered(&self, how: impl std::fmt::Display) -> StepError {
        self.store.distrust_order();
        StepError::transient(format!("`{}` does not list its objects in order: {how}", self.store.label()))
            .help("it is listed folder by folder from now on: try again")
    }

    async fn start(&self) -> Result<Way, StepError> {
        if !self.store.lists_flat() {
            return Ok(Way::Folders(Box::new(Folders::new(self.store.clone(), self.after.clone()))));
        }
        if let Some(bucket) = self.store.bucket() {
            let after = self.after.as_ref().map(|after| self.store.whole_key(after));
            let pages = Pages::new(bucket, self.store.prefix().to_owned(), self.store.label().into(), after);
            return Ok(Way::Pages { entries: Vec::new().into_iter(), pages: Box::new(pages) });
        }
        let operator = self.store.operator();
        let prefix = self.store.prefix();
        let start_after = self
            .after
            .as_ref()
            .filter(|_| operator.info().capability().list_with_start_after)
            .map(|after| format!("{prefix}{after}"));
        let options = ListOptions { recursive: true, start_after, ..ListOptions::default() };
        let lister = operator
            .lister_options(if prefix.is_empty() { "/" } else { prefix }, options)
            .await
            .map_err(|error| cannot_list(&self.store, error))?;
        Ok(Way::Flat { lister: Box::new(lister), ahead: VecDeque::new(), is_checked: false })
    }
}

fn from_bucket(store: &Store, entry: bucket::Entry) -> Option<Listed> {
    // The place itself: nothing, or the marker of its own folder.
    let key = entry.key.strip_prefix(store.prefix()).filter(|key| !key.is_empty())?.to_owned();
    let kind = if key.ends_with('/') { Kind::Marker } else { Kind::Object };
    Some(Listed { key, kind, facts: entry.facts, md5: entry.md5, storage_class: entry.storage_class, changed: None })
}

fn cannot_list(store: &Store, error: opendal::Error) -> StepError {
    classify(&format!("cannot list `{}`", store.label()), error)
}

async fn next_flat(store: &Store, lister: &mut Lister) -> Result<Option<Listed>, StepError> {
    loop {
        match lister.try_next().await {
            Ok(None) => return Ok(None),
            Ok(Some(entry)) => {
                if let Some(listed) = listed(store, entry) {
                    return Ok(Some(listed));
                }
            }
            Err(error) => return Err(cannot_list(store, error)),
        }
    }
}

fn listed(store: &Store, entry: Entry) -> Option<Listed> {
    let (path, metadata) = entry.into_parts();
    // The place itself: nothing, or the marker of its own folder.
    let key = path.strip_prefix(store.prefix()).filter(|key| !key.is_empty() && *key != "/")?.to_owned();
    let kind = match metadata.mode() {
        EntryMode::FILE => Kind::Object,
        EntryMode::DIR => Kind::Marker,
        EntryMode::Unknown => Kind::Other,
    };
    let md5 = md5_of(store.scheme(), metadata.etag(), metadata.content_md5());
    Some(Listed { key, kind, facts: Facts::of(&metadata), md5, storage_class: None, changed: None })
}

/// S3 gives the MD5 as `ETag` of what was written in one piece; others give it as Content-MD5, base64.
fn md5_of(scheme: &str, etag: Option<&str>, content_md5: Option<&str>) -> Option<String> {
    use base64::Engine as _;
    let decoded = content_md5.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    if let Some(bytes) = decoded.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
        return Some(format!("{:032x}", u128::from_be_bytes(bytes)));
    }
    let etag = etag.filter(|_| scheme == "s3")?.trim_matches('"');
    (etag.len() == 32 && etag.chars().all(|c| c.is_ascii_hexdigit())).then(|| etag.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::secret::Vault;
    use crate::stores::Stores;

    async fn keys(store: &Store, after: Option<&str>) -> Vec<String> {
        let mut listing = store.list(after);
        let mut keys = Vec::new();
        while let Some(listed) = listing.next().await.expect("it lists") {
            keys.push(listed.key);
        }
        keys
    }

    #[tokio::test]
    async fn a_directory_lists_in_byte_order_and_goes_on_from_anywhere() {
        let folder = tempfile::tempdir().expect("a directory");
        for name in ["a/b", "a-b", "a0", "a/c/d", "a.txt", "b", "ü", "z/y/x", "a/b.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(path, name).expect("written");
        }
        let stores = Stores::new(BTreeMap::new(), Vault::default());
        let store = stores.open(&format!("file://{}", folder.path().display()), Path::new("/")).expect("it opens");
        let all = keys(&store, None).await;
        let mut sorted = all.clone();
        sorted.sort();
        assert_eq!(all, sorted);
        assert_eq!(all.len(), 9);
        for (at, key) in all.iter().enumerate() {
            assert_eq!(keys(&store, Some(key)).await, all[at + 1..], "after {key}");
        }
        assert_eq!(keys(&store, Some("a/b/none")).await, all[all.iter().position(|key| key == "a/c/d").expect("it is")..]);
    }

    #[tokio::test]
    async fn what_is_not_there_lists_nothing() {
        let stores = Stores::new(BTreeMap::new(), Vault::default());
        let store = stores.open("file:///nowhere/at/all", Path::new("/")).expect("it opens");
        assert!(keys(&store, None).await.is_empty());
    }
}
