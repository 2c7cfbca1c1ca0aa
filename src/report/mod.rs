//! Shows: listens to events and reads journals.

pub(crate) mod screen;
pub mod telling;
