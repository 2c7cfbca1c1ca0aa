//! What the user wrote: YAML with positions, templates, checks, the engine's definition.
//!
//! In: a path, [`Files`] to read from, and the [`Catalogue`](crate::catalogue::Catalogue) of step types. Out: a
//! [`Pipeline`] that may run, or every [`Problem`] it has, each at its place. Never here: a clock, the disk, the
//! network, chance, or a decision about a run.

mod code;
mod config;
mod define;
mod document;
mod graph;
mod inputs;
mod language;
mod load;
mod model;
mod names;
mod nearest;
mod outputs;
mod problem;
mod read;
mod reader;
mod reference;
mod scalar;
mod schema;
mod source;
mod syntax;
pub mod template;
mod templates;
mod told;

pub use code::{About, Code};
pub use define::Found;
pub use inputs::InputType;
pub use load::{Loaded, load};
pub use model::{Defaults, HostSpec, InputSpec, Pipeline, RetrySpec, SecretSpec, StepSpec, TimeoutSpec, UndoBody};
pub use problem::{Problem, Problems, Related};
pub use reference::reference;
pub use schema::schema;
pub use source::{Files, SourceFile, Sources, Span};
