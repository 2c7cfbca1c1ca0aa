//! Named locks across runs: one holder at a time, and the holder is a step of a run, not a process.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use serde::{Deserialize, Serialize};

use super::append::status_text;
use super::lease::{holder_of, time};
use super::{Journal, JournalError, Lease, lease};
use crate::engine::{RunStatus, StepPath};

/// A step of a run that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The lock.
    pub name: String,
    /// The run.
    pub run: String,
    /// The step.
    pub step: StepPath,
    /// Since when.
    pub since: Timestamp,
    /// Whether the run has a living runner. A lock outlives its runner: the step may have stopped half-way.
    pub live: bool,
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step `{}` of run `{}`, since {}", self.step, self.run, self.since)?;
        if self.live {
            return Ok(());
        }
        write!(f, "; nothing is at work on that run: resume it or roll it back")
    }
}

/// What came of trying to take a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockTry {
    /// It is held now.
    Taken,
    /// Somebody else holds it.
    Busy(LockHolder),
}

impl Journal {
    /// Takes a lock for a step, if nobody else holds it. Taking it again is no error.
    pub async fn try_lock(&self, lease: &Lease, step: &StepPath, name: &str) -> Result<LockTry, JournalError> {
        let (now, path, run, token) = (self.now(), self.path(), lease.run().to_owned(), lease.token());
        let (step, name) = (step.clone(), name.to_owned());
        self.write(move |connection| {
            let of = |error: rusqlite::Error| JournalError::of(&path, &error);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(of)?;
            if !lease::check(&transaction, &run, token).map_err(of)? {
                return Err(JournalError::Fenced { run });
            }
            if let Some(holder) = held(&transaction, &name, now).map_err(of)?
                && (holder.run != run || holder.step != step)
            {
                return Ok(LockTry::Busy(holder));
            }
            transaction
                .execute(
                    "INSERT INTO locks (name, run, step, since) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (name) DO UPDATE SET run = ?2, step = ?3, since = ?4 WHERE run <> ?2 OR step <> ?3",
                    (&name, &run, step.as_str(), now.as_microsecond()),
                )
                .map_err(of)?;
            transaction.commit().map_err(of)?;
            Ok(LockTry::Taken)
        })
        .await
    }

    /// Gives a lock back. Giving back what is not held is no error.
    pub async fn unlock(&self, lease: &Lease, step: &StepPath, name: &str) -> Result<(), JournalError> {
        let (path, run, token) = (self.path(), lease.run().to_owned(), lease.token());
        let (step, name) = (step.clone(), name.to_owned());
        self.write(move |connection| {
            let of = |error: rusqlite::Error| JournalError::of(&path, &error);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(of)?;
            // A runner that was taken over may have slept: the step may hold the lock anew.
            if !lease::check(&transaction, &run, token).map_err(of)? {
                return Err(JournalError::Fenced { run });
            }
            transaction
                .execute("DELETE FROM locks WHERE name = ?1 AND run = ?2 AND step = ?3", (&name, &run, step.as_str()))
                .map_err(of)?;
            transaction.commit().map_err(of)
        })
        .await
    }

    /// The locks that a run holds.
    pub fn locks_of(&self, run: &str) -> Result<Vec<LockHolder>, JournalError> {
        let now = self.now();
        let reader = self.reader();
        let list = || -> Result<Vec<LockHolder>, rusqlite::Error> {
            let mut statement = reader.prepare_cached("SELECT name FROM locks WHERE run = ?1 ORDER BY name")?;
            let names = statement.query_map([run], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            let mut locks = Vec::new();
            for name in names {
                locks.extend(held(&reader, &name, now)?);
            }
            Ok(locks)
        };
        list().map_err(|error| JournalError::of_reading(&self.path(), &error))
    }
}

/// Who holds a lock. A run that has come to a good end holds nothing, whatever the table says: its runner may have
/// died between the end and giving the lock back.
fn held(connection: &Connection, name: &str, now: Timestamp) -> Result<Option<LockHolder>, rusqlite::Error> {
    let row = connection
        .prepare_cached(
            "SELECT locks.run, locks.step, locks.since, runs.status FROM locks LEFT JOIN runs ON runs.id = locks.run WHERE name = ?1",
        )?
        .query_row([name], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, Option<String>>(3)?))
        })
        .optional()?;
    let Some((run, step, since, status)) = row else { return Ok(None) };
    let live = holder_of(connection, &run, now)?.is_some();
    let is_done = status
        .is_none_or(|status| [RunStatus::Succeeded, RunStatus::RolledBack].into_iter().any(|done| status == status_text(done)));
    if is_done && !live {
        return Ok(None);
    }
    Ok(Some(LockHolder { name: name.to_owned(), run, step: StepPath::from(step.as_str()), since: time(since), live }))
}
