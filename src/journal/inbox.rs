//! Requests for a run from other processes: the runner finds them here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lease::time;
use super::{Journal, JournalError};
use crate::engine::StepPath;

/// What somebody asks of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Stop, run `finally`, stay resumable.
    Cancel {
        /// Who.
        by: String,
    },
    /// Stop, undo, run `finally`.
    Rollback {
        /// Who.
        by: String,
        /// Whether going back is meant although the pivot has started.
        #[serde(default)]
        past_pivot: bool,
    },
    /// The answer to an approval.
    Approve {
        /// Who.
        by: String,
        /// The step.
        step: StepPath,
        /// Of what the person saw.
        digest: String,
        /// Yes or no.
        approved: bool,
        /// In the person's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
}

/// A request in a run's inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its number: `append_answering` takes it out.
    pub id: i64,
    /// When it came.
    pub at: Timestamp,
    /// What it says.
    pub request: Request,
}

impl Journal {
    /// Puts a request into a run's inbox.
    pub async fn put(&self, run: &str, request: &Request) -> Result<(), JournalError> {
        let (now, path, run) = (self.now(), self.path(), run.to_owned());
        let json = serde_json::to_string(request).expect("a request is plain data");
        self.write(move |connection| {
            connection
                .execute("INSERT INTO inbox (run, at, json) VALUES (?1, ?2, ?3)", (&run, now.as_microsecond(), &json))
                .map_err(|error| JournalError::of(&path, &error))?;
            Ok(())
        })
        .await
    }

    /// The requests in a run's inbox behind this number, oldest first. They stay until they are answered.
    pub fn letters(&self, run: &str, after: i64) -> Result<Vec<Letter>, JournalError> {
        let reader = self.reader();
        let list = || -> Result<Vec<Letter>, rusqlite::Error> {
            let mut statement = reader.prepare_cached("SELECT id, at, json FROM inbox WHERE run = ?1 AND id > ?2 ORDER BY id")?;
            let rows = statement.query_map((run, after), |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
            let mut letters = Vec::new();
            for row in rows {
                let (id, at, json): (i64, i64, String) = row?;
                // A request of a later ferry is not for us; it stays.
                if let Ok(request) = serde_json::from_str(&json) {
                    letters.push(Letter { id, at: time(at), request });
                }
            }
            Ok(letters)
        };
        list().map_err(|error| JournalError::of_reading(&self.path(), &error))
    }

    /// Changes whenever any connection but this journal's reading one has written: cheap to ask often.
    pub fn version(&self) -> Result<i64, JournalError> {
        self.reader().query_row("PRAGMA data_version", [], |row| row.get(0)).map_err(|error| self.failed(&error))
    }
}
