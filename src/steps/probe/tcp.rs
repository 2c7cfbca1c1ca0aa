//! `probe.tcp`: what clients of a port see.

use std::time::Duration;

use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Client, Kind};
use super::record::Seen;
use super::terms::{Terms, half_minute, ten_seconds, twenty, ways};
use super::watch::Watch;
use crate::catalogue::{Background, Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::secret::Text;
use crate::steps::{Preview, Step, StepContext};
use crate::units::Span;

/// How much of an answer is looked at.
const LONGEST_ANSWER: usize = 4096;

/// Watches a port as its clients do, and tells the gaps and errors that they saw.
///
/// Two kinds of clients ask: one keeps its connection, the other makes a new one each time and looks the name up anew. With
/// `send`, each asks that and waits for an answer that contains `receives`. Without it, a new connection is good when it is
/// accepted, and a kept one as long as nobody closes it.
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
pub struct ProbeTcp {
    /// The `host:port` that clients use.
    address: String,
    /// What to send on each connection.
    #[serde(default)]
    send: Option<Text>,
    /// What the answer to `send` has to contain; any answer is good unless given.
    #[serde(default)]
    receives: Option<Text>,
    /// The kinds of clients; both, unless given.
    #[serde(default = "ways")]
    clients: Vec<Kind>,
    /// How often the kept connection is used; 20 ms, unless given.
    #[serde(default = "twenty_millis")]
    every: Span,
    /// How often a new connection is made; 100 ms, unless given.
    #[serde(default = "hundred_millis")]
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

fn twenty_millis() -> Span {
    Span(Duration::from_millis(20))
}

fn hundred_millis() -> Span {
    Span(Duration::from_millis(100))
}

impl ProbeTcp {
    fn terms(&self) -> Terms {
        Terms {
            title: format!("`{}`", self.address),
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

    fn check(&self) -> Result<Terms, StepError> {
        let port =
            self.address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return Err(StepError::permanent(format!("`{}` is not a `host:port`", self.address))
                .help("write it like `db.acme.example:5432`"));
        }
        if self.receives.is_some() && self.send.is_none() {
            return Err(StepError::permanent("`receives` is what answers `send`").help("say what to `send`, or leave it out"));
        }
        let terms = self.terms();
        terms.check()?;
        Ok(terms)
    }
}

/// A client of the port.
struct Port<'a> {
    config: &'a ProbeTcp,
    ctx: &'a StepContext,
}

fn broken(what: &str, error: std::io::Error) -> StepError {
    StepError::transient(what).cause(error).help("see whether the server runs and nothing stands in between")
}

fn closed() -> StepError {
    StepError::transient("the connection was closed").help("see whether the server runs and nothing stands in between")
}

impl Client for Port<'_> {
    type Connection = TcpStream;

    async fn connect(&self, _: Kind) -> Result<TcpStream, StepError> {
        let failed = |error| broken("no connection", error);
        let stream = TcpStream::connect(self.config.address.as_str()).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }

    async fn ask(&self, stream: &mut TcpStream) -> Result<(), StepError> {
        let mut answer = vec![0; LONGEST_ANSWER];
        let Some(send) = &self.config.send else {
            // What the server says by itself is not asked for; that it hangs up is.
            loop {
                match stream.try_read(&mut answer) {
                    Ok(0) => return Err(closed()),
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(broken("the connection broke", error)),
                }
            }
        };
        let failed = |error| broken("the exchange broke off", error);
        stream.write_all(self.ctx.reveal(send)?.expose_secret().as_bytes()).await.map_err(failed)?;
        let receives = self.config.receives.as_ref().map(|receives| self.ctx.reveal(receives)).transpose()?;
        let mut length = 0;
        loop {
            let read = stream.read(&mut answer[length..]).await.map_err(failed)?;
            if read == 0 {
                return Err(if length == LONGEST_ANSWER {
                    StepError::transient("the answer is long and not the expected one").help("correct `receives`")
                } else {
                    closed()
                });
            }
            length += read;
            let wanted = receives.as_ref().map_or("", |receives| receives.expose_secret());
            if String::from_utf8_lossy(&answer[..length]).contains(wanted) {
                return Ok(());
            }
        }
    }
}

impl Step for ProbeTcp {
    const TYPE: &'static str = "probe.tcp";
    const EXAMPLE: &'static str = r#"
id: probe
uses: probe.tcp
background: { until: cutover }
with:
  address: cache.acme.example:6379
  send: "PING\r\n"
  receives: PONG
  max_gap: 2s
"#;
    const BACKGROUND: Background = Background::ReadyWhenSaid;

    type Before = ();
    type Output = Seen;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        self.check().map(drop)
    }

    fn preview(&self, (): &()) -> Preview {
        Preview { does: self.terms().told(), undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Seen, StepError> {
        let terms = self.check()?;
        let seen = Watch::new(ctx, &terms).run(&Port { config: self, ctx }).await?;
        terms.hold(&seen)?;
        Ok(seen)
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
