//! `postgres.failback`: the old primary follows the new one and stays warm.

mod rows;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cutover::{CutOver, Method};
use super::logical::Subscribed;
use super::replica::{self, Replica, Replicated};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::{Database, Lsn, Owner, Reach, Stop, hba};
use crate::secret::Text;
use crate::steps::{Preview, Progress, Step, StepContext};

/// Says whether anything was written behind the place where the new timeline begins. `$1` bin, `$2` data, `$3` the
/// timeline that ended, `$4` the place.
const TAIL: &str = r#"said=$("$1/pg_waldump" -p "$2/pg_wal" -t "$3" -s "$4" -n 1 2>&1)
case "$said" in *'rmgr:'*) echo something;; *'could not find a valid record'*|*'invalid record length'*) echo nothing;; *) echo "$said";; esac"#;

/// Makes the old primary a standby of the new one after a cutover, so that the same cutover can go back.
///
/// Where the old primary's log ends exactly where the new one's timeline begins, it follows at once. Where it has written
/// something behind that (by a checkpoint of its own, never by a client: the fence stood), `pg_rewind` takes it back
/// first, which needs checksums or `wal_log_hints`. Its fence is lifted only when it can start as nothing but a standby.
///
/// After a cutover by rows with `way_back: true` the old primary follows by rows: nothing is copied, for both were equal when
/// the first client wrote to the new one. Its databases are closed to everybody but superusers (`connection limit 0`) before
/// its fence is lifted, and what had served the way there is removed.
///
/// The outputs are those of `postgres.replica` or of `postgres.logical`, the other way round: `postgres.catch_up` and
/// `postgres.cutover` take them.
///
/// After an interruption it looks first. Undo stops the old primary again and takes back user, slot and line at the new
/// one; the fence stands again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failback {
    /// The outputs of a `postgres.cutover`.
    cutover: CutOver,
}

/// The new primary, and the old one as the place of a standby.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    /// What a standby needs to know of its source.
    standby: replica::Before,
}

/// The old primary, which follows; as `postgres.replica` or `postgres.logical` would tell it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Followed {
    /// As a standby.
    Files(Replicated),
    /// By its rows.
    Rows(Subscribed),
}

impl Failback {
    fn replica(&self) -> Replica {
        Replica::back(self.cutover.primary.clone(), self.cutover.old.clone())
    }

    fn old(&self) -> Result<(&str, &str), StepError> {
        let old = &self.cutover.old;
        old.data.as_deref().zip(old.bin.as_deref()).ok_or_else(|| {
            StepError::permanent("the outputs of the cutover do not say where the old primary's data are")
                .help("take the outputs of `postgres.cutover` as they are")
        })
    }

    async fn lift_fence(&self, owner: &Owner) -> Result<(), StepError> {
        let fence = &self.cutover.fence;
        let back = r#"[ ! -e "$2" ] || cp -p "$2" "$1""#;
        owner.script("put pg_hba.conf back", back, &[&fence.hba_file, &fence.kept]).await.map(drop)
    }

    /// Where the new primary's timeline began, and the timeline that ended there.
    async fn fork(&self, primary: &Database) -> Result<(u32, Lsn), StepError> {
        let asked = "select pg_read_file(format('pg_wal/%s.history', lpad(upper(to_hex(timeline_id)), 8, '0'))) from pg_control_checkpoint()";
        let text: String = primary.one("ask where its timeline began", asked, &[]).await?;
        let last = text.lines().rev().find_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        last.ok_or_else(|| StepError::permanent(format!("`{}` says nothing of where its timeline began", primary.title())))
    }

    /// It is a standby by now: what was kept beside its rules is in their place, and the slot that the new primary came by
    /// would hold back its log for ever.
    async fn forget(&self, reach: &Reach, owner: &Owner) -> Result<(), StepError> {
        let old = reach.connect(&self.cutover.old).await?;
        let drop_slots =
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = any($1) and not active";
        old.rows("drop the slots of the old primary", drop_slots, &[&self.cutover.slots]).await?;
        owner.script("remove what the fence needed", r#"rm -f "$1""#, &[&self.cutover.fence.kept]).await.map(drop)
    }

    /// Takes back what the old primary has written behind the fork, if it has.
    async fn rewind(
        &self,
        ctx: &StepContext,
        before: &Before,
        primary: &Database,
        owner: &Owner,
        password: &Text,
    ) -> Result<(), StepError> {
        let (data, bin) = self.old()?;
        let (timeline, lsn) = self.fork(primary).await?;
        let tail =
            owner.script("read the end of the old log", TAIL, &[bin, data, &timeline.to_string(), &lsn.to_string()]).await?;
        if tail == "nothing" {
            ctx.log(format!("the old log ends at {lsn}, where the new timeline begins: it can follow at once"));
            return Ok(());
        }
        ctx.log(format!("the old primary has written behind {lsn}: it is rewound"));
        ctx.progress(Progress { message: Some("rewinds the old primary".to_owned()), ..Progress::default() });
        let replica = self.replica();
        replica.rewind(ctx, &before.standby, primary, owner, password).await
    }
}

impl Step for Failback {
    const TYPE: &'static str = "postgres.failback";
    const EXAMPLE: &'static str = r#"
id: back
uses: postgres.failback
with:
  cutover: "{{ steps.cutover.outputs }}"
"#;

