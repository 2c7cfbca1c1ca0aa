//! `postgres.wal_ship`: a server archives its log into a store.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backup::{four, three};
use super::kit::Kit;
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::{Database, Server, Stop, quote_literal};
use crate::steps::{Preview, Progress, Step, StepContext};

/// How often is looked whether the first segment was archived.
const EVERY: Duration = Duration::from_millis(200);

/// What the server has now: settings in force, and those of `postgresql.auto.conf`.
const SETTINGS: &str = "select current_setting('archive_mode'), current_setting('archive_command', true), \
    coalesce(current_setting('archive_library', true), ''), \
    (select setting from pg_file_settings where name = 'archive_mode' and sourcefile like '%postgresql.auto.conf' order by seqno desc limit 1), \
    (select setting from pg_file_settings where name = 'archive_command' and sourcefile like '%postgresql.auto.conf' order by seqno desc limit 1), \
    current_setting('data_directory'), pg_is_in_recovery()";

/// Restarts a server as it was started, with its words going where they went. `$1` data, `$2` bin.
const RESTART: &str = r#"n=$(head -n1 "$1/postmaster.pid") || exit 5
l=$(readlink "/proc/$n/fd/2" 2>/dev/null); if [ ! -f "$l" ] || [ ! -w "$l" ]; then l=/dev/null; fi
"$2/pg_ctl" -D "$1" -m fast -w -t 600 -s -l "$l" restart </dev/null"#;

/// Lets a PostgreSQL server archive its log into a store, with `ferry wal push`, and returns when the first segment is there.
///
/// ferry and the archive's settings are put on the server's host, where only the server's user may read them, and
/// `archive_command` is set to them. A server that does not archive yet needs a restart for that: the plan says so, and
/// nothing is restarted unless `restart: true`. What is in the archive already is never written over.
///
/// After an interruption it is run again. Undo sets `archive_mode` and `archive_command` back to what they were and
/// removes ferry from the host; what was archived stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalShip {
    /// The server: a host's name, or a mapping with what differs from the usual.
    from: Server,
    /// The archive: `store:prefix/`, or a URL. One cluster has one.
    #[schemars(extend("format" = "place"))]
    to: String,
    /// Whether the server may be restarted, when it does not archive at all yet.
    #[serde(default)]
    restart: bool,
    /// How many segments are sent at once.
    #[serde(default = "four")]
    concurrency: usize,
    /// How hard zstd tries, 1 to 19.
    #[serde(default = "three")]
    level: i32,
}

/// How the server archives before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    folder: String,
    data: String,
    bin: String,
    mode: String,
    /// What `postgresql.auto.conf` says.
    auto_mode: Option<String>,
    auto_command: Option<String>,
}

/// An archive that a server ships to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shipping {
    /// The archive.
    place: String,
    /// The settings on the server's host.
    settings: String,
    /// A segment that was archived since.
    segment: String,
}

impl Before {
    fn needs_restart(&self) -> bool {
        self.mode == "off"
    }
}

impl WalShip {
    async fn look(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let (database, cluster) = ctx.reach().cluster(&self.from).await?;
        let title = self.from.title();
        let rows = database.rows("ask how it archives", SETTINGS, &[]).await?;
        let row = rows.first().ok_or_else(|| StepError::permanent("the server says nothing of itself"))?;
        let text = |at: usize| row.try_get::<_, Option<String>>(at).ok().flatten();
        let (command, library) = (text(1).unwrap_or_default(), text(2).unwrap_or_default());
        if row.try_get::<_, bool>(6).unwrap_or_default() {
            return Err(StepError::permanent(format!("`{title}` is a standby")).help("let its primary archive"));
        }
        if cluster.wal_level == "minimal" {
            return Err(StepError::permanent(format!("`{title}` has `wal_level = minimal`, which is not enough to archive"))
                .help("set `wal_level = replica` and restart the server at a time that suits you"));
        }
        let kit = Kit::look(ctx, &self.from).await?;
        let is_used = !matches!(command.as_str(), "" | "(disabled)") && !command.contains(&kit.folder);
        if is_used || !library.is_empty() {
            let what = if is_used { command } else { library };
            return Err(StepError::needs_person(format!("`{title}` archives elsewhere already: `{what}`"))
                .help("two archives at once are not possible: take its own away first, or move it by `postgres.replica`"));
        }
        let mode = text(0).unwrap_or_default();
        if mode == "off" && !self.restart {
            return Err(StepError::permanent(format!("`{title}` does not archive, and needs a restart to begin"))
                .help("say `restart: true`, or set `archive_mode = on` and restart the server at a time that suits you"));
        }
        Ok(Before { folder: kit.folder, data: cluster.data, bin: cluster.bin, mode, auto_mode: text(3), auto_command: text(4) })
    }

    /// Sets one setting, or takes it back.
    async fn set(database: &Database, name: &str, value: Option<&str>) -> Result<(), StepError> {
        let order = match value {
            Some(value) => format!("alter system set {name} = {}", quote_literal(value)),
            None => format!("alter system reset {name}"),
        };
        database.orders(&format!("set {name}"), &order).await
    }

