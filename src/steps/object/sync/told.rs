//! What the lines of a ledger come to, name by name.

use std::collections::{BTreeMap, BTreeSet};

use super::hash::PartHash;
use super::ledger::Line;
use crate::stores::Facts;
use crate::stores::bucket::Part;

/// An upload that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// As the target calls it.
    pub id: String,
    /// Bytes of every part but the last.
    pub part: u64,
    /// The object at the source.
    pub of: Facts,
    /// What has arrived of it.
    pub parts: BTreeMap<u32, (Part, Option<PartHash>)>,
}

/// All that a ledger says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// By name.
    pub touched: BTreeMap<String, Touched>,
    /// The uploads that are not ended, by name.
    pub unfinished: BTreeMap<String, Vec<Unfinished>>,
    /// The folders that were created.
    pub folders: BTreeSet<String>,
    /// The last pass that began.
    pub pass: u64,
    /// What was, or was about to be, deleted at the source.
    pub removed: BTreeMap<String, Moved>,
}

/// An object that a move takes away from the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The object at the source.
    pub was: Facts,
    /// Its copy at the target.
    pub copy: Facts,
    /// The BLAKE3 of its content, when the step has sent it.
    pub blake3: Option<String>,
}

/// What the ledger says of one name: what was there before the step first touched it, and what the step left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// `None`: nothing was there.
    pub was: Option<Facts>,
    /// Whether the step deleted it.
    pub is_deleted: bool,
    /// What the step left, when that is known.
    pub left: Option<Facts>,
    /// The BLAKE3 of what the step left, when that is known.
    pub blake3: Option<String>,
    /// The object at the source of which that is a copy, and when it was last changed in any way; a move keeps it.
    pub from: Option<(Facts, Option<jiff::Timestamp>)>,
    /// Whether what the step left was read again.
    pub is_verified: bool,
    /// The pass that was the last to write it.
    pub pass: u64,
    /// The sizes that the step was about to write.
    pub sizes: Vec<u64>,
}

impl Touched {
    /// Whether the service copied it within itself, as far as is known: what was sent has a hash.
    pub fn is_inside(&self) -> bool {
        self.left.is_some() && self.blake3.is_none()
    }

    /// Whether this is known to be what an attempt left.
    pub fn has_left(&self, now: &Facts) -> bool {
        self.left.as_ref().is_some_and(|left| left.agree(now))
    }

    /// Whether what is there now is what an attempt left. Without a word about the end its runner died in between, and
    /// a whole object of the right size in an empty place is its work.
    pub fn is_ours(&self, now: &Facts) -> bool {
        match &self.left {
            Some(left) => left.agree(now),
            None => self.was.is_none() && self.sizes.contains(&now.size),
        }
    }
}

impl Told {
    pub(super) fn add(&mut self, line: Line, after: Option<&str>) {
        let is_over = |key: &str| after.is_some_and(|after| key <= after);
        let (key, was, size) = match line {
            Line::Place { .. } => return,
            Line::Pass { number } => {
                self.pass = number;
                return;
            }
            Line::Folder { key } => {
                self.folders.insert(key);
                return;
            }
            Line::Upload { key, id, part, of } => {
                self.unfinished.entry(key).or_default().push(Unfinished { id, part, of, parts: BTreeMap::new() });
                return;
            }
            Line::Part { key, id, is, hash } => {
                let of = self.unfinished.get_mut(&key).and_then(|all| all.iter_mut().find(|one| one.id == id));
                let hash = hash.map(|hash| PartHash::from_hex(&hash));
                if let Some(unfinished) = of.filter(|_| hash != Some(None)) {
                    unfinished.parts.insert(is.number, (is, hash.flatten()));
                }
                return;
            }
            Line::Dropped { key, id } => {
                if let Some(all) = self.unfinished.get_mut(&key) {
                    all.retain(|one| one.id != id);
                }
                return;
            }
            Line::Done { key, is, blake3 } => {
                self.unfinished.remove(&key);
                if let Some(known) = self.touched.get_mut(&key) {
                    (known.left, known.blake3) = (Some(is), blake3);
                }
                return;
            }
            Line::Verified { key } => {
                if let Some(known) = self.touched.get_mut(&key) {
                    known.is_verified = true;
                }
                return;
            }
            Line::From { key, of, changed } => {
                if let Some(known) = self.touched.get_mut(&key) {
                    known.from = Some((of, changed));
                }
                return;
            }
            Line::Remove { key, was, copy, blake3 } => {
                self.removed.insert(key, Moved { was, copy, blake3 });
                return;
            }
            Line::Back { key } => {
                self.unfinished.remove(&key);
                self.touched.remove(&key);
                self.removed.remove(&key);
                return;
            }
            Line::Create { key, size } => (key, None, Some(size)),
            Line::Overwrite { key, was, size } => (key, Some(was), Some(size)),
            Line::Delete { key, was } => (key, Some(was), None),
        };
        if is_over(&key) {
            return;
        }
        let new = Touched {
            was,
            is_deleted: false,
            left: None,
            blake3: None,
            from: None,
            is_verified: false,
            pass: 0,
            sizes: Vec::new(),
        };
        let known = self.touched.entry(key).or_insert(new);
        (known.left, known.blake3, known.from, known.is_verified) = (None, None, None, false);
        known.is_deleted = size.is_none();
        known.pass = self.pass;
        known.sizes.extend(size);
    }
}
