//! What a step needs on a database's host to work with an archive: this program, and the archive's settings.

use std::collections::BTreeMap;
use std::sync::Mutex;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::archive::Settings;
use crate::error::{ErrorClass, StepError};
use crate::hosts::{Invocation, Streams};
use crate::postgres::{Owner, Server};
use crate::steps::{LogStream, Progress, StepContext};

/// The machine, and the home of the server's owner.
const LOOK: &str = r#"uname -m; h=$(getent passwd "$(id -un)" 2>/dev/null | cut -d: -f6); [ -n "$h" ] || h=$HOME
echo "$h"; [ -w "$h" ] && echo writable || echo refused"#;

/// Whether the program is there: in its folder, or in another step's, from where it is linked. `$1` the folder, `$2` its hash.
const HAVE: &str = r#"for f in "$1/ferry" "$(dirname "$1")"/.ferry-*/ferry; do [ -f "$f" ] || continue
  [ "$(sha256sum <"$f" | cut -d' ' -f1)" = "$2" ] || continue
  [ "$f" = "$1/ferry" ] && { echo yes; exit 0; }
  umask 077; mkdir -p "$1" && ln -f "$f" "$1/ferry" && { echo yes; exit 0; }
done; echo no"#;

/// Takes a program in. `$1` the folder, `$2` its length.
const PUT: &str = r#"set -e; umask 077; mkdir -p "$1"; t="$1/ferry.new-$$"; trap 'rm -f "$t"' EXIT; cat >"$t"
[ "$(wc -c <"$t")" -eq "$2" ] || { echo "it did not come whole" >&2; exit 7; }
chmod 700 "$t"; sync "$t" 2>/dev/null || sync; mv -f "$t" "$1/ferry"; trap - EXIT"#;

/// A folder on the host of a server, of one step.
pub(super) struct Kit<'a> {
    ctx: &'a StepContext,
    server: &'a Server,
    pub owner: Owner,
    pub folder: String,
}

impl<'a> Kit<'a> {
    /// Where the folder is or will be; changes nothing.
    pub async fn look(ctx: &'a StepContext, server: &'a Server) -> Result<Self, StepError> {
        let owner = Owner::of(&ctx.reach(), server)?;
        let said = owner.script("look at the host", LOOK, &[]).await?;
        let mut lines = said.lines();
        let machine = lines.next().unwrap_or_default();
        if machine.replace("arm64", "aarch64") != std::env::consts::ARCH {
            return Err(StepError::permanent(format!(
                "`{}` is a {machine} machine, and this ferry is for {}",
                server.title(),
                std::env::consts::ARCH
            ))
            .help("run ferry on a machine of the same kind: it brings itself to the database's host"));
        }
        let home = lines.next().unwrap_or_default();
        if lines.next() != Some("writable") || !home.starts_with('/') {
            return Err(StepError::needs_person(format!(
                "`{}` may not write to its home `{home}` on `{}`",
                server.run_as, server.host
            ))
            .help("ferry and the archive's settings are put there: give that user a home of its own"));
        }
        let folder = format!("{}/.ferry-{}", home.trim_end_matches('/'), &ctx.idempotence_key()[..12]);
        Ok(Self { ctx, server, owner, folder })
    }

    /// The same folder as `look` has found it.
    pub fn at(ctx: &'a StepContext, server: &'a Server, folder: &str) -> Result<Self, StepError> {
        Ok(Self { ctx, server, owner: Owner::of(&ctx.reach(), server)?, folder: folder.to_owned() })
    }

    pub fn ferry(&self) -> String {
        format!("{}/ferry", self.folder)
    }

    pub fn settings(&self) -> String {
        format!("{}/archive.yaml", self.folder)
    }

