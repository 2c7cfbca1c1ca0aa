//! No event is larger than the journal takes: what a step says beyond that fails the step, and nothing else.

use std::io;

use serde_json::Value;

use super::resolve::permanent;
use crate::engine::{Event, Outcome, Resolution};
use crate::error::Failure;
use crate::journal::MAX_EVENT;
use crate::units::ByteSize;

/// What is kept of a failure that is told at too great a length, in bytes of each text.
const KEPT: usize = 64 << 10;

/// The event, or what becomes of it when it does not fit: an answer that fails its step.
pub(super) fn bounded(event: Event) -> Event {
    let is_free = matches!(event, Event::RunCreated { .. } | Event::PipelineChanged { .. });
    let size = if is_free { 0 } else { size_of(&event) };
    if size <= MAX_EVENT {
        return event;
    }
    let failure = |what: &str| {
        let message =
            format!("{what} {}, more than the {} that the journal takes", ByteSize(size as u64), ByteSize(MAX_EVENT as u64));
        permanent(message, "write large data to a file or a store, and pass on where it is")
    };
    match event {
        Event::Resolved { step, resolution: Resolution::Failed { failure }, .. } => {
            let resolution = Resolution::Failed { failure: shortened(failure) };
            Event::Resolved { step, resolution, operands: Value::Null }
        }
        Event::Resolved { step, .. } => {
            let resolution = Resolution::Failed { failure: failure("what its `for_each` or its inputs say takes") };
            Event::Resolved { step, resolution, operands: Value::Null }
        }
        Event::Inspected { step, .. } => {
            Event::InspectFailed { step, failure: failure("its configuration and what it saw take") }
        }
        Event::ApprovalAsked { step, .. } => Event::InspectFailed { step, failure: failure("its question takes") },
        Event::InspectFailed { step, failure } => Event::InspectFailed { step, failure: shortened(failure) },
        Event::AttemptEnded { step, attempt, outcome } => {
            Event::AttemptEnded { step, attempt, outcome: ended(outcome, || failure("its outputs take")) }
        }
        Event::UndoEnded { step, attempt, outcome } => {
            Event::UndoEnded { step, attempt, outcome: ended(outcome, || failure("its end takes")) }
        }
        Event::ApprovalGiven { step, digest, approved, by, .. } => {
            Event::ApprovalGiven { step, digest, approved, by, comment: None }
        }
        other => other,
    }
}

fn ended(outcome: Outcome, failure: impl FnOnce() -> Failure) -> Outcome {
    match outcome {
        Outcome::Failed { failure } => Outcome::Failed { failure: shortened(failure) },
        Outcome::Succeeded { .. } => Outcome::Failed { failure: failure() },
        other => other,
    }
}

fn shortened(failure: Failure) -> Failure {
    let short = |mut text: String| {
        if text.len() > KEPT {
            let cut = (0..=KEPT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(cut);
            text.push('…');
        }
        text
    };
    let causes = failure.causes.into_iter().take(16).map(short).collect();
    Failure { message: short(failure.message), help: failure.help.map(short), causes, ..failure }
}

/// Bytes of JSON, without keeping them.
fn size_of(event: &Event) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and an event is plain data: what could not be written is left to the journal to say.
    let _ = serde_json::to_writer(&mut count, event);
    count.0
}
