//! How much a step had moved when, kept beside its log: what a report draws. A page of it however long the step works.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::logs::folder_name;
use crate::engine::StepPath;
use crate::steps::Progress;

/// No more samples than this: then every second one goes, and the next are taken half as often.
const MOST: usize = 240;
/// How far apart the first samples are.
const FIRST: Duration = Duration::from_millis(250);
/// How often they are written while the step works. What a dead runner has not written is lost: it is a picture.
const WRITE_EVERY: Duration = Duration::from_secs(2);

/// What was done at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since the attempt began to move.
    pub ms: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Objects done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// How many requests were under way at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u64>,
}

/// The samples of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// The step.
    pub step: StepPath,
    /// The attempt.
    pub attempt: u32,
    /// When it began to move.
    pub from: Timestamp,
    /// In order of time.
    pub samples: Vec<Sample>,
}

/// Takes samples of an attempt and writes them.
#[derive(Debug)]
pub(super) struct Sampler {
    file: PathBuf,
    taken: Samples,
    every: Duration,
    written: Duration,
}

impl Sampler {
    /// For an attempt that moves from now on. `dir` is the run's folder.
    pub fn new(dir: &Path, step: &StepPath, attempt: u32, now: Timestamp) -> Self {
        let file = folder(dir).join(format!("{}.{attempt}.json", folder_name(step)));
        let taken = Samples { step: step.clone(), attempt, from: now, samples: Vec::new() };
        Self { file, taken, every: FIRST, written: Duration::ZERO }
    }

    /// Takes one if it is time, `since` the beginning.
    pub fn take(&mut self, progress: &Progress, since: Duration) {
        let Some(bytes) = progress.bytes else { return };
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let sample = Sample { ms, bytes, objects: progress.objects, at_once: progress.at_once };
        let samples = &mut self.taken.samples;
        let last = samples.last().map(|last| Duration::from_millis(last.ms));
        if last.is_some_and(|last| since < last + self.every) {
            return;
        }
        samples.push(sample);
        if samples.len() >= MOST {
            let mut number = 0;
            samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.every *= 2;
        }
        if since >= self.written + WRITE_EVERY.max(self.every) {
            self.written = since;
            self.write();
        }
    }

    /// The last one, whenever it comes.
    pub fn finish(&mut self, progress: &Progress, since: Duration) {
        self.every = Duration::ZERO;
        self.take(progress, since);
        // What is over at once is no picture.
        if self.taken.samples.len() > 2 {
            self.write();
        }
    }

    fn write(&self) {
        let written = std::fs::create_dir_all(self.file.parent().unwrap_or(Path::new(".")))
            .and_then(|()| serde_json::to_vec(&self.taken).map_err(std::io::Error::other))
            .and_then(|text| std::fs::write(&self.file, text));
        if let Err(error) = written {
            tracing::debug!(step = %self.taken.step, %error, "cannot write the step's samples");
        }
    }
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("samples")
}

/// The samples in a run's folder (`Journal::run_dir`), by step and attempt. What cannot be read is left out.
pub fn samples(dir: &Path) -> Vec<Samples> {
    let entries = std::fs::read_dir(folder(dir)).into_iter().flatten().flatten();
    let read = entries.filter_map(|entry| std::fs::read(entry.path()).ok());
    let mut found: Vec<Samples> = read.filter_map(|text| serde_json::from_slice(&text).ok()).collect();
    found.sort_by(|a, b| (&a.step, a.attempt).cmp(&(&b.step, b.attempt)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_progress_is_a_page_of_samples() {
        let dir = tempfile::tempdir().expect("a directory");
        let step = StepPath::from("copy[a/b]");
        let mut sampler = Sampler::new(dir.path(), &step, 2, Timestamp::default());
        let progress = |ms: u64| Progress { bytes: Some(ms * 7), at_once: Some(32), ..Progress::default() };
        for ms in (0..86_400_000).step_by(1000) {
            sampler.take(&progress(ms), Duration::from_millis(ms));
        }
        sampler.finish(&progress(86_400_000), Duration::from_hours(24));
        let found = samples(dir.path());
        let [one] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&one.step, one.attempt), (&step, 2));
        assert!((100..=MOST).contains(&one.samples.len()), "{}", one.samples.len());
        assert!(one.samples.is_sorted_by(|a, b| a.ms < b.ms && a.bytes < b.bytes));
        assert_eq!(one.samples.last().map(|last| last.ms), Some(86_400_000));
        assert!(std::fs::metadata(folder(dir.path())).is_ok());
    }

    #[test]
    fn what_is_over_at_once_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut sampler = Sampler::new(dir.path(), &StepPath::from("a"), 1, Timestamp::default());
        sampler.finish(&Progress { bytes: Some(1), ..Progress::default() }, Duration::from_millis(1));
        assert!(samples(dir.path()).is_empty());
    }
}
