//! Looks for requests of other processes, and for locks that become free.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::tasks::{Outbox, Ticket};
use crate::engine::{Event, StepPath};
use crate::journal::{Journal, JournalError, LEASE_TIME, Lease, Letter, LockTry, Request};

/// How often a lock that is held elsewhere is asked for.
const LOCK_EVERY: Duration = Duration::from_millis(200);

/// A run's inbox, as far as it has been read. Cloning shares the place.
#[derive(Clone)]
pub(super) struct Inbox {
    journal: Journal,
    run: String,
    outbox: Outbox,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    version: Option<i64>,
    last: i64,
}

impl Inbox {
    pub(super) fn new(journal: Journal, run: String, outbox: Outbox) -> Self {
        Self { journal, run, outbox, seen: Arc::default() }
    }

    /// Brings every new letter to the loop, as the event that it asks for. How many there were.
    pub(super) async fn look(&self) -> Result<usize, JournalError> {
        let inbox = self.clone();
        let looked = tokio::task::spawn_blocking(move || inbox.look_now());
        looked.await.unwrap_or(Ok(0))
    }

    fn look_now(&self) -> Result<usize, JournalError> {
        // Held while reading: two who look at once must not both bring the same letter.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Some(self.journal.version()?);
        if seen.version == version {
            return Ok(0);
        }
        let letters = self.journal.letters(&self.run, seen.last)?;
        seen.version = version;
        let count = letters.len();
        for letter in letters {
            seen.last = letter.id;
            self.outbox.answer(letter.id, event_of(letter));
        }
        Ok(count)
    }

    pub(super) async fn watch(self, every: Duration) -> Result<(), JournalError> {
        loop {
            // A journal that cannot be read for a moment is asked again; one that is broken fails at the next append.
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "cannot look into the run's inbox");
            }
            tokio::time::sleep(every).await;
        }
    }
}

fn event_of(letter: Letter) -> Event {
    match letter.request {
        Request::Cancel { by } => Event::CancelRequested { by },
        Request::Rollback { by, past_pivot } => Event::RollbackRequested { by, past_pivot },
        Request::Approve { by, step, digest, approved, comment } => Event::ApprovalGiven { step, digest, approved, by, comment },
    }
}

/// Renews the lease until it is lost.
pub(super) async fn renew(journal: Journal, lease: Arc<Lease>) -> Result<(), JournalError> {
    loop {
        tokio::time::sleep(LEASE_TIME / 3).await;
        journal.renew(&lease).await?;
    }
}

/// A lock that a step waits for.
pub(super) struct Wanted {
    pub(super) step: StepPath,
    pub(super) lock: String,
    /// How long it may wait while other runs hold the lock.
    pub(super) at_most: Option<Duration>,
}

/// Takes a lock as soon as it is free, or gives up. Says once who holds it, and again when that changes.
pub(super) async fn lock(
    journal: Journal,
    lease: Arc<Lease>,
    wanted: Wanted,
    outbox: Outbox,
    ticket: Ticket,
) -> Result<(), JournalError> {
    let Wanted { step, lock, at_most } = wanted;
    let (mut told, mut so_far) = (None, Duration::ZERO);
    loop {
        // On the monotonic clock: a wall clock that jumps moves nothing.
        let asked = Instant::now();
        let holder = match journal.try_lock(&lease, &step, &lock).await? {
            LockTry::Taken => {
                outbox.end(ticket, Event::LockAcquired { step, lock });
                return Ok(());
            }
            LockTry::Busy(holder) => holder,
        };
        let is_foreign = holder.run != lease.run();
        let holder = holder.to_string();
        if told.as_ref() != Some(&holder) {
            outbox.tell(Event::LockBusy { step: step.clone(), holder: holder.clone() });
            told = Some(holder);
        }
        let left = at_most.filter(|_| is_foreign).map(|at_most| at_most.saturating_sub(so_far));
        if left.is_some_and(|left| left.is_zero()) {
            outbox.end(ticket, Event::LockTimedOut { step, lock });
            return Ok(());
        }
        tokio::time::sleep(left.unwrap_or(LOCK_EVERY).min(LOCK_EVERY)).await;
        if is_foreign {
            so_far += asked.elapsed();
        }
    }
}
