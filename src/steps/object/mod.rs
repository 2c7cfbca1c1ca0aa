//! The step types about objects: sync, compare, list, delete.
//!
//! In: places of `stores`. Out: outputs with counts, and lists too long for outputs as files in the step's scratch
//! folder. Never here: a temporary copy of an object, a deletion that was not asked for, success for what was not
//! seen. Two sorted listings are merged as streams, so that memory does not grow with the number of objects.

mod compare;
mod content;
mod delete;
mod etag;
mod filter;
mod list;
mod merge;
mod same;
mod sync;

pub use compare::ObjectCompare;
pub use delete::ObjectDelete;
pub use list::ObjectList;
pub use sync::{Left, ObjectSync, left};

/// `1 object`, `12 objects`.
fn objects(count: u64) -> String {
    if count == 1 { "1 object".to_owned() } else { format!("{count} objects") }
}

/// The first few of many names, for a message.
fn some(names: &[String], count: u64) -> String {
    some_of(names, count, 5)
}

/// The first of many names, so many at most.
fn some_of(names: &[String], count: u64, most: usize) -> String {
    let shown: Vec<String> = names.iter().take(most).map(|name| format!("`{name}`")).collect();
    let rest = count.saturating_sub(shown.len() as u64);
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}
