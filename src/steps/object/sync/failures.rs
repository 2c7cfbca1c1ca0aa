//! Names about which something could not be done: counted, told, and made into one failure.

use super::work::Work;
use crate::error::{ErrorClass, StepError};
use crate::steps::object::objects;

/// With more objects than this that cannot be copied, something else is wrong.
const MOST_FAILURES: u64 = 100;

impl Work<'_> {
    pub(super) fn nothing_failed(&self) -> Result<(), StepError> {
        let Some(first) = self.failures.first() else { return Ok(()) };
        let messages: Vec<&str> = self.failures.iter().take(5).map(|error| error.message.as_str()).collect();
        let rest = self.failure_count - messages.len() as u64;
        let rest = if rest > 0 { format!("; and {rest} more, named in the step's log") } else { String::new() };
        let class = |class: ErrorClass| self.failures.iter().any(|error| error.class == class);
        let class = match () {
            () if class(ErrorClass::NeedsPerson) => ErrorClass::NeedsPerson,
            // The next attempt is for these, whatever else there is.
            () if self.troubles > 0 => ErrorClass::Transient,
            () if class(ErrorClass::Permanent) => ErrorClass::Permanent,
            () => ErrorClass::Transient,
        };
        let what = if self.window.token.is_deleting { "deleted" } else { "copied" };
        let message = format!("{} could not be {what}: {}{rest}", objects(self.failure_count), messages.join("; "));
        let retry_after = self.failures.iter().filter_map(|error| error.retry_after).max();
        let error = StepError { retry_after, ..StepError::new(class, message) };
        let error = match &first.cause {
            Some(cause) => error.cause(cause.to_string()),
            None => error,
        };
        Err(match &first.help {
            Some(help) => error.help(help.clone()),
            None => error,
        })
    }

    pub(super) fn fail(&mut self, error: StepError) {
        self.ctx.log(format!("failed: {}", error.message));
        self.failure_count += 1;
        if self.failures.len() < 20 {
            self.failures.push(error);
        }
    }
}

/// With so many failures something else is wrong.
pub(super) fn there_is_no_point(work: &Work<'_>) -> Result<(), StepError> {
    if work.failure_count >= MOST_FAILURES { work.nothing_failed() } else { Ok(()) }
}
