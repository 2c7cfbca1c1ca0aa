//! How long the pause will be, as far as it can be told before: lag, round trips, what the standby applies in a second.

use std::time::Duration;

use tokio::time::Instant;

use super::follower::Follower;
use super::{Cutover, LongTransactions};
use crate::error::StepError;
use crate::postgres::{Database, Lag};
use crate::steps::{Progress, StepContext};
use crate::units::ByteSize;

/// What a promotion takes by itself, measured on common machines: a new timeline, its history file, the first writes.
const PROMOTE: Duration = Duration::from_millis(60);

/// How long is watched how the lag changes.
const WATCH: Duration = Duration::from_millis(250);

const OLDEST: &str = "select pid, coalesce(application_name, ''), extract(epoch from clock_timestamp() - xact_start)::float8
    from pg_stat_activity where backend_type = 'client backend' and xact_start is not null and application_name is distinct from $1
    order by xact_start limit 1";

const WRITERS: &str = "select distinct backend_type from pg_stat_activity where backend_type not in ('client backend',
    'parallel worker', 'walsender', 'walwriter', 'checkpointer', 'background writer', 'autovacuum launcher',
    'autovacuum worker', 'logical replication launcher', 'logical replication worker', 'archiver', 'startup', 'slotsync worker',
    'walsummarizer', 'io worker', 'wal receiver', 'standalone backend')";

/// Workers of extensions that may write and that no fence turns away.
pub(super) async fn others_who_write(source: &Database) -> Result<Vec<String>, StepError> {
    let rows = source.rows("look for background workers", WRITERS, &[]).await?;
    let told = rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok()).map(|kind| {
        format!("`{kind}` runs inside the source: if it writes, stop it before the cutover, for a fence is for connections")
    });
    Ok(told.collect())
}

impl Cutover {
    /// Waits until the lag is small, and forecasts the pause. A forecast over the budget is a failure that may pass.
    pub(super) async fn forecast(
        &self,
        ctx: &StepContext,
        key: &str,
        source: &Database,
        target: &Database,
    ) -> Result<Duration, StepError> {
        self.no_long_transaction(key, source).await?;
        let (behind, pause) = match &self.replica {
            Follower::Log(_) => self.through_an_archive(ctx, source, target).await?,
            _ => self.by_stream(ctx, source).await?,
        };
        let (near, far) = (round_trip(source).await?, round_trip(target).await?);
        let forecast = near * 4 + far * 2 + pause + PROMOTE;
        ctx.log(format!(
            "forecast of the pause: {} ms ({} behind, {} ms to the source, {} ms to the target)",
            forecast.as_millis(),
            ByteSize(behind),
            near.as_millis(),
            far.as_millis()
        ));
        if forecast > self.max_pause.0 {
            return Err(StepError::transient(format!(
                "the pause is forecast to be {} ms, and `max_pause` is {}",
                forecast.as_millis(),
                self.max_pause
            ))
            .help("nothing was begun; wait for a quieter hour, or allow a longer `max_pause`"));
        }
        Ok(forecast)
    }

    /// How far a standby that streams is behind, and how long it takes until it has applied that.
    async fn by_stream(&self, ctx: &StepContext, source: &Database) -> Result<(u64, Duration), StepError> {
        let now = self.small_lag(ctx, source).await?;
        tokio::time::sleep(WATCH).await;
        let later = self.connected(source).await?;
        // What the standby applies in a second; one that had nothing to do could do at least this.
        let applied = now.replayed.behind(later.replayed) * 1000 / u64::try_from(WATCH.as_millis()).unwrap_or(1);
        Ok((later.bytes(), Duration::from_secs_f64(later.bytes() as f64 / applied.max(8 << 20) as f64)))
    }

    /// How long the last segment takes through the archive; and the promote, which asks the archive as well.
    async fn through_an_archive(
        &self,
        ctx: &StepContext,
        source: &Database,
        target: &Database,
    ) -> Result<(u64, Duration), StepError> {
        // What the standby was behind by until now is no measure.
        self.rehearse(ctx, source, target).await?;
        let took = self.rehearse(ctx, source, target).await?;
        ctx.log(format!("a segment takes {} ms through the archive", took.as_millis()));
        Ok((self.lag_bytes(source, target).await?, took + took / 2))
    }

    /// How far it is behind; of several slots, the one that is furthest.
    pub(super) async fn connected(&self, source: &Database) -> Result<Lag, StepError> {
        self.replica.lag(source).await?.filter(|lag| lag.state == "streaming").ok_or_else(|| {
            StepError::transient(format!("`{}` does not follow `{}`", self.replica.to().title(), self.replica.from().title()))
                .help("its log says why; it is tried again as `retry` says")
        })
    }

    async fn small_lag(&self, ctx: &StepContext, source: &Database) -> Result<Lag, StepError> {
        loop {
            let found = self.connected(source).await?;
            if found.bytes() <= self.max_lag.0 {
                return Ok(found);
            }
            ctx.progress(Progress { message: Some(format!("{} behind", ByteSize(found.bytes()))), ..Progress::default() });
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        }
    }

    async fn no_long_transaction(&self, key: &str, source: &Database) -> Result<(), StepError> {
        let doing = "look for long transactions";
        loop {
            let rows = source.rows(doing, OLDEST, &[&key]).await?;
            let Some(row) = rows.first() else { return Ok(()) };
            let failed = |error| source.failed(doing, error);
            let (pid, who, age): (i32, String, f64) =
                (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
            if age <= self.max_pause.0.as_secs_f64() {
                return Ok(());
            }
            if self.long_transactions == LongTransactions::End {
                source.rows("end a long transaction", "select pg_terminate_backend($1, 5000)", &[&pid]).await?;
                continue;
            }
            let age = format!("{age:.0} s");
            let message =
                format!("a transaction of `{}` has been open for {age}: process {pid}, application `{who}`", source.title());
            return Err(StepError::transient(message)
                .help("end it with `select pg_terminate_backend(…)`, or let the step do so: `long_transactions: end`"));
        }
    }
}

async fn round_trip(database: &Database) -> Result<Duration, StepError> {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        database.orders("ask for a sign of life", "").await?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest)
}
