//! Publications, subscriptions and the user that reads, made and taken back.

use std::time::Duration;

use super::super::replica::{Replica, drop_user};
use super::{Before, Logical, slot};
use crate::error::StepError;
use crate::postgres::{Database, Owner, conf, hba, quote_literal, quote_name};
use crate::secret::Text;
use crate::steps::{Progress, StepContext};

/// How often is looked how far the copy is.
const EVERY: Duration = Duration::from_millis(200);

/// Rows, and tables that are there and follow.
const STATES: &str = "select count(*) filter (where srsubstate = 'r'), count(*), coalesce((select sum(bytes_processed) from pg_stat_progress_copy), 0)::int8
    from pg_subscription_rel";

impl Logical {
    /// A user that may read and replicate, let in from the target's address.
    pub(super) async fn let_in(&self, ctx: &StepContext, before: &Before) -> Result<Text, StepError> {
        let source = ctx.reach().connect(&self.from).await?;
        let replica = Replica::back(self.from.clone(), self.to.clone());
        let owner = Owner::of(&ctx.reach(), &self.to)?;
        let bin = owner.programs(&self.to, before.source.major()).await?;
        replica.let_read(ctx, &before.replica(&bin), &source, &before.databases).await
    }

    pub(super) async fn publish(&self, ctx: &StepContext, before: &Before, database: &str) -> Result<(), StepError> {
        let source = ctx.reach().connect_to(&self.from, database).await?;
        let (name, literal) = (quote_name(&before.name), quote_literal(&before.name));
        let sql = format!(
            "do $$ begin if not exists (select from pg_publication where pubname = {literal}) then create publication {name} for all tables; end if; end $$"
        );
        source.orders("publish the tables", &sql).await
    }

    pub(super) async fn subscribe(
        &self,
        ctx: &StepContext,
        before: &Before,
        database: &str,
        password: &Text,
    ) -> Result<(), StepError> {
        let target = ctx.reach().connect_to(&self.to, database).await?;
        let replica = Replica::back(self.from.clone(), self.to.clone());
        let conninfo = replica.conninfo(&before.replica(""), &[("dbname", database)]);
        let slot = slot(&before.name, &before.databases, database);
        subscribe_to(
            ctx,
            &target,
            &before.name,
            (&conninfo, password),
            &format!("slot_name = {}, copy_data = true", quote_name(&slot)),
        )
        .await
    }

