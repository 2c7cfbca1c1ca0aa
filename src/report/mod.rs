//! Shows: listens to events and reads journals.
//!
//! In: a run's records, or its events as they come. Out: text, JSON, pictures. Never here: a decision about the run, a
//! secret, a word that the journal does not bear out.

pub mod diff;
pub mod edit;
pub(crate) mod escape;
pub mod graph;
pub mod history;
pub mod html;
pub mod jsonl;
pub mod live;
pub mod plain;
pub mod plan;
pub mod probes;
#[cfg(test)]
mod sample;
pub(crate) mod screen;
pub mod speed;
pub mod style;
pub mod summary;
pub mod telling;
pub mod trial;
pub mod waits;
pub mod why;

pub use style::Style;
