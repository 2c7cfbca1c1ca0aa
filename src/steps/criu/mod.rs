//! Processes that move with their memory, their open files and their connections.

pub(in crate::steps) mod carry;
mod checkpoint;
mod estimate;
mod follow;
mod lazy;
mod migrate;
pub(in crate::steps) mod mode;
pub(in crate::steps) mod named;
pub(in crate::steps) mod preflight;
mod restore;
pub(in crate::steps) mod site;
mod stored;
pub(in crate::steps) mod through;

pub use checkpoint::CriuCheckpoint;
pub use migrate::CriuMigrate;
pub use restore::CriuRestore;
