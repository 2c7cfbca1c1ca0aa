//! What an answer means: whether it is the expected one, and if not, whether asking again can help.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::exchange::Request;
use crate::error::StepError;
use crate::secret::Text;
use crate::steps::StepContext;
use crate::units::ByteSize;

/// How much of a body is read.
pub(super) const LARGEST_BODY: usize = 1 << 20;
/// How much of an unexpected answer's body a failure shows.
const SHOWN: usize = 300;

/// What an answer has to be.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// The status: one, or a list of which it must be one; 200 to 299, unless given.
    #[serde(default)]
    status: Option<Statuses>,
    /// What the JSON body has to hold. Keys that are not named here may be anything; lists have to be the same.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    json: Option<Value>,
}

/// One status or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Statuses {
    /// This one.
    One(#[schemars(range(min = 100, max = 599))] u16),
    /// One of these.
    Any(#[schemars(inner(range(min = 100, max = 599)))] Vec<u16>),
}

/// An answer, taken in whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
    pub(super) is_cut: bool,
}

impl Expect {
    /// Whether the answer is what was expected. `gone_is_fine`: that there is nothing there is what was wanted.
    pub(super) fn check(
        &self,
        ctx: &StepContext,
        request: &Request<'_>,
        answer: &Answer,
        gone_is_fine: bool,
    ) -> Result<(), StepError> {
        let is_expected = match &self.status {
            None => (200..300).contains(&answer.status) || (gone_is_fine && matches!(answer.status, 404 | 410)),
            Some(Statuses::One(status)) => *status == answer.status,
            Some(Statuses::Any(statuses)) => statuses.contains(&answer.status),
        };
        if !is_expected {
            return Err(answer.refused(ctx, request));
        }
        let Some(expected) = &self.json else { return Ok(()) };
        let found = answer.json(request.url)?;
        differs(ctx, expected, &found, "").map_or(Ok(()), |difference| {
            Err(StepError::permanent(format!("{} answered with other JSON than expected: {difference}", request.title()))
                .help("correct `expect.json`, or find out why the server says so"))
        })
    }
}

impl Answer {
    /// A failure by status, one by one.
    fn refused(&self, ctx: &StepContext, request: &Request<'_>) -> StepError {
        let reason = reqwest::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let message = format!("{} answered {} {}", request.title(), self.status, reason.unwrap_or_default());
        let message = message.trim_end();
        let error = match self.status {
            408 | 425 | 429 | 503 => StepError::transient(message).help("the server is busy: it is asked again as `retry` says"),
            500 | 502 | 504 if request.is_repeatable => {
                StepError::transient(message).help("the server had trouble: it is asked again as `retry` says")
            }
            500 | 502 | 504 => StepError::needs_person(format!("{message}; nobody knows whether it acted"))
                .help("look at the server; say `idempotent: true` if the request may be sent twice, then resume the run"),
            401 | 403 => StepError::permanent(message).help("check the credentials that the request sends, and what they may do"),
            404 | 410 => StepError::permanent(message).help("check the URL"),
            300..=399 => StepError::permanent(message).help("list the status under `expect.status` if it is what you expect"),
            _ => StepError::permanent(message)
                .help("the answer says why; list the status under `expect.status` if it is what you expect"),
        };
        let error = if let Some(after) = self.retry_after { error.retry_after(after) } else { error };
        // Masked before it is cut: nobody finds the half of a secret.
        let body = ctx.vault.mask(&String::from_utf8_lossy(&self.body));
        let body = body.trim();
        if body.is_empty() {
            return error;
        }
        let short: String = body.chars().take(SHOWN).collect();
        error.cause(if short.len() < body.len() { format!("it said: {short} …") } else { format!("it said: {short}") })
    }

    /// The body as text.
    pub(super) fn text(self, url: &Text) -> Result<String, StepError> {
        self.whole(url)?;
        String::from_utf8(self.body)
            .map_err(|_| StepError::permanent(format!("the answer of `{url}` is not UTF-8 text")).help("take `outputs: none`"))
    }

    /// The body as JSON.
    pub(super) fn json(&self, url: &Text) -> Result<Value, StepError> {
        self.whole(url)?;
        serde_json::from_slice(&self.body).map_err(|error| {
            StepError::permanent(format!("the answer of `{url}` is not JSON"))
                .cause(error)
                .help("check the URL and the `Accept` header, or do without `expect.json` and `outputs: json`")
        })
    }

    fn whole(&self, url: &Text) -> Result<(), StepError> {
        if !self.is_cut {
            return Ok(());
        }
        let limit = ByteSize(LARGEST_BODY as u64);
        Err(StepError::permanent(format!("the answer of `{url}` is larger than {limit}, and its body is wanted"))
            .help("ask for less, or take `outputs: none`; `object.sync` moves large things"))
    }
}

/// The first place at which a value does not hold what is expected, in words.
pub(in crate::steps) fn differs(ctx: &StepContext, expected: &Value, found: &Value, place: &str) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected.iter().find_map(|(key, expected)| {
            let place = format!("{place}/{key}");
            match found.get(key) {
                Some(found) => differs(ctx, expected, found, &place),
                None => Some(format!("there is no `{place}`")),
            }
        }),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => expected
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(at, (expected, found))| differs(ctx, expected, found, &format!("{place}/{at}"))),
        (Value::Array(expected), Value::Array(found)) => {
            Some(format!("`{place}` has {} items, not {}", found.len(), expected.len()))
        }
        (Value::Number(one), Value::Number(other)) if one == other || one.as_f64() == other.as_f64() => None,
        (Value::String(text), Value::String(found)) => {
            use secrecy::ExposeSecret as _;
            let is_same = ctx.reveal(&Text::new(text.as_str())).is_ok_and(|value| value.expose_secret() == found);
            (!is_same).then(|| unequal(ctx, place, &Value::from(text.as_str()), &Value::from(found.as_str())))
        }
        (one, other) if one == other => None,
        (expected, found) => Some(unequal(ctx, place, expected, found)),
    }
}

fn unequal(ctx: &StepContext, place: &str, expected: &Value, found: &Value) -> String {
    let short = |value: &Value| ctx.vault.mask(&value.to_string()).chars().take(80).collect::<String>();
    let place = if place.is_empty() { "the answer".to_owned() } else { format!("`{place}`") };
    format!("{place} is {}, not {}", short(found), short(expected))
}

/// How long the server asks to wait: a number of seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(date.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-03-01T10:00:00Z".parse().expect("an instant");
        let after = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a header"))]);
            retry_after(&headers, now)
        };
        assert_eq!(after("120"), Some(Duration::from_mins(2)));
        assert_eq!(after("Sun, 01 Mar 2026 10:01:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(after("Sun, 01 Mar 2026 09:00:00 GMT"), None);
        assert_eq!(after("soon"), None);
    }
}
