//! What happens next: a pure state machine, events in and commands out.
//!
//! In: [`Event`]s that are already durable. Out: [`Command`]s for a driver. State is the fold of the events; after a
//! crash the same fold gives the same state, and [`Engine::open_commands`] finds again what was still to be done.
//! Never here: a clock, the disk, the network, a thread, chance, or a template.

mod backoff;
mod build;
mod counters;
mod definition;
pub mod edit;
mod event;
mod forward;
mod node;
mod orphan;
mod pace;
mod path;
mod phases;
mod resume;
mod rollback;
mod run;
mod status;
mod table;

pub use definition::*;
pub use event::*;
pub use node::{Inspection, Node, Question, State};
pub use pace::Pace;
pub use path::{Segment, StepPath};
pub use run::Engine;
pub use status::RunStatus;
