//! What a plan tells of what is kept with objects: where storage classes go, what gets lost, what cannot be read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::class::is_archive;
use super::lost::lost;
use super::{Carriage, StorageClass, Tags};
use crate::steps::object::{objects, some};
use crate::stores::{Listed, Store};

/// How many names of archived objects a plan shows.
const NAMED: usize = 20;

/// What was seen of it while both places were listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// What the source may keep and the target does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<String>,
    /// Storage classes of what would be copied.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    classes: BTreeMap<String, Class>,
    /// The first of those that lie in an archive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    archived: Vec<String>,
}

/// What becomes of a storage class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Class {
    objects: u64,
    /// `None`: where the target keeps what nothing is said of.
    to: Option<String>,
}

impl Kept {
    /// Nothing seen yet.
    pub fn new(source: &Store, target: &Store, tags: Tags) -> Self {
        let mut lost: Vec<String> = lost(source, target).into_iter().map(str::to_owned).collect();
        if tags == Tags::No {
            lost.retain(|what| what != "tags");
        }
        Self { lost, ..Self::default() }
    }

    /// An object that would be copied.
    pub fn see(&mut self, listed: &Listed, carriage: &Carriage) {
        let Some(class) = &listed.storage_class else { return };
        if let Some(known) = self.classes.get_mut(class) {
            known.objects += 1;
        } else {
            let to = carriage.class(Some(class)).map(str::to_owned);
            self.classes.insert(class.clone(), Class { objects: 1, to });
        }
        if is_archive(class) && self.archived.len() < NAMED {
            self.archived.push(listed.key.clone());
        }
    }

    /// Where storage classes go.
    pub fn does(&self) -> Option<String> {
        let moved = self.classes.iter().filter_map(|(class, Class { objects: count, to })| {
            let to = to.as_ref().filter(|to| *to != class)?;
            Some(format!("{} in the storage class `{class}` to `{to}`", objects(*count)))
        });
        let moved: Vec<String> = moved.collect();
        (!moved.is_empty()).then(|| format!("brings {}", moved.join(", ")))
    }

    /// What the person should know before it runs.
    pub fn warnings(&self, from: &str, to: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.lost.is_empty() {
            warnings.push(format!("`{to}` does not keep what objects at `{from}` may have: {}", self.lost.join(", ")));
        }
        for (class, Class { objects: count, to: there }) in &self.classes {
            if there.is_none() && !StorageClass::is_usual(class) {
                warnings.push(format!(
                    "no class at `{to}` is like `{class}`, in which there is {}: its default is taken",
                    objects(*count)
                ));
            }
        }
        let archived = self.classes.iter().filter(|(class, _)| is_archive(class)).map(|(_, class)| class.objects).sum();
        if archived > 0 {
            let names = some(&self.archived, archived);
            warnings.push(format!("in an archive, and readable only once restored: {}: {names}", objects(archived)));
        }
        warnings
    }
}
