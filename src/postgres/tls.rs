//! TLS to a PostgreSQL server, and what it has to prove.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::StepError;

/// What TLS has to prove; the words are those of PostgreSQL's own `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// No TLS.
    Disable,
    /// TLS where the server offers it, whoever it is. Enough inside an SSH connection.
    #[default]
    Prefer,
    /// TLS, whoever the server is.
    Require,
    /// TLS, with a certificate that a known authority has signed.
    VerifyCa,
    /// The same, and the certificate is for the name that is connected to.
    VerifyFull,
}

/// A TLS client that asks for this proof. `ca` is a file of certificates in PEM; the system's own count without one.
pub fn client(trust: Trust, ca: Option<&Path>) -> Result<ClientConfig, StepError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let failed = |error: Error| StepError::permanent("cannot set up TLS").cause(error);
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(failed)?;
    let config = match (trust, ca) {
        (Trust::Disable | Trust::Prefer | Trust::Require, _) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
        }
        (Trust::VerifyFull, None) => builder.with_platform_verifier().map_err(failed)?.with_no_client_auth(),
        (Trust::VerifyFull, Some(ca)) => builder.with_root_certificates(roots(ca)?).with_no_client_auth(),
        (Trust::VerifyCa, None) => {
            return Err(StepError::permanent("`tls: verify-ca` needs to know whose signature counts")
                .help("give `ca`, a file with the authority's certificate, or ask for `verify-full`"));
        }
        (Trust::VerifyCa, Some(ca)) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca)?), provider).build();
            let verifier = verifier.map_err(|error| StepError::permanent("cannot set up TLS").cause(error))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier))).with_no_client_auth()
        }
    };
    Ok(config)
}

fn roots(ca: &Path) -> Result<RootCertStore, StepError> {
    let unreadable = |error: rustls::pki_types::pem::Error| {
        StepError::permanent(format!("cannot read the certificates in `{}`", ca.display()))
            .cause(error)
            .help("`ca` is a file with one or more certificates in PEM")
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(|error| StepError::permanent("cannot set up TLS").cause(error))?;
    }
    if roots.is_empty() {
        return Err(StepError::permanent(format!("no certificate is in `{}`", ca.display()))
            .help("`ca` is a file with one or more certificates in PEM"));
    }
    Ok(roots)
}

/// Takes any certificate, but only from who holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes a certificate that is signed as it must be, for whatever name it is.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else has been found right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
