//! Processes that move with their memory, their open files and their connections.

mod carry;
mod checkpoint;
mod estimate;
mod follow;
mod lazy;
mod migrate;
mod mode;
mod named;
mod preflight;
mod restore;
mod site;
mod stored;
mod through;

pub use checkpoint::CriuCheckpoint;
pub use migrate::CriuMigrate;
pub use restore::CriuRestore;
