//! Writes events: one batch, one transaction, one fsync.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::{Journal, JournalError, Lease, Record, lease};
use crate::engine::{Event, RunStatus};

/// No event but the definition of a run is larger, in bytes of JSON. The executor's own limits are tighter: outputs
/// and checkpoints have 256 KiB. What needs the room is a `for_each` over very many items.
pub const MAX_EVENT: usize = 16 << 20;

impl Journal {
    /// Writes a batch of events: all of them are on disk when it returns, or none.
    pub async fn append(&self, lease: &Lease, events: Vec<Event>) -> Result<Vec<Record>, JournalError> {
        self.append_answering(lease, events, Vec::new()).await
    }

    /// As [`Journal::append`], and takes the letters that the events answer out of the inbox in the same transaction.
    pub async fn append_answering(
        &self,
        lease: &Lease,
        events: Vec<Event>,
        letters: Vec<i64>,
    ) -> Result<Vec<Record>, JournalError> {
        if events.is_empty() && letters.is_empty() {
            return Ok(Vec::new());
        }
        let at = self.now();
        let mut rows = Vec::with_capacity(events.len());
        for event in &events {
            let json = serde_json::to_string(event).expect("an event is plain data with text keys");
            let is_definition = matches!(event, Event::RunCreated { .. } | Event::PipelineChanged { .. });
            if json.len() > MAX_EVENT && !is_definition {
                let what = event.step().map_or_else(|| "no step".to_owned(), |step| format!("step `{step}`"));
                return Err(JournalError::TooLarge { what, size: json.len() });
            }
            rows.push((json, Index::of(event)));
        }
        let (path, run, token) = (self.path(), lease.run().to_owned(), lease.token());
        let first = self
            .write(move |connection| {
                let of = |error: rusqlite::Error| JournalError::of(&path, &error);
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(of)?;
                // Inside the transaction: whoever takes the run over does so before this batch or after it.
                if !lease::check(&transaction, &run, token).map_err(of)? {
                    return Err(JournalError::Fenced { run });
                }
                let first = insert(&transaction, &run, at.as_microsecond(), &rows).map_err(of)?;
                for letter in letters {
                    transaction
                        .prepare_cached("DELETE FROM inbox WHERE id = ?1")
                        .and_then(|mut delete| delete.execute([letter]))
                        .map_err(of)?;
                }
                transaction.commit().map_err(of)?;
                Ok(first)
            })
            .await?;
        self.inner.commits.fetch_add(1, Ordering::Relaxed);
        Ok((first..).zip(events).map(|(seq, event)| Record { seq, at, event }).collect())
    }
}

/// What the list of runs keeps of an event, so that listing does not fold every run.
enum Index {
    Nothing,
    Created { pipeline: String, by: String },
    Status { status: RunStatus, is_end: bool },
    Renamed { pipeline: String },
}

impl Index {
    fn of(event: &Event) -> Self {
        match event {
            Event::RunCreated { definition, by, .. } => Self::Created { pipeline: definition.name.clone(), by: by.clone() },
            Event::PipelineChanged { definition, .. } => Self::Renamed { pipeline: definition.name.clone() },
            Event::Resumed { .. } => Self::Status { status: RunStatus::Running, is_end: false },
            Event::RollbackRequested { .. } => Self::Status { status: RunStatus::RollingBack, is_end: false },
            Event::Settled { status } => Self::Status { status: *status, is_end: true },
            _ => Self::Nothing,
        }
    }
}

/// Inserts the rows of a batch and gives the first one's number.
fn insert(connection: &Connection, run: &str, at: i64, rows: &[(String, Index)]) -> Result<u64, rusqlite::Error> {
    let mut key = connection
        .prepare_cached("SELECT key FROM runs WHERE id = ?1")?
        .query_row([run], |row| row.get::<_, i64>(0))
        .optional()?;
    let mut seq: i64 = match key {
        Some(key) => connection
            .prepare_cached("SELECT coalesce(max(seq), 0) FROM events WHERE run = ?1")?
            .query_row([key], |row| row.get(0))?,
        None => 0,
    };
    let first = seq + 1;
    for (json, index) in rows {
        match index {
            Index::Nothing => {}
            Index::Created { pipeline, by } => {
                let status = status_text(RunStatus::Running);
                connection
                    .prepare_cached("INSERT INTO runs (id, pipeline, by, status, started) VALUES (?1, ?2, ?3, ?4, ?5)")?
                    .execute((run, pipeline, by, status, at))?;
                key = Some(connection.last_insert_rowid());
            }
            Index::Status { status, is_end } => {
                connection.prepare_cached("UPDATE runs SET status = ?1, ended = ?2 WHERE id = ?3")?.execute((
                    status_text(*status),
                    is_end.then_some(at),
                    run,
                ))?;
            }
            Index::Renamed { pipeline } => {
                connection.prepare_cached("UPDATE runs SET pipeline = ?1 WHERE id = ?2")?.execute((pipeline, run))?;
            }
        }
        let key = key.expect("the first event of a run is `RunCreated`");
        seq += 1;
        connection.prepare_cached("INSERT INTO events (run, seq, at, sum, json) VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
            key,
            seq,
            at,
            crc32(json.as_bytes()),
            json,
        ))?;
    }
    Ok(u64::try_from(first).unwrap_or_default())
}

pub(super) fn status_text(status: RunStatus) -> String {
    serde_json::to_value(status).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// CRC-32 (IEEE 802.3): SQLite does not notice a bit that the disk turned over inside a text.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { 0xEDB8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, byte| TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_sum_is_the_known_one() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926);
    }
}
