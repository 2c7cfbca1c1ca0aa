//! A standby that gets the log through an archive: the last segment is ended, archived, fetched and replayed.
//!
//! Nobody streams to it, so nobody tells the source what it has. What it has replayed it tells itself, and a segment that
//! is being replayed is on its disk: PostgreSQL flushes what `restore_command` has brought, under the segment's own name,
//! before it reads it.

use std::time::Duration;

use super::Cutover;
use super::follower::{Archived, Follower};
use crate::error::{ErrorClass, StepError};
use crate::postgres::{Database, Lsn, Owner, Reach};
use crate::steps::{Progress, StepContext};
use crate::units::ByteSize;

/// How often is looked whether a segment of the rehearsal is there.
const EVERY: Duration = Duration::from_millis(10);
/// After how many attempts to archive a segment the source is taken to be unable to.
const ATTEMPTS: i64 = 3;
/// How long the standby may replay nothing though there is something to fetch.
const SILENCE: Duration = Duration::from_mins(1);
/// By itself a standby asks its archive every five seconds. A reload wakes it; one that is told while it asks, asks again.
const WAKE: &str = "select pg_reload_conf()";
const REPLAYED: &str = "select coalesce(pg_last_wal_replay_lsn(), '0/0')::text";

/// Ends the segment in which the log stands, and keeps the place and the segment's name.
const END: &str = "at := pg_current_wal_flush_lsn(); name := pg_walfile_name(at); perform pg_switch_wal();";

/// Whether a segment is archived. The server keeps it as a file before it tells anybody else.
fn is_archived(name: &str) -> String {
    format!("(pg_stat_file('pg_wal/archive_status/' || {name} || '.done', true)).modification is not null")
}

/// In SQL: ends the segment, and waits until the server has archived it, so many milliseconds at most.
pub(super) fn archives(millis: u64) -> String {
    format!(
        "do $$ declare at pg_lsn; name text; late timestamptz := clock_timestamp() + {millis} * interval '1 ms'; begin
           {END}
           loop
             exit when {is_archived};
             if clock_timestamp() > late then raise 'the last of the log is not archived' using errcode = 'query_canceled'; end if;
             perform pg_sleep(0.0005);
           end loop;
           perform set_config('ferry.at', at::text, false);
         end $$;",
        is_archived = is_archived("name")
    )
}

/// That the source archives at all.
pub(super) async fn must_archive(source: &Database) -> Result<(), StepError> {
    let asked = "select current_setting('archive_mode') || ' ' || coalesce(current_setting('archive_command', true), '')
        || coalesce(current_setting('archive_library', true), '')";
    let said: String = source.one("ask how it archives", asked, &[]).await?;
    if said.starts_with("off") || said.ends_with(' ') {
        return Err(StepError::permanent(format!(
            "`{}` does not archive, and its standby follows through an archive",
            source.title()
        ))
        .help("`postgres.wal_ship` lets it archive"));
    }
    Ok(())
}

/// Bytes that are written at the source and not replayed at the standby.
pub(super) async fn behind(source: &Database, target: &Database) -> Result<u64, StepError> {
    // Where the log stands behind a segment that was ended counts as written; nothing is there.
    let written: String = source.one("ask how far it has written", "select pg_current_wal_lsn()::text", &[]).await?;
    let written: Lsn = written.parse().map_err(StepError::permanent)?;
    Ok(replayed(target).await?.behind(written))
}

async fn replayed(target: &Database) -> Result<Lsn, StepError> {
    let said: String = target.one("ask how far it has replayed", REPLAYED, &[]).await?;
    said.parse().map_err(StepError::permanent)
}

/// Lets the standby fetch what is archived and replay it up to there: one round trip. After `millis` it gives up.
pub(super) async fn hand_over(target: &Database, lsn: Lsn, millis: u64) -> Result<(), StepError> {
    let sql = format!(
        "do $$ declare late timestamptz := clock_timestamp() + {millis} * interval '1 ms'; woken timestamptz := '-infinity'; begin
           while coalesce(pg_last_wal_replay_lsn(), '0/0') < '{lsn}' loop
             if clock_timestamp() > late then raise 'it does not get the last of the log' using errcode = 'query_canceled'; end if;
             if clock_timestamp() > woken + interval '200 ms' then
               perform pg_reload_conf();
               woken := clock_timestamp();
             end if;
             perform pg_sleep(0.0005);
           end loop;
         end $$"
    );
    target.orders("replay the last of the log", &sql).await.map_err(|failed| {
        // Nothing has happened yet that cannot be put back.
        StepError { class: ErrorClass::Transient, ..failed }
            .help("everything is put back and the old primary serves again; it is tried again as `retry` says")
    })
}

