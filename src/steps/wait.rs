//! `wait`: the run goes on after a time, at an instant, or when something answers.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Preview, Progress, Step, StepContext};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::secret::Text;
use crate::units::Span;

/// How long one look at a URL or a port may take.
const ONE_LOOK: Duration = Duration::from_secs(10);
/// Tries do not follow each other faster than this.
const SHORTEST: Duration = Duration::from_millis(100);
/// How often the step says that it is still there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Waits for a time, until an instant, or until something answers.
///
/// Give exactly one of `for`, `until`, `url` and `tcp`. URLs and ports are tried from the machine that ferry runs on.
///
/// A duration counts from the first attempt: when ferry is killed and the run is resumed, only the rest is waited
/// for. A clock that is set while the step waits makes a duration neither longer nor shorter; an instant follows the
/// clock.
///
/// There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["for"] }, { "required": ["until"] }, { "required": ["url"] }, { "required": ["tcp"] },
]))]
pub struct Wait {
    /// How long to wait: `90s`, `2h30m`.
    #[serde(default, rename = "for")]
    duration: Option<Span>,
    /// Until when to wait: `2026-03-01T02:00:00Z`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    until: Option<Timestamp>,
    /// A URL that is asked with GET until it answers with a status from 200 to 299.
    #[serde(default)]
    url: Option<Text>,
    /// A `host:port` that is tried until it accepts a connection.
    #[serde(default)]
    tcp: Option<String>,
    /// How long to wait between two tries of `url` or `tcp`, at least 100 ms; 2 seconds, unless given.
    #[serde(default = "two_seconds")]
    every: Span,
    /// How long to try `url` or `tcp` before the step fails; an hour, unless given.
    #[serde(default)]
    at_most: Option<Span>,
}

fn two_seconds() -> Span {
    Span(Duration::from_secs(2))
}

/// What is waited for.
enum Goal<'a> {
    For(Duration),
    Until(Timestamp),
    Url(&'a Text),
    Tcp(&'a str),
}

/// Written once, before the waiting begins.
#[derive(Serialize, Deserialize)]
struct Began {
    at: Timestamp,
}

/// What waiting leaves.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Waited {
    /// How long this attempt waited.
    waited: Span,
    /// How often `url` or `tcp` was tried.
    tries: u64,
}

impl Wait {
    fn goal(&self) -> Result<Goal<'_>, StepError> {
        let one = match (&self.duration, &self.until, &self.url, &self.tcp) {
            (Some(span), None, None, None) => Goal::For(span.0),
            (None, Some(instant), None, None) => Goal::Until(*instant),
            (None, None, Some(url), None) => Goal::Url(url),
            (None, None, None, Some(address)) => Goal::Tcp(address),
            _ => {
                return Err(StepError::permanent("a `wait` needs exactly one of `for`, `until`, `url` and `tcp`")
                    .help("leave the others out"));
            }
        };
        if self.at_most.is_some() && matches!(one, Goal::For(_) | Goal::Until(_)) {
            return Err(StepError::permanent("`at_most` goes with `url` and `tcp` only")
                .help("leave it out: `for` and `until` end by themselves"));
        }
        Ok(one)
    }

    /// Waits on the monotonic clock; the wall clock only bridges the time between two processes.
    async fn for_duration(ctx: &StepContext, whole: Duration) -> Result<(), StepError> {
        let gone = if let Some(began) = ctx.checkpoint::<Began>() {
            Duration::try_from(ctx.clock.now().duration_since(began.at)).unwrap_or_default()
        } else {
            ctx.save(&Began { at: ctx.clock.now() }).await?;
            Duration::ZERO
        };
        let end = ctx.clock.monotonic().saturating_add(whole.saturating_sub(gone));
        loop {
            let left = end.saturating_sub(ctx.clock.monotonic());
            if left.is_zero() {
                return Ok(());
            }
            say(ctx, format!("{} left", to_the_second(left)));
            pause(ctx, left.min(SIGN_OF_LIFE)).await?;
        }
    }

    /// Looks at the wall clock again and again, so that a clock that is set is followed.
    async fn until_instant(ctx: &StepContext, instant: Timestamp) -> Result<(), StepError> {
        while let Ok(left) = Duration::try_from(instant.duration_since(ctx.clock.now())) {
            if left.is_zero() {
                break;
            }
            say(ctx, format!("{} left", to_the_second(left)));
            pause(ctx, left.min(SIGN_OF_LIFE)).await?;
        }
        Ok(())
    }

    async fn until_answer(&self, ctx: &StepContext, goal: &Goal<'_>) -> Result<u64, StepError> {
        let limit = self.at_most.map_or(Duration::from_hours(1), |limit| limit.0);
        let start = ctx.clock.monotonic();
        let mut tries = 0;
        loop {
            tries += 1;
            let looked = tokio::select! {
                looked = look(ctx, goal) => looked,
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            };
            let Some(answer) = looked? else { return Ok(tries) };
            let gone = ctx.clock.monotonic().saturating_sub(start);
            if gone >= limit {
                return Err(StepError::permanent(format!("waited {} for {}: {answer}", Span(gone), named(goal)))
                    .help("find out why it does not answer, or raise `at_most`; then resume the run"));
            }
            say(ctx, format!("{}: {answer} (try {tries})", named(goal)));
            pause(ctx, self.every.0.max(SHORTEST).min(limit.saturating_sub(gone))).await?;
        }
    }
}

