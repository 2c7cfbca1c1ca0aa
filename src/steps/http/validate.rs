//! `validate.http`: a URL has to answer as expected, and soon enough.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Expect;
use super::exchange::{Method, Request};
use super::minute;
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::secret::Text;
use crate::steps::scalar::Scalar;
use crate::steps::validate::{in_time, rounded};
use crate::steps::{Preview, Step, StepContext};
use crate::units::Span;

/// Asks a URL with GET, and fails unless the answer is as expected.
///
/// The request goes out from the machine that ferry runs on. Busy servers and refused connections are asked again as
/// `retry` says, and so is one that answers too late; any other answer than the expected one fails at once. Redirects are
/// followed within one server.
///
/// After an interruption it is run again. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateHttp {
    /// What to ask.
    url: Text,
    /// Headers to send along.
    #[serde(default)]
    headers: BTreeMap<String, Scalar>,
    /// What the answer has to be; a status from 200 to 299, unless given.
    #[serde(default)]
    expect: Expect,
    /// What the body has to contain.
    #[serde(default)]
    contains: Option<Scalar>,
    /// How soon the whole answer has to be there to be good enough; nothing asks for that unless given.
    #[serde(default)]
    within: Option<Span>,
    /// How long the answer may take before nobody waits for it any more; a minute, unless given.
    #[serde(default = "minute")]
    at_most: Span,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Validated {
    /// The status of the answer.
    status: u16,
    /// How long it took.
    took: Span,
}

impl ValidateHttp {
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

impl Step for ValidateHttp {
    const TYPE: &'static str = "validate.http";
    const EXAMPLE: &'static str = r"
id: health
uses: validate.http
with:
  url: https://shop.acme.example/health
  expect: { status: 200, json: { database: up } }
  within: 800ms
";

    type Before = ();
    type Output = Validated;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    /// Sends nothing: even a GET may count somewhere.
    async fn inspect(&self, ctx: &StepContext) -> Result<(), StepError> {
        self.request(&BTreeMap::new()).build(ctx).map(drop)
    }

    fn preview(&self, (): &()) -> Preview {
        let does = format!("asks `{}` and looks at the answer", self.url);
        Preview { does, undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Validated, StepError> {
        use secrecy::ExposeSecret as _;
        let query = BTreeMap::new();
        let request = self.request(&query);
        let start = ctx.clock.monotonic();
        let answer = request.send(ctx).await?;
        let took = ctx.clock.monotonic().saturating_sub(start);
        self.expect.check(ctx, &request, &answer, false)?;
        let status = answer.status;
        if let Some(Scalar(wanted)) = &self.contains {
            let body = answer.text(&self.url)?;
            if !body.contains(ctx.reveal(wanted)?.expose_secret()) {
                let short: String = ctx.vault.mask(body.trim()).chars().take(120).collect();
                return Err(StepError::permanent(format!("{} answered without `{wanted}`", request.title()))
                    .help("correct `contains`, or find out why the server says something else")
                    .cause(format!("it said: {short}")));
            }
        }
        in_time(&request.title(), took, self.within)?;
        Ok(Validated { status, took: rounded(took) })
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}
