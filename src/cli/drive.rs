//! Carries a run on with somebody watching: the view, the keyboard, the signals, the end.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::ending::{self, Asked};
use super::project::read_run;
use super::{Context, Exit, Fault, block_on, by};
use crate::executor::{Executor, ExecutorError, NewRun, Observer, Resume, Settings};
use crate::journal::{Journal, Request};
use crate::report::jsonl::JsonLines;
use crate::report::live::{Answer, Live};
use crate::report::plain::Plain;
use crate::steps::Registry;

/// Whether the command stays when only a person can go on.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Waiting {
    /// Stay when only an answer of a person is awaited; the default on a terminal
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Leave with exit status 5 when only an answer of a person is awaited; the default elsewhere
    #[arg(long)]
    no_wait: bool,
}

/// A command that carries a run on.
pub(super) struct Drive<'a> {
    context: &'a Context,
    journal: Journal,
    registry: Registry,
    waiting: Waiting,
}

impl<'a> Drive<'a> {
    pub(super) fn new(context: &'a Context, journal: Journal, registry: Registry) -> Self {
        Self { context, journal, registry, waiting: Waiting::default() }
    }

    pub(super) fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }
}
