//! What a standby needs at the source, made and taken back: a user, a slot, a line of `pg_hba.conf`.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng as _;
use rand::distr::Alphanumeric;
use secrecy::SecretString;

use super::{Before, Replica};
use crate::error::StepError;
use crate::postgres::{Database, Owner, Trust, conf, hba, quote_literal, quote_name};
use crate::secret::Text;
use crate::steps::StepContext;

/// How long a server may take to read its `pg_hba.conf` again.
const RELOADS: u32 = 100;

impl Replica {
    /// Makes user and slot at the source and sees to it that the user is let in from the target. The password's mark.
    pub(in crate::steps::postgres) async fn prepare(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
    ) -> Result<Text, StepError> {
        let name = &before.name;
        let password = match &self.password {
            Some(password) => password.clone(),
            None => make_user(ctx, source, name).await?,
        };
        // From now on the source keeps the WAL that the standby has not seen.
        let slot = "select pg_create_physical_replication_slot($1, true)
                    where not exists (select from pg_replication_slots where slot_name = $1)";
        source.rows("create a replication slot", slot, &[name]).await?;
        let lost = "select coalesce(wal_status = 'lost', false) from pg_replication_slots where slot_name = $1";
        if source.maybe::<bool>("look at the replication slot", lost, &[name]).await? == Some(true) {
            source.rows("drop a slot that has lost its WAL", "select pg_drop_replication_slot($1)", &[name]).await?;
            source.rows("create a replication slot", slot, &[name]).await?;
        }
        self.let_in(ctx, before, source, &password, &[]).await?;
        Ok(password)
    }

    /// A user that may read these databases and have changes of them sent to it. The password's mark.
    pub(in crate::steps::postgres) async fn let_read(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        databases: &[String],
    ) -> Result<Text, StepError> {
        let password = make_user(ctx, source, &before.name).await?;
        let grant = format!("grant pg_read_all_data to {}", quote_name(&before.name));
        source.orders("let the user read", &grant).await?;
        for database in databases {
            // Where it is not everybody's right.
            let may = "select has_database_privilege($1::text, $2::text, 'connect')";
            if !source.one::<bool>("ask who may connect", may, &[&before.name, database]).await? {
                let grant = format!("grant connect on database {} to {}", quote_name(database), quote_name(&before.name));
                source.orders("let the user connect", &grant).await?;
            }
        }
        self.let_in(ctx, before, source, &password, databases).await?;
        Ok(password)
    }

    /// Tries to log in as the standby will, and adds a line for the address that the source sees when it has none.
    async fn let_in(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        password: &Text,
        databases: &[String],
    ) -> Result<(), StepError> {
        let reach = ctx.reach();
        let there = Owner::of(&reach, &self.to)?;
        let here = Owner::of(&reach, &self.from)?;
        let mut added: Option<String> = None;
        for _ in 0..RELOADS {
            // Rows are sent by a sender that belongs to a database, files by one that does not.
            let more = databases
                .first()
                .map_or(vec![("replication", "true")], |name| vec![("replication", "database"), ("dbname", name)]);
            let conninfo = self.conninfo(before, &more);
            let argv = vec![format!("{}/psql", before.bin), "-wXAtqc".to_owned(), "IDENTIFY_SYSTEM".to_owned(), conninfo];
            let env = BTreeMap::from([("PGPASSWORD".to_owned(), password.clone())]);
            let finished = there.program(argv, env, &|_, _| {}).await?;
            let said = finished.stderr_tail.trim();
            if finished.code == Some(0) {
                return self.is_the_source(before, &String::from_utf8_lossy(&finished.stdout));
            }
            let Some(address) = turned_away(said) else {
                return Err(self.not_let_in(before, said));
            };
            if added.as_ref() == Some(&address) {
                // The line is there, and the server has not read it yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            if self.user.is_some() {
                return Err(self.not_let_in(before, said));
            }
            let file = &before.cluster.hba_file;
            let text = here.read(file).await?.unwrap_or_default();
            let kind = if before.cluster.ssl && self.trust(before) != Trust::Disable { "hostssl" } else { "host" };
            let width = if address.contains(':') { 128 } else { 32 };
            let line = |what: &str| format!("{kind} {what} {} {address}/{width} scram-sha-256", before.name);
            // `pg_rewind` reads files through an ordinary connection.
            let lines: Vec<String> = match databases {
                [] if self.may_rewind => vec![line("replication"), line(&quote_name(&self.from.database))],
                [] => vec![line("replication")],
                _ => databases.iter().map(|name| line(&quote_name(name))).collect(),
            };
            ctx.log(format!("lets the standby in: {}", lines.join(", ")));
            here.write(file, hba::with_lines(&text, &lines, &before.name)).await?;
            sound(source).await?;
            source.orders("reload the configuration", "select pg_reload_conf()").await?;
            added = Some(address);
        }
        Err(StepError::transient(format!("`{}` does not read its changed `{}`", self.from.title(), before.cluster.hba_file))
            .help("its log says why; it is tried again as `retry` says"))
    }

    fn is_the_source(&self, before: &Before, said: &str) -> Result<(), StepError> {
        let found = said.split('|').next().unwrap_or_default().trim();
        if found == before.cluster.system_identifier {
            return Ok(());
        }
        Err(StepError::permanent(format!("`{}` is another cluster (`{found}`) than `{}`", before.address, self.from.title()))
            .help("correct `from.address`"))
    }