impl Cutover {
    /// The way of the last segment, gone once while clients write: it brings the standby close, and how long it takes is
    /// what it will take in the pause.
    pub(super) async fn rehearse(&self, ctx: &StepContext, source: &Database, target: &Database) -> Result<Duration, StepError> {
        let doing = "rehearse the handover of the last of the log";
        let failures = "select failed_count from pg_stat_archiver";
        let failed_before: i64 = source.one(doing, failures, &[]).await?;
        let start = ctx.clock.monotonic();
        let sql = format!(
            "set synchronous_commit = local; select pg_logical_emit_message(true, 'ferry', 'rehearsal');
             do $$ declare at pg_lsn; name text; begin {END} perform set_config('ferry.at', at || ' ' || name, false); end $$;
             select current_setting('ferry.at') as ferry_answer"
        );
        let said = source.said(doing, &sql).await?;
        let answer = said.iter().rev().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.try_get("ferry_answer").ok().flatten().map(str::to_owned),
            _ => None,
        });
        let none = || StepError::permanent(format!("`{}` does not say where its log stands", source.title()));
        let (lsn, name) = answer.as_deref().and_then(|answer| answer.split_once(' ')).ok_or_else(none)?;
        let lsn: Lsn = lsn.parse().map_err(StepError::permanent)?;
        let asked = format!("select {}", is_archived("$1::text"));
        while !source.one::<bool>(doing, &asked, &[&name]).await? {
            let failed = source.one::<i64>(doing, failures, &[]).await? - failed_before;
            if failed >= ATTEMPTS {
                return Err(StepError::transient(format!("`{}` cannot archive: it has failed {failed} times", source.title()))
                    .help("its log says what `archive_command` said; see that its host reaches the store"));
            }
            self.rest(ctx, &format!("waits until `{name}` is archived")).await?;
        }
        let (mut last, mut since, mut woken) = (Lsn(0), ctx.clock.monotonic(), None);
        loop {
            let now = ctx.clock.monotonic();
            let at = replayed(target).await?;
            if at >= lsn {
                return Ok(now.saturating_sub(start));
            }
            if at > last {
                (last, since) = (at, now);
            }
            if now.saturating_sub(since) > SILENCE {
                return Err(StepError::transient(format!("`{}` does not get what is archived: it is at {at}", target.title()))
                    .help("its log says what `restore_command` said; see that its host reaches the store"));
            }
            if woken.is_none_or(|woken| now.saturating_sub(woken) > Duration::from_millis(200)) {
                target.orders("make it look into its archive", WAKE).await?;
                woken = Some(now);
            }
            self.rest(ctx, &format!("{} behind", ByteSize(at.behind(lsn)))).await?;
        }
    }

    async fn rest(&self, ctx: &StepContext, message: &str) -> Result<(), StepError> {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
        }
        ctx.progress(Progress { message: Some(message.to_owned()), ..Progress::default() });
        Ok(())
    }

    /// How far it is behind, whatever way it follows.
    pub(super) async fn lag_bytes(&self, source: &Database, target: &Database) -> Result<u64, StepError> {
        match &self.replica {
            Follower::Log(_) => behind(source, target).await,
            _ => Ok(self.connected(source).await?.bytes()),
        }
    }

    /// Nothing is left at the target of what made it follow an archive. Its own log is archived by nobody.
    pub(super) async fn no_archive(&self, reach: &Reach, archived: &Archived, target: &Database) -> Result<(), StepError> {
        let doing = "reset what made it a standby";
        for name in
            ["restore_command", "recovery_target_timeline", "recovery_target_action", "primary_conninfo", "primary_slot_name"]
        {
            target.orders(doing, &format!("alter system reset {name}")).await?;
        }
        // It has come over with the files, and calls a program that is at the source.
        let command: String =
            target.one("ask how it archives", "select coalesce(current_setting('archive_command', true), '')", &[]).await?;
        let mode: String = target.one("ask how it archives", "select current_setting('archive_mode')", &[]).await?;
        if mode == "off" || command.contains("/.ferry-") {
            target.orders(doing, "alter system reset archive_command").await?;
        }
        target.orders("reload the configuration", WAKE).await?;
        let owner = Owner::of(reach, &archived.to)?;
        let remove = r#"case "$1" in */.ferry-*) rm -rf -- "$1";; esac"#;
        owner.script("remove ferry's folder", remove, &[&archived.folder]).await.map(drop)
    }
}