    /// Returns when every table follows.
    pub(super) async fn follow(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let reach = ctx.reach();
        let mut open = Vec::new();
        for database in &before.databases {
            open.push(reach.connect_to(&self.to, database).await?);
        }
        let mut last = (0, 0);
        loop {
            let (mut ready, mut all, mut bytes) = (0, 0, 0);
            for target in &open {
                let rows = target.rows("ask how far the copy is", STATES, &[]).await?;
                let Some(row) = rows.first() else { continue };
                let number = |at: usize| row.try_get::<_, i64>(at).unwrap_or(0).cast_unsigned();
                (ready, all, bytes) = (ready + number(0), all + number(1), bytes + number(2));
            }
            if (ready, bytes) != last {
                last = (ready, bytes);
                let message = Some(format!("{ready} of {all} tables follow"));
                ctx.progress(Progress { objects: Some(ready), objects_total: Some(all), message, ..Progress::default() });
            }
            if ready == all {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        }
    }

    /// Drops the database at the target, with its subscription.
    pub(super) async fn drop_copy(&self, ctx: &StepContext, before: &Before, database: &str) -> Result<(), StepError> {
        let reach = ctx.reach();
        let unborn = quote_name(&slot(&before.name, &before.databases, database));
        let sql = format!("drop database if exists {unborn} with (force)");
        reach.connect(&self.to).await?.orders("drop what was half made", &sql).await?;
        if self.made(ctx, before, database).await? != Some(true) {
            return Ok(());
        }
        unsubscribe(&reach.connect_to(&self.to, database).await?, &before.name).await?;
        let target = reach.connect(&self.to).await?;
        target.orders("drop the database", &format!("drop database if exists {} with (force)", quote_name(database))).await
    }

    /// Takes publications, slots, user and line back at the source.
    pub(super) async fn take_back(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let reach = ctx.reach();
        let source = reach.connect(&self.from).await?;
        for database in &before.databases {
            let sql = format!("drop publication if exists {}", quote_name(&before.name));
            reach.connect_to(&self.from, database).await?.orders("drop the publication", &sql).await?;
        }
        // Copies of single tables have slots of their own while they last.
        let slots = "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where slot_name like $1 || '\\_%' and active";
        source.rows("end the senders of the slots", slots, &[&before.name]).await?;
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like $1 || '\\_%'";
        source.rows("drop the slots", drop, &[&before.name]).await?;
        let owner = Owner::of(&reach, &self.from)?;
        let text = owner.read(&before.source.hba_file).await?.unwrap_or_default();
        let without = hba::without_lines(&text, &before.name);
        if without != text {
            owner.write(&before.source.hba_file, without).await?;
            source.orders("reload the configuration", "select pg_reload_conf()").await?;
        }
        drop_user(&source, &before.name).await
    }
}

impl Before {
    /// The same as what a standby needs to know of its source.
    fn replica(&self, bin: &str) -> super::super::replica::Before {
        super::super::replica::Before::of(self.source.clone(), self.address.clone(), "", bin, &self.name)
    }
}

/// Subscribes to the publication of the same name, with these options; one that is there gets the password, which is new
/// with each attempt.
pub(in crate::steps::postgres) async fn subscribe_to(
    ctx: &StepContext,
    target: &Database,
    name: &str,
    (conninfo, password): (&str, &Text),
    with: &str,
) -> Result<(), StepError> {
    let revealed = ctx.reveal(password)?;
    let secret = conf::conninfo(&[("password", secrecy::ExposeSecret::expose_secret(&revealed))]);
    let conninfo = quote_literal(&format!("{conninfo} {secret}"));
    // Statements are in no log of the target: the password stands in them.
    target
        .orders(
            "keep a statement out of the log",
            "set log_statement = 'none'; set log_min_duration_statement = -1; set log_min_error_statement = 'panic'",
        )
        .await?;
    let there = "select 1 from pg_subscription where subname = $1 and subdbid = (select oid from pg_database where datname = current_database())";
    let is_there = target.maybe::<i32>("look for the subscription", there, &[&name]).await?.is_some();
    let name = quote_name(name);
    if is_there {
        return target.orders("renew the subscription", &format!("alter subscription {name} connection {conninfo}")).await;
    }
    let sql = format!("create subscription {name} connection {conninfo} publication {name} with ({with})");
    target.orders("subscribe", &sql).await
}

/// Opens databases that were closed while they followed: their mark says how many may use them. Done again it does nothing.
pub(in crate::steps::postgres) async fn let_clients_in(target: &Database, databases: &[String]) -> Result<(), StepError> {
    let names: Vec<String> = databases.iter().map(|name| quote_literal(name)).collect();
    let sql = format!(
        "do $$ declare one record; begin
           for one in select datname, substr(mark, length('ferry.clients=') + 1)::int as most from pg_database d
             join pg_db_role_setting s on s.setdatabase = d.oid and s.setrole = 0, unnest(s.setconfig) mark
             where mark like 'ferry.clients=%' and datconnlimit = 0 and datname in ({}) loop
             execute format('alter database %I connection limit %s', one.datname, one.most);
           end loop;
         end $$",
        names.join(", ")
    );
    target.orders("let clients in", &sql).await
}

/// Ends a subscription without a word to its source, which may be gone.
pub(in crate::steps::postgres) async fn unsubscribe(target: &Database, name: &str) -> Result<(), StepError> {
    let there = "select 1 from pg_subscription where subname = $1 and subdbid = (select oid from pg_database where datname = current_database())";
    if target.maybe::<i32>("look for the subscription", there, &[&name]).await?.is_none() {
        return Ok(());
    }
    let name = quote_name(name);
    // Each by itself: they may not stand in one transaction.
    for sql in ["disable", "set (slot_name = none)"] {
        target.orders("end the subscription", &format!("alter subscription {name} {sql}")).await?;
    }
    target.orders("end the subscription", &format!("drop subscription {name}")).await
}
