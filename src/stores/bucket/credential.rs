//! Signing, and what keys are loaded with.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use reqsign_core::{Context, ErrorKind, HttpSend, OsEnv, Signer, SigningCredential};
use reqsign_file_read_tokio::TokioFileRead;

use super::repeat::Refusal;
use crate::error::StepError;

/// Signs a request. The payload is not part of the signature: checksums hold it, and it is not read twice.
pub(super) async fn sign<K: SigningCredential>(signer: &Signer<K>, parts: &mut Parts) -> Result<(), Refusal> {
    signer.sign(parts, None).await.map_err(|error| Refusal::decided(unsigned(&error)))
}

/// Signs an address, so that another may ask it for this long.
pub(super) async fn presign<K: SigningCredential>(signer: &Signer<K>, parts: &mut Parts, holds: Duration) -> Result<(), Refusal> {
    signer.sign(parts, Some(holds)).await.map_err(|error| Refusal::decided(unsigned(&error)))
}

/// Without its causes: they may hold answers with keys in them.
pub(super) fn unsigned(error: &reqsign_core::Error) -> StepError {
    if error.is_retryable() || error.kind() == ErrorKind::RateLimited {
        return StepError::transient("the key cannot be loaded just now").help("see whether the service that gives keys is up");
    }
    match error.kind() {
        ErrorKind::CredentialInvalid => no_key(),
        ErrorKind::PermissionDenied => StepError::permanent("the service that gives keys refuses access").help(SOURCES),
        ErrorKind::ConfigInvalid => StepError::permanent("the settings of keys on this machine are wrong").help(SOURCES),
        _ => StepError::permanent("the request to the store cannot be signed").help(SOURCES),
    }
}

const SOURCES: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE for S3, AZURE_STORAGE_KEY or \
    AZURE_STORAGE_CONNECTION_STRING for Azure; or give the store its key under `stores:` of a pipeline, or take an rclone \
    remote. `skip_signature: true` asks without a key, for public buckets";

/// None of the sources has a key.
pub(super) fn no_key() -> StepError {
    StepError::permanent("there is no key for the store, or it has expired").help(SOURCES)
}

/// What the sources of keys may use.
pub(super) fn context() -> Context {
    Context::new().with_file_read(TokioFileRead).with_http_send(Asker(OnceLock::new())).with_env(OsEnv)
}

/// Asks the services that give keys. These are not the store, and may lie behind a proxy that the store does not.
struct Asker(OnceLock<reqwest::Client>);

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

impl HttpSend for Asker {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let failed = |error: reqwest::Error| reqsign_core::Error::unexpected(error.without_url().to_string()).set_retryable(true);
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        // Most keys come from options or files: the client, with its certificates, is made when it is needed.
        let client = if let Some(client) = self.0.get() {
            client
        } else {
            let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().map_err(failed)?;
            self.0.get_or_init(|| client)
        };
        let mut answer = client.execute(request).await.map_err(failed)?;
        let status = answer.status();
        let headers = std::mem::take(answer.headers_mut());
        let mut whole = http::Response::new(answer.bytes().await.map_err(failed)?);
        *whole.status_mut() = status;
        *whole.headers_mut() = headers;
        Ok(whole)
    }
}
