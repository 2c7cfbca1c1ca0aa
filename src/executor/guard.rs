//! Runs a step's future within its limits: timeouts, a request to stop, a panic.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::signals::StepSignals;
use crate::engine::Timeout;
use crate::error::StepError;
use crate::units::Span;

/// How a step's future ended.
pub(super) enum End<T> {
    /// By itself.
    Done(Result<T, StepError>),
    /// It was told to stop, and did, or was given up after the grace time.
    Stopped,
}

/// How a future is told to stop, and by whom.
pub(super) struct Limits<'a> {
    /// Fired by the run.
    pub(super) cancel: &'a CancellationToken,
    /// Fired here too, when time is up: what the step watches.
    pub(super) stop: &'a CancellationToken,
    pub(super) timeout: &'a Timeout,
    pub(super) grace: Duration,
    /// Whether it must not be repeated unasked: then nobody but a person can say what a passed limit means.
    pub(super) asks: bool,
    pub(super) signals: &'a StepSignals,
}

impl Limits<'_> {
    pub(super) async fn guard<T>(&self, future: impl Future<Output = Result<T, StepError>>) -> End<T> {
        let caught = AssertUnwindSafe(future).catch_unwind();
        tokio::pin!(caught);
        let end = tokio::select! {
            biased;
            result = &mut caught => return End::Done(flatten(result)),
            () = self.cancel.cancelled() => None,
            error = self.out_of_time() => Some(error),
        };
        self.stop.cancel();
        let last = tokio::time::timeout(self.grace, &mut caught).await;
        match (last, end) {
            // It was done before it heard of it: what is done is done.
            (Ok(Ok(Ok(value))), _) => End::Done(Ok(value)),
            (_, Some(error)) => End::Done(Err(error)),
            (Ok(Err(panic)), None) => End::Done(Err(panicked(panic.as_ref()))),
            (Ok(Ok(Err(_))) | Err(_), None) => End::Stopped,
        }
    }

    /// Ends when a limit is passed.
    async fn out_of_time(&self) -> StepError {
        let begun = Instant::now();
        let attempt = async {
            match self.timeout.attempt {
                // A limit beyond what a clock can tell is none.
                Some(limit) => match begun.checked_add(limit) {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let idle = async {
            let Some(limit) = self.timeout.idle else { return std::future::pending().await };
            loop {
                let idle = self.signals.idle();
                if idle >= limit {
                    return;
                }
                tokio::time::sleep(limit.saturating_sub(idle)).await;
            }
        };
        let error = tokio::select! {
            () = attempt => {
                let limit = Span(self.timeout.attempt.unwrap_or_default());
                StepError::transient(format!("the attempt did not end within {limit}"))
                    .help("give it more time with `timeout: { attempt: … }`, or see in its log what it waits for")
            }
            () = idle => {
                let limit = Span(self.timeout.idle.unwrap_or_default());
                StepError::transient(format!("the attempt made no progress for {limit}"))
                    .help("see in its log what it waits for, or raise `timeout: { idle: … }`")
            }
        };
        if !self.asks {
            return error;
        }
        StepError::needs_person(format!("{}, and nothing can tell whether it has acted", error.message))
            .help("look at the world yourself; `resume` runs it again, `rollback` undoes it")
    }
}

fn flatten<T>(result: Result<Result<T, StepError>, Box<dyn Any + Send>>) -> Result<T, StepError> {
    result.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

fn panicked(panic: &(dyn Any + Send)) -> StepError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    StepError::permanent(format!("the step type has a bug: {}", text.unwrap_or_else(|| "it panicked".to_owned())))
        .help("report it with the step's log; nothing else of the run was hurt")
}
