//! Processes that move with their memory, their open files and their connections.

mod carry;
mod migrate;
mod preflight;
mod site;

pub use migrate::CriuMigrate;
