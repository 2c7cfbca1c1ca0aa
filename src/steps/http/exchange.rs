//! Building a request from what the pipeline says, sending it, and why no answer came.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::Value;

use super::KEY_HEADER;
use super::answer::{Answer, LARGEST_BODY, retry_after};
use crate::error::StepError;
use crate::secret::Text;
use crate::steps::StepContext;
use crate::steps::scalar::Scalar;

/// An HTTP method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Method {
    /// Reads.
    #[default]
    Get,
    /// Reads the headers only.
    Head,
    /// Asks what is possible.
    Options,
    /// Sends something to be done.
    Post,
    /// Puts something in a place.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// Whether HTTP itself says that sending twice is as good as once.
    pub(super) fn is_repeatable(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(reqwest::Method::from(*self).as_str())
    }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Head => Self::HEAD,
            Method::Options => Self::OPTIONS,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

/// A request as the pipeline says it, marks in place of secrets.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Text,
    pub(super) headers: &'a BTreeMap<String, Scalar>,
    pub(super) query: &'a BTreeMap<String, Scalar>,
    pub(super) json: Option<&'a Value>,
    pub(super) body: Option<&'a Text>,
    pub(super) form: Option<&'a BTreeMap<String, Scalar>>,
    pub(super) at_most: Duration,
    /// Whether sending it twice does no more than sending it once.
    pub(super) is_repeatable: bool,
    /// Whether ferry's own key goes along.
    pub(super) with_key: bool,
}

impl Request<'_> {
    /// The request with its secrets in: for sending at once, never for showing.
    pub(super) fn build(&self, ctx: &StepContext) -> Result<reqwest::Request, StepError> {
        let pairs = |texts: &BTreeMap<String, Scalar>| {
            let pairs = texts.iter().map(|(name, Scalar(text))| Ok((name.clone(), ctx.reveal(text)?.expose_secret().to_owned())));
            pairs.collect::<Result<Vec<_>, StepError>>()
        };
        let mut request = ctx.http.request(self.method.into(), self.address(ctx)?).timeout(self.at_most);
        if !self.query.is_empty() {
            request = request.query(&pairs(self.query)?);
        }
        request = match (self.json, self.body, self.form) {
            (None, None, None) => request,
            (Some(json), None, None) => request.json(&ctx.reveal_value(json)?),
            (None, Some(body), None) => request.body(ctx.reveal(body)?.expose_secret().to_owned()),
            (None, None, Some(form)) => request.form(&pairs(form)?),
            _ => {
                return Err(
                    StepError::permanent("a request has at most one of `json`, `body` and `form`").help("leave the others out")
                );
            }
        };
        let mut headers = self.headers(ctx)?;
        if self.json.is_some() && headers.contains_key(CONTENT_TYPE) {
            // The user's own type of JSON replaces the plain one, and does not stand beside it.
            request = request.headers(HeaderMap::from_iter(headers.remove(CONTENT_TYPE).map(|kind| (CONTENT_TYPE, kind))));
        }
        request.headers(headers).build().map_err(|_| self.wrong_url())
    }

    fn wrong_url(&self) -> StepError {
        StepError::permanent(format!("`{}` is not a URL that a request can be sent to", self.url))
            .help("write it whole: `https://host/path`")
    }

    fn address(&self, ctx: &StepContext) -> Result<url::Url, StepError> {
        let url = ctx.reveal(self.url)?;
        let address = url::Url::parse(url.expose_secret()).map_err(|_| self.wrong_url())?;
        if matches!(address.scheme(), "http" | "https") && address.has_host() { Ok(address) } else { Err(self.wrong_url()) }
    }

    fn headers(&self, ctx: &StepContext) -> Result<HeaderMap, StepError> {
        let mut headers = HeaderMap::new();
        for (name, Scalar(value)) in self.headers {
            let wrong = |what: &str| {
                StepError::permanent(format!("the {what} of the header `{name}` holds a character that no header can"))
                    .help("names are letters, digits and `-`; values are one line of text")
            };
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
            let mut revealed = HeaderValue::from_str(ctx.reveal(value)?.expose_secret()).map_err(|_| wrong("value"))?;
            revealed.set_sensitive(value.is_secret());
            headers.insert(name, revealed);
        }
        if self.with_key {
            let key = HeaderValue::from_str(&ctx.idempotence_key());
            headers.insert(HeaderName::from_static(KEY_HEADER), key.expect("hexadecimal digits are a header's value"));
        }
        Ok(headers)
    }

    /// What people call it: the method and the URL, masked.
    pub(super) fn title(&self) -> String {
        format!("{} `{}`", self.method, self.url)
    }

    /// Sends it and takes the whole answer in.
    pub(super) async fn send(&self, ctx: &StepContext) -> Result<Answer, StepError> {
        let request = self.build(ctx)?;
        tokio::select! {
            answer = self.exchange(ctx, &ctx.http, request) => answer,
            // The server may still act: for what cannot be repeated, the next attempt is an interrupted one.
            () = ctx.cancel.cancelled() => Err(ctx.stopped()),
        }
    }

    /// Sends a request that was built, by this client, and takes the whole answer in.
    pub(super) async fn exchange(
        &self,
        ctx: &StepContext,
        client: &reqwest::Client,
        request: reqwest::Request,
    ) -> Result<Answer, StepError> {
        let response = client.execute(request).await.map_err(|error| self.no_answer(&error))?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers(), ctx.clock.now()));
        let mut body = Vec::new();
        let mut is_cut = false;
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.no_answer(&error))?;
            let room = LARGEST_BODY - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                is_cut = true;
                break;
            }
        }
        Ok(Answer { status, retry_after, body, is_cut })
    }

    /// A request that never left can be sent again by anybody; one that broke off may have been heard.
    fn no_answer(&self, error: &reqwest::Error) -> StepError {
        let message = format!("{}: {}", self.title(), said(error));
        if error.is_builder() || error.is_redirect() {
            return StepError::permanent(message)
                .help("correct the URL: it redirects in a circle or to something that is no URL");
        }
        if error.is_connect() || self.is_repeatable {
            return StepError::transient(message).help("is the address right, and does the server run?");
        }
        StepError::needs_person(format!("{message}; nobody knows whether the server acted"))
            .help("look at the server; say `idempotent: true` if the request may be sent twice, then resume the run")
    }
}

/// Why no answer came, without the URL: it may hold a secret.
pub(in crate::steps) fn said(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_redirect() {
        "it redirects without end"
    } else {
        "the exchange broke off"
    };
    let mut deepest: Option<&dyn std::error::Error> = None;
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        deepest = Some(cause);
        next = cause.source();
    }
    deepest.map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"))
}
