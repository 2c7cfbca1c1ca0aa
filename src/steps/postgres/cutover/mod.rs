//! `postgres.cutover`: clients go over from a server to its standby within a fraction of a second.

mod back;
mod fence;
mod follower;
mod forecast;
mod outcome;
mod protocol;
mod release;
mod router;
mod sequences;
mod shape;
mod ship;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::fence::Files;
pub use self::outcome::CutOver;

pub use self::back::WayBack;
pub use self::follower::{Follower, Method};
use self::router::{Router, Seen, Task};
use crate::catalogue::{Interrupted, Pivot, Traits, Undo};
use crate::error::StepError;
use crate::postgres::{Cluster, Reach};
use crate::steps::{Preview, Step, StepContext};
use crate::units::{ByteSize, Span};

/// Makes the standby the primary and leads clients to it, with a pause that they do not notice as an error.
///
/// In order: both servers write a checkpoint, and the standby's lag is below `max_lag`; the fence is laid ready; the pause
/// is forecast, and does not begin when the forecast exceeds `max_pause`. Then the routers hold clients back, the fence
/// closes the old primary to everybody whatever way they come, and the standby gets the last of the log. Here lies the
/// **pivot**. The standby is promoted, the routers lead to it, clients go on. Behind the pause the old primary is
/// stopped as it is, its fence stays, and user and settings that the standby needed go.
///
/// Until the pivot everything can be put back, and is, when a phase fails or takes longer than `max_pause`: the old
/// primary serves again, and the step is tried again as `retry` says. From the pivot on there is only forward. At no
/// moment can two primaries be written to: docs/postgres.md says why, phase by phase.
///
/// A standby that follows through an archive needs no way between the servers: in the pause the source ends its segment of
/// the log and archives it, and the standby fetches and replays it. That takes longer than a stream does; before the pause
/// it is rehearsed, and how long it took is in the forecast.
///
/// With `PgBouncer` as the router (transaction pooling) clients see no error. A watchdog on its host ends the pause when
/// the runner does not. Without a router, or with one that cannot hold clients, their connections break.
///
/// After an interruption it looks first: before the pivot it releases pause and fence and begins anew, behind it it goes
/// on. Undo releases both; it does nothing once the pivot is passed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cutover {
    /// The outputs of a `postgres.replica`, of a `postgres.logical`, or of a `postgres.restore` that follows as a standby and
    /// was told its `primary`.
    replica: Follower,
    /// The ways that clients take to the server; all of them.
    #[serde(default)]
    routers: Vec<Router>,
    /// How far the standby may be behind when the pause begins; 1 MiB unless given. For one that follows through an archive
    /// nothing is asked for: the rehearsal brings it as close as it comes.
    #[serde(default = "a_mebibyte")]
    max_lag: ByteSize,
    /// How long clients may be held back before the pivot; 2 seconds unless given. When it takes longer everything is
    /// put back.
    #[serde(default = "two_seconds")]
    max_pause: Span,
    /// After how long the watchdog lets clients go on when the runner does not; 20 seconds unless given.
    #[serde(default = "twenty_seconds")]
    watchdog: Span,
    /// What becomes of a transaction that is older than `max_pause`.
    #[serde(default)]
    long_transactions: LongTransactions,
    /// Whether `postgres.failback` is to be able to lead back after a cutover by rows. Slots at the target then keep its log
    /// from the pause on until the old primary follows, or until somebody drops them. A standby needs none of that.
    #[serde(default)]
    way_back: bool,
}

/// What becomes of transactions that would hold up the pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LongTransactions {
    /// The cutover does not begin while there is one; the step fails and is tried again as `retry` says.
    #[default]
    Wait,
    /// They are ended; their clients get an error.
    End,
}

fn a_mebibyte() -> ByteSize {
    ByteSize(1 << 20)
}

fn two_seconds() -> Span {
    Span(Duration::from_secs(2))
}

fn twenty_seconds() -> Span {
    Span(Duration::from_secs(20))
}

/// Both servers and the routers as they were before the first attempt.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    /// The old primary.
    source: Cluster,
    /// The routers, in the order of the configuration.
    routers: Vec<Seen>,
    /// How far the standby was behind.
    lag: ByteSize,
    /// What the person should know.
    warnings: Vec<String>,
}

impl Cutover {
    /// With its connections outliving a cancel: half-way through a pause nothing is dropped.
    fn reach(ctx: &StepContext) -> Reach {
        Reach { cancel: tokio_util::sync::CancellationToken::new(), ..ctx.reach() }
    }

    fn task<'a>(&'a self, reach: &'a Reach) -> Task<'a> {
        Task { reach, from: self.replica.from(), to: self.replica.to(), key: &reach.application, watchdog: self.watchdog.0 }
    }

