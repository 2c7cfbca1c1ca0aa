//! A listing for people: one folder or all that is below it, with where each object is kept.
//!
//! Apart from [`Listing`](super::Listing), which a copy relies on: here folders are entries of their own, and an order
//! that a server does not keep is no failure.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use super::bucket::{Page, PageQuery};
use super::listing::{Item, Kind, Listed, Listing, read_folder};
use super::store::{Facts, Store};
use crate::error::StepError;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name below the place; a folder's ends with `/`.
    pub name: String,
    /// What it is; nothing for a folder.
    pub kind: Option<Kind>,
    /// Its state. Nothing is known of a folder.
    pub facts: Facts,
    /// The MD5 of its content as hexadecimal digits, when the store tells it.
    pub md5: Option<String>,
    /// Where it is kept: `STANDARD`, `GLACIER`; Azure's access tier.
    pub storage_class: Option<String>,
}

impl Seen {
    fn folder(name: String) -> Self {
        Self { name, kind: None, facts: Facts::default(), md5: None, storage_class: None }
    }
}

impl From<Listed> for Seen {
    fn from(listed: Listed) -> Self {
        let Listed { key, kind, facts, md5, .. } = listed;
        Self { name: key, kind: Some(kind), facts, md5, storage_class: None }
    }
}

/// A look in progress. No more than two pages of a bucket, or one folder, lie in memory.
pub struct Look {
    store: Store,
    way: Way,
}

enum Way {
    Pages { ahead: VecDeque<Seen>, next: Option<JoinHandle<Result<Page, StepError>>>, is_deep: bool },
    Folder(Option<std::vec::IntoIter<Item>>),
    All(Box<Listing>),
}

impl Store {
    /// What is in the place: with `is_deep` all objects below it, else its own and its folders.
    pub fn look(&self, is_deep: bool) -> Look {
        let way = match (self.bucket(), is_deep) {
            (Some(_), _) => {
                let first = ask(self, query(self, is_deep, None));
                Way::Pages { ahead: VecDeque::new(), next: Some(first), is_deep }
            }
            (None, true) => Way::All(Box::new(self.list(None))),
            (None, false) => Way::Folder(None),
        };
        Look { store: self.clone(), way }
    }
}

impl Look {
    /// The next entry, in byte order of the names.
    pub async fn next(&mut self) -> Result<Option<Seen>, StepError> {
        match &mut self.way {
            Way::All(listing) => Ok(listing.next().await?.map(Seen::from)),
            Way::Folder(items) => loop {
                if items.is_none() {
                    *items = Some(read_folder(&self.store, "", None).await?.into_iter());
                }
                return Ok(match items.as_mut().and_then(Iterator::next) {
                    None => None,
                    Some(Item::Folder(name)) => Some(Seen::folder(name)),
                    Some(Item::Entry(listed)) if self.store.is_unfinished(&listed.key) => continue,
                    Some(Item::Entry(listed)) => Some(listed.into()),
                });
            },
            Way::Pages { ahead, next, is_deep } => loop {
                if let Some(seen) = ahead.pop_front() {
                    return Ok(Some(seen));
                }
                let Some(task) = next.as_mut() else { return Ok(None) };
                let page = task.await;
                *next = None;
                let page = page.map_err(|error| StepError::permanent("a page got lost: a bug of ferry").cause(error))??;
                if let Some(token) = page.next.clone() {
                    *next = Some(ask(&self.store, query(&self.store, *is_deep, Some(token))));
                }
                ahead.extend(seen(&self.store, page));
            },
        }
    }
}

fn query(store: &Store, is_deep: bool, token: Option<String>) -> PageQuery {
    PageQuery { prefix: store.prefix().to_owned(), delimiter: !is_deep, token, ..PageQuery::default() }
}

fn ask(store: &Store, query: PageQuery) -> JoinHandle<Result<Page, StepError>> {
    let store = store.clone();
    tokio::spawn(async move {
        let bucket = store.bucket().expect("only buckets have pages");
        bucket.list(query).await.map_err(|error| error.into_step(&format!("cannot list `{}`", store.label())))
    })
}

fn seen(store: &Store, page: Page) -> Vec<Seen> {
    // The place itself: nothing, or the marker of its own folder.
    let name = |key: &str| key.strip_prefix(store.prefix()).filter(|name| !name.is_empty()).map(str::to_owned);
    let objects = page.entries.into_iter().filter_map(|entry| {
        let name = name(&entry.key)?;
        let kind = Some(if name.ends_with('/') { Kind::Marker } else { Kind::Object });
        Some(Seen { name, kind, facts: entry.facts, md5: entry.md5, storage_class: entry.storage_class })
    });
    let mut seen: Vec<Seen> = objects.collect();
    seen.extend(page.prefixes.iter().filter_map(|prefix| Some(Seen::folder(name(prefix)?))));
    seen.sort_by(|a, b| a.name.cmp(&b.name));
    seen
}
