//! A run as JSON lines on stdout: every record of the journal, progress, and what steps write.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use crate::engine::{Engine, StepPath};
use crate::executor::Observer;
use crate::journal::Record;
use crate::steps::{LogStream, Progress};

/// A program that reads along is told of a step's progress this often.
const EVERY: Duration = Duration::from_secs(1);

/// One line of the stream.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Record {
        run: &'a str,
        #[serde(flatten)]
        record: &'a Record,
        /// It came too late, or answers another question: it changed nothing.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        dropped: bool,
    },
    Progress {
        step: &'a StepPath,
        attempt: u32,
        #[serde(flatten)]
        progress: &'a Progress,
    },
    Log {
        step: &'a StepPath,
        stream: LogStream,
        line: &'a str,
    },
}

/// Writes JSON lines.
#[derive(Debug, Default)]
pub struct JsonLines {
    told: Mutex<HashMap<StepPath, Instant>>,
}

impl Observer for JsonLines {
    fn record(&self, record: &Record, engine: &Engine) {
        write(&Line::Record { run: engine.run(), record, dropped: engine.has_dropped() });
    }

    fn progress(&self, step: &StepPath, attempt: u32, progress: &Progress) {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(step).is_some_and(|last| now.duration_since(*last) < EVERY) {
            return;
        }
        told.insert(step.clone(), now);
        drop(told);
        write(&Line::Progress { step, attempt, progress });
    }

    fn log(&self, step: &StepPath, stream: LogStream, line: &str) {
        write(&Line::Log { step, stream, line });
    }
}

/// A reader that has gone away is no reason to stop a run.
fn write(line: &Line<'_>) {
    let text =
        serde_json::to_string(line).unwrap_or_else(|error| json!({ "type": "error", "message": error.to_string() }).to_string());
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
