//! A run as timestamped lines: for logs, pipes and terminals that cannot draw.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::telling::{Story, Told, one_line, progress_text, took_text};
use crate::engine::{Engine, StepPath};
use crate::executor::Observer;
use crate::journal::Record;
use crate::steps::{LogStream, Progress};

/// A step that moves is told of this often.
const EVERY: Duration = Duration::from_secs(10);

/// Writes a line for each piece of news to stderr.
#[derive(Debug)]
pub struct Plain {
    inner: Mutex<Inner>,
    shows_logs: bool,
}

#[derive(Debug, Default)]
struct Inner {
    story: Story,
    told: HashMap<StepPath, Instant>,
}

impl Plain {
    /// `shows_logs` adds what steps write.
    pub fn new(shows_logs: bool) -> Self {
        Self { inner: Mutex::default(), shows_logs }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Plain {
    fn record(&self, record: &Record, engine: &Engine) {
        let mut inner = self.inner();
        if let Some(told) = inner.story.tell(record, engine) {
            write_lines(&lines(&told, record.at));
        }
    }

    fn progress(&self, step: &StepPath, _attempt: u32, progress: &Progress) {
        let mut inner = self.inner();
        let now = Instant::now();
        // The first report of a step only starts its clock: what ends before the next is told by its end.
        let last = *inner.told.entry(step.clone()).or_insert(now);
        if now.duration_since(last) >= EVERY {
            inner.told.insert(step.clone(), now);
            write_lines(&[format!("{} · {step}  {}", time(jiff::Timestamp::now()), progress_text(progress))]);
        }
    }

    fn log(&self, step: &StepPath, stream: LogStream, line: &str) {
        if self.shows_logs || stream == LogStream::Ferry && line.starts_with("warning: ") {
            write_lines(&[format!("{}   {step} | {}", time(jiff::Timestamp::now()), one_line(line))]);
        }
    }
}

/// A piece of news as lines; what belongs to it is indented under it.
pub fn lines(told: &Told, at: jiff::Timestamp) -> Vec<String> {
    let time = time(at);
    let step = told.step.as_ref().map(|step| format!("{step}  ")).unwrap_or_default();
    let took = told.took.map(|took| format!("{}  ", took_text(took))).unwrap_or_default();
    let mut lines = vec![format!("{time} {} {step}{took}{}", told.mark.styled(), told.text).trim_end().to_owned()];
    lines.extend(told.more.iter().map(|line| format!("{:width$} {line}", "", width = time.len() + 2)));
    lines
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A stderr that is gone is no reason to stop a run.
fn write_lines(lines: &[String]) {
    let mut err = io::stderr().lock();
    for line in lines {
        let _ = writeln!(err, "{line}");
    }
}
