//! One request to Azure Blob: signed, sent, repeated.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use reqsign_azure_storage::Credential;
use reqsign_core::Signer;

use super::super::checksum::{Checksum, ChecksumKind};
use super::super::credential::sign;
use super::super::header;
use super::super::repeat::Refusal;
use super::super::types::{BucketError, CopyFrom};
use super::{Azblob, Keyring, signer};
use crate::error::StepError;

/// What OpenDAL speaks too.
pub(super) const VERSION: &str = "2022-11-02";
const CRC: &str = "x-ms-content-crc64";
/// How long a signed address of a copy's source holds.
const HOLDS: Duration = Duration::from_hours(1);

/// Seconds that a signature holds.
const HOLDS_FOR: i64 = 15 * 60;

/// A request before it is signed.
#[derive(Clone, Default)]
pub(super) struct Call<'a> {
    pub method: Method,
    pub key: Option<&'a str>,
    pub query: Vec<(&'static str, &'a str)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Another version of the protocol than the usual one.
    pub version: Option<&'static str>,
    /// Whether the service works for long before it answers.
    pub is_slow: bool,
    /// Whether the body goes with a checksum.
    pub is_checked: bool,
}

/// What makes something and misses nothing.
const MAKES: [&str; 2] = ["write", "send a part of"];

