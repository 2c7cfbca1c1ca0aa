//! Scripts of POSIX shell on a host, as one user, with failures that say what could not be done.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Finished, Host, Invocation, OnLine, Streams};
use crate::error::StepError;
use crate::secret::{Text, Vault};

/// Writes a file whole or not at all; what was there gives its owner and mode.
const WRITE: &str = r#"set -e; t="$1.ferry-$$"; umask 077; trap 'rm -f "$t"' EXIT; cat >"$t"
if [ -e "$1" ]; then chmod --reference="$1" "$t"; [ "$(id -u)" != 0 ] || chown --reference="$1" "$t"; fi
sync "$t" 2>/dev/null || sync; mv -f "$t" "$1"; trap - EXIT"#;

/// A host, and the user of the operating system that scripts and programs run as there.
#[derive(Debug, Clone)]
pub struct Shell {
    /// The host.
    pub host: Arc<dyn Host>,
    /// The user; the host's own unless given.
    pub run_as: Option<String>,
    /// The secrets.
    pub vault: Vault,
    /// Ends what is at work.
    pub cancel: CancellationToken,
}

impl Shell {
    /// The host's name.
    pub fn host(&self) -> &str {
        self.host.name()
    }

    /// Runs a script with these arguments, and gives what it says and how it ended.
    pub async fn try_script(&self, script: &str, arguments: &[&str], input: Option<Text>) -> Result<Finished, StepError> {
        let argv = ["sh", "-c", script, "ferry"].into_iter().chain(arguments.iter().copied());
        let mut invocation = Invocation::new(argv);
        invocation.stdin = input;
        self.run(invocation, &|_, _| {}).await
    }

    /// The same, where anything but success is a failure. `doing` completes "cannot …".
    pub async fn script(&self, doing: &str, script: &str, arguments: &[&str]) -> Result<String, StepError> {
        let finished = self.try_script(script, arguments, None).await?;
        self.succeeded(doing, &finished)?;
        Ok(String::from_utf8_lossy(&finished.stdout).trim_end().to_owned())
    }

    /// Runs a program; each line that it says is handed on.
    pub async fn run(&self, invocation: Invocation, on_line: OnLine<'_>) -> Result<Finished, StepError> {
        self.stream(invocation, Streams::default(), on_line).await
    }

    /// The same with streams in place of what it reads or says.
    pub async fn stream(
        &self,
        mut invocation: Invocation,
        mut streams: Streams<'_>,
        on_line: OnLine<'_>,
    ) -> Result<Finished, StepError> {
        if invocation.run_as.is_none() {
            invocation.run_as.clone_from(&self.run_as);
        }
        // What programs say is read here, and shown.
        invocation.env.entry("LC_ALL".to_owned()).or_insert_with(|| Text::new("C"));
        let finished = self.host.stream(&invocation, &self.vault, &self.cancel, streams.reborrow(), on_line).await?;
        if finished.was_asked {
            return Err(StepError::transient("stopped on request"));
        }
        Ok(finished)
    }

    /// A program's end as a failure, unless it succeeded.
    pub fn succeeded(&self, doing: &str, finished: &Finished) -> Result<(), StepError> {
        if finished.code == Some(0) {
            return Ok(());
        }
        let said = finished.stderr_tail.trim();
        let message = format!("cannot {doing} on `{}`: {}", self.host(), if said.is_empty() { "it says nothing" } else { said });
        let full = said.contains("No space left on device");
        let refused = said.contains("Permission denied") || said.contains("Operation not permitted");
        Err(match (full, refused) {
            (true, _) => StepError::needs_person(message).help("make room on the host's disk, then resume the run"),
            (_, true) => {
                let who = self.run_as.as_deref().map_or_else(|| "who logs in".to_owned(), |user| format!("`{user}`"));
                StepError::needs_person(message).help(format!("{who} has to be allowed to do this there"))
            }
            _ => StepError::permanent(message),
        })
    }

    /// A text file; `None` when there is none.
    pub async fn read(&self, path: &str) -> Result<Option<String>, StepError> {
        let finished = self.try_script(r#"[ -e "$1" ] || exit 44; cat "$1""#, &[path], None).await?;
        if finished.code == Some(44) {
            return Ok(None);
        }
        self.succeeded(&format!("read `{path}`"), &finished)?;
        Ok(Some(String::from_utf8_lossy(&finished.stdout).into_owned()))
    }

    /// Writes a text file whole or not at all; a new one can be read by its owner alone.
    pub async fn write(&self, path: &str, content: impl Into<String>) -> Result<(), StepError> {
        let finished = self.try_script(WRITE, &[path], Some(Text::new(content))).await?;
        self.succeeded(&format!("write `{path}`"), &finished)
    }
}
