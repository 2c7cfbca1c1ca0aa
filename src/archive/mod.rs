//! What a PostgreSQL cluster leaves in a store: its write-ahead log, segment by segment, and base backups.
//!
//! In: the archive's settings and files of a data directory. Out: objects that say what is in them, or files that were
//! held against that, or a `StepError`. Never here: a segment acknowledged that is not safely stored, an object written
//! over another, a file handed out that is not what was archived. How it works: `docs/postgres-backup.md`.

pub mod base;
mod depot;
mod fetch;
mod frame;
mod identity;
mod name;
mod push;
mod settings;
mod spool;

pub use fetch::{Fetched, ahead, fetch};
pub use frame::{Header, pack, unpack};
pub use name::WalFile;
pub use push::{Pushed, push};
pub use settings::{Archive, Settings};
