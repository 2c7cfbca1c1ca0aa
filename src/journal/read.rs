//! Reads runs: their list, their events, and which run a text means.

use jiff::Timestamp;
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};

use super::append::crc32;
use super::lease::{holder_of, time};
use super::{Journal, JournalError};
use crate::engine::{Event, RunStatus};

/// An event with its place and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 1 within the run, without gaps.
    pub seq: u64,
    /// When it was written. For people: order is by `seq`.
    pub at: Timestamp,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// A line of the list of runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// Its id.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// What the last session ended with; `running` and `rolling_back` while one is at work, or when its runner died.
    pub status: RunStatus,
    /// When it was created.
    pub started: Timestamp,
    /// When the last session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Who started it.
    pub by: String,
    /// Whether a runner is at work on it.
    pub live: bool,
}

impl Journal {
    /// All runs, the newest first.
    pub fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        let now = self.now();
        let reader = self.reader();
        let list = || -> Result<Vec<RunSummary>, rusqlite::Error> {
            let mut statement = reader
                .prepare_cached("SELECT id, pipeline, by, status, started, ended FROM runs ORDER BY started DESC, key DESC")?;
            let rows = statement.query_map([], |row| {
                let status: String = row.get(3)?;
                Ok(RunSummary {
                    id: row.get(0)?,
                    pipeline: row.get(1)?,
                    by: row.get(2)?,
                    status: serde_json::from_value(status.into()).unwrap_or(RunStatus::Running),
                    started: time(row.get(4)?),
                    ended: row.get::<_, Option<i64>>(5)?.map(time),
                    live: false,
                })
            })?;
            let mut runs = rows.collect::<Result<Vec<_>, _>>()?;
            for run in &mut runs {
                run.live = holder_of(&reader, &run.id, now)?.is_some();
            }
            Ok(runs)
        };
        list().map_err(|error| JournalError::of_reading(&self.path(), &error))
    }

    /// The summary of one run.
    pub fn run(&self, id: &str) -> Result<RunSummary, JournalError> {
        self.runs()?.into_iter().find(|run| run.id == id).ok_or_else(|| JournalError::NoRun { text: id.to_owned() })
    }

    /// The id of the run that a text means: an id, a unique part at its start or end, or `last`.
    pub fn find_run(&self, text: &str) -> Result<String, JournalError> {
        let ids: Vec<String> = self.runs()?.into_iter().map(|run| run.id).collect();
        let none = || JournalError::NoRun { text: text.to_owned() };
        if text == "last" {
            return ids.into_iter().next().ok_or_else(none);
        }
        let wanted = text.to_lowercase();
        if wanted.is_empty() {
            return Err(none());
        }
        if ids.contains(&wanted) {
            return Ok(wanted);
        }
        // Ids begin with the time: runs of one afternoon differ in their ends only.
        let mut runs: Vec<String> = ids.into_iter().filter(|id| id.starts_with(&wanted) || id.ends_with(&wanted)).collect();
        match (runs.pop(), runs.is_empty()) {
            (None, _) => Err(none()),
            (Some(run), true) => Ok(run),
            (Some(run), false) => {
                runs.push(run);
                Err(JournalError::Ambiguous { text: text.to_owned(), runs })
            }
        }
    }

    /// All events of a run, in order.
    pub fn records(&self, run: &str) -> Result<Vec<Record>, JournalError> {
        self.records_after(run, 0)
    }

    /// The events of a run behind this number.
    pub fn records_after(&self, run: &str, after: u64) -> Result<Vec<Record>, JournalError> {
        let mut records = Vec::new();
        self.each(run, after, |record| records.push(record))?;
        Ok(records)
    }

    /// Hands over the events of a run behind this number one by one: a long run need not lie in memory whole. Nothing
    /// else is read from this journal meanwhile.
    pub fn each(&self, run: &str, after: u64, mut take: impl FnMut(Record)) -> Result<(), JournalError> {
        let path = self.path();
        let of = |error: rusqlite::Error| JournalError::of_reading(&path, &error);
        let damaged = |seq: u64, what: String| JournalError::Damaged {
            path: path.clone(),
            what: format!("event {seq} of run `{run}` {what}"),
        };
        let reader = self.reader();
        let key: Option<i64> = reader
            .prepare_cached("SELECT key FROM runs WHERE id = ?1")
            .and_then(|mut select| select.query_row([run], |row| row.get(0)).optional())
            .map_err(of)?;
        let key = key.ok_or_else(|| JournalError::NoRun { text: run.to_owned() })?;
        let mut statement = reader
            .prepare_cached("SELECT seq, at, sum, json FROM events WHERE run = ?1 AND seq > ?2 ORDER BY seq")
            .map_err(of)?;
        let mut rows = statement.query((key, i64::try_from(after).unwrap_or(i64::MAX))).map_err(of)?;
        let mut expected = after;
        while let Some(row) = rows.next().map_err(of)? {
            expected += 1;
            let seq = u64::try_from(row.get::<_, i64>(0).map_err(of)?).unwrap_or_default();
            if seq != expected {
                return Err(damaged(expected, format!("is missing, the next is {seq}")));
            }
            let json = row.get_ref(3).map_err(of)?;
            let json = json.as_str().map_err(|error| damaged(seq, format!("is no text: {error}")))?;
            if row.get::<_, i64>(2).map_err(of)? != i64::from(crc32(json.as_bytes())) {
                return Err(damaged(seq, "does not have its check sum".to_owned()));
            }
            let event = serde_json::from_str(json).map_err(|error| damaged(seq, format!("cannot be read: {error}")))?;
            take(Record { seq, at: time(row.get(1).map_err(of)?), event });
        }
        Ok(())
    }
}
