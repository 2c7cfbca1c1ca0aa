//! The copy: `pg_basebackup` from server to server, watched at the source and verified at the target.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Before, Compress, Replica};
use crate::error::StepError;
use crate::hosts::Finished;
use crate::postgres::{Database, Owner};
use crate::secret::Text;
use crate::steps::{LogStream, Progress, StepContext};

/// Beside the data directory stands a file that says whose it is and how far it is. `$1` data, `$2` what it says.
const MARK: &str =
    r#"m="$(dirname "$1")/.$(basename "$1").ferry"; printf '%s\n' "$2" >"$m.new" && sync "$m.new" && mv "$m.new" "$m""#;
const MARKED: &str = r#"cat "$(dirname "$1")/.$(basename "$1").ferry" 2>/dev/null || true"#;
const UNMARK: &str = r#"rm -f "$(dirname "$1")/.$(basename "$1").ferry""#;

/// Empties a directory but keeps it, for it may be a mount.
const EMPTY: &str = r#"[ ! -d "$1" ] || find "$1" -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +"#;

/// How often the source is asked how far it is.
const EVERY: Duration = Duration::from_millis(500);

const PROGRESS: &str = "select phase, backup_streamed, backup_total from pg_stat_progress_basebackup p
    join pg_stat_replication r using (pid) where r.application_name = $1 limit 1";

impl Replica {
    /// What the mark beside the data directory says of this run's copy: nothing, `copying`, `copied`.
    pub(super) async fn marked(&self, before: &Before, owner: &Owner) -> Result<Option<String>, StepError> {
        let said = owner.script("look at the data directory", MARKED, &[&before.data]).await?;
        Ok(said.strip_prefix(&before.name).map(|rest| rest.trim().to_owned()))
    }

    /// Copies the cluster, unless an earlier attempt has, and says how long it took.
    pub(super) async fn copy(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        owner: &Owner,
        password: &Text,
    ) -> Result<Option<Duration>, StepError> {
        let marked = self.marked(before, owner).await?;
        if marked.as_deref() == Some("copied") {
            ctx.log("the copy is whole: it is kept");
            return Ok(None);
        }
        if marked.is_none() {
            self.is_free(before, owner).await?;
            owner.script("mark the data directory", MARK, &[&before.data, &format!("{} copying", before.name)]).await?;
        }
        // An attempt that died may have left half of a copy, and nobody else's: the mark came before it.
        self.empty(before, owner).await?;
        let start = ctx.clock.monotonic();
        let finished = self.back_up(ctx, before, source, owner, password).await?;
        owner.succeeded("copy the cluster to it", &finished).map_err(passing)?;
        if self.verify {
            ctx.progress(Progress { message: Some("reads the copy again".to_owned()), ..Progress::default() });
            let verify =
                vec![format!("{}/pg_verifybackup", before.bin), "--exit-on-error".into(), "-q".into(), before.data.clone()];
            let finished = owner.program(verify, BTreeMap::new(), &|_, line| ctx.signals.log(LogStream::Stderr, line)).await?;
            owner.succeeded("verify the copy", &finished)?;
        }
        owner.script("mark the data directory", MARK, &[&before.data, &format!("{} copied", before.name)]).await?;
        Ok(Some(ctx.clock.monotonic().saturating_sub(start)))
    }

    async fn is_free(&self, before: &Before, owner: &Owner) -> Result<(), StepError> {
        let script = r#"[ ! -e "$1" ] || [ -z "$(ls -A "$1")" ]"#;
        if owner.try_script(script, &[&before.data], None).await?.code == Some(0) {
            return Ok(());
        }
        Err(StepError::needs_person(format!(
            "somebody has put something into `{}` of `{}` since the plan",
            before.data,
            self.to.title()
        ))
        .help("nothing that others have made is ever overwritten: move it away, then resume the run"))
    }

