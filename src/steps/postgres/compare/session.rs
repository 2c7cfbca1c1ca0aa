//! Connections that see the same moment of a server, and two servers at moments that belong together.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use crate::error::StepError;
use crate::postgres::{Database, Lsn, Server};
use crate::steps::StepContext;
use crate::units::Span;

/// How long the standby may take to replay what its source has written.
const REPLAY: Duration = Duration::from_mins(2);

/// The same text for the same value, whatever the server's or the user's own settings say; and nothing that ends a long
/// look.
const SETTINGS: &str = "set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set timezone = 'UTC'; \
    set extra_float_digits = 3; set bytea_output = 'hex'; set xmlbinary = 'base64'; set lc_monetary = 'C'; \
    set lc_numeric = 'C'; set search_path = pg_catalog; set row_security = off; set statement_timeout = 0; set lock_timeout = 0; \
    set idle_in_transaction_session_timeout = 0; set jit = off; set client_min_messages = warning";

/// A snapshot of one database of one server, and connections that see it.
pub(super) struct Session<'a> {
    ctx: &'a StepContext,
    server: Server,
    database: String,
    /// Keeps the snapshot alive.
    leader: Database,
    snapshot: String,
}

impl<'a> Session<'a> {
    /// Takes a snapshot now.
    pub(super) async fn open(ctx: &'a StepContext, server: &Server, database: &str) -> Result<Self, StepError> {
        let leader = live(ctx, server, database).await?;
        leader.orders("begin to compare", "begin isolation level repeatable read read only").await?;
        let snapshot = one(&leader, "take a snapshot", "select pg_export_snapshot()").await?;
        Ok(Self { ctx, server: server.clone(), database: database.to_owned(), leader, snapshot })
    }

    /// The connection that took it.
    pub(super) fn leader(&self) -> &Database {
        &self.leader
    }

    /// Another connection that sees the same.
    pub(super) async fn join(&self) -> Result<Database, StepError> {
        let worker = live(self.ctx, &self.server, &self.database).await?;
        let sql = format!("begin isolation level repeatable read read only; set transaction snapshot '{}'", self.snapshot);
        worker.orders("share a snapshot", &sql).await?;
        Ok(worker)
    }
}

/// A connection that sees what is there at each moment.
pub(super) async fn live(ctx: &StepContext, server: &Server, database: &str) -> Result<Database, StepError> {
    let connection = ctx.reach().connect_to(server, database).await?;
    connection.orders("set up a connection", SETTINGS).await?;
    Ok(connection)
}

