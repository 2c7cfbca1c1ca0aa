//! `postgres.replica`: a standby on another host that follows a running server.

mod base;
mod outcome;
mod rewind;
mod source;
mod standby;
mod target;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use outcome::Replicated;
pub(super) use source::drop_user;

use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::{Cluster, Owner, Server, Trust};
use crate::secret::Text;
use crate::steps::scalar::Scalar;
use crate::steps::{Preview, Step, StepContext};
use crate::units::{ByteSize, Rate};

/// Makes a standby of a running PostgreSQL server on another host, and returns when it follows.
///
/// All of a cluster is copied, with `pg_basebackup`, straight from server to server, while clients go on working; then
/// the copy follows by streaming replication. What is needed for that at the source is made and taken back again by
/// undo: a user that may replicate and do nothing else, with a generated password; a replication slot, so that no WAL
/// is missing however long the copy takes; one line of `pg_hba.conf`, for the target's address alone. Nothing at the
/// source is restarted: where its settings do not allow a standby, the plan says which.
///
/// The target's data directory has to be empty or not there: what others have put into it is never touched. Where the
/// source's configuration lies outside of its data directory, as on Debian, and the target's `config` is not given, the
/// settings in force are written into the new data directory.
///
/// After an interruption it looks first: a copy that is whole is kept, one that is not is begun anew; a standby that
/// follows is left alone. Undo stops the standby, removes the data directory that it made, and takes back user, slot and
/// line at the source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// The server to copy: a host's name, or a mapping with what differs from the usual.
    pub from: Server,
    /// Where the standby is to be. Its `data` is the source's, unless given.
    pub to: Server,
    /// A user of the source that may replicate. One is made and removed again, unless given.
    #[serde(default)]
    user: Option<String>,
    /// That user's password.
    #[serde(default)]
    password: Option<Text>,
    /// What TLS between the servers has to prove; `require` where the source offers TLS, unless given.
    #[serde(default)]
    tls: Option<Trust>,
    /// A file on the target's host with the certificates of who may sign the source's, for `verify-ca` and `verify-full`.
    #[serde(default)]
    ca: Option<String>,
    /// How fast the copy may be taken at most, so that clients do not feel it.
    #[serde(default)]
    max_rate: Option<Rate>,
    /// How the copy is compressed on its way, for slow links. Needs PostgreSQL 15.
    #[serde(default)]
    compress: Compress,
    /// Whether the copy is read again and compared with the checksums of its manifest.
    #[serde(default = "yes")]
    verify: bool,
    /// Settings that are to differ at the target.
    #[serde(default)]
    settings: BTreeMap<String, Scalar>,
    /// Where the source's tablespaces are to lie at the target: `/old: /new`. The same path, unless given.
    #[serde(default)]
    tablespaces: BTreeMap<String, String>,
    /// Whether the standby may have to be rewound first.
    #[serde(skip)]
    may_rewind: bool,
}

/// How a copy is compressed on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Compress {
    /// Not at all.
    #[default]
    None,
    /// Fast, some smaller.
    Lz4,
    /// Slower, much smaller.
    Zstd,
}

fn yes() -> bool {
    true
}

/// The source and the place for the copy, as they were before the first attempt.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    /// The source's cluster.
    cluster: Cluster,
    /// Where the target reaches the source: `host:port`.
    address: String,
    /// The target's data directory.
    data: String,
    /// Whether it was not there at all.
    was_absent: bool,
    /// Its folder of programs.
    bin: String,
    /// The name of all that is made at the source.
    name: String,
    /// Things the person should know.
    warnings: Vec<String>,
}

impl Before {
    /// The name of all that is made at the source.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The source's cluster.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The same, where all that is made at the source has another name.
    pub(super) fn named(&self, name: &str) -> Self {
        Self::of(self.cluster.clone(), self.address.clone(), &self.data, &self.bin, name)
    }

