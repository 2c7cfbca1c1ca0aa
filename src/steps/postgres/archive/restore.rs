//! `postgres.restore`: a cluster out of a store, on a host that need not reach the one it came from.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backup::four;
use super::kit::Kit;
use super::made::Made;
use crate::archive::base::{Follow, Goal, Restored};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::{Lsn, Server, Stop, conf};
use crate::steps::scalar::Scalar;
use crate::steps::{Preview, Progress, Step, StepContext};
use crate::units::ByteSize;

/// How often is looked whether the server serves.
const EVERY: Duration = Duration::from_millis(200);

/// The state of a data directory. `$1` the directory.
const DIRECTORY: &str = r#"[ -e "$1" ] || { echo absent; exit 0; }
[ -d "$1" ] || { echo file; exit 0; }
[ -z "$(ls -A "$1" 2>&1)" ] && echo empty || echo full"#;

/// Removes what a restore has made, and what its tablespaces hold. `$1` the directory, `$2` whether it was absent.
const REMOVE: &str = r#"[ -d "$1" ] || exit 0
for l in "$1"/pg_tblspc/*; do [ -L "$l" ] || continue; t=$(readlink "$l"); rm -rf -- "$t"/PG_[0-9]*; rmdir "$t" 2>/dev/null || true; done
find "$1" -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +
if [ "$2" = absent ]; then rmdir "$1"; fi"#;

/// What the lines below were written for.
const HEADING: &str = "# ferry: where this copy listens\n";

/// Makes a PostgreSQL cluster of a base backup and the log in a store, on a host that need not reach the one it came
/// from, and starts it.
///
/// As a standby it follows what is archived; told to `recover`, it replays the log up to the `goal` and then serves on a
/// timeline of its own. Parts are fetched several at once and each is held against its hash; then `pg_verifybackup` reads
/// all files again. The control file is written last: no server starts on what is not whole.
///
/// The data directory has to be empty or not there: what others have put into it is never touched. ferry and the
/// archive's settings stay on the host, for `restore_command` needs them.
///
/// After an interruption it goes on with the parts that are missing. Undo stops the server and removes what was made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreCluster {
    /// The archive: `store:prefix/`, or a URL.
    #[schemars(extend("format" = "place"))]
    from: String,
    /// The backup's name; the newest, unless given.
    #[serde(default = "latest")]
    backup: String,
    /// Where the cluster is to be. Its `data` has to be given.
    to: Server,
    /// The running server that the backup is of. Only who takes clients over from it, `postgres.cutover`, has to know.
    #[serde(default)]
    primary: Option<Server>,
    /// Whether it follows as a standby, or recovers and serves.
    #[serde(default)]
    follow: Follow,
    /// Up to where the log is replayed: all of it, unless given.
    #[serde(default)]
    goal: Goal,
    /// Where tablespaces are to lie: `/old: /new`. The same path, unless given.
    #[serde(default)]
    tablespaces: BTreeMap<String, String>,
    /// Settings that are to differ here.
    #[serde(default)]
    settings: BTreeMap<String, Scalar>,
    /// Whether `pg_verifybackup` reads all files again.
    #[serde(default = "yes")]
    verify: bool,
    /// Whether the server is started.
    #[serde(default = "yes")]
    start: bool,
    /// How many parts are fetched at once.
    #[serde(default = "four")]
    concurrency: usize,
}

fn latest() -> String {
    "latest".to_owned()
}

fn yes() -> bool {
    true
}

/// The place for the cluster, as it was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    folder: String,
    data: String,
    was_absent: bool,
}

/// That an attempt has begun to write.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    begun: bool,
}

impl RestoreCluster {
    fn args(&self, before: &Before) -> Vec<String> {
        let mut args = vec![self.backup.clone(), "--to".to_owned(), before.data.clone()];
        args.extend(self.tablespaces.iter().flat_map(|(old, new)| ["--tablespace".to_owned(), format!("{old}={new}")]));
        if self.follow == Follow::Recover {
            args.push("--recover".to_owned());
        }
        match &self.goal {
            Goal::End => {}
            Goal::Consistent => args.push("--consistent".to_owned()),
            Goal::Time(time) => args.extend(["--time".to_owned(), time.clone()]),
            Goal::Lsn(lsn) => args.extend(["--lsn".to_owned(), lsn.clone()]),
            Goal::Name(name) => args.extend(["--point".to_owned(), name.clone()]),
        }
        args
    }

    /// The server that the backup is of, with what it says of itself.
    async fn known_primary(&self, ctx: &StepContext, system: Option<&str>) -> Result<Option<Server>, StepError> {
        let Some(primary) = &self.primary else { return Ok(None) };
        let (_, cluster) = ctx.reach().cluster(primary).await?;
        if cluster.in_recovery {
            return Err(StepError::permanent(format!("`{}` is a standby", primary.title()))
                .help("`primary` is the server that clients write to and that archives"));
        }
        if system.is_some_and(|system| system != cluster.system_identifier) {
            return Err(StepError::permanent(format!("the archive `{}` is not of `{}`", self.from, primary.title()))
                .help("the backup has another system identifier than the server that `primary` names"));
        }
        Ok(Some(cluster.known_as(primary)))
    }

    /// Where the copy listens, and what else is to differ.
    async fn configure(&self, kit: &Kit<'_>, data: &str) -> Result<(), StepError> {
        let path = format!("{data}/postgresql.auto.conf");
        let text = kit.owner.read(&path).await?.unwrap_or_default();
        let mut text = text.split(HEADING).next().unwrap_or_default().to_owned();
        text.push_str(HEADING);
        text.push_str(&conf::line("port", &self.to.port.to_string()));
        text.push_str(&conf::line("unix_socket_directories", &self.to.socket));
        for (name, value) in &self.settings {
            text.push_str(&conf::line(name, value.0.marked()));
        }
        kit.owner.write(&path, text).await?;
        let has_own = self.to.config.is_some() || kit.owner.read(&format!("{data}/postgresql.conf")).await?.is_some();
        if has_own {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "`{data}` has no `postgresql.conf`: the cluster's configuration lies elsewhere, and no backup has it"
        ))
        .help("say which configuration it is to have: `to: { …, config: /etc/postgresql/15/main/postgresql.conf }`"))
    }

    /// Returns when the server takes questions, and, told to recover, when it serves.
    async fn serves(&self, ctx: &StepContext, kit: &Kit<'_>, data: &str) -> Result<Lsn, StepError> {
        let database = ctx.reach().connect(&self.to).await?;
        loop {
            let is_standby: bool = database.one("ask whether it recovers", "select pg_is_in_recovery()", &[]).await?;
            let asked = "select coalesce(pg_last_wal_replay_lsn(), pg_current_wal_lsn())::text";
            let asked = if is_standby { "select coalesce(pg_last_wal_replay_lsn(), '0/0')::text" } else { asked };
            let place: String = database.one("ask how far it is", asked, &[]).await?;
            if !is_standby || self.follow == Follow::Standby {
                return place.parse().map_err(StepError::permanent);
            }
            ctx.progress(Progress { message: Some(format!("replayed to {place}")), ..Progress::default() });
            if !kit.owner.is_running(data).await? {
                let log = kit.owner.script("read the server's log", r#"tail -n 6 "$1/log/start.log""#, &[data]).await?;
                return Err(StepError::permanent(format!("the server on `{}` has ended: {log}", self.to.title()))
                    .help("put right what its log says, then resume the run"));
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        }
    }
}

impl Step for RestoreCluster {
    const TYPE: &'static str = "postgres.restore";
    const EXAMPLE: &'static str = r#"
id: copy
uses: postgres.restore
with:
  from: "between:orders/"
  backup: "{{ steps.base.outputs.name }}"
  to: { host: target, data: /var/lib/postgresql/15/main }
  follow: standby
  primary: source
"#;

    type Before = Before;
    type Output = Made;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        ctx.stores.open(&self.from, &ctx.base)?;
        let data = self.to.data.clone().ok_or_else(|| {
            StepError::permanent("`to` does not say where the data directory is to be")
                .help("`to: { host: …, data: /var/lib/postgresql/15/main }`")
        })?;
        self.known_primary(ctx, None).await?;
        let kit = Kit::look(ctx, &self.to).await?;
        let kind = kit.owner.script("look at the data directory", DIRECTORY, &[&data]).await?;
        if !matches!(kind.as_str(), "absent" | "empty") {
            return Err(StepError::permanent(format!("`{data}` of `{}` is not empty", self.to.title()))
                .help("nothing that others have made is ever overwritten: move it away, or give another `data`"));
        }
        Ok(Before { folder: kit.folder, data, was_absent: kind == "absent" })
    }

    fn preview(&self, before: &Before) -> Preview {
        let (to, data) = (self.to.title(), &before.data);
        let then = match (self.start, self.follow) {
            (false, _) => "",
            (_, Follow::Standby) => " and starts it as a standby that follows what is archived",
            (_, Follow::Recover) => ", replays the log and lets it serve",
        };
        Preview {
            does: format!("makes `{data}` of `{to}` of the backup `{}` in `{}`{then}", self.backup, self.from),
            undo: format!("stops `{to}` and removes `{data}`"),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Made, StepError> {
        let kit = Kit::at(ctx, &self.to, &before.folder)?;
        let data = &before.data;
        kit.bring(&self.from, |settings| settings.at_once = self.concurrency.clamp(1, 64)).await?;
        let is_running = kit.owner.is_running(data).await?;
        if ctx.checkpoint::<Begun>().is_none() {
            if is_running {
                return Err(StepError::needs_person(format!("somebody has started a server in `{data}` since the plan"))
                    .help("nothing that others have made is ever overwritten: move it away, then resume the run"));
            }
            ctx.save(&Begun { begun: true }).await?;
        }
        let said = kit.base("fetch", &self.args(before)).await?;
        let restored: Restored = serde_json::from_value(said)
            .map_err(|error| StepError::permanent("cannot understand what `ferry base fetch` says").cause(error))?;
        let from = self.known_primary(ctx, Some(&restored.summary.system)).await?;
        let bin = kit.owner.server_programs(&self.to, restored.summary.version / 10_000).await?;
        if self.verify && !restored.was_there {
            ctx.progress(Progress { message: Some("reads the files again".to_owned()), ..Progress::default() });
            let verify = vec![format!("{bin}/pg_verifybackup"), "-n".to_owned(), "-q".to_owned(), data.clone()];
            let finished = kit.owner.program(verify, BTreeMap::new(), &|_, line| ctx.log(line)).await?;
            kit.owner.succeeded("verify what was restored", &finished)?;
        }
        let mut replayed = None;
        if !is_running {
            self.configure(&kit, data).await?;
        }
        if self.start {
            kit.owner.start(&self.to, data, &bin).await?;
            replayed = Some(self.serves(ctx, &kit, data).await?);
        }
        let summary = restored.summary;
        let to = Server { data: Some(data.clone()), bin: Some(bin), ..self.to.clone() };
        Ok(Made {
            from,
            to,
            folder: before.folder.clone(),
            data: data.clone(),
            backup: summary.name,
            bytes: ByteSize(summary.bytes),
            start: summary.start,
            stop: summary.stop,
            system: summary.system,
            version: summary.version,
            is_standby: self.follow == Follow::Standby,
            replayed,
        })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let kit = Kit::at(ctx, &self.to, &before.folder)?;
        if ctx.checkpoint::<Begun>().is_some() {
            kit.owner.stop(&self.to, &before.data, Stop::Immediate).await?;
            let was = if before.was_absent { "absent" } else { "empty" };
            kit.owner.script("remove the data directory", REMOVE, &[&before.data, was]).await?;
        }
        kit.remove().await
    }
}
