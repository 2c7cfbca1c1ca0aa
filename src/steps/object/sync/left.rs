//! What a sync has left unfinished at its target, as its ledger tells: for people who look after a run has ended.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::ledger::{Line, NAME};
use super::told::Told;

/// An upload that was begun and neither ended nor thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The object's name at the target.
    pub key: String,
    /// As the target calls it.
    pub id: String,
    /// Bytes of its parts that have arrived.
    pub arrived: u64,
}

/// The uploads that the ledger in a step's folder tells of. No ledger: none.
pub fn left(scratch: &Path) -> Vec<Left> {
    let Ok(file) = std::fs::File::open(scratch.join(NAME)) else { return Vec::new() };
    let mut told = Told::default();
    for text in BufReader::new(file).lines().map_while(Result::ok) {
        // Only what is about uploads: what was copied may be millions.
        let about_uploads = |line: &Line| {
            matches!(line, Line::Upload { .. } | Line::Part { .. } | Line::Dropped { .. } | Line::Done { .. } | Line::Back { .. })
        };
        if let Some(line) = serde_json::from_str::<Line>(&text).ok().filter(about_uploads) {
            told.add(line, None);
        }
    }
    let uploads = told.unfinished.into_iter().flat_map(|(key, all)| all.into_iter().map(move |one| (key.clone(), one)));
    let left = uploads.map(|(key, one)| Left { key, id: one.id, arrived: one.parts.values().map(|(part, _)| part.size).sum() });
    left.collect()
}
