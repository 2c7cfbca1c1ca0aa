//! `validate.*`: looks at the world and fails unless it is as expected.
//!
//! In: what is expected. Out: what was found and how long it took. Never here: a change of anything, an answer that is
//! taken for good because none came.

mod command;
mod tcp;

pub use command::ValidateCommand;
pub use tcp::ValidateTcp;

use std::time::Duration;

use crate::error::StepError;
use crate::units::Span;

/// A time as outputs tell it: to the millisecond, and never nothing.
pub(super) fn rounded(took: Duration) -> Span {
    Span(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1)))
}

/// An answer that is right and late is no good one.
pub(super) fn in_time(what: &str, took: Duration, within: Option<Span>) -> Result<(), StepError> {
    match within {
        Some(limit) if took > limit.0 => Err(StepError::transient(format!("{what} took {}, longer than {limit}", rounded(took)))
            .help("it is looked at again as `retry` says; raise `within` if this is fast enough")),
        _ => Ok(()),
    }
}
