//! One request to S3: signed, sent, repeated, sent elsewhere when the bucket lies in another region, and without what
//! the service has refused by name.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};

use super::super::checksum::{Checksum, ChecksumKind};
use super::super::repeat::Refusal;
use super::super::types::BucketError;
use super::super::{header, xml};
use super::{Place, S3, moved, sign};
use crate::error::StepError;

/// A request before it is signed.
#[derive(Clone, Default)]
pub(super) struct Call<'a> {
    pub method: Method,
    pub key: Option<&'a str>,
    pub query: Vec<(&'static str, &'a str)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether an answer with status 200 may hold an error: the service begins to answer before it has done the work,
    /// or works for long.
    pub may_hide_error: bool,
    /// Whether the body goes with a checksum.
    pub is_checked: bool,
}

/// Headers that some services refuse, and what they are named in an answer.
const CONDITIONS: [&str; 2] = ["if-none-match", "if-match"];

const TAGGING: &str = "x-amz-tagging";

/// What makes something and misses nothing.
const MAKES: [&str; 2] = ["write", "begin an upload of"];

impl S3 {
    /// Sends it. What a service refuses by name is left out, and that is remembered.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Response<Bytes>, Refusal> {
        Ok(self.send_checked(call).await?.0)
    }

    /// The same; also gives the checksum that went with the body.
    pub(super) async fn send_checked(&self, mut call: Call<'_>) -> Result<(Response<Bytes>, Option<Checksum>), Refusal> {
        if let Some(key) = call.key {
            self.wire.transport().check(key).map_err(Refusal::decided)?;
        }
        let writes = call.method != Method::GET && call.method != Method::HEAD;
        // What copies is another request than what writes: one that is not there at all says nothing of conditions.
        let is_copy = call.headers.contains_key("x-amz-copy-source");
        let mut has_dropped = false;
        loop {
            if writes && self.learned.no_conditions.load(Ordering::Relaxed) {
                for name in CONDITIONS {
                    call.headers.remove(name);
                }
            }
            let kind = self.learned.checksum().filter(|_| call.is_checked);
            let sum = kind.and_then(|kind| add_checksum(&mut call, kind));
            let refusal = match self.repeat(&call).await {
                Ok(answer) => {
                    self.learned.no_conditions.fetch_or(has_dropped, Ordering::Relaxed);
                    return Ok((answer, sum));
                }
                Err(refusal) => refusal,
            };
            let is_unknown = matches!(refusal.status, 400 | 501) && !refusal.is_mismatch();
            let has_conditions = writes && CONDITIONS.iter().any(|name| call.headers.contains_key(*name));
            let names_checksum = refusal.names("checksum") || refusal.names("content-md5") || refusal.names("crc64");
            if let Some(kind) = kind
                && is_unknown
                && names_checksum
            {
                remove_checksum(&mut call);
                self.learned.refuse_checksum(kind);
            } else if is_unknown && refusal.names("tagging") && call.headers.remove(TAGGING).is_some() {
                call.headers.remove("x-amz-tagging-directive");
                self.learned.no_tags.store(true, Ordering::Relaxed);
            } else if has_conditions && is_copy && refusal.status == 501 {
                for name in CONDITIONS {
                    call.headers.remove(name);
                }
                has_dropped = true;
            } else if has_conditions && refusal.status == 501 {
                self.learned.no_conditions.store(true, Ordering::Relaxed);
            } else if let Some(kind) = kind
                && refusal.status == 501
            {
                remove_checksum(&mut call);
                self.learned.refuse_checksum(kind);
            } else {
                return Err(refusal);
            }
        }
    }

    /// Sends it as it is, again and again while that may help.
    async fn repeat(&self, call: &Call<'_>) -> Result<Response<Bytes>, Refusal> {
        let mut tries = self.wire.tries();
        let mut may_be_done = false;
        let mut moves = 0;
        let (mut has_renewed, mut has_set_clock) = (false, false);
        loop {
            let at = self.clock();
            let place = self.place();
            let (mut parts, body) = self.request(call, &place).map_err(Refusal::decided)?.into_parts();
            let (key, asked) = match &place.keyring {
                None => (None, self.wire.ask(Request::from_parts(parts, body), call.may_hide_error).await),
                Some(keyring) => {
                    let now = sign::written(at);
                    match keyring.key(&now[..8]).await {
                        Ok(key) => {
                            key.sign(&mut parts, &now).ok_or_else(|| Refusal::decided(not_signed()))?;
                            (Some(key), self.wire.ask(Request::from_parts(parts, body), call.may_hide_error).await)
                        }
                        Err(none) => (None, Err(none)),
                    }
                }
            };
            let mut refusal = match asked {
                Ok(answer) if answer.status().is_success() => {
                    if !(call.may_hide_error && xml::is_error(answer.body())) {
                        return Ok(answer);
                    }
                    Refusal::read(answer)
                }
                Ok(answer) => Refusal::read(answer),
                Err(refusal) => refusal,
            };
            if refusal.is_throttling() && !matches!(refusal.status, 429 | 503) {
                self.wire.count_throttling();
            }
            if let Some(region) = other_region(&refusal, &place.region)
                && moves < 2
            {
                moves += 1;
                self.move_to(&place, &region);
                continue;
            }
            if let (Some(keyring), Some(key)) = (&place.keyring, &key)
                && has_expired(&refusal, &call.method)
                && !has_renewed
            {
                has_renewed = true;
                keyring.forget(key);
                continue;
            }
            if let Some(ahead) = refusal.skew(at).filter(|_| place.keyring.is_some() && !has_set_clock) {
                has_set_clock = true;
                self.set_clock(ahead);
                continue;
            }
            if let (Some(keyring), Some(key)) = (&place.keyring, &key)
                && is_unknown_key(&refusal)
                && !has_renewed
                && keyring.has_another(key).await
            {
                has_renewed = true;
                continue;
            }
            refusal.may_be_done = may_be_done;
            may_be_done |= refusal.leaves_doubt();
            if !refusal.may_pass() || !tries.again(refusal.retry_after).await {
                return Err(refusal);
            }
        }
    }

    fn request(&self, call: &Call<'_>, place: &Place) -> Result<Request<Bytes>, StepError> {
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = place.address.uri(call.key, &call.query)?;
        *request.headers_mut() = call.headers.clone();
        if call.body.is_empty() && matches!(call.method, Method::PUT | Method::POST) {
            // Without it some services take it that there is a body whose length was forgotten.
            header::put(request.headers_mut(), "content-length", "0")?;
        }
        if self.settings.pays {
            header::put(request.headers_mut(), "x-amz-request-payer", "requester")?;
        }
        Ok(request)
    }

    /// Now, by the service's clock as far as it is known.
    fn clock(&self) -> jiff::Timestamp {
        let now = jiff::Timestamp::now();
        let ahead = jiff::SignedDuration::from_secs(self.learned.clock_ahead.load(Ordering::Relaxed));
        now.checked_add(ahead).unwrap_or(now)
    }

    fn set_clock(&self, ahead: i64) {
        let ahead = self.learned.clock_ahead.fetch_add(ahead, Ordering::Relaxed) + ahead;
        tracing::warn!(bucket = self.name, seconds = -ahead, "this machine's clock is wrong: requests are signed by the store's");
    }

    fn move_to(&self, place: &Arc<Place>, region: &str) {
        tracing::debug!(bucket = self.name, region, "the bucket lies in another region");
        let keyring = place.keyring.as_ref().map(|keyring| keyring.for_region(region));
        let address = moved(&place.address, region);
        self.replace(place, Place { address, region: region.to_owned(), keyring });
    }

    /// What a refusal means for a request about an object.
    pub(super) fn failed(&self, refusal: Refusal, doing: &str, key: &str) -> BucketError {
        if refusal.is_condition() {
            return BucketError::Changed;
        }
        match (refusal.status, refusal.code.as_str()) {
            // A proxy's answer, or an address that is none of the service's: nothing was asked for that could be missing.
            _ if MAKES.contains(&doing) => {
                refusal.into_step(&format!("cannot {doing} `{key}` in the bucket `{}`", self.name)).into()
            }
            // An answer to HEAD has no body, and so no code.
            (404, "" | "NoSuchKey" | "NotFound" | "NoSuchUpload" | "NoSuchVersion") => BucketError::Missing,
            (416, _) => BucketError::Changed,
            _ => refusal.into_step(&format!("cannot {doing} `{key}` in the bucket `{}`", self.name)).into(),
        }
    }

    /// What a refusal means for a copy within the service.
    pub(super) fn not_copied(&self, refusal: Refusal, doing: &str, key: &str) -> BucketError {
        let is_refusal = refusal.refuses_copies();
        match self.failed(refusal, doing, key) {
            BucketError::Failed(error) if is_refusal => BucketError::Refused(error),
            other => other,
        }
    }

    /// What a refusal means for a request about the bucket.
    pub(super) fn failed_bucket(&self, refusal: Refusal, doing: &str) -> BucketError {
        // What some servers say where there are no uploads to list.
        if refusal.status == 404 && refusal.code == "NoSuchUpload" {
            return BucketError::Missing;
        }
        refusal.into_step(&format!("cannot {doing} the bucket `{}`", self.name)).into()
    }
}