    async fn back_up(
        &self,
        ctx: &StepContext,
        before: &Before,
        source: &Database,
        owner: &Owner,
        password: &Text,
    ) -> Result<Finished, StepError> {
        let mut argv = vec![
            format!("{}/pg_basebackup", before.bin),
            format!("--pgdata={}", before.data),
            format!("--dbname={}", self.conninfo(before, &[])),
            "--wal-method=stream".to_owned(),
            format!("--slot={}", before.name),
            "--checkpoint=fast".to_owned(),
            "--no-password".to_owned(),
        ];
        argv.extend(self.max_rate.map(|rate| format!("--max-rate={}k", (rate.0 / 1024).clamp(32, 1024 * 1024))));
        match self.compress {
            Compress::None => {}
            Compress::Lz4 => argv.push("--compress=server-lz4".to_owned()),
            Compress::Zstd => argv.push("--compress=server-zstd:1".to_owned()),
        }
        argv.extend(self.tablespaces.iter().map(|(from, to)| format!("--tablespace-mapping={from}={to}")));
        let env = BTreeMap::from([("PGPASSWORD".to_owned(), password.clone())]);
        let on_line = |_: bool, line: &str| ctx.signals.log(LogStream::Stderr, line);
        let mut copying = std::pin::pin!(owner.program(argv, env, &on_line));
        let mut tick = tokio::time::interval(EVERY);
        let mut last = 0;
        loop {
            tokio::select! {
                biased;
                finished = &mut copying => return finished,
                _ = tick.tick() => {
                    // Not to be told how far it is is no reason to stop.
                    let Ok(rows) = source.rows("ask how far the copy is", PROGRESS, &[&before.name]).await else { continue };
                    let Some(row) = rows.first() else { continue };
                    let done = row.try_get::<_, Option<i64>>(1).ok().flatten().unwrap_or(0).max(0).cast_unsigned();
                    // Silence is what the idle timeout measures.
                    if done > last || last == 0 {
                        last = done;
                        let total = row.try_get::<_, Option<i64>>(2).ok().flatten().map(i64::cast_unsigned);
                        let message = row.try_get::<_, String>(0).ok();
                        ctx.progress(Progress { bytes: Some(done), bytes_total: total, message, ..Progress::default() });
                    }
                }
            }
        }
    }

    /// Empties the data directory and the folders of tablespaces, which are this run's.
    pub(super) async fn empty(&self, before: &Before, owner: &Owner) -> Result<(), StepError> {
        for path in &before.cluster.tablespaces {
            let to = self.tablespaces.get(path).unwrap_or(path);
            owner.script("empty a tablespace's folder", EMPTY, &[to]).await?;
        }
        owner.script("empty the data directory", EMPTY, &[&before.data]).await.map(drop)
    }

    /// Stops the standby and removes what was copied, when it is this run's.
    pub(super) async fn remove(&self, before: &Before, owner: &Owner) -> Result<(), StepError> {
        if self.marked(before, owner).await?.is_none() {
            return Ok(());
        }
        owner.stop(&self.standby(before), &before.data, crate::postgres::Stop::Immediate).await?;
        self.empty(before, owner).await?;
        if before.was_absent {
            owner.script("remove the data directory", r#"[ ! -d "$1" ] || rmdir "$1""#, &[&before.data]).await?;
        }
        owner.script("remove the mark of the data directory", UNMARK, &[&before.data]).await.map(drop)
    }
}

/// A copy that broke off may go through another time: the network may have been cut.
fn passing(error: StepError) -> StepError {
    let passes = [
        "could not receive data",
        "could not connect",
        "server closed the connection",
        "could not translate",
        "timeout",
        "terminat",
    ];
    let may_pass = passes.iter().any(|word| error.message.contains(word)) || error.message.contains("could not read COPY data");
    if error.class == crate::error::ErrorClass::Permanent && may_pass {
        return StepError { class: crate::error::ErrorClass::Transient, ..error }.help("it begins anew, as `retry` says");
    }
    error
}