/// The rows of a question, as texts.
pub(super) async fn rows(database: &Database, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, StepError> {
    let said = database.said(doing, sql).await?;
    let rows = said.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

/// The first column of the first row.
pub(super) async fn one(database: &Database, doing: &str, sql: &str) -> Result<String, StepError> {
    let row = rows(database, doing, sql).await?.into_iter().next();
    row.and_then(|row| row.into_iter().next().flatten()).ok_or_else(|| {
        StepError::permanent(format!("cannot {doing} on `{}`: there is no answer", database.title()))
            .help("is this a PostgreSQL server, of version 12 or later?")
    })
}

/// Which of the two follows the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// The target is a standby.
    To,
    /// The source is.
    From,
    /// The target subscribes to the source.
    ToByRows,
    /// The source subscribes to the target.
    FromByRows,
    /// None of them.
    Neither,
}

impl Follows {
    /// Whether it is the source that follows.
    pub(super) fn is_from(self) -> bool {
        matches!(self, Self::From | Self::FromByRows)
    }

    /// Whether it follows by logical replication.
    pub(super) fn is_by_rows(self) -> bool {
        matches!(self, Self::ToByRows | Self::FromByRows)
    }

    pub(super) async fn of(from: &Database, to: &Database) -> Result<Self, StepError> {
        let is_standby = "select pg_is_in_recovery()";
        let from = one(from, "look whether it is a standby", is_standby).await? == "t";
        let to = one(to, "look whether it is a standby", is_standby).await? == "t";
        match (from, to) {
            (false, true) => Ok(Self::To),
            (true, false) => Ok(Self::From),
            _ => Ok(Self::Neither),
        }
    }

    /// The same of one database, which may follow by its rows.
    pub(super) async fn of_database(from: &Database, to: &Database) -> Result<Self, StepError> {
        match Self::of(from, to).await? {
            Self::Neither if subscribes(from, to).await? => Ok(Self::ToByRows),
            Self::Neither if subscribes(to, from).await? => Ok(Self::FromByRows),
            found => Ok(found),
        }
    }
}

/// The slots of this database that are in use, as a list in SQL.
const SLOTS: &str = "select coalesce(string_agg(quote_literal(slot_name), ', '), 'null') from pg_replication_slots \
    where slot_type = 'logical' and active and database = current_database()";

/// Whether a subscription of the one uses a slot of the other.
async fn subscribes(leads: &Database, follows: &Database) -> Result<bool, StepError> {
    let slots = one(leads, "look for slots", SLOTS).await?;
    let asked = format!(
        "select count(*) from pg_subscription where subenabled and subslotname::text in ({slots}) \
         and subdbid = (select oid from pg_database where datname = current_database())"
    );
    Ok(one(follows, "look for a subscription", &asked).await? != "0")
}

/// How far it has replayed: a standby, or a subscription. That tells its source of each transaction that it has applied,
/// and keeps for itself how far the source said that there was nothing more.
async fn replayed(leads: &Database, follows: &Database, by_rows: bool) -> Result<Lsn, StepError> {
    let doing = "ask how far it has replayed";
    let unreadable = |error: String| StepError::permanent(error).help("is this a PostgreSQL server?");
    if !by_rows {
        let said = one(follows, doing, "select coalesce(pg_last_wal_replay_lsn(), '0/0')").await?;
        return said.parse().map_err(unreadable);
    }
    let slots = one(leads, "look for slots", SLOTS).await?;
    let heard = format!(
        "select coalesce(min(latest_end_lsn), '0/0') from pg_stat_subscription t join pg_subscription s on s.oid = t.subid \
         where relid is null and latest_end_lsn is not null and subslotname::text in ({slots})"
    );
    let told = format!(
        "select coalesce(min(r.replay_lsn), '0/0') from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid \
         where s.slot_name::text in ({slots})"
    );
    let (heard, told) = tokio::try_join!(one(follows, doing, &heard), one(leads, doing, &told))?;
    Ok(Lsn::max(heard.parse().map_err(unreadable)?, told.parse().map_err(unreadable)?))
}

/// Where the log stands. `FORCED`: its segment is ended all the same. Where nobody streams, a standby follows through an
/// archive and gets nothing but whole segments: this one is ended, and whoever may not end it has to wait.
const WRITTEN: &str = "do $$ declare at pg_lsn := pg_current_wal_insert_lsn(); ended bool := false; begin
      if FORCED or not exists (select from pg_stat_replication) then
        begin at := pg_switch_wal(); ended := true; exception when insufficient_privilege then null; end;
      end if;
      perform set_config('ferry.written', at || ' ' || ended, false);
    end $$; select current_setting('ferry.written')";

/// How long a standby that streams takes at most, as a rule.
const SOON: Duration = Duration::from_millis(500);
/// How often a standby is told to look into its archive.
const AGAIN: Duration = Duration::from_millis(100);

/// Where the log stands, and whether a segment was ended for that.
async fn written(leads: &Database, forced: bool) -> Result<(Lsn, bool), StepError> {
    let said =
        one(leads, "ask how far it has written", &WRITTEN.replace("FORCED", if forced { "true" } else { "false" })).await?;
    let (at, ended) = said.split_once(' ').unwrap_or((&said, ""));
    let mut at: Lsn = at.parse().map_err(|error: String| StepError::permanent(error).help("is this a PostgreSQL server?"))?;
    if HEADERS.contains(&(at.0 % PAGE)) {
        at = Lsn(at.0 - at.0 % PAGE);
    }
    Ok((at, ended == "true" || ended == "t"))
}

/// A page of the log, and the headers that one may begin with. A header counts as written when the record before it ends
/// where the page begins, and nobody can replay it.
const PAGE: u64 = 8192;
const HEADERS: [u64; 2] = [24, 40];

/// Waits until the follower has replayed all that the other has written by now.
pub(super) async fn caught_up(ctx: &StepContext, leads: &Database, follows: &Database, how: Follows) -> Result<(), StepError> {
    let (mut wanted, mut by_archive) = written(leads, false).await?;
    let (started, mut is_late, mut told) = (ctx.clock.monotonic(), false, Duration::ZERO);
    loop {
        let replayed = replayed(leads, follows, how.is_by_rows()).await?;
        if replayed >= wanted {
            return Ok(());
        }
        let since = ctx.clock.monotonic().saturating_sub(started);
        if since > SOON && !is_late && !by_archive && !how.is_by_rows() {
            // Others stream from the source; this one may not.
            is_late = true;
            let receivers = "select count(*) from pg_stat_wal_receiver";
            if one(follows, "look whether it streams", receivers).await? == "0" {
                (wanted, by_archive) = written(leads, true).await?;
            }
        }
        if by_archive && since >= told {
            told = since + AGAIN;
            // It looks every five seconds by itself. Whoever may not tell it has to wait.
            let _ = follows.orders("make it look into its archive", "select pg_reload_conf()").await;
        }
        if since > REPLAY {
            return Err(StepError::transient(format!(
                "`{}` has not replayed {wanted} within {}: it is at {replayed}",
                follows.title(),
                Span(REPLAY)
            ))
            .help("see whether its replay is paused or far behind; `postgres.catch_up` waits for it"));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
            () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
        }
    }
}
