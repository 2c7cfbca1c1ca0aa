//! `probe.*`: what clients see while something is moved, measured by being one.
//!
//! In: a way to be a client. Out: gaps between good answers, errors, answer times, and a record in the step's folder that
//! outlives the runner. Never here: a gap that a timer made up (it lies between two answers that came), a time that nobody
//! was watching counted as one.

mod client;
mod ledger;
mod postgres;
mod ranges;
mod record;
mod tcp;
mod terms;
mod times;
mod watch;

pub(super) use client::{Client, Kind};
pub use postgres::ProbePostgres;
pub use record::Seen;
pub use tcp::ProbeTcp;
pub(super) use terms::{Terms, half_minute, ten_seconds, twenty, ways};
pub(super) use watch::Watch;