/// One look: nothing when the goal is reached, else what stands in the way.
async fn look(ctx: &StepContext, goal: &Goal<'_>) -> Result<Option<String>, StepError> {
    match goal {
        Goal::Url(url) => {
            let revealed = ctx.reveal(url)?;
            let wrong = || {
                StepError::permanent(format!("`{url}` is not a URL that can be asked"))
                    .help("write it whole: `https://host/path`")
            };
            let address = url::Url::parse(revealed.expose_secret()).map_err(|_| wrong())?;
            if !matches!(address.scheme(), "http" | "https") {
                return Err(wrong());
            }
            let answer = ctx.http.get(address).timeout(ONE_LOOK).send().await;
            Ok(match answer {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("it answers {}", answer.status())),
                Err(error) => Some(super::http::said(&error)),
            })
        }
        Goal::Tcp(address) => Ok(match tokio::time::timeout(ONE_LOOK, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return Err(StepError::permanent(format!("`{address}` is not a `host:port`"))
                    .cause(error)
                    .help("write it like `db.acme.example:5432`"));
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer in {}", Span(ONE_LOOK))),
        }),
        Goal::For(_) | Goal::Until(_) => Ok(None),
    }
}

fn named(goal: &Goal<'_>) -> String {
    match goal {
        Goal::For(span) => Span(*span).to_string(),
        Goal::Until(instant) => instant.to_string(),
        Goal::Url(url) => format!("`{url}`"),
        Goal::Tcp(address) => format!("`{address}`"),
    }
}

/// To the second, however long it is: a step whose progress reads the same for minutes counts as idle.
fn to_the_second(left: Duration) -> String {
    let seconds = left.as_millis().div_ceil(1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes:02}m{seconds:02}s"),
    }
}

fn say(ctx: &StepContext, message: String) {
    ctx.progress(Progress { message: Some(message), ..Progress::default() });
}

async fn pause(ctx: &StepContext, time: Duration) -> Result<(), StepError> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        () = ctx.cancel.cancelled() => Err(ctx.stopped()),
    }
}

impl Step for Wait {
    const TYPE: &'static str = "wait";
    const EXAMPLE: &'static str = r"
id: up
uses: wait
with:
  url: https://shop.acme.example/health
  every: 5s
  at_most: 10m
";

    type Before = ();
    type Output = Waited;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        self.goal().map(|_| ())
    }

    fn preview(&self, (): &()) -> Preview {
        let does = match self.goal() {
            Ok(Goal::For(span)) => format!("waits {}", Span(span)),
            Ok(Goal::Until(instant)) => format!("waits until {instant}"),
            Ok(goal) => {
                let limit = self.at_most.map_or("an hour".to_owned(), |limit| limit.to_string());
                format!("waits until {} answers, at most {limit}", named(&goal))
            }
            Err(error) => error.message,
        };
        Preview { does, undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Waited, StepError> {
        let start = ctx.clock.monotonic();
        let goal = self.goal()?;
        let tries = match goal {
            Goal::For(span) => Self::for_duration(ctx, span).await.map(|()| 0)?,
            Goal::Until(instant) => Self::until_instant(ctx, instant).await.map(|()| 0)?,
            Goal::Url(_) | Goal::Tcp(_) => self.until_answer(ctx, &goal).await?,
        };
        let waited = ctx.clock.monotonic().saturating_sub(start);
        Ok(Waited { waited: Span(Duration::from_millis(waited.as_millis().try_into().unwrap_or(u64::MAX))), tries })
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