    /// Brings the program, unless the same is there, and the settings of the archive at this place.
    pub async fn bring(&self, place: &str, change: impl FnOnce(&mut Settings)) -> Result<(), StepError> {
        self.bring_program().await?;
        let (place, stores) = self.ctx.stores.told(place)?;
        let mut settings = Settings::at(place);
        for (store, options) in stores {
            let mut told = BTreeMap::new();
            for (name, value) in options {
                told.insert(name, self.ctx.reveal(&value)?.expose_secret().to_owned());
            }
            settings.stores.insert(store, told);
        }
        change(&mut settings);
        // JSON is YAML, and knows how to write any text. It goes to the standard input of what writes it.
        let text = serde_json::to_string_pretty(&settings)
            .map_err(|error| StepError::permanent("cannot write the archive's settings").cause(error))?;
        self.owner.write(&self.settings(), text).await
    }

    async fn bring_program(&self) -> Result<(), StepError> {
        let failed = |error: std::io::Error| StepError::permanent("cannot read this program itself").cause(error);
        let path = std::env::current_exe().map_err(failed)?;
        let program = tokio::fs::read(&path).await.map_err(failed)?;
        let hash = tokio::task::spawn_blocking(move || (format!("{:x}", Sha256::digest(&program)), program.len() as u64))
            .await
            .map_err(|error| StepError::permanent("hashing has ended early").cause(error))?;
        if self.owner.script("look for ferry", HAVE, &[&self.folder, &hash.0]).await? == "yes" {
            return Ok(());
        }
        self.ctx.progress(Progress { message: Some(format!("brings ferry to `{}`", self.server.host)), ..Progress::default() });
        let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
        let argv = ["sh", "-c", PUT, "ferry", &self.folder, &hash.1.to_string()].map(str::to_owned);
        let invocation = Invocation { run_as: Some(self.server.run_as.clone()), ..Invocation::new(argv) };
        let streams = Streams { input: Some(&mut file), output: None };
        let host = self.ctx.hosts.get(&self.server.host)?;
        let finished = host.stream(&invocation, &self.ctx.vault, &self.ctx.cancel, streams, &|_, _| {}).await?;
        if finished.was_asked {
            return Err(self.ctx.stopped());
        }
        self.owner.succeeded("put ferry", &finished)
    }

    /// Runs `ferry base …` there with the settings, tells how far it is, and gives its last word.
    pub async fn base(&self, what: &str, more: &[String]) -> Result<Value, StepError> {
        let mut argv = vec![self.ferry(), "--json".into(), "base".into(), what.to_owned(), "--archive".into(), self.settings()];
        argv.extend_from_slice(more);
        let last = Mutex::new(Value::Null);
        let on_line = |is_error: bool, line: &str| {
            let said: Option<Value> = (!is_error).then(|| serde_json::from_str(line).ok()).flatten();
            let Some(said) = said else { return self.ctx.signals.log(LogStream::Stderr, line) };
            if said.get("ferry").is_some() || said.get("error").is_some() {
                *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = said;
            } else {
                let number = |name: &str| said.get(name).and_then(Value::as_u64);
                self.ctx.progress(Progress { bytes: number("bytes"), bytes_total: number("bytes_total"), ..Progress::default() });
            }
        };
        let finished = self.owner.program(argv, BTreeMap::new(), &on_line).await?;
        let last = last.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(error) = last.get("error") {
            let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
            let class = error.get("class").and_then(|class| serde_json::from_value(class.clone()).ok());
            let message = text("message").unwrap_or_else(|| "it says nothing".to_owned());
            let mut told =
                StepError::new(class.unwrap_or(ErrorClass::Permanent), format!("on `{}`: {message}", self.server.host));
            told.help = text("help");
            return Err(told);
        }
        // A connection that was lost may have taken it with it.
        if finished.signal.is_some() {
            return Err(StepError::transient(format!("`ferry base {what}` was ended on `{}`", self.server.host)));
        }
        self.owner.succeeded(&format!("run `ferry base {what}`"), &finished)?;
        Ok(last)
    }

    /// Removes the folder.
    pub async fn remove(&self) -> Result<(), StepError> {
        self.owner.script("remove ferry's folder", r#"rm -rf -- "$1""#, &[&self.folder]).await.map(drop)
    }
}
