//! What a running server says of its cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connect::Reach;
use super::database::Database;
use super::lsn::Lsn;
use super::server::Server;
use crate::error::StepError;

/// A cluster as its running server describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// The version as a number: 150008 is 15.8.
    pub version: u32,
    /// The same in every copy of the cluster.
    pub system_identifier: String,
    /// Whether it follows another server.
    pub in_recovery: bool,
    /// The data directory.
    pub data: String,
    /// The main configuration file.
    pub config_file: String,
    /// The file that says who may log in from where.
    pub hba_file: String,
    /// The file that maps users of the operating system.
    pub ident_file: String,
    /// The folder of its programs.
    pub bin: String,
    /// Whether it offers TLS.
    pub ssl: bool,
    /// `wal_level`.
    pub wal_level: String,
    /// Settings that a standby must not have smaller, and how many senders and slots there may be.
    pub limits: Vec<(String, i64)>,
    /// Tablespaces outside of the data directory: where they lie.
    pub tablespaces: Vec<String>,
    /// How large all databases are.
    pub bytes: u64,
    /// The extensions of its system's text order: `glibc 2.36`, by provider.
    pub collations: Vec<String>,
    /// Where it listens.
    pub listen_addresses: String,
}

const ASK: &str = "select current_setting('server_version_num')::int4,
    (select system_identifier from pg_control_system()),
    pg_is_in_recovery(), current_setting('data_directory'), current_setting('config_file'),
    current_setting('hba_file'), current_setting('ident_file'),
    (select setting from pg_config where name = 'BINDIR'),
    current_setting('ssl') = 'on', current_setting('wal_level'),
    (select coalesce(sum(pg_database_size(oid)), 0)::int8 from pg_database),
    current_setting('listen_addresses')";

const LIMITS: &str = "select name, setting::int8 from pg_settings where name in ('max_connections', 'max_worker_processes',
    'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction', 'max_replication_slots') order by name";

const TABLESPACES: &str =
    "select pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) <> '' order by 1";

const COLLATIONS: &str = "select distinct collprovider::text || ' ' || pg_collation_actual_version(oid) from pg_collation
    where pg_collation_actual_version(oid) is not null order by 1";

impl Cluster {
    /// Asks a server.
    pub async fn ask(database: &Database) -> Result<Self, StepError> {
        let doing = "ask what the cluster is like";
        let rows = database.rows(doing, ASK, &[]).await?;
        let row = rows.first().ok_or_else(|| StepError::permanent("a server says nothing of itself"))?;
        let text = |at: usize| row.try_get::<_, String>(at).map_err(|error| database.failed(doing, error));
        let truth = |at: usize| row.try_get::<_, bool>(at).map_err(|error| database.failed(doing, error));
        let list = async |sql: &str| -> Result<Vec<String>, StepError> {
            let rows = database.rows(doing, sql, &[]).await?;
            rows.iter().map(|row| row.try_get(0).map_err(|error| database.failed(doing, error))).collect()
        };
        let limits = database.rows(doing, LIMITS, &[]).await?;
        let limits = limits.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>();
        Ok(Self {
            version: row.try_get::<_, i32>(0).map(i32::cast_unsigned).map_err(|error| database.failed(doing, error))?,
            // SQL has no unsigned numbers; all else shows it as one.
            system_identifier: row
                .try_get::<_, i64>(1)
                .map(|number| number.cast_unsigned().to_string())
                .map_err(|error| database.failed(doing, error))?,
            in_recovery: truth(2)?,
            data: text(3)?,
            config_file: text(4)?,
            hba_file: text(5)?,
            ident_file: text(6)?,
            bin: text(7)?,
            ssl: truth(8)?,
            wal_level: text(9)?,
            limits: limits.map_err(|error| database.failed(doing, error))?,
            tablespaces: list(TABLESPACES).await?,
            bytes: row.try_get::<_, i64>(10).map(i64::cast_unsigned).map_err(|error| database.failed(doing, error))?,
            collations: list(COLLATIONS).await?,
            listen_addresses: text(11)?,
        })
    }

    /// The major version: 15.
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// A setting of [`Cluster::limits`].
    pub fn limit(&self, name: &str) -> i64 {
        self.limits.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }

    /// Whether its configuration lies outside of the data directory, as Debian has it.
    pub fn is_configured_elsewhere(&self) -> bool {
        !self.config_file.starts_with(&format!("{}/", self.data.trim_end_matches('/')))
    }

    /// The server as a pipeline would name it, with what it says of itself filled in.
    pub fn known_as(&self, server: &Server) -> Server {
        let mut known = server.clone();
        known.data.get_or_insert_with(|| self.data.clone());
        known.bin.get_or_insert_with(|| self.bin.clone());
        if self.is_configured_elsewhere() {
            known.config.get_or_insert_with(|| self.config_file.clone());
        }
        known
    }
}

/// How far a standby is behind, as its primary sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// What state its sender is in: `streaming` when it has caught up once.
    pub state: String,
    /// Up to where the standby has the log on its disk.
    pub flushed: Lsn,
    /// Up to where it has applied it.
    pub replayed: Lsn,
    /// Where the primary is.
    pub written: Lsn,
    /// How long ago, in milliseconds, the last thing was committed that the standby has not applied yet.
    pub millis: u64,
}

impl Lag {
    /// Bytes that the standby has not applied yet.
    pub fn bytes(&self) -> u64 {
        self.replayed.behind(self.written)
    }
}

const LAG: &str = "select r.state, r.flush_lsn::text, r.replay_lsn::text, pg_current_wal_lsn()::text,
    coalesce(extract(epoch from r.replay_lag) * 1000, 0)::int8
    from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid where s.slot_name = $1";

/// How far the standby that uses this slot is behind; `None` when nobody is connected to it.
pub async fn lag(primary: &Database, slot: &str) -> Result<Option<Lag>, StepError> {
    let doing = "ask how far the standby is behind";
    let rows = primary.rows(doing, LAG, &[&slot]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let failed = |error| primary.failed(doing, error);
    let lsn = |at: usize| -> Result<Lsn, StepError> {
        let text: Option<String> = row.try_get(at).map_err(failed)?;
        // A standby that has just connected has not said where it is.
        text.map_or(Ok(Lsn(0)), |text| text.parse().map_err(StepError::permanent))
    };
    Ok(Some(Lag {
        state: row.try_get(0).map_err(failed)?,
        flushed: lsn(1)?,
        replayed: lsn(2)?,
        written: lsn(3)?,
        millis: row.try_get::<_, i64>(4).map_err(failed)?.max(0).cast_unsigned(),
    }))
}

impl Reach {
    /// Connects to a server and asks it what it is like.
    pub async fn cluster(&self, server: &Server) -> Result<(Database, Cluster), StepError> {
        let database = self.connect(server).await?;
        let cluster = Cluster::ask(&database).await?;
        Ok((database, cluster))
    }
}