    type Before = Before;
    type Output = Followed;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let reach = ctx.reach();
        let (data, bin) = self.old()?;
        let (primary, new) = (&self.cutover.primary, &self.cutover.old);
        let (database, cluster) = reach.cluster(primary).await?;
        if self.cutover.method == Method::Logical {
            self.is_open(&database).await?;
        }
        if cluster.in_recovery {
            return Err(StepError::needs_person(format!("`{}` is no primary", primary.title()))
                .help("the cutover has not been: there is nothing to fail back from"));
        }
        let owner = Owner::of(&reach, new)?;
        if owner.is_running(data).await? {
            return Err(StepError::needs_person(format!("the old primary on `{}` runs", new.title()))
                .help("stop it: `pg_ctl stop -m immediate`; it may become a standby only from where the cutover left it"));
        }
        let address = self.replica().address(ctx, &owner, bin).await?;
        Ok(Before { standby: replica::Before::of(cluster, address, data, bin, &reach.application) })
    }

    fn preview(&self, _: &Before) -> Preview {
        let (from, to) = (self.cutover.primary.title(), self.cutover.old.title());
        Preview {
            does: match self.cutover.method {
                Method::Physical => format!("makes the old primary on `{to}` a standby of `{from}`, rewound if need be"),
                Method::Logical => format!("lets the old primary on `{to}` follow `{from}` by rows, closed to clients"),
            },
            undo: format!("stops `{to}` again behind its fence, and takes back user, slot and line at `{from}`"),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Followed, StepError> {
        if self.cutover.method == Method::Logical {
            return self.follow_by_rows(ctx, before).await.map(Followed::Rows);
        }
        let reach = ctx.reach();
        let replica = self.replica();
        let primary = reach.connect(&self.cutover.primary).await?;
        let owner = Owner::of(&reach, &self.cutover.old)?;
        if let Some(lag) = replica.streams(ctx, &before.standby, &primary, &owner).await? {
            self.forget(&reach, &owner).await?;
            return replica.outcome(&before.standby, &lag, None).map(Followed::Files);
        }
        let password = replica.prepare(ctx, &before.standby, &primary).await?;
        let (data, _) = self.old()?;
        if !owner.is_running(data).await? {
            self.rewind(ctx, before, &primary, &owner, &password).await?;
            replica.configure(&before.standby, &owner, &password, ctx).await?;
            // Only now, for with this file in its place it may be started, and it starts as a standby.
            self.lift_fence(&owner).await?;
        }
        let lag = replica.follow(ctx, &before.standby, &primary, &owner).await?;
        self.forget(&reach, &owner).await?;
        replica.outcome(&before.standby, &lag, None).map(Followed::Files)
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let reach = ctx.reach();
        let owner = Owner::of(&reach, &self.cutover.old)?;
        let (data, _) = self.old()?;
        if self.cutover.method == Method::Logical && owner.is_running(data).await? {
            self.unsubscribe_all(ctx).await?;
        }
        owner.stop(&self.cutover.old, data, Stop::Immediate).await?;
        let fence = &self.cutover.fence;
        let text = owner.read(&fence.hba_file).await?.unwrap_or_default();
        if !hba::is_fence(&text, &fence.key) {
            owner.script("keep pg_hba.conf", r#"[ -e "$2" ] || cp -p "$1" "$2""#, &[&fence.hba_file, &fence.kept]).await?;
            owner.write(&fence.hba_file, hba::fence(&text, &fence.key, before.standby.name())).await?;
        }
        match &self.cutover.way_back {
            // Its slots stay: what they keep is what a later attempt needs.
            Some(way) => self.replica().take_back(ctx, &before.standby.named(&way.name)).await,
            None => self.replica().take_back(ctx, &before.standby).await,
        }
    }
}
