//! The copy becomes a standby: configured, started, watched until it follows.

use std::time::Duration;

use super::{Before, Replica};
use crate::error::StepError;
use crate::postgres::{Cluster, Database, Lag, Lsn, Owner, conf, hba, lag};
use crate::secret::Text;
use crate::steps::{Progress, StepContext};

/// How often is looked whether it follows.
const EVERY: Duration = Duration::from_millis(50);

impl Replica {
    /// Writes what makes the copy a standby of this source. Done twice it is done once.
    pub(in crate::steps::postgres) async fn configure(
        &self,
        before: &Before,
        owner: &Owner,
        password: &Text,
        ctx: &StepContext,
    ) -> Result<(), StepError> {
        let data = &before.data;
        let passfile = format!("{data}/ferry.pgpass");
        owner.write(&passfile, format!("*:*:*:{}:{}\n", self.user(before), password.marked())).await?;
        if before.cluster.is_configured_elsewhere() && self.to.config.is_none() {
            self.carry_configuration(before, owner, ctx).await?;
        }
        // It came over with the copy, and lets in the copy itself.
        let rules = format!("{data}/pg_hba.conf");
        if let Some(text) = owner.read(&rules).await? {
            let without = hba::without_lines(&text, &before.name);
            if without != text {
                owner.write(&rules, without).await?;
            }
        }
        let heading = "# ferry: this server follows another\n";
        let mut text = owner.read(&format!("{data}/postgresql.auto.conf")).await?.unwrap_or_default();
        text = text.split(heading).next().unwrap_or_default().to_owned();
        text.push_str(heading);
        let primary = self.conninfo(before, &[("passfile", passfile.as_str())]);
        text.push_str(&conf::line("primary_conninfo", &primary));
        text.push_str(&conf::line("primary_slot_name", &before.name));
        text.push_str(&conf::line("wal_retrieve_retry_interval", "200ms"));
        text.push_str(&conf::line("recovery_target_timeline", "latest"));
        text.push_str(&conf::line("hot_standby", "on"));
        text.push_str(&conf::line("port", &self.to.port.to_string()));
        text.push_str(&conf::line("unix_socket_directories", &self.to.socket));
        for (name, value) in &self.settings {
            text.push_str(&conf::line(name, value.0.marked()));
        }
        owner.write(&format!("{data}/postgresql.auto.conf"), text).await?;
        // Last: with it the directory may be started, and only as a standby.
        owner.write(&format!("{data}/standby.signal"), "").await
    }

    /// The source's configuration lies elsewhere, and the target has none: what is in force there is written here.
    async fn carry_configuration(&self, before: &Before, owner: &Owner, ctx: &StepContext) -> Result<(), StepError> {
        let reach = ctx.reach();
        let source = reach.connect(&self.from).await?;
        let asked = "select name, setting from pg_file_settings where error is null and name is not null
                     and sourcefile not like '%postgresql.auto.conf' order by seqno";
        let rows = source.rows("ask for the settings", asked, &[]).await?;
        let settings: Vec<(String, String)> =
            rows.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect();
        let text = conf::file(&format!("settings of `{}`, written by ferry", self.from.title()), &settings);
        owner.write(&format!("{}/postgresql.conf", before.data), text).await?;
        let here = Owner::of(&reach, &self.from)?;
        for (from, to) in [(&before.cluster.hba_file, "pg_hba.conf"), (&before.cluster.ident_file, "pg_ident.conf")] {
            let text = here.read(from).await?.unwrap_or_default();
            owner.write(&format!("{}/{to}", before.data), hba::without_lines(&text, &before.name)).await?;
        }
        Ok(())
    }

    /// Starts the standby and returns when it follows.
    pub(in crate::steps::postgres) async fn follow(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        owner: &Owner,
    ) -> Result<Lag, StepError> {
        owner.start(&self.standby(before), &before.data, &before.bin).await?;
        let mut last = Lsn(0);
        loop {
            let found = lag(source, &before.name).await?;
            if let Some(lag) = found.filter(|lag| lag.replayed > last || lag.state == "streaming") {
                last = lag.replayed;
                let message = Some(format!("{} behind", crate::units::ByteSize(lag.bytes())));
                ctx.progress(Progress { message, ..Progress::default() });
                if lag.state == "streaming" && lag.replayed > Lsn(0) {
                    self.is_ours(ctx, before).await?;
                    return Ok(lag);
                }
            }
            if !owner.is_running(&before.data).await? {
                let log = owner.script("read the standby's log", r#"tail -n 6 "$1/log/start.log""#, &[&before.data]).await?;
                return Err(StepError::permanent(format!("the standby on `{}` has ended: {log}", self.to.title()))
                    .help("put right what its log says, then resume the run"));
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        }
    }

    async fn is_ours(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let mut standby = self.standby(before);
        standby.user.clone_from(&self.to.user);
        let (_, cluster) = ctx.reach().cluster(&standby).await?;
        self.is_the_standby(before, &cluster)
    }

    fn is_the_standby(&self, before: &Before, cluster: &Cluster) -> Result<(), StepError> {
        if !cluster.in_recovery || cluster.system_identifier != before.cluster.system_identifier {
            return Err(StepError::needs_person(format!(
                "the server on `{}` is no standby of `{}`",
                self.to.title(),
                self.from.title()
            ))
            .help("another server listens on its socket: correct `port` and `socket` of `to`"));
        }
        Ok(())
    }

    /// How far the standby is behind, when an earlier attempt has brought it as far as to follow.
    pub(super) async fn follows(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        owner: &Owner,
    ) -> Result<Option<Lag>, StepError> {
        if self.marked(before, owner).await?.as_deref() != Some("copied") {
            return Ok(None);
        }
        self.streams(ctx, before, source, owner).await
    }

    /// How far the standby is behind, when it runs and follows.
    pub(in crate::steps::postgres) async fn streams(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        owner: &Owner,
    ) -> Result<Option<Lag>, StepError> {
        if !owner.is_running(&before.data).await? {
            return Ok(None);
        }
        let Some(lag) = lag(source, &before.name).await?.filter(|lag| lag.state == "streaming") else { return Ok(None) };
        self.is_ours(ctx, before).await?;
        Ok(Some(lag))
    }
}
