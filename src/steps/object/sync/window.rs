//! Names in order, some done and some not: what is done before the first that is not can be forgotten.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::ledger::Length;
use super::limits::Mode;
use super::manifest::{Entry, Manifest};
use super::{SyncOutput, last_look};
use crate::error::StepError;

/// The progress token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Token {
    /// All names up to this one are done.
    pub after: Option<String>,
    /// What was done up to there.
    #[serde(flatten)]
    pub done: SyncOutput,
    /// Objects only at the target, up to there.
    pub extra: u64,
    /// Objects that this attempt could not copy.
    #[serde(default)]
    pub failed: u64,
    /// Everything is copied; `after` is about the deletions.
    pub is_deleting: bool,
    /// Whether a name among the copied is one that some servers change.
    #[serde(default)]
    pub is_odd: bool,
    /// Whose deletions they are.
    #[serde(default)]
    pub mode: Mode,
    /// Which pass it is, of a sync that follows: the first is 0.
    #[serde(default)]
    pub pass: u64,
    /// When it began.
    #[serde(default)]
    pub began: Option<jiff::Timestamp>,
    /// How many names it has found with something to do about them, up to there.
    #[serde(default)]
    pub found: u64,
    /// The manifest of this pass, which is over, takes the place of the one before.
    #[serde(default)]
    pub is_turning: bool,
    /// How long the manifest is, up to there.
    #[serde(default)]
    pub manifest: u64,
    /// How much of the ledger was on disk: undo must not believe a shorter one.
    #[serde(default)]
    pub ledger: Length,
}

/// What was done about one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Copied {
        bytes: u64,
        is_overwrite: bool,
        is_inside: bool,
        is_verified: bool,
    },
    Skipped,
    Deleted,
    /// It stays at the source although it is a move.
    Kept,
    Gone,
    LeftOut,
    Extra,
    Nothing,
}

impl Token {
    /// How much of the ledger there must be.
    pub fn vouches(&self) -> Option<Length> {
        Some(self.ledger).filter(|length| length.bytes > 0)
    }

    /// The pass is over, and the next one has not begun.
    pub fn next_pass(&mut self) {
        self.pass += 1;
        (self.after, self.began, self.found, self.extra, self.manifest) = (None, None, 0, 0, 0);
        (self.is_deleting, self.is_turning, self.is_odd) = (false, false, false);
    }

    fn add(&mut self, done: Done) {
        self.found += u64::from(matches!(done, Done::Copied { .. } | Done::Deleted | Done::Kept | Done::Gone));
        match done {
            Done::Copied { bytes, is_overwrite, is_inside, is_verified } => {
                self.done.objects += 1;
                self.done.copied += 1;
                self.done.bytes += bytes;
                self.done.overwritten += u64::from(is_overwrite);
                self.done.copied_inside += u64::from(is_inside);
                self.done.bytes_inside += if is_inside { bytes } else { 0 };
                self.done.verified += u64::from(is_verified);
            }
            Done::Skipped => {
                self.done.objects += 1;
                self.done.skipped += 1;
            }
            Done::Gone => {
                self.done.objects += 1;
                self.done.gone += 1;
            }
            Done::Deleted => self.done.deleted += 1,
            Done::Kept => {
                self.done.kept += 1;
                self.done.warnings += 1;
            }
            Done::LeftOut => self.done.left_out += 1,
            Done::Extra => self.extra += 1,
            Done::Nothing => {}
        }
    }
}

struct Name {
    key: String,
    done: Option<Done>,
    /// Its line in the manifest.
    line: String,
}

/// The names that are known and not forgotten.
pub struct Window {
    pub token: Token,
    pub manifest: Manifest,
    first: u64,
    names: VecDeque<Name>,
    copied: u64,
}

impl Window {
    pub fn new(token: Token, manifest: Manifest) -> Self {
        Self { token, manifest, first: 0, names: VecDeque::new(), copied: 0 }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Objects copied, those that are not in the token yet among them.
    pub fn copied(&self) -> u64 {
        self.token.done.copied + self.copied
    }

    /// A name about which there is something to do: gives its number.
    pub fn open(&mut self, key: String) -> u64 {
        self.names.push_back(Name { key, done: None, line: String::new() });
        self.first + self.names.len() as u64 - 1
    }

    /// A name about which there is nothing to do, and what the manifest says of it.
    pub fn close(&mut self, key: String, done: Done, entry: Option<&Entry>) -> Result<(), StepError> {
        let number = self.open(key);
        self.finish(number, done, entry)
    }

    /// What the manifest says of a name that stays undone in the end.
    pub fn fall_back(&mut self, number: u64, entry: &Entry) {
        let at = usize::try_from(number - self.first).expect("a number that was given out is in the window");
        self.names[at].line = entry.line();
    }

    /// A name could not be done, and nobody knows what is there now.
    pub fn forget(&mut self, key: &str) {
        for name in self.names.iter_mut().filter(|name| name.key == key) {
            name.line.clear();
        }
    }

    /// Leaves undone what is not done.
    pub fn give_up(&mut self) -> Result<(), StepError> {
        for name in std::mem::take(&mut self.names) {
            self.first += 1;
            self.manifest.push(&name.line)?;
            match name.done {
                Some(done) => self.token.add(done),
                None => self.token.found += 1,
            }
        }
        self.copied = 0;
        Ok(())
    }

    /// A name is done.
    pub fn finish(&mut self, number: u64, done: Done, entry: Option<&Entry>) -> Result<(), StepError> {
        let at = usize::try_from(number - self.first).expect("a number that was given out is in the window");
        let name = &mut self.names[at];
        name.done = Some(done);
        name.line = entry.map(Entry::line).unwrap_or_default();
        self.copied += u64::from(matches!(done, Done::Copied { .. }));
        if at > 0 { Ok(()) } else { self.advance() }
    }

    fn advance(&mut self) -> Result<(), StepError> {
        let mut last = None;
        while let Some(Name { done: Some(done), .. }) = self.names.front() {
            self.token.add(*done);
            self.token.is_odd |= matches!(done, Done::Copied { .. }) && last_look::is_odd(&self.names[0].key);
            self.copied -= u64::from(matches!(done, Done::Copied { .. }));
            let name = self.names.pop_front().expect("it was just seen");
            self.first += 1;
            self.manifest.push(&name.line)?;
            last = Some(name.key);
        }
        if last.is_some() {
            self.token.after = last;
        }
        Ok(())
    }
}