fn not_signed() -> StepError {
    StepError::permanent("the request cannot be signed: its headers are not plain ASCII text")
        .help("see the store's key and its token: a line break at the end is one too many")
}

/// The header that carries a checksum.
pub(super) fn checksum_header(kind: ChecksumKind) -> String {
    match kind {
        ChecksumKind::Md5 => "content-md5".to_owned(),
        kind => format!("x-amz-checksum-{}", kind.word()),
    }
}

fn add_checksum(call: &mut Call<'_>, kind: ChecksumKind) -> Option<Checksum> {
    remove_checksum(call);
    if call.query.iter().any(|(name, _)| *name == "uploads") {
        // The beginning of an upload: what its parts will carry.
        if kind != ChecksumKind::Md5 {
            let word = kind.word().to_ascii_uppercase();
            let _ = header::put(&mut call.headers, "x-amz-checksum-algorithm", &word);
            let _ = header::put(&mut call.headers, "x-amz-checksum-type", "FULL_OBJECT");
        }
        return None;
    }
    let sum = Checksum::of(kind, &call.body)?;
    let _ = header::put(&mut call.headers, &checksum_header(kind), &sum.value);
    Some(sum)
}

fn remove_checksum(call: &mut Call<'_>) {
    for kind in [ChecksumKind::Crc64Nvme, ChecksumKind::Crc32c, ChecksumKind::Md5] {
        call.headers.remove(checksum_header(kind));
    }
    call.headers.remove("x-amz-checksum-algorithm");
    call.headers.remove("x-amz-checksum-type");
}

/// The region that the answer names, when it is not the one that was signed for.
fn other_region(refusal: &Refusal, region: &str) -> Option<String> {
    let tells = matches!(refusal.status, 301 | 307 | 308)
        || (matches!(refusal.status, 400 | 403)
            && matches!(
                refusal.code.as_str(),
                "" | "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException"
            ));
    if !tells {
        return None;
    }
    let told = refusal.region.clone()?;
    let is_good = !told.is_empty() && told.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    (is_good && told != region).then_some(told)
}

/// Whether the key may have expired. An answer to HEAD has no body: what it is about is found out with a new key.
fn has_expired(refusal: &Refusal, method: &Method) -> bool {
    matches!(refusal.code.as_str(), "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" | "RequestExpired")
        || (*method == Method::HEAD && refusal.status == 400)
}

/// Whether the key is none of the service's any more: its source may have another by now.
fn is_unknown_key(refusal: &Refusal) -> bool {
    matches!(refusal.code.as_str(), "InvalidAccessKeyId" | "InvalidToken" | "SignatureDoesNotMatch")
}
