//! PostgreSQL servers on hosts: how they are named in a pipeline, reached, asked, started and stopped.
//!
//! In: a [`Server`] of the configuration and a [`Reach`]. Out: a [`Database`] to ask, or a `StepError` whose class is
//! decided here from the SQLSTATE. Never here: a password in an argument list, a decision about a migration.

mod classify;
mod cluster;
pub mod conf;
mod connect;
mod control;
mod database;
pub mod hba;
mod lsn;
mod owner;
mod relay;
mod server;
mod tls;
mod waiting;

pub use cluster::{Cluster, Lag, lag};
pub use connect::{Login, Reach, open};
pub use control::Stop;
pub use database::{Database, quote_literal, quote_name};
pub use lsn::Lsn;
pub use owner::Owner;
pub use server::{Connect, Server};
pub use tls::{Trust, client as tls_client};
pub use waiting::Waiting;
