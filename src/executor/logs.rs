//! The logs of a run's steps: one file each, masked before it is written.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::session::Session;
use crate::engine::StepPath;
use crate::steps::LogStream;

/// Names of files end somewhere; keys of a `for_each` may not.
const LONGEST_NAME: usize = 180;

/// What the first line of a log file begins with: the step's path follows.
const TITLE: &str = "# step ";

/// The log of one step of a run. All attempts write to the same file.
pub(super) struct StepLog {
    session: Arc<Session>,
    step: StepPath,
    attempt: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    is_broken: bool,
    held: VecDeque<(Timestamp, LogStream, String)>,
}

impl StepLog {
    pub(super) fn new(session: Arc<Session>, step: StepPath, attempt: u32) -> Self {
        Self { session, step, attempt, state: Mutex::default() }
    }

    /// Takes a line. With secrets of several lines about, the last lines are held back: the lines of a secret become
    /// one mask only when they are seen together.
    pub(super) fn line(&self, stream: LogStream, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.session.clock.now();
        let window = self.session.held_back();
        if window == 0 {
            let masked = self.session.vault.mask(line);
            return self.write(&mut state, now, stream, &masked);
        }
        for part in line.split('\n') {
            state.held.push_back((now, stream, part.to_owned()));
        }
        self.release(&mut state, window);
    }

    /// Writes what is held back.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.release(&mut state, 0);
    }

    fn release(&self, state: &mut State, window: usize) {
        let mut total: usize = state.held.iter().map(|(_, _, line)| line.len() + 1).sum();
        if total <= window {
            return;
        }
        // Masked as one text: what stands for several lines takes the place of the first of them.
        let joined = state.held.iter().map(|(_, _, line)| line.as_str()).collect::<Vec<_>>().join("\n");
        let masked = self.session.vault.mask(&joined);
        if masked.matches('\n').count() + 1 != state.held.len() {
            let (at, stream, _) = state.held[0].clone();
            state.held = masked.split('\n').map(|line| (at, stream, line.to_owned())).collect();
            total = masked.len() + 1;
        }
        while total > window {
            let Some((at, stream, line)) = state.held.pop_front() else { return };
            total -= line.len() + 1;
            let masked = self.session.vault.mask(&line);
            self.write(state, at, stream, &masked);
        }
    }

    fn write(&self, state: &mut State, at: Timestamp, stream: LogStream, text: &str) {
        for line in text.split('\n') {
            for observer in &self.session.observers {
                observer.log(&self.step, stream, line);
            }
            let Some(dir) = self.session.dir.as_ref().filter(|_| !state.is_broken) else { continue };
            let written = self.file(state, dir).and_then(|file| {
                // One write for a line: a reader that follows never sees half of one.
                file.write_all(format!("{at} {} {} {line}\n", self.attempt, stream_name(stream)).as_bytes())
            });
            if let Err(error) = written {
                // The journal is the truth about a run; a log is not worth stopping it.
                tracing::warn!(step = %self.step, %error, "cannot write the step's log");
                state.is_broken = true;
            }
        }
    }

    fn file<'a>(&self, state: &'a mut State, dir: &Path) -> std::io::Result<&'a mut File> {
        if state.file.is_none() {
            let mut folders = std::fs::DirBuilder::new();
            folders.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
            folders.create(dir)?;
            let mut file = OpenOptions::new().create(true).append(true).open(dir.join(file_name(&self.step)))?;
            if file.seek(SeekFrom::End(0))? == 0 {
                writeln!(file, "{TITLE}{}", self.step)?;
            }
            state.file = Some(file);
        }
        Ok(state.file.as_mut().expect("opened above"))
    }
}

fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Ferry => "ferry",
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}

/// The name of a step's log file in the run's folder.
pub(super) fn file_name(step: &StepPath) -> String {
    format!("{}.log", folder_name(step))
}

/// The step's path as one name in a folder. Keys are escaped already and ids need no escape, so that what separates steps
/// is the only `/` outside brackets, and `%2F` there means nothing else.
pub(super) fn folder_name(step: &StepPath) -> String {
    let name = step.as_str().replace('/', "%2F").replace('\\', "%5C");
    if name.len() <= LONGEST_NAME && !name.starts_with('.') {
        return name;
    }
    let digest = format!("{:x}", Sha256::digest(step.as_str()));
    let cut = (0..=LONGEST_NAME - 20).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    format!("~{}~{}", &name[..cut.min(name.len())], &digest[..16])
}

/// A line of a step's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// In which attempt; 0 while the world was inspected.
    pub attempt: u32,
    /// Where it comes from.
    pub stream: LogStream,
    /// What it says.
    pub text: String,
}

/// The log of one step, to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The step.
    pub step: StepPath,
    /// The file.
    pub path: PathBuf,
}

impl LogFile {
    /// The whole lines behind this byte, and where to go on: a log that is being written can be followed.
    pub fn read(&self, from: u64) -> std::io::Result<(Vec<LogLine>, u64)> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new(file);
        let (mut lines, mut at, mut text) = (Vec::new(), from, Vec::new());
        loop {
            text.clear();
            let read = reader.read_until(b'\n', &mut text)?;
            if read == 0 || text.last() != Some(&b'\n') {
                return Ok((lines, at));
            }
            at += read as u64;
            lines.extend(parse(String::from_utf8_lossy(&text[..read - 1]).as_ref()));
        }
    }
}

fn parse(line: &str) -> Option<LogLine> {
    let mut fields = line.splitn(4, ' ');
    let at = fields.next()?.parse().ok()?;
    let attempt = fields.next()?.parse().ok()?;
    let stream = match fields.next()? {
        "ferry" => LogStream::Ferry,
        "stdout" => LogStream::Stdout,
        "stderr" => LogStream::Stderr,
        _ => return None,
    };
    Some(LogLine { at, attempt, stream, text: fields.next().unwrap_or_default().to_owned() })
}

/// The logs in a run's folder (`Journal::run_dir`), by step.
pub fn log_files(dir: &Path) -> std::io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "log") {
            continue;
        }
        let mut title = String::new();
        BufReader::new(File::open(&path)?).read_line(&mut title)?;
        if let Some(step) = title.trim_end_matches('\n').strip_prefix(TITLE) {
            files.push(LogFile { step: StepPath::from(step), path });
        }
    }
    files.sort_by(|a, b| a.step.cmp(&b.step));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_step_has_a_file_of_its_own() {
        let long = "k".repeat(1024);
        let names: std::collections::BTreeSet<_> =
            ["a", "a/b", "a[%2F]", ".a", "a[%2Fb]", "a[\\]", "a[%255C]", &format!("x[{long}]"), &format!("x[{long}y]")]
                .into_iter()
                .map(|step| file_name(&StepPath::from(step)))
                .collect();
        assert_eq!(names.len(), 9, "{names:?}");
        assert!(names.iter().all(|name| name.len() < 255 && !name.contains('/') && !name.starts_with('.')), "{names:?}");
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = parse("2026-01-02T03:04:05.5Z 2 stderr  two  spaces").expect("a line");
        assert_eq!((line.attempt, line.stream, line.text.as_str()), (2, LogStream::Stderr, " two  spaces"));
        assert!(parse("# step a").is_none());
    }
}
