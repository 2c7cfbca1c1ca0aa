//! How often a request is repeated, how long is waited before, and how many are open at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use rand::Rng as _;
use tokio::sync::Semaphore;

use super::super::Patience;
use super::super::classify::{Said, classify_answer};
use super::transport::{Lost, Transport};
use super::{header, xml};
use crate::error::{ErrorClass, StepError};

/// Longer than this nobody waits inside a step: the engine does, and the run can be stopped meanwhile.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Clocks that differ by less are no reason for a refusal.
const SKEWED: i64 = 60;

/// Putting parts together and copying inside the service may take it minutes: so many times the usual limit.
const SLOW: u32 = 10;

/// The wire to one service.
pub(super) struct Wire {
    transport: Transport,
    patience: Patience,
    gate: Semaphore,
    throttled: AtomicU64,
}

impl Wire {
    pub fn new(transport: Transport, patience: &Patience) -> Self {
        let gate = Semaphore::new(patience.at_once.max(1));
        Self { transport, patience: *patience, gate, throttled: AtomicU64::new(0) }
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    pub fn tries(&self) -> Tries {
        Tries { left: self.patience.repeats, wait: self.patience.wait, longest: self.patience.wait * 20 }
    }

    /// One request, once. A slow one lets the service work before it answers.
    pub async fn ask(&self, request: Request<Bytes>, is_slow: bool) -> Result<Response<Bytes>, Refusal> {
        let _permit = self.gate.acquire().await;
        let limit = if is_slow { self.patience.request.max(self.patience.transfer) * SLOW } else { self.patience.request };
        let answer = self.transport.send(request, limit, self.patience.transfer).await;
        let answer = answer.map_err(Refusal::lost)?;
        if matches!(answer.status().as_u16(), 429 | 503) {
            self.count_throttling();
        }
        Ok(answer)
    }

    /// An answer asked for fewer requests without the status that says so.
    pub fn count_throttling(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is left of the patience with one request.
pub(super) struct Tries {
    left: usize,
    wait: Duration,
    longest: Duration,
}

impl Tries {
    /// Waits before the next try. False: there is none, or the service asks for more time than is waited here.
    pub async fn again(&mut self, asked: Option<Duration>) -> bool {
        if self.left == 0 || asked.is_some_and(|asked| asked > LONGEST_WAIT) {
            return false;
        }
        self.left -= 1;
        let jitter = rand::rng().random_range(0.5..1.5);
        let wait = self.wait.mul_f64(jitter).max(asked.unwrap_or_default());
        self.wait = (self.wait * 2).min(self.longest);
        tracing::debug!(?wait, "a request to a store is repeated");
        tokio::time::sleep(wait).await;
        true
    }
}

/// Why a request failed.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// The answer's status; 0 without an answer.
    pub status: u16,
    /// The service's word for it: `NoSuchKey`.
    pub code: String,
    /// The service's sentence, or what happened to the connection.
    pub message: String,
    /// The body of the answer as it came, in lower case, cut: it may name the header that is not understood.
    pub about: String,
    /// The region in which the bucket lies, when the answer says so.
    pub region: Option<String>,
    /// How long the service asks us to wait.
    pub retry_after: Option<Duration>,
    /// What time it was there.
    pub date: Option<jiff::Timestamp>,
    /// An earlier try of this request may have been carried out although its answer did not come.
    pub may_be_done: bool,
    /// What was decided without asking the service.
    pub decided: Option<Box<StepError>>,
    /// The certificate is not trusted.
    is_untrusted: bool,
    /// Nothing of the request was sent.
    is_unsent: bool,
}

impl Refusal {
    fn lost(lost: Lost) -> Self {
        Self { message: lost.message, is_untrusted: lost.is_untrusted, is_unsent: lost.is_unsent, ..Self::default() }
    }

    /// What was decided without asking the service.
    pub fn decided(error: StepError) -> Self {
        Self { decided: Some(Box::new(error)), ..Self::default() }
    }

    /// From a service's word for it inside an answer about many.
    pub fn told(status: u16, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned(), ..Self::default() }
    }

    /// From an answer that is none.
    pub fn read(answer: Response<Bytes>) -> Self {
        let (parts, body) = answer.into_parts();
        let code = xml::find(&body, "Code").or_else(|| header::text(&parts.headers, "x-ms-error-code"));
        let message = xml::find(&body, "Message").unwrap_or_default();
        Self {
            // An error inside an answer that began as a success.
            status: if parts.status.is_success() { 500 } else { parts.status.as_u16() },
            code: code.unwrap_or_default(),
            message: message.lines().next().unwrap_or_default().to_owned(),
            about: String::from_utf8_lossy(&body[..body.len().min(4096)]).to_ascii_lowercase(),
            date: header::date(&parts.headers, "date"),
            retry_after: header::number(&parts.headers, "retry-after").map(Duration::from_secs),
            region: header::text(&parts.headers, "x-amz-bucket-region").or_else(|| xml::find(&body, "Region")),
            ..Self::default()
        }
    }

    /// By how many seconds the service's clock is ahead of `ours`, when that may be why it refuses: signatures hold for some
    /// minutes only. Services have many words for it, and an answer to HEAD has none.
    pub fn skew(&self, ours: jiff::Timestamp) -> Option<i64> {
        let ahead = self.date?.as_second() - ours.as_second();
        (matches!(self.status, 400 | 401 | 403) && ahead.abs() >= SKEWED).then_some(ahead)
    }

    /// Whether the service may have done it all the same.
    pub fn leaves_doubt(&self) -> bool {
        self.decided.is_none() && !self.is_unsent && (self.status == 0 || self.status >= 500)
    }

    /// Whether it asks for fewer requests.
    pub fn is_throttling(&self) -> bool {
        matches!(self.status, 429 | 503) || matches!(self.code.as_str(), "SlowDown" | "ServerBusy" | "TooManyRequests")
    }

    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        if let Some(decided) = &self.decided {
            return decided.class == ErrorClass::Transient;
        }
        match self.status {
            0 => !self.is_untrusted,
            501 => false,
            408 | 429 | 500.. => true,
            _ => {
                matches!(self.code.as_str(), "RequestTimeout" | "SlowDown" | "InternalError" | "ServerBusy" | "BadDigest")
                    || self.is_mismatch()
            }
        }
    }