    /// A server that was a primary as the place of a standby.
    pub(super) fn of(cluster: Cluster, address: String, data: &str, bin: &str, name: &str) -> Self {
        let (data, bin, name) = (data.to_owned(), bin.to_owned(), name.to_owned());
        Self { cluster, address, data, was_absent: false, bin, name, warnings: Vec::new() }
    }
}

impl Replica {
    /// With nothing unusual, of a server that was the source itself.
    pub(super) fn back(from: Server, to: Server) -> Self {
        Self {
            from,
            to,
            user: None,
            password: None,
            tls: None,
            ca: None,
            max_rate: None,
            compress: Compress::None,
            verify: false,
            settings: BTreeMap::new(),
            tablespaces: BTreeMap::new(),
            may_rewind: true,
        }
    }

    /// The standby with its data directory and programs.
    fn standby(&self, before: &Before) -> Server {
        let mut standby = self.to.clone();
        standby.data = Some(before.data.clone());
        standby.bin = Some(before.bin.clone());
        standby
    }

    /// What replicates logs in as.
    fn user<'a>(&'a self, before: &'a Before) -> &'a str {
        self.user.as_deref().unwrap_or(&before.name)
    }

    /// The TLS that the standby asks for.
    fn trust(&self, before: &Before) -> Trust {
        self.tls.unwrap_or(if before.cluster.ssl { Trust::Require } else { Trust::Prefer })
    }

    fn checked(&self) -> Result<(), StepError> {
        if self.from.host == self.to.host && self.from.port == self.to.port && self.from.socket == self.to.socket {
            return Err(StepError::permanent("`from` and `to` are the same server")
                .help("two servers on one host need different ports: `to: { host: …, port: 5433, data: … }`"));
        }
        if self.user.is_some() != self.password.is_some() {
            return Err(StepError::permanent("`user` and `password` of `postgres.replica` go together")
                .help("give both, or neither: then a user is made for this run"));
        }
        let needs_ca = matches!(self.tls, Some(Trust::VerifyCa | Trust::VerifyFull));
        if needs_ca && self.ca.is_none() {
            return Err(StepError::permanent("`tls` asks for a proof, and `ca` does not say whose signature counts")
                .help("give `ca`, a file on the target's host"));
        }
        Ok(())
    }
}

impl Step for Replica {
    const TYPE: &'static str = "postgres.replica";
    const EXAMPLE: &'static str = r"
id: standby
uses: postgres.replica
with:
  from: source
  to: { host: target, data: /var/lib/postgresql/15/main }
  max_rate: 80MB/s
";

    type Before = Before;
    type Output = Replicated;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        self.checked()?;
        self.look(ctx).await
    }

    fn preview(&self, before: &Before) -> Preview {
        let (from, to, data) = (self.from.title(), self.to.title(), &before.data);
        let by = if self.user.is_some() { String::new() } else { format!(", user `{}`", before.name) };
        Preview {
            does: format!(
                "copies the cluster of `{from}`, {}, to `{data}` of `{to}`, which follows it",
                ByteSize(before.cluster.bytes)
            ),
            undo: format!(
                "stops `{to}`, removes `{data}`, and at `{from}` slot `{}`{by} and their line of pg_hba.conf",
                before.name
            ),
            bytes: Some(before.cluster.bytes),
            warnings: before.warnings.clone(),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Replicated, StepError> {
        self.checked()?;
        let reach = ctx.reach();
        let source = reach.connect(&self.from).await?;
        let owner = Owner::of(&reach, &self.to)?;
        if let Some(lag) = self.follows(ctx, before, &source, &owner).await? {
            ctx.log("the standby follows already");
            return self.outcome(before, &lag, None);
        }
        let password = self.prepare(ctx, before, &source).await?;
        let took = self.copy(ctx, before, &source, &owner, &password).await?;
        self.configure(before, &owner, &password, ctx).await?;
        let lag = self.follow(ctx, before, &source, &owner).await?;
        self.outcome(before, &lag, took)
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let owner = Owner::of(&ctx.reach(), &self.to)?;
        self.remove(before, &owner).await?;
        self.take_back(ctx, before).await
    }
}
