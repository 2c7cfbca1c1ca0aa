//! Shows: listens to events and reads journals.

pub(crate) mod escape;
pub mod graph;
pub(crate) mod screen;
pub mod style;
pub mod telling;

pub use style::Style;
