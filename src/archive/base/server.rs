//! The server's side of a backup: it is told that one begins, and says at the end what makes it whole.

use std::path::PathBuf;

use tokio_postgres::{Client, Config, NoTls};

use super::super::identity::Identity;
use super::push::Source;
use crate::error::StepError;

/// A session in which a backup runs. The server gives it up when the session ends, however it does.
pub(super) struct Session {
    client: Client,
    pub version: u32,
    pub data: PathBuf,
    pub identity: Identity,
}

/// What the server says at the end.
pub(super) struct Stopped {
    pub stop: String,
    pub label: String,
    pub tablespace_map: String,
}

fn failed(doing: &str, error: tokio_postgres::Error) -> StepError {
    let told = error.as_db_error().map(ToString::to_string);
    let message = format!("cannot {doing}{}", told.map(|told| format!(": {told}")).unwrap_or_default());
    let refused = error.code().is_some_and(|code| !code.code().starts_with("57") && !code.code().starts_with("08"));
    let failure = if refused { StepError::permanent(message) } else { StepError::transient(message) };
    failure.cause(error).help("the server's log says more; the user has to be a superuser, or may run `pg_backup_start`")
}

impl Session {
    /// Logs in through the server's own socket.
    pub async fn open(source: &Source) -> Result<Self, StepError> {
        let mut config = Config::new();
        config.host_path(&source.socket).port(source.port).user(&source.user).dbname(&source.database);
        config.application_name("ferry base push");
        let (client, connection) =
            config.connect(NoTls).await.map_err(|error| failed("reach the server by its socket", error))?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let row = client
            .query_one(
                "select current_setting('server_version_num'), current_setting('data_directory'), pg_is_in_recovery(), \
                 (select system_identifier::text from pg_control_system()), \
                 (select setting from pg_settings where name = 'wal_segment_size')",
                &[],
            )
            .await
            .map_err(|error| failed("ask the server what it is", error))?;
        let text = |at: usize| row.try_get::<_, String>(at).map_err(|error| failed("understand the server", error));
        let number =
            |at: usize| text(at)?.parse::<u64>().map_err(|error| StepError::permanent("the server gives no number").cause(error));
        if row.try_get::<_, bool>(2).map_err(|error| failed("understand the server", error))? {
            return Err(StepError::permanent("the server is a standby").help("take the backup from its primary"));
        }
        let version = u32::try_from(number(0)?).unwrap_or_default();
        // SQL has no numbers without a sign; the log and `pg_controldata` write it without.
        let system = text(3)?.parse::<i64>().map_err(|error| StepError::permanent("the server gives no number").cause(error))?;
        let identity = Identity { ferry: 1, system: system.cast_unsigned().to_string(), segment: number(4)? };
        Ok(Self { version, data: text(1)?.into(), identity, client })
    }

    /// Tells the server that a backup begins: from here on its log holds all that is needed to make the files one state.
    pub async fn start(&self, label: &str, at_once: bool) -> Result<String, StepError> {
        let statement = if self.version >= 150_000 {
            "select pg_backup_start($1, $2)::text"
        } else {
            "select pg_start_backup($1, $2, false)::text"
        };
        let row = self.client.query_one(statement, &[&label, &at_once]).await;
        row.and_then(|row| row.try_get(0)).map_err(|error| failed("begin a backup", error))
    }

    /// Tells it that all files were read. It does not wait for its archive: that is looked after here.
    pub async fn stop(&self) -> Result<Stopped, StepError> {
        let statement = if self.version >= 150_000 {
            "select lsn::text, labelfile, spcmapfile from pg_backup_stop(false)"
        } else {
            "select lsn::text, labelfile, spcmapfile from pg_stop_backup(false, false)"
        };
        let row = self.client.query_one(statement, &[]).await.map_err(|error| failed("end the backup", error))?;
        let text = |at: usize| row.try_get::<_, Option<String>>(at).map_err(|error| failed("understand the server", error));
        Ok(Stopped {
            stop: text(0)?.unwrap_or_default(),
            label: text(1)?.unwrap_or_default(),
            tablespace_map: text(2)?.unwrap_or_default(),
        })
    }
}