    /// Whether the service found other bytes than were sent.
    pub fn is_mismatch(&self) -> bool {
        let codes = ["BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "Md5Mismatch", "Crc64Mismatch"];
        // The last is azurite's, which has no code for it.
        codes.contains(&self.code.as_str()) || self.message.contains("contentMD5 doesn't match")
    }

    /// Whether the answer names a header, or the word in one.
    pub fn names(&self, word: &str) -> bool {
        self.about.contains(word)
    }

    /// Whether it says that the service does not copy within itself, or not for this key. What is wrong with the object
    /// or its bucket would be wrong in any other way too.
    pub fn refuses_copies(&self) -> bool {
        let own = ["InvalidObjectState", "BlobArchived", "NoSuchBucket", "ContainerNotFound", "KeyTooLongError", "NoSuchUpload"];
        self.decided.is_none() && matches!(self.status, 400..=499 | 501) && !self.may_pass() && !own.contains(&self.code.as_str())
    }

    /// Whether it is about a condition that does not hold.
    pub fn is_condition(&self) -> bool {
        let is_conflict = matches!(self.code.as_str(), "ConditionalRequestConflict" | "BlobAlreadyExists" | "ConditionNotMet");
        matches!(self.status, 304 | 412) || is_conflict
    }

    /// The failure. `doing` says what was being done.
    pub fn into_step(self, doing: &str) -> StepError {
        if let Some(decided) = self.decided {
            return StepError { message: format!("{doing}: {}", decided.message), ..*decided };
        }
        if self.is_untrusted {
            return StepError::permanent(format!("{doing}: the store's certificate is not trusted"))
                .help("check `endpoint`; an authority of your own has to be among this machine's certificates")
                .cause(self.message);
        }
        let status = StatusCode::from_u16(self.status).ok().map(|status| status.as_u16());
        let said = Said { status, code: &self.code, message: &self.message, retry_after: self.retry_after };
        classify_answer(doing, &said)
    }
}