impl Azblob {
    /// Sends it, again and again while that may help.
    pub(super) async fn send(&self, mut call: Call<'_>) -> Result<Response<Bytes>, Refusal> {
        if let Some(key) = call.key {
            self.wire.transport().check(key).map_err(Refusal::decided)?;
        }
        if call.is_checked {
            self.add_checksum(&mut call).map_err(Refusal::decided)?;
        }
        let mut tries = self.wire.tries();
        let mut may_be_done = false;
        let mut has_renewed = false;
        loop {
            let signer = self.keyring.as_ref().map(Keyring::signer);
            let (mut parts, body) = self.request(&call).map_err(Refusal::decided)?.into_parts();
            let asked = match &signer {
                Some(signer) => sign(signer, &mut parts).await,
                None => Ok(()),
            };
            let asked = match asked {
                Ok(()) => self.wire.ask(Request::from_parts(parts, body), call.is_slow).await,
                Err(unsigned) => Err(unsigned),
            };
            let mut refusal = match asked {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => Refusal::read(answer),
                Err(refusal) => refusal,
            };
            if let (Some(keyring), Some(signer)) = (&self.keyring, &signer)
                && refusal.status == 401
                && !has_renewed
            {
                has_renewed = true;
                keyring.renew(signer);
                continue;
            }
            if call.headers.contains_key(CRC) && refusal.names("crc64") && !refusal.is_mismatch() {
                self.has_no_crc.store(true, Ordering::Relaxed);
                self.add_checksum(&mut call).map_err(Refusal::decided)?;
                continue;
            }
            if refusal.skew(jiff::Timestamp::now()).is_some_and(|ahead| ahead.abs() > HOLDS_FOR) && signer.is_some() {
                "RequestTimeTooSkewed".clone_into(&mut refusal.code);
            }
            refusal.may_be_done = may_be_done;
            may_be_done |= refusal.leaves_doubt();
            if !refusal.may_pass() || !tries.again(refusal.retry_after).await {
                return Err(refusal);
            }
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Bytes>, StepError> {
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = self.address.uri(call.key, &call.query)?;
        *request.headers_mut() = call.headers.clone();
        header::put(request.headers_mut(), "x-ms-version", call.version.unwrap_or(VERSION))?;
        if call.method == Method::PUT {
            // The signature covers it.
            header::put(request.headers_mut(), "content-length", &call.body.len().to_string())?;
        }
        Ok(request)
    }

    /// The key of the customer's own goes with every request about the content.
    pub(super) fn key_headers(&self, headers: &mut HeaderMap) -> Result<(), StepError> {
        for (name, value) in &self.encryption {
            if let Some(value) = value {
                header::put_secret(headers, name, value)?;
            }
        }
        Ok(())
    }

    /// Adds the checksum of the body: CRC-64, or the MD5 where the service does not know that.
    fn add_checksum(&self, call: &mut Call<'_>) -> Result<(), StepError> {
        call.headers.remove(CRC);
        let kind = if self.has_no_crc.load(Ordering::Relaxed) { ChecksumKind::Md5 } else { ChecksumKind::Crc64Nvme };
        match (kind, Checksum::of(kind, &call.body)) {
            (ChecksumKind::Crc64Nvme, Some(sum)) => header::put(&mut call.headers, CRC, &reversed(&sum.value)),
            (_, Some(sum)) => header::put(&mut call.headers, "content-md5", &sum.value),
            (_, None) => Ok(()),
        }
    }

    /// What a refusal means for a request about a blob.
    pub(super) fn failed(&self, refusal: Refusal, doing: &str, key: &str) -> BucketError {
        if refusal.is_condition() || refusal.status == 416 {
            return BucketError::Changed;
        }
        match (refusal.status, refusal.code.as_str()) {
            // A proxy's answer, or an address that is none of the service's: nothing was asked for that could be missing.
            _ if MAKES.contains(&doing) && refusal.code != "InvalidBlockList" => {
                refusal.into_step(&format!("cannot {doing} `{key}` in the container `{}`", self.name)).into()
            }
            (404, "" | "BlobNotFound" | "ResourceNotFound") | (400, "InvalidBlockList") => BucketError::Missing,
            _ => refusal.into_step(&format!("cannot {doing} `{key}` in the container `{}`", self.name)).into(),
        }
    }

    /// What a refusal means for a copy within the service.
    pub(super) fn not_copied(&self, refusal: Refusal, doing: &str, key: &str) -> BucketError {
        if refusal.code == "CannotVerifyCopySource" && refusal.status == 404 {
            return BucketError::Missing;
        }
        let is_refusal = refusal.refuses_copies();
        match self.failed(refusal, doing, key) {
            BucketError::Failed(error) if is_refusal => BucketError::Refused(error),
            other => other,
        }
    }

    /// What a refusal means for a request about the container.
    pub(super) fn failed_container(&self, refusal: Refusal, doing: &str) -> BucketError {
        refusal.into_step(&format!("cannot {doing} the container `{}`", self.name)).into()
    }

    /// The headers that name the source of a copy. The service reads it on its own, and has to be let in.
    pub(super) async fn source_headers(&self, headers: &mut HeaderMap, from: &CopyFrom) -> Result<(), Refusal> {
        let mut path = from.bucket.clone();
        path.push('/');
        path.push_str(&from.key);
        let uri = self.account.uri(Some(&path), &[]).map_err(Refusal::decided)?;
        let mut parts = Request::get(uri).body(()).map(|request| request.into_parts().0).map_err(|_| {
            Refusal::decided(StepError::permanent("the source's name makes no address").help("leave it out with `exclude`"))
        })?;
        if let Some(keyring) = &self.keyring {
            let signer = keyring.signer();
            let unsigned = parts.clone();
            header::put(&mut parts.headers, "x-ms-version", VERSION).map_err(Refusal::decided)?;
            sign(&signer, &mut parts).await?;
            let login = header::text(&parts.headers, "authorization").unwrap_or_default();
            if login.starts_with("Bearer ") {
                header::put_secret(headers, "x-ms-copy-source-authorization", &login).map_err(Refusal::decided)?;
            } else if !login.is_empty() {
                parts = unsigned;
                super::super::credential::presign(&signer, &mut parts, HOLDS).await?;
            }
        }
        let address = parts.uri.to_string();
        header::put_secret(headers, "x-ms-copy-source", &address).map_err(Refusal::decided)?;
        if let Some(etag) = &from.if_match {
            header::put(headers, "x-ms-source-if-match", etag).map_err(Refusal::decided)?;
        }
        Ok(())
    }
}

impl Keyring {
    fn signer(&self) -> Arc<Signer<Credential>> {
        self.signer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew(&self, used: &Arc<Signer<Credential>>) {
        let mut held = self.signer.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&held, used) {
            *held = Arc::new(signer(self.source.clone()));
        }
    }
}

/// Azure writes the least significant byte of a CRC first, S3 the most significant.
fn reversed(value: &str) -> String {
    let mut bytes = STANDARD.decode(value).unwrap_or_default();
    bytes.reverse();
    STANDARD.encode(bytes)
}

/// The CRC-64 that an answer tells.
pub(super) fn crc(headers: &HeaderMap) -> Option<Checksum> {
    let value = reversed(&header::text(headers, CRC)?);
    Some(Checksum { kind: ChecksumKind::Crc64Nvme, value, is_whole: true })
}
