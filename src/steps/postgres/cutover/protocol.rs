//! The protocol of a cutover, phase by phase. What is true if the runner dies *here* stands at each.

use std::time::Duration;

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::super::logical::{Subscribed, let_clients_in, unsubscribe};
use super::super::replica::{Replicated, drop_user};
use super::follower::{Follower, Method};
use super::outcome::{CutOver, Phases, span};
use super::router::{Ready, Task};
use super::sequences::{self, Sequences};
use super::{Before, Cutover, back, fence, shape, ship};
use crate::error::StepError;
use crate::postgres::{Cluster, Database, Lsn, Owner, Reach, Stop, hba, quote_name};
use crate::steps::{Progress, StepContext};

/// What is open and laid ready when a pause begins.
struct Prepared<'a> {
    source: Database,
    target: Database,
    routers: Vec<Ready<'a>>,
    sequences: Vec<Sequences>,
}

impl Cutover {
    pub(super) async fn go(&self, ctx: &StepContext, before: &Before) -> Result<CutOver, StepError> {
        let reach = Self::reach(ctx);
        let task = self.task(&reach);
        let (target, cluster) = self.target(ctx, &reach).await?;
        let is_primary = self.replica.method() == Method::Physical && !cluster.in_recovery;
        if is_primary && !Self::is_past(ctx) {
            return Err(StepError::needs_person(format!("somebody else has promoted `{}`", self.replica.to().title()))
                .help("find out which of the two servers clients write to; nothing was changed"));
        }
        if Self::is_past(ctx) {
            // Past the pivot. The old primary is fenced and the target has all of its log: forward, by whatever is left.
            ctx.log("the pivot is passed: goes forward");
            self.promote(&target, None).await?;
            for (router, seen) in self.routers.iter().zip(&before.routers) {
                router.forward(&task, seen).await?;
            }
            self.finish(ctx, &task, before, &target).await?;
            return Ok(self.outcome(before, task.key));
        }
        if ctx.attempt.interrupted || ctx.attempt.number > 1 {
            // An attempt that died before the pivot may have left pause and fence: they go first.
            self.release(ctx, &reach, before).await?;
        }
        match self.attempt(ctx, &task, before, target).await {
            Ok(outcome) => Ok(outcome),
            Err(Broken::Before(error)) => {
                self.release(ctx, &reach, before).await?;
                Err(error)
            }
            Err(Broken::Behind(error)) => Err(error),
        }
    }

    /// The target and what it is. Past the pivot it is started when it does not run: nobody else serves clients then.
    async fn target(&self, ctx: &StepContext, reach: &Reach) -> Result<(Database, Cluster), StepError> {
        let found = reach.cluster(self.replica.to()).await;
        let (Err(_), true, Some(data), Some(bin)) = (&found, Self::is_past(ctx), &self.replica.to().data, &self.replica.to().bin)
        else {
            return found;
        };
        let owner = Owner::of(reach, self.replica.to())?;
        owner.start(self.replica.to(), data, bin).await?;
        reach.cluster(self.replica.to()).await
    }

    /// Whether a promote may have been sent. The run may be past a pivot that was another step's: this step's own mark
    /// counts too. Both are durable before anything is sent.
    pub(super) fn is_past(ctx: &StepContext) -> bool {
        ctx.attempt.past_pivot && ctx.checkpoint::<Point>() == Some(Point::Promoting)
    }

    async fn attempt(&self, ctx: &StepContext, task: &Task<'_>, before: &Before, target: Database) -> Result<CutOver, Broken> {
        let source = task.reach.connect(self.replica.from()).await?;
        let say = |message: &str| ctx.progress(Progress { message: Some(message.to_owned()), ..Progress::default() });
        say("both servers write a checkpoint");
        // What is not on disk yet would be written inside the pause: a promote ends with it, and so does a fence.
        let checkpoint = "write a checkpoint";
        tokio::try_join!(source.orders(checkpoint, "checkpoint"), target.orders(checkpoint, "checkpoint"))?;
        let forecast = self.forecast(ctx, task.key, &source, &target).await?;
        let sequences = sequences::open(task.reach, &self.replica).await?;
        shape::agree(&sequences).await?;
        if ctx.cancel.is_cancelled() {
            return Err(Broken::Before(ctx.stopped()));
        }
        say("lays the fence ready");
        // From here on `release` has something to do. The journal knows that the step has started: a resumed run releases
        // first, and so does a rollback.
        let owner = Owner::of(task.reach, self.replica.from())?;
        fence::stage(&owner, &Self::files(before, task.key), task.key, self.replica.key()).await?;
        if let (true, Follower::Rows(rows)) = (self.way_back, &self.replica) {
            back::lay(task.reach, rows, task.key).await?;
        }
        let routers = self.routers.iter().zip(&before.routers).map(|(router, seen)| router.prepare(task, seen));
        let routers = try_join_all(routers).await?;
        // Somebody may have begun a long transaction meanwhile, or made a table.
        self.forecast(ctx, task.key, &source, &target).await?;
        shape::agree(&sequences).await?;
        let prepared = Prepared { source, target, routers, sequences };
        let mut outcome = self.pause(ctx, task, before, &prepared).await?;
        outcome.forecast = Some(span(forecast));
        self.finish(ctx, task, before, &prepared.target).await.map_err(Broken::Behind)?;
        Ok(outcome)
    }

