//! The old primary follows by rows: from the place where the new one took over, without a copy.
//!
//! Why no row goes in circles: at each moment one of the two subscribes to the other, never both. The subscription of the way
//! there is dropped by the cutover, before this one is made. And the slots of this one begin behind all that the other one
//! had applied (`ferry.pivot`), so that nothing is sent back to where it came from.

use std::time::Duration;

use super::{Before, Failback};
use crate::error::StepError;
use crate::postgres::{Database, Owner, hba, quote_literal, quote_name};
use crate::secret::Text;
use crate::steps::postgres::cutover::{Follower, WayBack};
use crate::steps::postgres::logical::{Subscribed, subscribe_to, unsubscribe};
use crate::steps::postgres::replica::drop_user;
use crate::steps::{Progress, StepContext};
use crate::units::{ByteSize, Span};

/// How often is looked whether it follows.
const EVERY: Duration = Duration::from_millis(50);

/// A server of one session, which listens nowhere: nobody else can come in between. `$1` bin, `$2` data, `$3` main
/// configuration file or nothing; statements come as input, each on a line. One that an earlier attempt has left ends by
/// itself, for its input has: it is waited for.
const ALONE: &str = r#"i=0; while p=$(head -n1 "$2/postmaster.pid" 2>/dev/null) && kill -0 "${p#-}" 2>/dev/null && [ $i -lt 200 ]; do
  i=$((i+1)); sleep 0.05; done
if [ -n "$3" ]; then set -- "$1" "$2" -c "config_file=$3" -c "data_directory=$2"; else set -- "$1" "$2"; fi
b=$1; d=$2; shift 2; "$b/postgres" --single -D "$d" "$@" postgres"#;

/// The place of the mark in the settings of this database.
const PIVOT: &str = "select substr(mark, length('ferry.pivot=') + 1) from pg_db_role_setting, unnest(setconfig) mark
    where mark like 'ferry.pivot=%' and setrole = 0 and setdatabase = (select oid from pg_database where datname = current_database())";

impl Failback {
    fn way_back(&self) -> Result<&WayBack, StepError> {
        self.cutover.way_back.as_ref().ok_or_else(|| {
            StepError::permanent("the cutover was by rows and did not keep the way back open")
                .help("say `way_back: true` in the cutover before it is made; or copy back with `postgres.logical`, the other way round")
        })
    }

    fn back(&self, before: &Before) -> Result<Subscribed, StepError> {
        let way = self.way_back()?;
        Ok(Subscribed {
            from: before.standby.cluster().known_as(&self.cutover.primary),
            to: self.cutover.old.clone(),
            databases: way.databases.clone(),
            name: way.name.clone(),
            tables: 0,
            bytes: ByteSize(0),
            took: Span(Duration::ZERO),
        })
    }

    /// Whether the new primary still has all that was written since.
    pub(super) async fn is_open(&self, primary: &Database) -> Result<(), StepError> {
        let way = self.way_back()?;
        let asked =
            "select count(*) from pg_replication_slots where slot_name like $1 || '\\_%' and coalesce(wal_status, '') <> 'lost'";
        let there: i64 = primary.one("look for the slots of the way back", asked, &[&way.name]).await?;
        if usize::try_from(there).ok() == Some(way.databases.len()) {
            return Ok(());
        }
        Err(StepError::needs_person(format!("`{}` does not have all of what the old primary lacks any more", primary.title()))
            .help("somebody has dropped the slots, or `max_slot_wal_keep_size` was exceeded: copy back with `postgres.logical`"))
    }

