//! `http.request`: one request to an HTTP server, and what its answer means.

mod answer;
mod exchange;
mod probe;
mod validate;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) use self::answer::differs;
use self::answer::{Answer, Expect};
pub(super) use self::exchange::said;
use self::exchange::{Method, Request};
pub use self::probe::ProbeHttp;
pub use self::validate::ValidateHttp;
use super::scalar::Scalar;
use super::{Preview, Step, StepContext};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::secret::Text;
use crate::units::Span;

/// The header that tells a server that two requests are one.
const KEY_HEADER: &str = "idempotency-key";

/// Sends an HTTP request and checks the answer.
///
/// The request goes out from the machine that ferry runs on. Anything but the expected status is a failure, and so is
/// an answer that does not hold the expected JSON. Busy servers (408, 425, 429, 503) and refused connections are tried
/// again as `retry` says, after the time in `Retry-After` if they give one; other answers from 400 to 499 stop at once.
///
/// After an interruption GET, HEAD, OPTIONS, PUT and DELETE are sent again. POST and PATCH ask a person, because
/// nobody knows whether the server acted, unless `idempotent: true` says that sending twice does no harm. Then the
/// header `Idempotency-Key` goes along, the same for every attempt of this step in this run. A header of that name
/// of your own means the same. For the same reason, a POST or PATCH that breaks off half-way is not tried again.
///
/// Secrets may stand in headers, query and body. In a URL they are masked wherever ferry shows it, but servers write
/// URLs to their logs: prefer a header.
///
/// Redirects are followed within one server (scheme, host and port); a redirect to another one is an answer like any
/// other, because what the request holds was not meant for that server.
///
/// Undo sends the `undo` request if there is one. Without one there is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRequest {
    /// The method; GET, unless given.
    #[serde(default)]
    method: Method,
    /// Where to send it.
    url: Text,
    /// Headers to send along.
    #[serde(default)]
    headers: BTreeMap<String, Scalar>,
    /// Added to the query of the URL, escaped as needed.
    #[serde(default)]
    query: BTreeMap<String, Scalar>,
    /// The body, sent as JSON. Give at most one of `json`, `body` and `form`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    json: Option<Value>,
    /// The body, sent as it is.
    #[serde(default)]
    body: Option<Text>,
    /// The body, sent as a form.
    #[serde(default)]
    form: Option<BTreeMap<String, Scalar>>,
    /// What the answer has to be; a status from 200 to 299, unless given.
    #[serde(default)]
    expect: Expect,
    /// How long the answer may take; a minute, unless given.
    #[serde(default = "minute")]
    at_most: Span,
    /// Whether sending it twice does no more than sending it once.
    #[serde(default)]
    idempotent: bool,
    /// A request that takes back what this one did. It is sent also when nobody knows whether this one arrived, and
    /// may be sent twice: an answer of 404 or 410 to a DELETE means that there is nothing left to take back.
    #[serde(default)]
    undo: Option<UndoRequest>,
    /// What to keep of the answer's body: nothing, its text, or the JSON value that it is.
    #[serde(default)]
    outputs: Keep,
}

/// A request that takes back what another did.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UndoRequest {
    /// The method; DELETE, unless given.
    #[serde(default = "delete")]
    method: Method,
    /// Where to send it.
    url: Text,
    /// Headers to send along.
    #[serde(default)]
    headers: BTreeMap<String, Scalar>,
    /// Added to the query of the URL, escaped as needed.
    #[serde(default)]
    query: BTreeMap<String, Scalar>,
    /// The body, sent as JSON. Give at most one of `json`, `body` and `form`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    json: Option<Value>,
    /// The body, sent as it is.
    #[serde(default)]
    body: Option<Text>,
    /// The body, sent as a form.
    #[serde(default)]
    form: Option<BTreeMap<String, Scalar>>,
    /// What the answer has to be; a status from 200 to 299, unless given.
    #[serde(default)]
    expect: Expect,
    /// How long the answer may take; a minute, unless given.
    #[serde(default = "minute")]
    at_most: Span,
}

fn minute() -> Span {
    Span(Duration::from_mins(1))
}

fn delete() -> Method {
    Method::Delete
}

