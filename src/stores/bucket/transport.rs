//! Requests over the wire, once each. The client is hyper's: an address goes out as it is written, while `reqwest`
//! would take `.` and `..` out of a key. `reqwest` goes only where a proxy is set.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::address::has_dots;
use super::buffer::Buffer;
use crate::error::StepError;

/// Connections that are kept for the next request. A copy of small files has hundreds of requests open.
const IDLE_CONNECTIONS: usize = 512;
/// Services close what is idle for longer; a request on such a connection would have to be repeated.
const IDLE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(10);
/// A body goes out in pieces of this size, so that a slow upload is told from a hanging one.
const PIECE: usize = 1 << 20;
/// A body is read in pieces of at most this size: what is read then is still in the processor's cache when it is put to the
/// rest. Beginnings of answers have to fit too.
const READ: usize = 128 << 10;
/// An announced length is trusted so far before the bytes have come.
const MOST_AHEAD: u64 = 256 << 20;

/// One client and its connections.
pub(super) enum Transport {
    Direct(Box<Client<HttpsConnector<HttpConnector>, Outgoing>>),
    Proxied(reqwest::Client),
}

/// A request whose answer did not come.
#[derive(Debug)]
pub(super) struct Lost {
    /// What happened. Without the address: its query may be a key.
    pub message: String,
    /// Nothing of it was sent.
    pub is_unsent: bool,
    /// The other side's certificate is not trusted.
    pub is_untrusted: bool,
}

/// Reading this machine's certificates takes a while: once for all stores.
static TLS: LazyLock<Result<ClientConfig, String>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(ConfigBuilder::with_platform_verifier)
        .map(ConfigBuilder::<ClientConfig, WantsClientCert>::with_no_client_auth)
        .map_err(|error| error.to_string())
});

impl Transport {
    /// For requests to this address. Contacts nothing.
    pub fn new(endpoint: &Uri) -> Result<Self, StepError> {
        if Matcher::from_system().intercept(endpoint).is_some() {
            let client = reqwest::Client::builder()
                .http1_only()
                .tcp_nodelay(true)
                .connect_timeout(CONNECT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_idle_timeout(IDLE)
                .redirect(reqwest::redirect::Policy::none())
                .build();
            return client.map(Self::Proxied).map_err(|error| no_client(&error.without_url().to_string()));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let tls = TLS.as_ref().map_err(|error| no_client(error))?.clone();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self::Direct(Box::new(
            Client::builder(TokioExecutor::new())
                .http1_max_buf_size(READ)
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .build(connector),
        )))
    }

    /// Refuses a key that would not arrive as it is.
    pub fn check(&self, key: &str) -> Result<(), StepError> {
        if matches!(self, Self::Proxied(_)) && has_dots(key) {
            return Err(StepError::permanent(format!(
                "the name `{key}` holds `.` or `..`, which is lost on the way through a proxy"
            ))
            .help("name the store in `NO_PROXY`, rename the object, or leave it out with `exclude`"));
        }
        Ok(())
    }

    /// One request. `answer` bounds the wait for the beginning of the answer, `piece` the wait for the next bytes, up
    /// or down.
    pub async fn send(&self, mut request: Request<Bytes>, answer: Duration, piece: Duration) -> Result<Response<Bytes>, Lost> {
        // hyper leaves it out where there is no body; services want it with whatever writes.
        if request.body().is_empty() && matches!(*request.method(), Method::PUT | Method::POST) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        match self {
            Self::Direct(client) => {
                let size = request.body().len();
                let sent = (size > PIECE).then(Arc::<AtomicUsize>::default);
                let limit = if size == 0 { answer } else { answer.max(piece) };
                let request = request.map(|rest| Outgoing { rest, sent: sent.clone() });
                let response = in_time(limit, sent.as_deref(), client.request(request))
                    .await?
                    .map_err(|error| Lost { is_unsent: error.is_connect(), ..Lost::from(&error) })?;
                let (parts, body) = response.into_parts();
                Ok(Response::from_parts(parts, whole(body, piece).await?))
            }
            Self::Proxied(client) => through_proxy(client, request, answer, piece).await,
        }
    }
}

fn no_client(why: &str) -> StepError {
    StepError::permanent(format!("requests to stores cannot be made: {why}"))
        .help("see that this machine has certificates of authorities: the package `ca-certificates`")
}

/// The whole body. What is shorter than was announced is an error of hyper's.
async fn whole(body: Incoming, piece: Duration) -> Result<Bytes, Lost> {
    let mut body = pin!(body);
    let announced = body.size_hint().exact();
    let mut first = Bytes::new();
    let mut rest: Option<Buffer> = None;
    loop {
        let next = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
        let Some(frame) = in_time(piece, None, next).await? else { break };
        let frame = frame.map_err(|error| Lost::from(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if let Some(rest) = &mut rest {
            rest.extend(&data);
        } else if first.is_empty() {
            // A small body comes in one piece and is not copied.
            first = data;
        } else {
            let size = usize::try_from(announced.unwrap_or(0).min(MOST_AHEAD)).unwrap_or(0);
            let mut both = Buffer::with_room(size.max(first.len() + data.len()));
            both.extend(&first);
            both.extend(&data);
            rest = Some(both);
        }
    }
    Ok(rest.map_or(first, Buffer::freeze))
}

async fn through_proxy(
    client: &reqwest::Client,
    request: Request<Bytes>,
    answer: Duration,
    piece: Duration,
) -> Result<Response<Bytes>, Lost> {
    let lost = |error: reqwest::Error| {
        let is_unsent = error.is_connect() || error.is_builder();
        Lost { is_unsent, ..Lost::from(&error.without_url()) }
    };
    let limit = if request.body().is_empty() { answer } else { answer.max(piece) };
    let request = reqwest::Request::try_from(request).map_err(lost)?;
    let mut response = in_time(limit, None, client.execute(request)).await?.map_err(lost)?;
    let mut body = BytesMut::new();
    while let Some(data) = in_time(piece, None, response.chunk()).await?.map_err(lost)? {
        body.extend_from_slice(&data);
    }
    let mut whole = Response::new(body.freeze());
    *whole.status_mut() = response.status();
    *whole.headers_mut() = std::mem::take(response.headers_mut());
    Ok(whole)
}

/// Ends a wait during which nothing has moved.
async fn in_time<T>(limit: Duration, moved: Option<&AtomicUsize>, waited_for: impl Future<Output = T>) -> Result<T, Lost> {
    let mut waited_for = pin!(waited_for);
    let mut before = 0;
    loop {
        if let Ok(done) = tokio::time::timeout(limit, waited_for.as_mut()).await {
            return Ok(done);
        }
        let now = moved.map_or(0, |moved| moved.load(Ordering::Relaxed));
        if now == before {
            return Err(Lost { message: format!("timeout: nothing came for {limit:?}"), is_unsent: false, is_untrusted: false });
        }
        before = now;
    }
}

impl Lost {
    fn from(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let _ = write!(message, ": {cause}");
            next = cause.source();
        }
        let is_untrusted = message.contains("invalid peer certificate");
        Self { message, is_unsent: false, is_untrusted }
    }
}

/// A body on its way out.
pub(super) struct Outgoing {
    rest: Bytes,
    /// How much of a large body was taken so far.
    sent: Option<Arc<AtomicUsize>>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(size);
        if let Some(sent) = &self.sent {
            sent.fetch_add(size, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
