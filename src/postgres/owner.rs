//! Acting on a server's host as the user who owns the server: its files, its programs.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::connect::Reach;
use super::relay;
use super::server::Server;
use crate::error::StepError;
use crate::hosts::{Finished, Invocation, OnLine, Shell};
use crate::secret::Text;

/// Where distributions put the programs of a major version, then wherever `pg_config` says.
const FIND: &str = r#"for d in "/usr/lib/postgresql/$1/bin" "/usr/pgsql-$1/bin" "/usr/lib/postgresql$1/bin" "/opt/homebrew/opt/postgresql@$1/bin" "/usr/local/pgsql/bin"; do
  if [ -x "$d/pg_ctl" ]; then echo "$d"; exit 0; fi; done
d=$(pg_config --bindir 2>/dev/null) && [ -x "$d/pg_ctl" ] && { echo "$d"; exit 0; }
d=$(command -v pg_ctl) && { dirname "$d"; exit 0; }; exit 4"#;

/// The user of the operating system who owns a server, on its host: a shell, and where the programs are.
#[derive(Debug, Clone)]
pub struct Owner {
    shell: Shell,
    application: String,
}

impl Deref for Owner {
    type Target = Shell;

    fn deref(&self) -> &Shell {
        &self.shell
    }
}

impl Owner {
    /// The owner of this server.
    pub fn of(reach: &Reach, server: &Server) -> Result<Self, StepError> {
        let run_as = Some(server.run_as.clone());
        let shell = Shell { host: reach.host(server)?, run_as, vault: reach.vault.clone(), cancel: reach.cancel.clone() };
        Ok(Self { shell, application: reach.application.clone() })
    }

    /// Ends connections to a socket of this host that earlier attempts of the same step have left behind. What they sent
    /// may be on its way for long: a network that was cut delivers it when it is back.
    pub async fn end_left(&self, socket: &str) -> Result<(), StepError> {
        self.script("end connections that were left", relay::END_LEFT, &[socket, &self.application]).await.map(drop)
    }

    /// Runs a program with these secrets in its environment; each line it says is handed on.
    pub async fn program(
        &self,
        argv: Vec<String>,
        env: BTreeMap<String, Text>,
        on_line: OnLine<'_>,
    ) -> Result<Finished, StepError> {
        self.run(Invocation { env, ..Invocation::new(argv) }, on_line).await
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