    fn files(before: &Before, key: &str) -> Files {
        Files::of(&before.source.hba_file, &before.source.data, key)
    }

    async fn look(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let reach = Self::reach(ctx);
        let (from, to) = (self.replica.from(), self.replica.to());
        let (database, source) = reach.cluster(from).await?;
        let (standby, target) = reach.cluster(to).await?;
        let is_standby = target.in_recovery && source.system_identifier == target.system_identifier;
        let is_other = !target.in_recovery && source.system_identifier != target.system_identifier;
        if source.in_recovery || !(if self.replica.method() == Method::Physical { is_standby } else { is_other }) {
            return Err(StepError::needs_person(format!("`{}` does not follow `{}`", to.title(), from.title()))
                .help("look which of the two is the primary: somebody has promoted one of them"));
        }
        if matches!(self.replica, Follower::Log(_)) {
            ship::must_archive(&database).await?;
        }
        if self.way_back && target.wal_level != "logical" {
            return Err(StepError::permanent(format!(
                "`way_back` needs slots at `{}`, whose `wal_level` is `{}` and not `logical`",
                to.title(),
                target.wal_level
            ))
            .help("there: `alter system set wal_level = logical`, then restart it"));
        }
        let lag = self.lag_bytes(&database, &standby).await?;
        let mut warnings = self.differences(&source, &target);
        warnings.extend(forecast::others_who_write(&database).await?);
        let mut routers = Vec::new();
        for router in &self.routers {
            let seen = router.look(&reach, to).await?;
            warnings.extend(seen.warnings.clone());
            routers.push(seen);
        }
        if !self.routers.iter().any(Router::holds_clients) {
            warnings.push("no router holds clients back: their connections break, and they have to come again".to_owned());
        }
        if self.watchdog <= self.max_pause && !self.routers.is_empty() {
            warnings.push(format!("`watchdog` ({}) may end a pause that `max_pause` ({}) allows", self.watchdog, self.max_pause));
        }
        Ok(Before { source, routers, lag: ByteSize(lag), warnings })
    }

    /// What clients could notice on the other side.
    fn differences(&self, source: &Cluster, target: &Cluster) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in &source.limits {
            if target.limit(name) < *value {
                found.push(format!("`{name}` is {value} at the source and {} at the target", target.limit(name)));
            }
        }
        // Rows bring no indexes along: they are built there.
        if source.collations != target.collations && self.replica.method() == Method::Physical {
            found.push(format!(
                "the text order of the operating system differs ({} at the source, {} at the target): indexes over text have to be built anew, `reindex`",
                source.collations.join(", "),
                target.collations.join(", ")
            ));
        }
        if source.ssl && !target.ssl {
            found.push(format!("`{}` offers TLS and `{}` does not", self.replica.from().title(), self.replica.to().title()));
        }
        found
    }
}

impl Step for Cutover {
    const TYPE: &'static str = "postgres.cutover";
    const PIVOT: Pivot = Pivot::Inside;
    const EXAMPLE: &'static str = r#"
id: over
uses: postgres.cutover
pivot: true
with:
  replica: "{{ steps.replica.outputs }}"
  routers:
    - pgbouncer: { host: gate }
  max_lag: 1MiB
  max_pause: 2s
"#;

    type Before = Before;
    type Output = CutOver;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        self.look(ctx).await
    }

    /// The routers: they are there before the standby is, and a copy that takes hours should not end at a wrong file name.
    async fn foresee(with: &Value, ctx: &StepContext) -> Result<Vec<String>, StepError> {
        let routers = with.get("routers").and_then(|routers| Vec::<Router>::deserialize(routers).ok()).unwrap_or_default();
        let reach = Self::reach(ctx);
        let seen = futures::future::try_join_all(routers.iter().map(|router| router.foresee(&reach))).await?;
        Ok(seen.concat())
    }

    fn preview(&self, before: &Before) -> Preview {
        let (from, to) = (self.replica.from().title(), self.replica.to().title());
        let routers: Vec<String> = self.routers.iter().map(Router::title).collect();
        let by = if routers.is_empty() { "without a router".to_owned() } else { format!("through {}", routers.join(" and ")) };
        Preview {
            does: match self.replica.method() {
                Method::Physical => {
                    format!("fences `{from}`, promotes `{to}` ({} behind), leads clients to it {by}, stops `{from}`", before.lag)
                }
                Method::Logical => format!(
                    "fences `{from}`, carries sequences over to `{to}` ({} behind), leads clients to it {by}, stops `{from}`",
                    before.lag
                ),
            },
            undo: "until the promote: lifts pause and fence, and the old primary serves; behind it nothing".to_owned(),
            warnings: before.warnings.clone(),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<CutOver, StepError> {
        self.go(ctx, before).await
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        self.put_back(ctx, before).await
    }
}
