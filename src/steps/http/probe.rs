//! `probe.http`: what clients of a URL see.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::Value;

use super::answer::Expect;
use super::exchange::{Method, Request};
use crate::catalogue::{Background, Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::secret::Text;
use crate::steps::probe::{Client, Kind, Seen, Terms, Watch, half_minute, ten_seconds, twenty, ways};
use crate::steps::scalar::Scalar;
use crate::steps::{Preview, Step, StepContext};
use crate::units::Span;

/// Watches a URL as its clients do, and tells the gaps and errors that they saw.
///
/// Two kinds of clients ask with GET: one keeps its connection, the other makes a new one each time and looks the name up
/// anew. An answer is good when it is as `expect` and `contains` say, a status from 200 to 299 without them; redirects are
/// not followed.
///
/// The step belongs into the background: it is ready after three good answers in a row of each kind, and ends when the step
/// under `until` is over and `after` good answers of each kind have come since. A gap is the time between two good answers
/// that came, on a clock that nobody sets. An error does not make the step fail; `max_gap` and `max_errors` say what does, at
/// its end. `probe.json` in the step's folder of the run has the fifty longest gaps.
///
/// After an interruption it watches again and adds to what was seen; the time in which nobody watched is no gap. There is
/// nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeHttp {
    /// What to ask.
    url: Text,
    /// Headers to send along.
    #[serde(default)]
    headers: BTreeMap<String, Scalar>,
    /// What an answer has to be; a status from 200 to 299, unless given.
    #[serde(default)]
    expect: Expect,
    /// What its body has to contain.
    #[serde(default)]
    contains: Option<Scalar>,
    /// The kinds of clients; both, unless given.
    #[serde(default = "ways")]
    clients: Vec<Kind>,
    /// How often the kept connection is used; 50 ms, unless given.
    #[serde(default = "fifty_millis")]
    every: Span,
    /// How often a new connection is made; 200 ms, unless given.
    #[serde(default = "two_hundred_millis")]
    fresh_every: Span,
    /// How long an answer may take before it is an error; 10 seconds, unless given.
    #[serde(default = "ten_seconds")]
    at_most: Span,
    /// How many good answers of each kind have to come once the watched step is over; 20, unless given.
    #[serde(default = "twenty")]
    after: u64,
    /// How long it may take to get ready; half a minute, unless given.
    #[serde(default = "half_minute")]
    ready_within: Span,
    /// How long to watch when the step does not run in the background: `30s`.
    #[serde(default, rename = "for")]
    lasts: Option<Span>,
    /// A longer gap than this makes the step fail at its end.
    #[serde(default)]
    max_gap: Option<Span>,
    /// More errors than this make the step fail at its end.
    #[serde(default)]
    max_errors: Option<u64>,
}

fn fifty_millis() -> Span {
    Span(Duration::from_millis(50))
}

fn two_hundred_millis() -> Span {
    Span(Duration::from_millis(200))
}

impl ProbeHttp {
    fn terms(&self) -> Terms {
        Terms {
            title: format!("`{}`", self.url),
            clients: self.clients.clone(),
            every: self.every,
            fresh_every: self.fresh_every,
            at_most: self.at_most,
            after: self.after,
            ready_within: self.ready_within,
            lasts: self.lasts,
            max_gap: self.max_gap,
            max_errors: self.max_errors,
        }
    }

    fn request<'a>(&'a self, query: &'a BTreeMap<String, Scalar>) -> Request<'a> {
        Request {
            method: Method::Get,
            url: &self.url,
            headers: &self.headers,
            query,
            json: None,
            body: None,
            form: None,
            at_most: self.at_most.0,
            is_repeatable: true,
            with_key: false,
        }
    }
}

/// A client of the URL.
struct Site<'a> {
    config: &'a ProbeHttp,
    ctx: &'a StepContext,
    query: BTreeMap<String, Scalar>,
    kept: reqwest::Client,
    /// Its idle connections are never used again: each question makes one.
    fresh: reqwest::Client,
}

impl<'a> Site<'a> {
    fn client(idle: usize) -> Result<reqwest::Client, StepError> {
        let client = reqwest::Client::builder().pool_max_idle_per_host(idle).redirect(reqwest::redirect::Policy::none());
        client.build().map_err(|error| {
            StepError::permanent("cannot make an HTTP client").cause(error).help("`ferry doctor` says what is missing")
        })
    }

    fn new(config: &'a ProbeHttp, ctx: &'a StepContext) -> Result<Self, StepError> {
        Ok(Self { config, ctx, query: BTreeMap::new(), kept: Self::client(1)?, fresh: Self::client(0)? })
    }
}

impl Client for Site<'_> {
    type Connection = reqwest::Client;

    async fn connect(&self, kind: Kind) -> Result<reqwest::Client, StepError> {
        Ok(match kind {
            // It sees by itself that its connection broke.
            Kind::Kept => self.kept.clone(),
            Kind::Fresh => self.fresh.clone(),
        })
    }

    async fn ask(&self, client: &mut reqwest::Client) -> Result<(), StepError> {
        let request = self.config.request(&self.query);
        let answer = request.exchange(self.ctx, client, request.build(self.ctx)?).await?;
        self.config.expect.check(self.ctx, &request, &answer, false)?;
        let Some(Scalar(wanted)) = &self.config.contains else { return Ok(()) };
        if answer.text(&self.config.url)?.contains(self.ctx.reveal(wanted)?.expose_secret()) {
            return Ok(());
        }
        Err(StepError::permanent(format!("{} answered without `{wanted}`", request.title()))
            .help("correct `contains`, or find out why the server says something else"))
    }
}

impl Step for ProbeHttp {
    const TYPE: &'static str = "probe.http";
    const EXAMPLE: &'static str = r"
id: probe
uses: probe.http
background: { until: cutover }
with:
  url: https://shop.acme.example/health
  expect: { json: { database: up } }
  max_gap: 5s
  max_errors: 0
";
    const BACKGROUND: Background = Background::ReadyWhenSaid;

    type Before = ();
    type Output = Seen;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    /// Sends nothing: even a GET may count somewhere.
    async fn inspect(&self, ctx: &StepContext) -> Result<(), StepError> {
        self.terms().check()?;
        self.request(&BTreeMap::new()).build(ctx).map(drop)
    }

    fn preview(&self, (): &()) -> Preview {
        Preview { does: self.terms().told(), undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Seen, StepError> {
        let terms = self.terms();
        let seen = Watch::new(ctx, &terms).run(&Site::new(self, ctx)?).await?;
        terms.hold(&seen)?;
        Ok(seen)
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
