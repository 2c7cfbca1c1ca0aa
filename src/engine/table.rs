//! The one table of what may happen to a step in which state. What is not listed is not taken, live and on replay alike.

use super::event::{Event, Timer};
use super::node::{Node, State};

/// What is done with an event about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It changes the step.
    Take,
    /// It answers something that is over: a repeated command, an attempt that was given up. Dropped.
    Late,
    /// Nothing was asked that it could answer: the journal or the driver is broken.
    Illegal,
}

/// Whether the step takes the event.
pub fn verdict(node: &Node, event: &Event) -> Verdict {
    use State as S;
    use Verdict::{Illegal, Late, Take};
    let attempt_is = |attempt: u32| match attempt.cmp(&node.attempts) {
        std::cmp::Ordering::Less => Late,
        std::cmp::Ordering::Equal => Take,
        std::cmp::Ordering::Greater => Illegal,
    };
    let undo_is = |attempt: u32| match attempt.cmp(&node.undo_attempts) {
        std::cmp::Ordering::Less => Late,
        std::cmp::Ordering::Equal => Take,
        std::cmp::Ordering::Greater => Illegal,
    };
    match (node.state, event) {
        (S::Resolving, Event::Resolved { .. })
        | (S::Locking | S::UndoLocking, Event::LockBusy { .. })
        | (S::Inspecting, Event::Inspected { .. } | Event::InspectFailed { .. })
        | (S::Asking, Event::ApprovalAsked { .. } | Event::InspectFailed { .. })
        | (S::Awaiting, Event::TimerFired { timer: Timer::Approval { .. } }) => Take,
        (S::Locking | S::UndoLocking, Event::LockAcquired { lock, .. } | Event::LockTimedOut { lock, .. })
            if node.lock.as_ref() == Some(lock) =>
        {
            Take
        }
        (S::Awaiting, Event::ApprovalGiven { digest, by, .. }) => match &node.question {
            // An answer is bound to what was shown, and to who was asked.
            Some(question) if question.digest == *digest && question.may_answer(by) => Take,
            _ => Late,
        },
        // An attempt that was told to stop before its intent was on disk ends without having started.
        (S::Starting, Event::AttemptStarted { attempt, .. } | Event::AttemptEnded { attempt, .. })
        | (S::Running, Event::AttemptEnded { attempt, .. } | Event::Ready { attempt, .. } | Event::Checkpoint { attempt, .. }) => {
            attempt_is(*attempt)
        }
        // A run that was told to go back and one that is past its pivot exclude each other: what comes first counts.
        (S::Running, Event::PivotPassed { attempt, .. }) if node.stopping.is_none() => attempt_is(*attempt),
        (S::UndoStarting, Event::UndoStarted { attempt, .. } | Event::UndoEnded { attempt, .. })
        | (S::Undoing, Event::UndoEnded { attempt, .. }) => undo_is(*attempt),
        (S::Open, Event::Measured { at_once, .. }) if node.is_measured() && *at_once == node.pace.limit => Take,
        (S::Backoff, Event::TimerFired { timer: Timer::Retry { failures, .. } }) if *failures == node.failures => Take,
        (S::UndoBackoff, Event::TimerFired { timer: Timer::UndoRetry { failures, .. } }) if *failures == node.undo_failures => {
            Take
        }
        (
            _,
            Event::AttemptStarted { attempt, .. }
            | Event::AttemptEnded { attempt, .. }
            | Event::Ready { attempt, .. }
            | Event::Checkpoint { attempt, .. }
            | Event::PivotPassed { attempt, .. },
        ) if *attempt > node.attempts => Illegal,
        (_, Event::UndoStarted { attempt, .. } | Event::UndoEnded { attempt, .. }) if *attempt > node.undo_attempts => Illegal,
        _ => Late,
    }
}
