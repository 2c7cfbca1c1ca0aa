//! Acting on a server's host as the user who owns the server: its files, its programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connect::Reach;
use super::relay;
use super::server::Server;
use crate::error::StepError;
use crate::hosts::{Finished, Host, Invocation};
use crate::secret::Text;

/// Writes a file whole or not at all; what was there gives its owner and mode.
const WRITE: &str = r#"set -e; t="$1.ferry-$$"; umask 077; trap 'rm -f "$t"' EXIT; cat >"$t"
if [ -e "$1" ]; then chmod --reference="$1" "$t"; [ "$(id -u)" != 0 ] || chown --reference="$1" "$t"; fi
sync "$t" 2>/dev/null || sync; mv -f "$t" "$1"; trap - EXIT"#;

/// Where distributions put the programs of a major version, then wherever `pg_config` says.
const FIND: &str = r#"for d in "/usr/lib/postgresql/$1/bin" "/usr/pgsql-$1/bin" "/usr/lib/postgresql$1/bin" "/opt/homebrew/opt/postgresql@$1/bin" "/usr/local/pgsql/bin"; do
  if [ -x "$d/pg_ctl" ]; then echo "$d"; exit 0; fi; done
d=$(pg_config --bindir 2>/dev/null) && [ -x "$d/pg_ctl" ] && { echo "$d"; exit 0; }
d=$(command -v pg_ctl) && { dirname "$d"; exit 0; }; exit 4"#;

/// The user of the operating system who owns a server, on its host.
#[derive(Debug, Clone)]
pub struct Owner {
    pub(super) host: Arc<dyn Host>,
    pub(super) reach: Reach,
    pub(super) user: String,
}

impl Owner {
    /// The owner of this server.
    pub fn of(reach: &Reach, server: &Server) -> Result<Self, StepError> {
        Ok(Self { host: reach.host(server)?, reach: reach.clone(), user: server.run_as.clone() })
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        self.host.name()
    }

    /// Runs a script of POSIX shell with these arguments, and gives what it says and how it ended.
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

    /// Runs a program with these secrets in its environment; each line it says is handed on.
    pub async fn program(
        &self,
        argv: Vec<String>,
        env: BTreeMap<String, Text>,
        on_line: &(dyn Fn(bool, &str) + Send + Sync),
    ) -> Result<Finished, StepError> {
        self.run(Invocation { env, ..Invocation::new(argv) }, on_line).await
    }

    async fn run(&self, mut invocation: Invocation, on_line: &(dyn Fn(bool, &str) + Send + Sync)) -> Result<Finished, StepError> {
        invocation.run_as = Some(self.user.clone());
        self.execute_as_asked(invocation, on_line).await
    }

    /// Runs a program as whoever it asks to be.
    pub(super) async fn execute(&self, invocation: &Invocation) -> Result<Finished, StepError> {
        self.execute_as_asked(invocation.clone(), &|_, _| {}).await
    }

    async fn execute_as_asked(
        &self,
        mut invocation: Invocation,
        on_line: &(dyn Fn(bool, &str) + Send + Sync),
    ) -> Result<Finished, StepError> {
        // Messages of PostgreSQL's programs are read here, and shown.
        invocation.env.entry("LC_ALL".to_owned()).or_insert_with(|| Text::new("C"));
        let finished = self.host.execute(&invocation, &self.reach.vault, &self.reach.cancel, on_line).await?;
        if finished.was_asked {
            return Err(StepError::transient("stopped on request"));
        }
        Ok(finished)
    }

    /// Ends connections to a socket of this host that earlier attempts of the same step have left behind. What they sent
    /// may be on its way for long: a network that was cut delivers it when it is back.
    pub async fn end_left(&self, socket: &str) -> Result<(), StepError> {
        self.script("end connections that were left", relay::END_LEFT, &[socket, &self.reach.application]).await.map(drop)
    }

    /// A program's end as a failure, unless it succeeded.
    pub fn succeeded(&self, doing: &str, finished: &Finished) -> Result<(), StepError> {
        if finished.code == Some(0) {
            return Ok(());
        }
        let said = finished.stderr_tail.trim();
        let message = format!("cannot {doing} on `{}`: {}", self.host(), if said.is_empty() { "it says nothing" } else { said });
        let full = said.contains("No space left on device");
        let refused = said.contains("Permission denied");
        Err(match (full, refused) {
            (true, _) => StepError::needs_person(message).help("make room on the host's disk, then resume the run"),
            (_, true) => StepError::needs_person(message).help(format!("`{}` has to be allowed to do this there", self.user)),
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

    /// The folder of PostgreSQL's programs of this major version.
    pub async fn programs(&self, server: &Server, major: u32) -> Result<String, StepError> {
        if let Some(bin) = &server.bin {
            return Ok(bin.trim_end_matches('/').to_owned());
        }
        let finished = self.try_script(FIND, &[&major.to_string()], None).await?;
        if finished.code == Some(4) {
            return Err(StepError::permanent(format!("PostgreSQL {major} is not installed on `{}`", self.host()))
                .help(format!("install it there (Debian: `postgresql-{major}`), or say where its programs are with `bin`")));
        }
        self.succeeded("look for PostgreSQL's programs", &finished)?;
        Ok(String::from_utf8_lossy(&finished.stdout).trim().to_owned())
    }

    /// The same, for a server that is to work on files of this major version: programs of another are refused.
    pub async fn server_programs(&self, server: &Server, major: u32) -> Result<String, StepError> {
        let bin = self.programs(server, major).await?;
        let said = self.script("ask PostgreSQL's programs for their version", r#""$1/pg_ctl" --version"#, &[&bin]).await?;
        let number = said.split_once("(PostgreSQL) ").map_or("", |(_, rest)| rest);
        let number = number.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
        if number == major.to_string() {
            return Ok(bin);
        }
        Err(StepError::permanent(format!("`{bin}` of `{}` is not PostgreSQL {major}: it says `{said}`", self.host()))
            .help(format!("files of one major version are nothing to another: give the folder of {major}'s programs with `bin`, or use `postgres.logical`")))
    }
}
