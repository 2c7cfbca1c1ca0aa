//! `postgres.base_backup`: a running cluster's files into a store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kit::Kit;
use crate::archive::base::{Taken, must_be_name};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::Server;
use crate::steps::{Preview, Step, StepContext};
use crate::units::ByteSize;

/// Takes a base backup of a running PostgreSQL cluster into a store, while clients go on working.
///
/// For hosts that cannot reach each other: both reach the store. The files are read on the database's own host, side by
/// side, compressed, and stored in parts that are named after their content; the log that belongs to them is stored too,
/// whether the server archives or not. ferry brings itself there for that, and removes itself again. The index that makes
/// a backup of the parts is written last: one that is not whole looks like none.
///
/// After an interruption it goes on: files are read again, and what is stored already is not sent again. Undo removes
/// the backup from the store; segments of the log stay, they belong to the archive.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaseBackup {
    /// The server: a host's name, or a mapping with what differs from the usual.
    from: Server,
    /// The archive: `store:prefix/`, or a URL. One cluster has one.
    #[schemars(extend("format" = "place"))]
    to: String,
    /// What the backup is called. One of its own for each run, unless given.
    #[serde(default)]
    name: Option<String>,
    /// Whether the server may take its time for the checkpoint at the beginning.
    #[serde(default)]
    spread: bool,
    /// How many parts are sent at once.
    #[serde(default = "four")]
    concurrency: usize,
    /// How hard zstd tries, 1 to 19.
    #[serde(default = "three")]
    level: i32,
}

pub(super) fn four() -> usize {
    4
}

pub(super) fn three() -> i32 {
    3
}

/// The cluster as it was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    folder: String,
    name: String,
    bytes: u64,
    data: String,
}

/// That an attempt has begun to write under the backup's name.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    begun: bool,
}

/// A backup in an archive.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BackedUp {
    /// The backup's name.
    name: String,
    /// The archive.
    place: String,
    /// Bytes of the cluster's files.
    bytes: ByteSize,
    /// Bytes in the store.
    stored: ByteSize,
    /// How many files.
    files: u64,
    /// Where replay begins.
    start: String,
    /// From where on a restored cluster is one state.
    stop: String,
    /// The timeline.
    timeline: u32,
    /// The cluster's system identifier.
    system: String,
    /// The server's version: 150018.
    version: u32,
}

impl BaseBackup {
    fn args(&self, before: &Before) -> Vec<String> {
        let server = &self.from;
        let mut args = vec![before.name.clone()];
        let mut set = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        set("--socket", &server.socket);
        set("--port", &server.port.to_string());
        set("--user", &server.user);
        set("--database", &server.database);
        if self.spread {
            args.push("--spread".to_owned());
        }
        args
    }
}

impl Step for BaseBackup {
    const TYPE: &'static str = "postgres.base_backup";
    const EXAMPLE: &'static str = r#"
id: base
uses: postgres.base_backup
with:
  from: source
  to: "between:orders/"
"#;

    type Before = Before;
    type Output = BackedUp;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let name = self.name.clone().unwrap_or_else(|| ctx.idempotence_key()[..12].to_owned());
        must_be_name(&name)?;
        ctx.stores.open(&self.to, &ctx.base)?;
        let (_, cluster) = ctx.reach().cluster(&self.from).await?;
        if cluster.in_recovery {
            return Err(StepError::permanent(format!("`{}` is a standby", self.from.title())).help("back up its primary"));
        }
        let folder = Kit::look(ctx, &self.from).await?.folder;
        Ok(Before { folder, name, bytes: cluster.bytes, data: cluster.data })
    }

    fn preview(&self, before: &Before) -> Preview {
        let (from, bytes, name) = (self.from.title(), ByteSize(before.bytes), &before.name);
        Preview {
            does: format!(
                "backs up the cluster of `{from}`, {bytes}, to `{}` as `{name}`; ferry brings itself there for that",
                self.to
            ),
            undo: format!("removes the backup `{name}` from `{}`", self.to),
            bytes: Some(before.bytes),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<BackedUp, StepError> {
        let kit = Kit::at(ctx, &self.from, &before.folder)?;
        kit.bring(&self.to, |settings| {
            settings.spool = Some(format!("{}/spool", before.folder).into());
            settings.at_once = self.concurrency.clamp(1, 64);
            settings.level = self.level.clamp(1, 19);
        })
        .await?;
        let was_begun = ctx.checkpoint::<Begun>().is_some_and(|begun| begun.begun);
        if !was_begun {
            let names = kit.base("has", std::slice::from_ref(&before.name)).await?;
            if names["found"] == true {
                return Err(StepError::needs_person(format!("`{}` holds a backup `{}` already", self.to, before.name))
                    .help("give this one another `name`, or none"));
            }
            ctx.save(&Begun { begun: true }).await?;
        }
        let said = kit.base("push", &self.args(before)).await?;
        let taken: Taken = serde_json::from_value(said)
            .map_err(|error| StepError::permanent("cannot understand what `ferry base push` says").cause(error))?;
        kit.remove().await?;
        let summary = taken.summary;
        Ok(BackedUp {
            name: summary.name,
            place: self.to.clone(),
            bytes: ByteSize(summary.bytes),
            stored: ByteSize(summary.stored),
            files: summary.files,
            start: summary.start,
            stop: summary.stop,
            timeline: summary.timeline,
            system: summary.system,
            version: summary.version,
        })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let kit = Kit::at(ctx, &self.from, &before.folder)?;
        if ctx.checkpoint::<Begun>().is_some_and(|begun| begun.begun) {
            kit.bring(&self.to, |_| {}).await?;
            kit.base("rm", std::slice::from_ref(&before.name)).await?;
        }
        kit.remove().await
    }
}