    /// From the first client that is held back to the last that goes on.
    async fn pause(&self, ctx: &StepContext, task: &Task<'_>, before: &Before, ready: &Prepared<'_>) -> Result<CutOver, Broken> {
        let now = || ctx.clock.monotonic();
        let start = now();
        let left = || self.max_pause.0.saturating_sub(now().saturating_sub(start));
        ctx.log("the pause begins");
        // A runner that dies here leaves clients waiting until the watchdog lets them go on, to the old primary.
        try_join_all(ready.routers.iter().map(|router| router.pause(left()))).await?;
        let held = now();
        // A runner that dies here leaves the fence. Clients that the watchdog lets go on get errors until the run is
        // resumed or rolled back: nobody but `release` lifts a fence, for only the journal knows that no promote was sent.
        let millis = u64::try_from(left().as_millis()).unwrap_or(u64::MAX).max(1);
        let files = Self::files(before, task.key);
        let silent = |name: &str| StepError::transient(format!("`{name}` does not answer in the pause"));
        let (from, to) = task.both();
        let through = ready.sequences.first().map_or(&ready.source, Sequences::source);
        let fencing = self.load_fence(through, &files, task.key, millis);
        let fenced = tokio::time::timeout(left() + Duration::from_millis(500), fencing).await;
        let fenced = fenced.unwrap_or_else(|_| Err(silent(&from)))?;
        let archived = now();
        // Where nobody streams, the source cannot know what the standby has: the standby says so itself.
        let by_archive = matches!(self.replica, Follower::Log(_));
        if by_archive {
            let millis = u64::try_from(left().as_millis()).unwrap_or(u64::MAX).max(1);
            let fetching = ship::hand_over(&ready.target, fenced.lsn, millis);
            let fetched = tokio::time::timeout(left() + Duration::from_millis(500), fetching).await;
            fetched.unwrap_or_else(|_| Err(silent(&to)))?;
        }
        // Before the pivot: behind it, and after a crash, nobody can ask the old primary any more.
        let millis = u64::try_from(left().as_millis()).unwrap_or(u64::MAX).max(1);
        let carrying = sequences::carry(&ready.sequences, &fenced, millis, self.way_back);
        let carried = tokio::time::timeout(left() + Duration::from_millis(500), carrying).await;
        carried.unwrap_or_else(|_| Err(silent(&to)))?;
        let closed = now();
        if left().is_zero() {
            return Err(Broken::Before(self.too_long()));
        }
        // The pivot. Nobody can write to the old primary, the standby has on its disk all that was acknowledged, and the
        // promote is not sent before this is durable. A run that goes back by now is refused here.
        ctx.pass_pivot().await?;
        // Only now, for a run that is refused puts everything back, and a mark that it left would send the next attempt
        // forward without a fence. Whether a mark that failed is there is for the next attempt to see: the fence stays.
        ctx.save(&Point::Promoting).await.map_err(Broken::Behind)?;
        let passed = now();
        // From here on nothing is put back. A runner that dies finds its way by the journal and by asking the target.
        let laying = try_join_all(ready.routers.iter().map(Ready::lay));
        let promoting = self.promote(&ready.target, Some(fenced.lsn));
        let (promoted, laid) = tokio::join!(promoting, laying);
        promoted.and(laid.map(drop)).map_err(Broken::Behind)?;
        let writable = now();
        try_join_all(ready.routers.iter().map(Ready::switch)).await.map_err(Broken::Behind)?;
        let end = now();
        let phases = Phases {
            hold: span(held.saturating_sub(start)),
            fence: span(if by_archive { archived } else { closed }.saturating_sub(held)),
            fetch: by_archive.then(|| span(closed.saturating_sub(archived))),
            pivot: span(passed.saturating_sub(closed)),
            promote: span(writable.saturating_sub(passed)),
            switch: span(end.saturating_sub(writable)),
        };
        ctx.log(format!(
            "the pause is over after {} ms: hold {}, fence {},{} pivot {}, promote {}, switch {}",
            end.saturating_sub(start).as_millis(),
            phases.hold,
            phases.fence,
            phases.fetch.map(|fetch| format!(" fetch {fetch},")).unwrap_or_default(),
            phases.pivot,
            phases.promote,
            phases.switch
        ));
        Ok(CutOver {
            lsn: Some(fenced.lsn),
            pause: Some(span(end.saturating_sub(start))),
            phases: Some(phases),
            sessions_ended: fenced.ended,
            ..self.outcome(before, task.key)
        })
    }

