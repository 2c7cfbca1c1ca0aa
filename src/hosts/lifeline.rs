//! The lifeline: a guardian process that ends a program's whole process group when ferry is gone.
//!
//! The guardian is started before the program and leads the group that the program joins, so there is no moment at
//! which the program runs unguarded and the group's number cannot be taken by others. It waits on a pipe whose other
//! end only ferry holds (close-on-exec: no child inherits it). A line means that the program is over; the end of the
//! pipe means that ferry died, however it died, and the group is killed.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};

use crate::error::StepError;

/// The guardian has to outlive the SIGTERM that a cancel sends to its group: the grace period is not over then.
/// `kill` is a shell's own: nothing has to be found or forked when it counts.
/// A folder that belongs to the group goes with it.
const GUARD: &str =
    "trap '' TERM INT HUP QUIT USR1 USR2 PIPE; read -r over || { [ -z \"$1\" ] || rm -rf -- \"$1\"; kill -KILL 0; }";

/// A process group that ends with ferry. Dropping it without [`Lifeline::release`] ends the group too.
pub(in crate::hosts) struct Lifeline {
    guardian: Child,
    line: Option<ChildStdin>,
    group: Pid,
}

impl Lifeline {
    /// Starts a guardian in a new process group.
    pub(in crate::hosts) fn hold() -> Result<Self, StepError> {
        Self::hold_with(None)
    }

    /// The same for a group that has a folder, which is removed with it.
    pub(in crate::hosts) fn hold_with(folder: Option<&Path>) -> Result<Self, StepError> {
        let failed = |error: std::io::Error| {
            StepError::transient("cannot start the guardian of a command")
                .cause(error)
                .help("a command needs `/bin/sh`, a free process and three free file descriptors on this machine")
        };
        let mut guardian = Command::new("/bin/sh")
            .args(["-c", GUARD, "ferry-lifeline"])
            .args(folder)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let line = guardian.stdin.take();
        let group = guardian.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = group.ok_or_else(|| failed(std::io::Error::other("it ended at once")))?;
        Ok(Self { guardian, line, group })
    }

    /// The number of the group that the program is to join.
    pub(in crate::hosts) fn group(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    /// Sends a signal to every process of the group. The guardian is not reaped before `release`, so the number is
    /// ours; a group that is already gone is what the caller wanted.
    pub(in crate::hosts) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// Lets the guardian go: what the program left in the background on purpose stays.
    pub(in crate::hosts) async fn release(mut self) {
        if let Some(mut line) = self.line.take() {
            // An error means that the guardian was killed with its group.
            let _ = line.write_all(b"over\n").await;
        }
        let _ = self.guardian.wait().await;
    }
}