    async fn restart(&self, kit: &Kit<'_>, before: &Before) -> Result<(), StepError> {
        if self.from.service.is_some() {
            kit.owner.stop(&self.from, &before.data, Stop::Fast).await?;
            return kit.owner.start(&self.from, &before.data, &before.bin).await;
        }
        kit.owner.script("restart the server", RESTART, &[&before.data, &before.bin]).await.map(drop)
    }

    /// Ends a segment and waits until it is archived.
    async fn ships(&self, ctx: &StepContext, database: &Database) -> Result<String, StepError> {
        let number = |sql: &'static str| database.one::<i64>("ask how it archives", sql, &[]);
        let failed_before = number("select failed_count from pg_stat_archiver").await?;
        database.orders("write to its log", "select pg_logical_emit_message(false, 'ferry', 'ships')").await?;
        let segment: String = database.one("end a segment", "select pg_walfile_name(pg_current_wal_insert_lsn())", &[]).await?;
        database.orders("end a segment", "select pg_switch_wal()").await?;
        let mut last = None;
        loop {
            let archived: Option<String> =
                database.one("ask how it archives", "select last_archived_wal from pg_stat_archiver", &[]).await?;
            if archived.as_ref().is_some_and(|name| name.len() >= 24 && name[..24] >= segment[..]) {
                return Ok(segment);
            }
            let failed = number("select failed_count from pg_stat_archiver").await? - failed_before;
            if failed >= 3 {
                return Err(StepError::transient(format!(
                    "`{}` cannot archive: `ferry wal push` has failed {failed} times",
                    self.from.title()
                ))
                .help("the server's log says what it said; see that its host reaches the store"));
            }
            if archived != last {
                let message = format!("archived {}", archived.as_deref().unwrap_or("nothing yet"));
                ctx.progress(Progress { message: Some(message), ..Progress::default() });
                last = archived;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        }
    }
}

impl Step for WalShip {
    const TYPE: &'static str = "postgres.wal_ship";
    const EXAMPLE: &'static str = r#"
id: log
uses: postgres.wal_ship
with:
  from: source
  to: "between:orders/"
"#;

    type Before = Before;
    type Output = Shipping;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        ctx.stores.open(&self.to, &ctx.base)?;
        self.look(ctx).await
    }

    fn preview(&self, before: &Before) -> Preview {
        let from = self.from.title();
        let restarts = before.needs_restart();
        Preview {
            does: format!(
                "lets `{from}` archive its log to `{}`{}",
                self.to,
                if restarts { ", and restarts it for that" } else { "" }
            ),
            undo: format!("sets `archive_command` of `{from}` back{}", if restarts { ", and restarts it" } else { "" }),
            warnings: restarts.then(|| format!("`{from}` is restarted: its clients are sent away")).into_iter().collect(),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Shipping, StepError> {
        let kit = Kit::at(ctx, &self.from, &before.folder)?;
        kit.bring(&self.to, |settings| {
            settings.spool = Some(format!("{}/spool", before.folder).into());
            settings.at_once = self.concurrency.clamp(1, 64);
            settings.level = self.level.clamp(1, 19);
        })
        .await?;
        // Whether the store is reached from there is known before anything is changed.
        kit.base("has", &["any".to_owned()]).await?;
        let command = format!("\"{}\" wal push --archive \"{}\" %p", kit.ferry(), kit.settings());
        let mut database = ctx.reach().connect(&self.from).await?;
        Self::set(&database, "archive_command", Some(&command)).await?;
        if before.needs_restart() {
            Self::set(&database, "archive_mode", Some("on")).await?;
            let mode: String = database.one("ask how it archives", "select current_setting('archive_mode')", &[]).await?;
            if mode == "off" {
                self.restart(&kit, before).await?;
                database = ctx.reach().connect(&self.from).await?;
            }
        }
        database.orders("reload its configuration", "select pg_reload_conf()").await?;
        let segment = self.ships(ctx, &database).await?;
        Ok(Shipping { place: self.to.clone(), settings: kit.settings(), segment })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let kit = Kit::at(ctx, &self.from, &before.folder)?;
        let database = ctx.reach().connect(&self.from).await?;
        let command: String =
            database.one("ask how it archives", "select coalesce(current_setting('archive_command', true), '')", &[]).await?;
        // What somebody else has set since stays.
        if command.contains(&before.folder) || matches!(command.as_str(), "" | "(disabled)") {
            Self::set(&database, "archive_command", before.auto_command.as_deref()).await?;
            if before.needs_restart() {
                Self::set(&database, "archive_mode", before.auto_mode.as_deref()).await?;
            }
            database.orders("reload its configuration", "select pg_reload_conf()").await?;
            let mode: String = database.one("ask how it archives", "select current_setting('archive_mode')", &[]).await?;
            drop(database);
            if before.needs_restart() && mode != before.mode {
                self.restart(&kit, before).await?;
            }
        } else {
            ctx.warn(format!("`archive_command` of `{}` was changed meanwhile and stays: `{command}`", self.from.title()));
        }
        kit.remove().await
    }
}