/// What is kept of an answer's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Keep {
    /// Nothing.
    #[default]
    None,
    /// All of it as `outputs.text`.
    Text,
    /// The JSON value that it is, as `outputs.json`.
    Json,
}

/// What a request leaves.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The status of the answer.
    status: u16,
    /// The body with `outputs: text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The value that the body is with `outputs: json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
}

impl HttpRequest {
    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            url: &self.url,
            headers: &self.headers,
            query: &self.query,
            json: self.json.as_ref(),
            body: self.body.as_ref(),
            form: self.form.as_ref(),
            at_most: self.at_most.0,
            is_repeatable: self.method.is_repeatable() || self.idempotent || self.has_key(),
            with_key: self.idempotent && !self.has_key(),
        }
    }

    fn has_key(&self) -> bool {
        self.headers.keys().any(|name| name.eq_ignore_ascii_case(KEY_HEADER))
    }

    fn keep(&self, answer: Answer) -> Result<Output, StepError> {
        let output = Output { status: answer.status, text: None, json: None };
        Ok(match self.outputs {
            Keep::None => output,
            Keep::Text => Output { text: Some(answer.text(&self.url)?), ..output },
            Keep::Json => Output { json: Some(answer.json(&self.url)?), ..output },
        })
    }
}

impl UndoRequest {
    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            url: &self.url,
            headers: &self.headers,
            query: &self.query,
            json: self.json.as_ref(),
            body: self.body.as_ref(),
            form: self.form.as_ref(),
            at_most: self.at_most.0,
            // The manual says that it may be sent twice.
            is_repeatable: true,
            with_key: false,
        }
    }
}

impl Step for HttpRequest {
    const TYPE: &'static str = "http.request";
    const EXAMPLE: &'static str = r#"
id: announce
uses: http.request
with:
  method: POST
  url: https://status.acme.example/api/incidents
  headers: { Authorization: "Bearer {{ secrets.status }}" }
  json: { title: "Database moves tonight", run: "{{ run.id }}" }
  expect: { status: 201, json: { state: open } }
  idempotent: true
  outputs: json
"#;

    type Before = ();
    type Output = Output;

    fn traits(with: &Value) -> Traits {
        let method = with.get("method").and_then(Value::as_str).unwrap_or("GET");
        let has_key = with.get("headers").and_then(Value::as_object);
        let has_key = has_key.is_some_and(|headers| headers.keys().any(|name| name.eq_ignore_ascii_case(KEY_HEADER)));
        // A template may yield any method: the careful answer holds for all.
        let is_repeatable = matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
            || has_key
            || with.get("idempotent") == Some(&Value::Bool(true));
        Traits {
            undo: if with.get("undo").is_some_and(|undo| !undo.is_null()) { Undo::Built } else { Undo::Nothing },
            interrupted: if is_repeatable { Interrupted::RunAgain } else { Interrupted::AskPerson },
        }
    }

    /// Sends nothing: even a GET may count somewhere. A request that cannot be sent at all is found out here.
    async fn inspect(&self, ctx: &StepContext) -> Result<(), StepError> {
        self.request().build(ctx)?;
        if let Some(undo) = &self.undo {
            undo.request().build(ctx)?;
        }
        Ok(())
    }

    fn preview(&self, (): &()) -> Preview {
        let undo = self.undo.as_ref().map(|undo| format!("sends {} to `{}`", undo.method, undo.url));
        Preview {
            does: format!("sends {} to `{}`", self.method, self.url),
            undo: undo.unwrap_or_else(|| "nothing to undo".to_owned()),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Output, StepError> {
        let answer = self.request().send(ctx).await?;
        // A second DELETE finds nothing; a first one that finds nothing was sent to the wrong place.
        let is_gone = self.method == Method::Delete && ctx.attempt.number > 1;
        self.expect.check(ctx, &self.request(), &answer, is_gone)?;
        self.keep(answer)
    }

    async fn undo(&self, ctx: &StepContext, (): &()) -> Result<(), StepError> {
        let Some(undo) = &self.undo else { return Ok(()) };
        let answer = undo.request().send(ctx).await?;
        undo.expect.check(ctx, &undo.request(), &answer, undo.method == Method::Delete)
    }
}