    pub(super) async fn follow_by_rows(&self, ctx: &StepContext, before: &Before) -> Result<Subscribed, StepError> {
        let start = ctx.clock.monotonic();
        let reach = ctx.reach();
        let (way, back, old) = (self.way_back()?, self.back(before)?, &self.cutover.old);
        let primary = reach.connect(&self.cutover.primary).await?;
        let owner = Owner::of(&reach, old)?;
        let replica = self.replica();
        let password = replica.let_read(ctx, &before.standby.named(&way.name), &primary, &way.databases).await?;
        let (data, bin) = self.old()?;
        if !owner.is_running(data).await? {
            self.close(ctx, &owner, way).await?;
            // Only now: nobody who is let in can write to these databases.
            self.lift_fence(&owner).await?;
            owner.start(old, data, bin).await?;
        }
        self.forget_the_way_there(ctx, &owner, way).await?;
        let mut tables = 0;
        for database in &way.databases {
            let source = reach.connect_to(&self.cutover.primary, database).await?;
            let follower = reach.connect_to(old, database).await?;
            let slot = back.slot(database);
            self.subscribe_again(ctx, before, (&source, &follower), &slot, &password).await?;
            tables += follower.one::<i64>("count its tables", "select count(*) from pg_subscription_rel", &[]).await?;
        }
        let follows = Follower::Rows(back.clone());
        while follows.lag(&primary).await?.is_none_or(|lag| lag.state != "streaming") {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        }
        for database in &way.databases {
            let sql = format!("alter database {} reset ferry.pivot", quote_name(database));
            primary.orders("remove the marks of the database", &sql).await?;
        }
        self.forget(&reach, &owner).await?;
        let took = ctx.clock.monotonic().saturating_sub(start);
        Ok(Subscribed {
            tables: tables.cast_unsigned(),
            took: Span(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))),
            ..back
        })
    }

    /// Closes the databases to clients while nobody can be there, and remembers how many might come.
    async fn close(&self, ctx: &StepContext, owner: &Owner, way: &WayBack) -> Result<(), StepError> {
        ctx.progress(Progress { message: Some("closes the databases of the old primary".to_owned()), ..Progress::default() });
        let (data, bin) = self.old()?;
        let names: Vec<String> = way.databases.iter().map(|name| quote_literal(name)).collect();
        let names = names.join(", ");
        // A line is a statement.
        let close = format!(
            "do $$ declare one record; begin for one in select oid, datname, datconnlimit from pg_database where datname in ({names}) loop \
             if not exists (select from pg_db_role_setting s, unnest(s.setconfig) m where s.setdatabase = one.oid and m like 'ferry.clients=%') \
             then execute format('alter database %I set ferry.clients = %L', one.datname, one.datconnlimit); end if; \
             execute format('alter database %I connection limit 0', one.datname); end loop; end $$\n\
             select 'closed ' || count(*) from pg_database where datname in ({names}) and datconnlimit = 0\n"
        );
        let config = self.cutover.old.config.as_deref().unwrap_or_default();
        let finished = owner.try_script(ALONE, &[bin, data, config], Some(Text::new(close))).await?;
        let said = String::from_utf8_lossy(&finished.stdout).into_owned();
        if finished.code == Some(0) && said.contains(&format!("\"closed {}\"", way.databases.len())) {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "cannot close the databases of the old primary on `{}`: {} {}",
            owner.host(),
            said.trim(),
            finished.stderr_tail.trim()
        ))
        .help("put right what it says, then resume the run; its fence stands"))
    }

    /// What served the way there would hold the old primary's log back for nobody.
    async fn forget_the_way_there(&self, ctx: &StepContext, owner: &Owner, way: &WayBack) -> Result<(), StepError> {
        let reach = ctx.reach();
        let old = reach.connect(&self.cutover.old).await?;
        for database in &way.databases {
            let sql = format!("drop publication if exists {}", quote_name(&way.there));
            reach.connect_to(&self.cutover.old, database).await?.orders("drop the publication", &sql).await?;
        }
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like $1 || '\\_%'";
        old.rows("drop the slots", drop, &[&way.there]).await?;
        let file = &self.cutover.fence.hba_file;
        let text = owner.read(file).await?.unwrap_or_default();
        let without = hba::without_lines(&text, &way.there);
        if without != text {
            owner.write(file, without).await?;
            old.orders("reload the configuration", "select pg_reload_conf()").await?;
        }
        drop_user(&old, &way.there).await
    }

    /// One database, from where the new primary took over. The mark is gone when that was done before.
    async fn subscribe_again(
        &self,
        ctx: &StepContext,
        before: &Before,
        (source, follower): (&Database, &Database),
        slot: &str,
        password: &Text,
    ) -> Result<(), StepError> {
        let way = self.way_back()?;
        if let Some(pivot) = source.maybe::<String>("look where clients began to write", PIVOT, &[]).await? {
            let advance = format!(
                "select pg_replication_slot_advance(slot_name, {0}) from pg_replication_slots
                 where slot_name = {1} and not active and confirmed_flush_lsn < {0}",
                quote_literal(&pivot),
                quote_literal(slot)
            );
            source.orders("move the slot to where clients began to write", &advance).await?;
        }
        let database: String = source.one("ask which database it is", "select current_database()::text", &[]).await?;
        let conninfo = self.replica().conninfo(&before.standby.named(&way.name), &[("dbname", &database)]);
        let with = format!("slot_name = {}, create_slot = false, copy_data = false", quote_name(slot));
        subscribe_to(ctx, follower, &way.name, (&conninfo, password), &with).await
    }

    /// Undo: it follows no more.
    pub(super) async fn unsubscribe_all(&self, ctx: &StepContext) -> Result<(), StepError> {
        let (reach, way) = (ctx.reach(), self.way_back()?);
        for database in &way.databases {
            unsubscribe(&reach.connect_to(&self.cutover.old, database).await?, &way.name).await?;
        }
        Ok(())
    }
}