    fn not_let_in(&self, before: &Before, said: &str) -> StepError {
        let user = self.user(before);
        let message = format!("`{}` does not let `{user}` replicate from `{}`: {said}", before.address, self.to.title());
        if said.contains("password authentication failed") {
            return StepError::needs_person(message).help("correct `user` and `password`, then resume the run");
        }
        if said.contains("certificate") || said.contains("SSL") {
            return StepError::needs_person(message).help("correct `tls` and `ca`, or the source's certificate");
        }
        if said.contains("no pg_hba.conf entry") || said.contains("must be superuser or replication role") {
            return StepError::needs_person(message)
                .help("allow this user in `pg_hba.conf`, or leave `user` out: then ferry makes one");
        }
        StepError::transient(message).help("see whether the way between the hosts is open; it is tried again as `retry` says")
    }

    /// How the target logs in at the source, without the password.
    pub(in crate::steps::postgres) fn conninfo(&self, before: &Before, more: &[(&str, &str)]) -> String {
        let (machine, port) = before.address.rsplit_once(':').unwrap_or((&before.address, "5432"));
        let trust = match self.trust(before) {
            Trust::Disable => "disable",
            Trust::Prefer => "prefer",
            Trust::Require => "require",
            Trust::VerifyCa => "verify-ca",
            Trust::VerifyFull => "verify-full",
        };
        let mut parts = vec![
            ("host", machine.trim_matches(['[', ']'])),
            ("port", port),
            ("user", self.user(before)),
            ("application_name", before.name.as_str()),
            ("sslmode", trust),
            ("connect_timeout", "10"),
            // A cut network is noticed within seconds.
            ("keepalives_idle", "5"),
            ("keepalives_interval", "2"),
            ("keepalives_count", "3"),
            // And at the source: a sender that is stuck in a cut connection would hold the slot, and with it whoever waits
            // for the slot, for a quarter of an hour.
            ("options", "-ctcp_user_timeout=10000"),
        ];
        parts.extend(self.ca.as_deref().map(|ca| ("sslrootcert", ca)));
        parts.extend(more);
        conf::conninfo(&parts)
    }

    /// Removes all of it again.
    pub(in crate::steps::postgres) async fn take_back(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let reach = ctx.reach();
        let here = Owner::of(&reach, &self.from)?;
        let source = reach.connect(&self.from).await?;
        let file = &before.cluster.hba_file;
        if let Some(text) = here.read(file).await? {
            let without = hba::without_lines(&text, &before.name);
            if without != text {
                here.write(file, without).await?;
                source.orders("reload the configuration", "select pg_reload_conf()").await?;
            }
        }
        let name = &before.name;
        let sql = "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where slot_name = $1 and active";
        source.rows("end the sender of the slot", sql, &[name]).await?;
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        source.rows("drop the replication slot", sql, &[name]).await?;
        drop_user(&source, name).await
    }
}

/// Removes the user that was made for a standby, with what it was allowed; none of this name is no error.
pub(in crate::steps::postgres) async fn drop_user(server: &Database, name: &str) -> Result<(), StepError> {
    let (quoted, literal) = (quote_name(name), quote_literal(name));
    let sql = format!(
        "do $$ begin if exists (select from pg_roles where rolname = {literal}) then drop owned by {quoted}; drop role {quoted}; end if; end $$"
    );
    server.orders("drop the user that replicates", &sql).await
}

/// A user that may replicate and nothing else. Its password is new with each attempt and is kept by the standby alone.
async fn make_user(ctx: &StepContext, source: &Database, name: &str) -> Result<Text, StepError> {
    let password: String = rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect();
    // The server gets what it would store: neither its log nor a listener sees the password.
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let mark = ctx.vault.insert(&format!("{name}_password"), SecretString::from(password));
    let exists = source.maybe::<i32>("look for a user", "select 1 from pg_roles where rolname = $1", &[&name]).await?;
    let verb = if exists.is_some() { "alter" } else { "create" };
    let sql = format!(
        "{verb} role {} with replication login connection limit 8 password {}",
        quote_name(name),
        quote_literal(&verifier)
    );
    source.orders("make a user that replicates", &sql).await?;
    Ok(Text::new(mark))
}

/// A `pg_hba.conf` that the server would refuse to load is no way to let anybody in.
async fn sound(source: &Database) -> Result<(), StepError> {
    let wrong = "select format('line %s: %s', line_number, error) from pg_hba_file_rules where error is not null limit 1";
    match source.maybe::<String>("look at pg_hba.conf", wrong, &[]).await? {
        None => Ok(()),
        Some(wrong) => Err(StepError::needs_person(format!("`pg_hba.conf` of `{}` cannot be loaded: {wrong}", source.title()))
            .help("put the line right, then resume the run")),
    }
}

/// The address that the server names when it has no rule for whoever knocks.
fn turned_away(said: &str) -> Option<String> {
    let rest = said.split_once("no pg_hba.conf entry for ").or_else(|| said.split_once("pg_hba.conf rejects "))?.1;
    let address = rest.split_once("from host \"")?.1.split_once('"')?.0;
    address.parse::<std::net::IpAddr>().ok().map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_whom_it_turns_away() {
        let said = "connection to server at \"10.77.0.10\", port 5432 failed: FATAL:  no pg_hba.conf entry for replication \
                    connection from host \"10.77.0.20\", user \"x\", SSL encryption";
        assert_eq!(turned_away(said).as_deref(), Some("10.77.0.20"));
        assert_eq!(turned_away("FATAL:  password authentication failed for user \"x\""), None);
        assert_eq!(turned_away("FATAL:  no pg_hba.conf entry for replication connection from host \"[local]\""), None);
    }
}
