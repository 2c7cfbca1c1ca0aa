//! ferry: a declarative runner for cloud migrations.
//!
//! A person writes a pipeline in YAML; [`pipeline`] reads it and finds everything that is wrong with it; [`engine`]
//! decides what happens next and never does anything; [`executor`] does and never decides; [`journal`] makes every
//! event durable before its consequence is visible; [`steps`] are the step types, which act on [`hosts`],
//! [`stores`], [`archive`]s and [`postgres`] servers; [`report`] shows; [`cli`] is the command line.

pub mod catalogue;
pub mod clock;
pub mod error;
pub mod secret;
pub mod units;

pub mod archive;
pub mod cli;
pub mod engine;
pub mod executor;
pub mod hosts;
pub mod journal;
pub mod pipeline;
pub mod postgres;
pub mod report;
pub mod steps;
pub mod stores;
