//! At most one runner holds a run: leases with fencing tokens.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::process::Session;
use super::{Holder, Journal, JournalError};

/// How long a lease holds without being renewed, where the holder's process cannot be asked after.
pub const LEASE_TIME: Duration = Duration::from_secs(30);

/// The right to write to a run. Dropping it ends the right; [`Journal::release`] says so to others at once.
#[derive(Debug)]
pub struct Lease {
    run: String,
    token: i64,
    last_letter: i64,
    _session: Session,
}

impl Lease {
    /// The run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The latest letter in the run's inbox when the lease was taken: what comes later is for this runner.
    pub fn last_letter(&self) -> i64 {
        self.last_letter
    }

    /// Counts the run's runners. A writer whose token is not the latest is refused.
    pub fn token(&self) -> i64 {
        self.token
    }
}

impl Journal {
    /// Takes the run, or says who holds it and since when.
    pub async fn acquire(&self, run: &str, by: &str) -> Result<Lease, JournalError> {
        let (now, path, run) = (self.now(), self.path(), run.to_owned());
        let holder = Holder::here(by);
        let session = Session::of(&holder);
        let text = serde_json::to_string(&holder).expect("a holder is plain data");
        let wanted = run.clone();
        let (token, last_letter) = self
            .write(move |connection| {
                let of = |error: rusqlite::Error| JournalError::of(&path, &error);
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(of)?;
                if let Some((holder, since)) = holder_of(&transaction, &wanted, now).map_err(of)? {
                    return Err(JournalError::Held { run: wanted, holder: Box::new(holder), since });
                }
                let token: i64 = transaction
                    .query_row(
                        "INSERT INTO leases (run, token, holder, since, renewed, expires) VALUES (?1, 1, ?2, ?3, ?3, ?4)
                         ON CONFLICT (run) DO UPDATE SET token = token + 1, holder = ?2, since = ?3, renewed = ?3, expires = ?4
                         RETURNING token",
                        (&wanted, &text, now.as_microsecond(), expiry(now)),
                        |row| row.get(0),
                    )
                    .map_err(of)?;
                let last_letter: i64 = transaction
                    .query_row("SELECT coalesce(max(id), 0) FROM inbox WHERE run = ?1", [&wanted], |row| row.get(0))
                    .map_err(of)?;
                transaction.commit().map_err(of)?;
                Ok((token, last_letter))
            })
            .await?;
        Ok(Lease { run, token, last_letter, _session: session })
    }

    /// Says that the runner still lives: needed every few seconds, for those who cannot ask after its process.
    pub async fn renew(&self, lease: &Lease) -> Result<(), JournalError> {
        let (now, path, run, token) = (self.now(), self.path(), lease.run.clone(), lease.token);
        self.write(move |connection| {
            let of = |error: rusqlite::Error| JournalError::of(&path, &error);
            let renewed = connection
                .execute(
                    "UPDATE leases SET renewed = ?1, expires = ?2 WHERE run = ?3 AND token = ?4",
                    (now.as_microsecond(), expiry(now), &run, token),
                )
                .map_err(of)?;
            if renewed == 1 { Ok(()) } else { Err(JournalError::Fenced { run }) }
        })
        .await
    }

    /// Gives the run back.
    pub async fn release(&self, lease: Lease) -> Result<(), JournalError> {
        let (path, run, token) = (self.path(), lease.run.clone(), lease.token);
        self.write(move |connection| {
            connection
                .execute("UPDATE leases SET holder = NULL WHERE run = ?1 AND token = ?2", (&run, token))
                .map_err(|error| JournalError::of(&path, &error))?;
            Ok(())
        })
        .await
    }

    /// The living runner of a run, and since when it holds it.
    pub fn holder(&self, run: &str) -> Result<Option<(Holder, Timestamp)>, JournalError> {
        holder_of(&self.reader(), run, self.now()).map_err(|error| self.failed(&error))
    }
}

fn expiry(now: Timestamp) -> i64 {
    let time = SignedDuration::try_from(LEASE_TIME).unwrap_or(SignedDuration::from_secs(30));
    now.as_microsecond().saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

pub(super) fn holder_of(
    connection: &Connection,
    run: &str,
    now: Timestamp,
) -> Result<Option<(Holder, Timestamp)>, rusqlite::Error> {
    let row = connection
        .prepare_cached("SELECT holder, since, expires FROM leases WHERE run = ?1 AND holder IS NOT NULL")?
        .query_row([run], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        .optional()?;
    let Some((text, since, expires)) = row else { return Ok(None) };
    // A holder that cannot be read is one that we know nothing of but its time.
    let holder: Holder = serde_json::from_str(&text).unwrap_or_else(|_| Holder {
        by: "?".to_owned(),
        host: "?".to_owned(),
        pid: 0,
        start: None,
        world: None,
        session: String::new(),
    });
    Ok(holder.is_alive(time(expires), now).then(|| (holder, time(since))))
}

pub(super) fn check(connection: &Connection, run: &str, token: i64) -> Result<bool, rusqlite::Error> {
    let found = connection
        .prepare_cached("SELECT token FROM leases WHERE run = ?1")?
        .query_row([run], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(found == Some(token))
}
