//! Why a session could not begin, or ended without the run's own end.

use miette::Diagnostic;

use super::{EditTable, Plan};
use crate::engine::RunStatus;
use crate::error::Failure;
use crate::journal::JournalError;
use crate::pipeline::Problems;

/// Why a session could not begin, or ended without the run's own end. A failed step is none of these: it is a status.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ExecutorError {
    /// The journal said no. What was at work was stopped.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Journal(#[from] JournalError),
    /// The pipeline or its inputs are wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Problems(#[from] Problems),
    /// The preflight found something wrong; nothing was started.
    #[error("{} found before the start: nothing was done", count(.0.blocking().count()))]
    #[diagnostic(code(ferry::run::preflight), help("`ferry plan` shows the whole picture"))]
    Preflight(Box<Plan>),
    /// What the pipeline needs before any step is missing.
    #[error("{}", .0.message)]
    #[diagnostic(code(ferry::run::setup), help("{}", .0.help.as_deref().unwrap_or("nothing was done")))]
    Setup(Box<Failure>),
    /// The run is in a state in which that makes no sense.
    #[error("run `{run}` is {} and cannot be {what}", status_text(*.status))]
    #[diagnostic(code(ferry::run::status), help("{help}"))]
    Status {
        /// The run.
        run: String,
        /// Its status.
        status: RunStatus,
        /// What was asked for.
        what: &'static str,
        /// What to do instead.
        help: &'static str,
    },
    /// The run has passed its pivot.
    #[error("run `{run}` is past its pivot: it does not roll back")]
    #[diagnostic(
        code(ferry::run::past_pivot),
        help("`ferry resume {run}` goes forward; going back on purpose needs `ferry rollback --past-pivot`")
    )]
    PastPivot {
        /// The run.
        run: String,
    },
    /// The edited pipeline changes what is done, and nobody has said what is meant.
    #[error("the pipeline changes what run `{}` has already done: {}", .0.run, .0.open_names())]
    #[diagnostic(code(ferry::run::edited), help("say what is meant for each with `--accept STEP=keep|rerun|undo-first`"))]
    Edited(Box<EditTable>),
    /// There is no such open question.
    #[error("{message}")]
    #[diagnostic(code(ferry::run::approval), help("`ferry show` lists the questions that are open"))]
    NoQuestion {
        /// What does not fit.
        message: String,
    },
    /// Two interrupts: the session ended at once.
    #[error("interrupted: run `{run}` was left as it was")]
    #[diagnostic(code(ferry::run::interrupted), help("`ferry resume {run}` takes it up again"))]
    Interrupted {
        /// The run.
        run: String,
    },
    /// The events do not make a run.
    #[error("the journal of run `{run}` does not make sense: {what}")]
    #[diagnostic(code(ferry::run::fault), help("nothing was done on its word; was it written by another version of ferry?"))]
    Fault {
        /// The run.
        run: String,
        /// What does not fit.
        what: String,
    },
}

impl From<Failure> for ExecutorError {
    fn from(failure: Failure) -> Self {
        Self::Setup(Box::new(failure))
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem was".to_owned() } else { format!("{problems} problems were") }
}

fn status_text(status: RunStatus) -> String {
    serde_json::to_value(status).ok().and_then(|value| value.as_str().map(|text| text.replace('_', " "))).unwrap_or_default()
}
