//! `postgres.catch_up`: waits until a standby, or a copy by rows, is close behind.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cutover::Follower;
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::postgres::Lag;
use crate::steps::{Preview, Progress, Step, StepContext};
use crate::units::{ByteSize, Span};

/// How often is looked.
const EVERY: Duration = Duration::from_millis(200);

/// Waits until a standby has been close behind its source for a while.
///
/// The lag is what the source knows of its standby: bytes written and not yet applied there. It has to stay below
/// `max_lag` for all of `for`; a lag that grows over the limit begins the time anew. How long it may take at most is the
/// step's `timeout`.
///
/// After an interruption it is run again. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatchUp {
    /// The outputs of a `postgres.replica`, a `postgres.logical` or a `postgres.failback`.
    replica: Follower,
    /// How far it may be behind; 1 MiB unless given.
    #[serde(default = "a_mebibyte")]
    max_lag: ByteSize,
    /// How long it has to stay so; 2 seconds unless given.
    #[serde(default = "two_seconds", rename = "for")]
    lasting: Span,
}

fn a_mebibyte() -> ByteSize {
    ByteSize(1 << 20)
}

fn two_seconds() -> Span {
    Span(Duration::from_secs(2))
}

/// How far it was behind when the step ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CaughtUp {
    /// In bytes.
    lag: ByteSize,
    /// In time.
    lag_time: Span,
    /// How long it took.
    took: Span,
}

impl Step for CatchUp {
    const TYPE: &'static str = "postgres.catch_up";
    const EXAMPLE: &'static str = r#"
id: close
uses: postgres.catch_up
with:
  replica: "{{ steps.replica.outputs }}"
  max_lag: 1MiB
  for: 10s
"#;

    type Before = ();
    type Output = CaughtUp;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<(), StepError> {
        if self.replica.slots().is_empty() {
            return Err(StepError::permanent(format!(
                "`{}` follows through an archive, segment by segment",
                self.replica.to().title()
            ))
            .help("leave this step out: `postgres.cutover` ends the last segment and waits for it"));
        }
        ctx.reach().host(self.replica.from()).map(drop)
    }

    fn preview(&self, (): &()) -> Preview {
        let does =
            format!("waits until `{}` is less than {} behind for {}", self.replica.to().title(), self.max_lag, self.lasting);
        Preview { does, undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<CaughtUp, StepError> {
        let source = ctx.reach().connect(self.replica.from()).await?;
        let start = ctx.clock.monotonic();
        let mut since = None;
        let mut last: Option<Lag> = None;
        loop {
            let now = ctx.clock.monotonic();
            let found = self.replica.lag(&source).await?;
            match &found {
                Some(lag) if lag.state == "streaming" && lag.bytes() <= self.max_lag.0 => {
                    let since = *since.get_or_insert(now);
                    if now.saturating_sub(since) >= self.lasting.0 {
                        let millis =
                            |time: Duration| Span(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
                        let lag_time = Span(Duration::from_millis(lag.millis));
                        return Ok(CaughtUp { lag: ByteSize(lag.bytes()), lag_time, took: millis(now.saturating_sub(start)) });
                    }
                }
                _ => since = None,
            }
            // A standby that applies nothing is silent, for the idle timeout to see.
            let moves = found.as_ref().map(|lag| lag.replayed) != last.as_ref().map(|lag| lag.replayed);
            if moves || since.is_some() {
                let message = found
                    .as_ref()
                    .map_or_else(|| "it does not follow yet".to_owned(), |lag| format!("{} behind", ByteSize(lag.bytes())));
                ctx.progress(Progress { message: Some(message), ..Progress::default() });
            }
            last = found;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        }
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
