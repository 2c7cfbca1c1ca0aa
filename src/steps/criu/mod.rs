//! Processes that move with their memory, their open files and their connections.

mod carry;
mod estimate;
mod follow;
mod lazy;
mod migrate;
mod mode;
mod named;
mod preflight;
mod site;
mod through;

pub use migrate::CriuMigrate;
