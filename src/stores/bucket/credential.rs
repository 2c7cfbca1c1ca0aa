//! Signing, and what keys are loaded with.

use std::fmt;
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
fn unsigned(error: &reqsign_core::Error) -> StepError {
    if error.is_retryable() || error.kind() == ErrorKind::RateLimited {
        return StepError::transient("the key cannot be loaded just now").help("see whether the service that gives keys is up");
    }
    let failure = match error.kind() {
        ErrorKind::CredentialInvalid => StepError::permanent("there is no key for the store, or it has expired"),
        ErrorKind::PermissionDenied => StepError::permanent("the service that gives keys refuses access"),
        ErrorKind::ConfigInvalid => StepError::permanent("the settings of keys on this machine are wrong"),
        _ => StepError::permanent("the request to the store cannot be signed"),
    };
    failure.help(
        "give the store its key and secret, a `profile` or a role; `skip_signature: true` asks without a key, for public buckets",
    )
}

/// What the sources of keys may use.
pub(super) fn context() -> Result<Context, StepError> {
    let client = reqwest::Client::builder().build().map_err(|error| {
        StepError::permanent(format!("requests for keys cannot be made: {}", error.without_url()))
            .help("see that this machine has certificates of authorities")
    })?;
    Ok(Context::new().with_file_read(TokioFileRead).with_http_send(Asker(client)).with_env(OsEnv))
}

/// Asks the services that give keys. These are not the store, and may lie behind a proxy that the store does not.
struct Asker(reqwest::Client);

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

impl HttpSend for Asker {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let failed = |error: reqwest::Error| reqsign_core::Error::unexpected(error.without_url().to_string()).set_retryable(true);
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut answer = self.0.execute(request).await.map_err(failed)?;
        let status = answer.status();
        let headers = std::mem::take(answer.headers_mut());
        let mut whole = http::Response::new(answer.bytes().await.map_err(failed)?);
        *whole.status_mut() = status;
        *whole.headers_mut() = headers;
        Ok(whole)
    }
}
