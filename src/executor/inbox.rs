//! Looks for requests of other processes, and for locks that become free.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// Takes a lock, however long that takes. Says once who holds it, and again when that changes.
pub(super) async fn lock(
    journal: Journal,
    lease: Arc<Lease>,
    step: StepPath,
    name: String,
    outbox: Outbox,
    ticket: Ticket,
) -> Result<(), JournalError> {
    let mut told = None;
    loop {
        match journal.try_lock(&lease, &step, &name).await? {
            LockTry::Taken => {
                outbox.end(ticket, Event::LockAcquired { step, lock: name });
                return Ok(());
            }
            LockTry::Busy(holder) => {
                let holder = holder.to_string();
                if told.as_ref() != Some(&holder) {
                    outbox.tell(Event::LockBusy { step: step.clone(), holder: holder.clone() });
                    told = Some(holder);
                }
            }
        }
        tokio::time::sleep(LOCK_EVERY).await;
    }
}
