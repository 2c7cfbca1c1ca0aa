//! Looks for requests of other processes, and for locks that become free.

use std::time::Duration;

use super::tasks::{Key, Outbox};
use crate::engine::{Event, StepPath};
use crate::journal::{Journal, JournalError, LEASE_TIME, Lease, Letter, LockTry, Request};

/// How often a lock that is held elsewhere is asked for.
const LOCK_EVERY: Duration = Duration::from_millis(200);

/// Brings every letter of the run to the loop, as the event that it asks for.
pub(super) async fn watch(journal: Journal, run: String, outbox: Outbox, every: Duration) -> Result<(), JournalError> {
    let (mut version, mut last) = (None, 0);
    loop {
        let (reader, id, known) = (journal.clone(), run.clone(), version);
        let looked = tokio::task::spawn_blocking(move || -> Result<_, JournalError> {
            let version = Some(reader.version()?);
            let letters = if version == known { Vec::new() } else { reader.letters(&id, last)? };
            Ok((version, letters))
        })
        .await;
        match looked {
            Ok(Ok((now, letters))) => {
                version = now;
                for letter in letters {
                    last = letter.id;
                    outbox.answer(letter.id, event_of(letter));
                }
            }
            // A journal that cannot be read for a moment is asked again; one that is broken fails at the next append.
            Ok(Err(error)) => tracing::warn!(%error, "cannot look into the run's inbox"),
            Err(_) => return Ok(()),
        }
        tokio::time::sleep(every).await;
    }
}

pub(super) fn event_of(letter: Letter) -> Event {
    match letter.request {
        Request::Cancel { by } => Event::CancelRequested { by },
        Request::Rollback { by, past_pivot } => Event::RollbackRequested { by, past_pivot },
        Request::Approve { by, step, digest, approved, comment } => Event::ApprovalGiven { step, digest, approved, by, comment },
    }
}

/// Renews the lease until it is lost.
pub(super) async fn renew(journal: Journal, lease: std::sync::Arc<Lease>) -> Result<(), JournalError> {
    loop {
        tokio::time::sleep(LEASE_TIME / 3).await;
        journal.renew(&lease).await?;
    }
}

/// Takes a lock, however long that takes. Says once who holds it, and again when that changes.
pub(super) async fn lock(
    journal: Journal,
    lease: std::sync::Arc<Lease>,
    step: StepPath,
    name: String,
    outbox: Outbox,
) -> Result<(), JournalError> {
    let mut told = None;
    loop {
        match journal.try_lock(&lease, &step, &name).await? {
            LockTry::Taken => {
                outbox.end(Key::Lock(step.clone()), Event::LockAcquired { step, lock: name });
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
