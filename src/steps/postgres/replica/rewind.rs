//! An old primary taken back to where the new one's timeline begins, by `pg_rewind`.

use std::collections::BTreeMap;

use super::{Before, Replica};
use crate::error::StepError;
use crate::postgres::{Database, Owner, quote_name};
use crate::secret::Text;
use crate::steps::{LogStream, StepContext};

/// What `pg_rewind` reads through, for who is no superuser.
const FUNCTIONS: &str = "pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text), \
    pg_read_binary_file(text, bigint, bigint, boolean)";

/// It takes over the other server's configuration too, and this server is to keep its own. `$1` data, `$2` keep or back.
const CONFIGURATION: &str = r#"d=$1; k="$(dirname "$d")/.$(basename "$d").configuration"
if [ "$2" = keep ]; then [ -d "$k" ] || { mkdir -m 700 "$k.part" && cp -p "$d"/postgresql*.conf "$d"/pg_hba.conf* "$d"/pg_ident.conf "$k.part/" 2>/dev/null; mv "$k.part" "$k"; }
else cp -p "$k"/* "$d/" && rm -rf "$k"; fi"#;

impl Replica {
    pub(in crate::steps::postgres) async fn rewind(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        owner: &Owner,
        password: &Text,
    ) -> Result<(), StepError> {
        let grant = format!("grant execute on function {FUNCTIONS} to {}", quote_name(self.user(before)));
        source.orders("let the user read files", &grant).await?;
        // The fork has to be in the new primary's control file, which a checkpoint writes.
        source.orders("write a checkpoint", "checkpoint").await?;
        owner.script("keep the configuration", CONFIGURATION, &[&before.data, "keep"]).await?;
        let mut argv = vec![
            format!("{}/pg_rewind", before.bin),
            format!("--target-pgdata={}", before.data),
            format!("--source-server={}", self.conninfo(before, &[("dbname", self.from.database.as_str())])),
        ];
        argv.extend(self.to.config.as_ref().map(|config| format!("--config-file={config}")));
        let env = BTreeMap::from([("PGPASSWORD".to_owned(), password.clone())]);
        let finished = owner.program(argv, env, &|_, line| ctx.signals.log(LogStream::Stderr, line)).await?;
        owner.succeeded("rewind the old primary", &finished).map_err(|error| {
            let help = "`pg_rewind` needs checksums or `wal_log_hints = on`, and all of the log since the fork; without them \
                        make a new standby: remove the data directory and use `postgres.replica`";
            StepError { help: Some(help.to_owned()), ..error }
        })?;
        owner.script("put the configuration back", CONFIGURATION, &[&before.data, "back"]).await.map(drop)
    }
}
