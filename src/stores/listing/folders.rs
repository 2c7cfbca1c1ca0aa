//! What has folders, folder by folder: each is read whole and sorted.
//!
//! Far away a folder takes some round trips. So the next ones are read while this one is used.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::vec::IntoIter;

use futures::TryStreamExt as _;
use opendal::EntryMode;
use opendal::options::ListOptions;
use tokio::task::JoinHandle;

use super::{Kind, LOOK_AHEAD, Listed, cannot_list, listed};
use crate::error::StepError;
use crate::stores::Facts;
use crate::stores::bucket::Circle;
use crate::stores::classify::is_missing;
use crate::stores::directory::{self, Found};
use crate::stores::store::Store;

/// How many folders are read ahead. Each of them lies in memory whole.
const AHEAD: usize = 4;

/// A walk through the folders.
pub(super) struct Folders {
    store: Store,
    after: Option<String>,
    /// What is left of each, the innermost last.
    open: Vec<IntoIter<Item>>,
    next: Option<String>,
    /// Those that are read ahead.
    ahead: BTreeMap<String, Reading>,
}

/// A folder that is being read.
struct Reading(JoinHandle<Result<Vec<Item>, StepError>>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An entry of one folder.
pub(in crate::stores) enum Item {
    /// What is no folder.
    Entry(Listed),
    /// A folder's name, with `/` at its end.
    Folder(String),
}

impl Item {
    fn name(&self) -> &str {
        match self {
            Self::Entry(listed) => &listed.key,
            Self::Folder(name) => name,
        }
    }
}

impl Folders {
    /// From behind a name.
    pub fn new(store: Store, after: Option<String>) -> Self {
        Self { store, after, open: Vec::new(), next: Some(String::new()), ahead: BTreeMap::new() }
    }

    /// The next entry. Whoever stops waiting loses none.
    pub async fn next(&mut self) -> Result<Option<Listed>, StepError> {
        loop {
            if let Some(folder) = self.next.clone() {
                let items = match self.ahead.get_mut(&folder) {
                    None => read_folder(&self.store, &folder, self.after.as_deref()).await,
                    Some(reading) => match (&mut reading.0).await {
                        Ok(read) => read,
                        Err(error) => Err(StepError::permanent("a folder got lost: a bug of ferry").cause(error)),
                    },
                };
                self.ahead.remove(&folder);
                self.open.push(items?.into_iter());
                self.next = None;
                self.read_ahead();
            }
            match self.open.last_mut().map(Iterator::next) {
                None => return Ok(None),
                Some(None) => _ = self.open.pop(),
                Some(Some(Item::Folder(folder))) => self.next = Some(folder),
                Some(Some(Item::Entry(listed))) => return Ok(Some(listed)),
            }
        }
    }

    /// Begins to read the folders that come next.
    fn read_ahead(&mut self) {
        // A disk of this machine answers at once.
        if self.store.scheme() == "fs" {
            return;
        }
        let left = self.open.iter().rev().flat_map(IntoIter::as_slice);
        let folders = left.filter_map(|item| if let Item::Folder(name) = item { Some(name) } else { None });
        for folder in folders.take(AHEAD) {
            if self.ahead.len() < AHEAD && !self.ahead.contains_key(folder) {
                let (store, name, after) = (self.store.clone(), folder.clone(), self.after.clone());
                let reading = tokio::spawn(async move { read_folder(&store, &name, after.as_deref()).await });
                self.ahead.insert(folder.clone(), Reading(reading));
            }
        }
    }
}

/// The entries of one folder in order, those at or before `after` left out. A folder sorts as its name with the slash:
/// all that is in it starts with that.
pub(in crate::stores) async fn read_folder(store: &Store, folder: &str, after: Option<&str>) -> Result<Vec<Item>, StepError> {
    let path = format!("{}{folder}", store.prefix());
    let is_done = |key: &str| after.is_some_and(|after| after >= key && !after.starts_with(key));
    if store.scheme() == "fs" {
        let found = directory::read(Path::new(&format!("/{path}")), folder, store.label()).await?;
        let items = found.into_iter().filter_map(|found| match found {
            Found::Entry(listed) => Some(Item::Entry(listed)),
            Found::Folder(key) => (!is_done(&key) && !store.is_unfinished(&key)).then_some(Item::Folder(key)),
        });
        return Ok(sorted(items.collect()));
    }
    let path = if path.is_empty() { "/" } else { &path };
    let mut lister = match store.operator().lister_options(path, ListOptions::default()).await {
        Ok(lister) => lister,
        Err(error) if is_missing(&error) && !store.abilities().is_flat => return Ok(Vec::new()),
        Err(error) => return Err(cannot_list(store, error)),
    };
    let mut items = Vec::new();
    let (mut names, mut repeated) = (HashSet::new(), 0_usize);
    loop {
        let entry = match lister.try_next().await {
            Ok(None) => break,
            Ok(Some(entry)) => entry,
            Err(error) if is_missing(&error) && !store.abilities().is_flat => break,
            Err(error) => return Err(cannot_list(store, error)),
        };
        let Some(key) = entry.path().strip_prefix(store.prefix()).map(str::to_owned) else { continue };
        if store.abilities().is_flat && !names.insert(key.clone()) {
            // A page or two may come twice. What comes again and again never ends.
            repeated += 1;
            if repeated > names.len() + LOOK_AHEAD {
                return Err(Circle::failure(store.label()));
            }
            continue;
        }
        // The top of some servers calls itself `/`.
        let is_itself = key == folder || key == "/";
        if entry.metadata().mode() == EntryMode::DIR && !is_itself {
            if !key.ends_with('/') {
                // A link that leads to a folder.
                items.push(Item::Entry(Listed {
                    key,
                    kind: Kind::Link,
                    facts: Facts::default(),
                    md5: None,
                    storage_class: None,
                    changed: None,
                }));
            } else if !is_done(&key) {
                items.push(Item::Folder(key));
            }
        } else if let Some(listed) = listed(store, entry) {
            // A folder lists itself. Only where it is an object does it have an `ETag`.
            if !is_itself || listed.facts.etag.is_some() {
                items.push(Item::Entry(listed));
            }
        }
    }
    Ok(sorted(items))
}

fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    // What a bad name is shown as may be another's good name: the one to be refused is kept.
    let is_good = |item: &Item| !matches!(item, Item::Entry(listed) if listed.kind == Kind::BadName);
    items.sort_by(|a, b| a.name().cmp(b.name()).then(is_good(a).cmp(&is_good(b))));
    items.dedup_by(|a, b| a.name() == b.name());
    items
}