    fn too_long(&self) -> StepError {
        StepError::transient(format!("the phases before the promote took longer than `max_pause`, {}", self.max_pause))
            .help("the old primary serves again; it is tried again as `retry` says")
    }

    /// Promotes the target once it has applied the log up to there, and returns when it takes writes: one round trip.
    /// A target with rows of its own lets clients in.
    async fn promote(&self, target: &Database, lsn: Option<Lsn>) -> Result<(), StepError> {
        if let Follower::Rows(rows) = &self.replica {
            return let_clients_in(target, &rows.databases).await;
        }
        let at = lsn.map(|lsn| {
            format!("while pg_is_in_recovery() and pg_last_wal_replay_lsn() < '{lsn}' loop perform pg_sleep(0.0005); end loop;")
        });
        let sql = format!(
            "do $$ begin {} if pg_is_in_recovery() then perform pg_promote(false); end if;
             while pg_is_in_recovery() loop perform pg_sleep(0.0005); end loop; end $$",
            at.unwrap_or_default()
        );
        target.orders("promote the standby", &sql).await
    }

    /// What is done behind the pause, in any order and as often as need be.
    async fn finish(&self, ctx: &StepContext, task: &Task<'_>, before: &Before, target: &Database) -> Result<(), StepError> {
        let (from, to) = task.both();
        ctx.progress(Progress { message: Some("stops the old primary".to_owned()), ..Progress::default() });
        // A write goes through, and it is here that it lands.
        target.orders("write to the new primary", "select pg_logical_emit_message(true, 'ferry', 'cut over')").await?;
        // It is not to write a checkpoint of its own: its log ends where the new one's begins, and it can follow.
        if let Err(error) = self.stop_old(task.reach, before).await {
            ctx.warn(format!("`{from}` could not be stopped ({error}); its fence stands, stop it by hand"));
        }
        match &self.replica {
            Follower::Files(replica) => self.no_standby(task.reach, replica, target).await?,
            Follower::Log(archived) => self.no_archive(task.reach, archived, target).await?,
            Follower::Rows(rows) => self.no_subscriber(task.reach, rows, target).await?,
        }
        target.orders("write a checkpoint", "checkpoint").await?;
        for router in &self.routers {
            router.tidy(task).await?;
        }
        ctx.log(format!("`{to}` is the primary"));
        Ok(())
    }

    /// Nothing is left at the target of what made it a standby.
    async fn no_standby(&self, reach: &Reach, replica: &Replicated, target: &Database) -> Result<(), StepError> {
        for name in ["primary_conninfo", "primary_slot_name", "recovery_target_timeline"] {
            target.orders("reset what made it a standby", &format!("alter system reset {name}")).await?;
        }
        target.orders("reload the configuration", "select pg_reload_conf()").await?;
        if replica.user == replica.slot {
            // It was made for the standby, and has come over with all else.
            drop_user(target, &replica.user).await?;
        }
        let Some(data) = &replica.to.data else { return Ok(()) };
        let owner = Owner::of(reach, &replica.to)?;
        owner.script("remove the password of the standby", r#"rm -f "$1/ferry.pgpass""#, &[data]).await.map(drop)
    }

    /// Nothing is left at the target of what made it follow.
    async fn no_subscriber(&self, reach: &Reach, rows: &Subscribed, target: &Database) -> Result<(), StepError> {
        for name in &rows.databases {
            unsubscribe(&reach.connect_to(&rows.to, name).await?, &rows.name).await?;
            for mark in ["ferry.made", "ferry.schema", "ferry.clients"] {
                let sql = format!("alter database {} reset {mark}", quote_name(name));
                target.orders("remove the marks of the database", &sql).await?;
            }
        }
        Ok(())
    }

    async fn stop_old(&self, reach: &Reach, before: &Before) -> Result<(), StepError> {
        let owner = Owner::of(reach, self.replica.from())?;
        owner.stop(self.replica.from(), &before.source.data, Stop::Immediate).await?;
        let fence::Files { kept, gate, .. } = Self::files(before, &reach.application);
        owner.script("remove what the fence needed", r#"rm -f "$1""#, &[&gate]).await?;
        // The line that let the standby in is of no use any more, should the file come back to its place.
        let text = owner.read(&kept).await?.unwrap_or_default();
        let without = hba::without_lines(&text, self.replica.key());
        if without == text { Ok(()) } else { owner.write(&kept, without).await }
    }
}

/// How far the step has come, in its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Point {
    /// The old primary is fenced and the standby has all of its log: the promote is sent.
    Promoting,
}

/// On which side of the pivot an attempt failed.
enum Broken {
    /// Before it: all is put back.
    Before(StepError),
    /// Behind it: the next attempt goes forward.
    Behind(StepError),
}

impl From<StepError> for Broken {
    fn from(error: StepError) -> Self {
        Self::Before(error)
    }
}
