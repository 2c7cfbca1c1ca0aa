//! A folder of its own for each test, and the binary in it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

/// A project folder that goes away with the test.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("the folder can be made");
        std::fs::write(&path, text).expect("the file can be written");
        path
    }

    /// `ferry` with these arguments, in the folder, away from the caller's settings.
    pub fn ferry(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("ferry").expect("the binary is built");
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("FERRY_STORE")
            .env_remove("FERRY_LOG")
            .env_remove("COLUMNS")
            .env("NO_COLOR", "1");
        command
    }

    /// Runs it, and gives exit status, stdout and stderr.
    pub fn run(&self, args: &[&str]) -> Ran {
        let output = self.ferry(args).output().expect("the binary starts");
        Ran::of(&output)
    }

    /// Starts it, and leaves it running.
    pub fn start(&self, args: &[&str]) -> Started {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("ferry"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("FERRY_STORE")
            .env_remove("FERRY_LOG")
            .env_remove("COLUMNS")
            .env("NO_COLOR", "1");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Started { child: Some(child.expect("the binary starts")), lines: None }
    }

    /// Waits until a file is there.
    #[track_caller]
    pub fn wait_for(&self, name: &str) {
        Self::wait_until(|| self.path(name).exists());
    }

    /// Waits until something is so, a minute at most.
    #[track_caller]
    pub fn wait_until(mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_mins(1), "it did not come to it within a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process that is killed when the test is over, however that comes.
#[derive(Debug)]
pub struct Started {
    child: Option<Child>,
    /// The lines that it writes, once somebody listens.
    lines: Option<std::sync::mpsc::Receiver<String>>,
}

impl Started {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it has not been waited for").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let child = self.child.as_mut().expect("it has not been waited for");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// `kill -9` when it has written so many lines and begins the next. Whether it came to that.
    pub fn kill_at_line(&mut self, number: usize) -> bool {
        let child = self.child.as_mut().expect("it has not been waited for");
        let told = BufReader::new(child.stdout.take().expect("a pipe"));
        let has_come = told.lines().nth(number).is_some();
        let _ = child.kill();
        child.wait().expect("it can be waited for");
        has_come
    }

    /// `kill -9` some time after it has written a line with this text. Whether it came to that.
    pub fn kill_after(&mut self, text: &str, later: Duration) -> bool {
        let child = self.child.as_mut().expect("it has not been waited for");
        let mut told = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let has_come = told.any(|line| line.contains(text));
        if has_come {
            // Its pipe is read on, so that it does not wait for a reader.
            std::thread::spawn(move || told.for_each(drop));
            std::thread::sleep(later);
        }
        let _ = child.kill();
        let ended = child.wait().expect("it can be waited for");
        has_come && ended.code().is_none()
    }

    /// Waits until it has written a line with this text, since the last that was waited for. Whether it has: it may have
    /// ended.
    pub fn tells(&mut self, text: &str) -> bool {
        let child = self.child.as_mut().expect("it has not been waited for");
        let lines = self.lines.get_or_insert_with(|| {
            let told = BufReader::new(child.stdout.take().expect("a pipe"));
            let (say, lines) = std::sync::mpsc::channel();
            // It goes on reading when nobody listens any more, so that nobody waits for a reader.
            std::thread::spawn(move || told.lines().map_while(Result::ok).for_each(|line| drop(say.send(line))));
            lines
        });
        lines.iter().any(|line| line.contains(text))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = std::process::Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status();
        assert!(status.expect("`kill` runs").success());
    }

    /// Waits for its end.
    pub fn ends(mut self) -> Ran {
        let child = self.child.take().expect("it is waited for once");
        Ran::of(&child.wait_with_output().expect("it can be waited for"))
    }
}

impl Drop for Started {
    #[expect(clippy::print_stderr, reason = "the story of a failure is for people")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let Ok(output) = child.wait_with_output() else { return };
            if std::thread::panicking() {
                let ran = Ran::of(&output);
                eprintln!(
                    "a runner that was still at work, or had ended: {:?}\n--- stdout\n{}\n--- stderr\n{}",
                    ran.code, ran.stdout, ran.stderr
                );
            }
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit status, and shows everything when it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit status\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// The JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr))
    }
}
