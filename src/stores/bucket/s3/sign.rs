//! Signatures of S3 (AWS Signature Version 4, in headers, without the payload).
//!
//! `reqsign` could do it, but a copy of small objects spends a good part of its time here: the key of the day is made
//! once, and the address is taken as it is on the wire, which is the canonical form already.

use std::fmt::Write as _;

use hmac::{Hmac, Mac as _};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use reqsign_aws_v4::Credential;
use sha2::{Digest as _, Sha256};

/// A key as it is used on one day in one region.
pub(super) struct Key {
    pub credential: Credential,
    pub day: String,
    region: String,
    signs: [u8; 32],
}

impl Key {
    pub fn new(credential: Credential, day: &str, region: &str) -> Self {
        let mut signs = hmac(format!("AWS4{}", credential.secret_access_key).as_bytes(), day.as_bytes());
        for word in [region, "s3", "aws4_request"] {
            signs = hmac(&signs, word.as_bytes());
        }
        Self { credential, day: day.to_owned(), region: region.to_owned(), signs }
    }

    /// Adds the signature and what it covers. `None`: a header or the host cannot be signed.
    pub fn sign(&self, parts: &mut Parts, at: &str) -> Option<()> {
        let host = parts.uri.authority()?.as_str();
        parts.headers.insert(http::header::HOST, HeaderValue::from_str(host).ok()?);
        parts.headers.insert(HeaderName::from_static("x-amz-date"), HeaderValue::from_str(at).ok()?);
        let payload = HeaderValue::from_static("UNSIGNED-PAYLOAD");
        parts.headers.insert(HeaderName::from_static("x-amz-content-sha256"), payload);
        if let Some(token) = &self.credential.session_token {
            let mut token = HeaderValue::from_str(token).ok()?;
            token.set_sensitive(true);
            parts.headers.insert(HeaderName::from_static("x-amz-security-token"), token);
        }

        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(parts.headers.len());
        for (name, value) in &parts.headers {
            headers.push((name.as_str(), value.to_str().ok()?));
        }
        headers.sort_unstable();
        let mut query: Vec<&str> = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).collect();
        // By the names, then by the values: `=` would sort behind some characters of a name.
        query.sort_unstable_by_key(|pair| pair.split_once('='));

        let mut canonical = String::with_capacity(1024);
        let _ = writeln!(canonical, "{}\n{}\n{}", parts.method, parts.uri.path(), query.join("&"));
        let mut names = String::with_capacity(256);
        for (name, value) in &headers {
            let _ = write!(canonical, "{name}:");
            for (at, word) in value.split(' ').filter(|word| !word.is_empty()).enumerate() {
                let _ = write!(canonical, "{}{word}", if at == 0 { "" } else { " " });
            }
            canonical.push('\n');
            let _ = write!(names, "{}{name}", if names.is_empty() { "" } else { ";" });
        }
        let _ = write!(canonical, "\n{names}\nUNSIGNED-PAYLOAD");

        let scope = format!("{}/{}/s3/aws4_request", self.day, self.region);
        let mut signed = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n");
        hex(&mut signed, &Sha256::digest(&canonical));
        let id = &self.credential.access_key_id;
        let mut login = format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature=");
        hex(&mut login, &hmac(&self.signs, signed.as_bytes()));
        let mut login = HeaderValue::from_str(&login).ok()?;
        login.set_sensitive(true);
        parts.headers.insert(http::header::AUTHORIZATION, login);
        Some(())
    }
}

/// A moment as signatures write it: `20260131T235959Z`. Its first eight characters are the day.
pub(super) fn written(at: jiff::Timestamp) -> String {
    let now = at.to_zoned(jiff::tz::TimeZone::UTC);
    let (date, time) = (now.date(), now.time());
    format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z", date.year(), date.month(), date.day(), time.hour(), time.minute(), time.second())
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn hex(to: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        to.push(char::from(DIGITS[usize::from(byte >> 4)]));
        to.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use reqsign_core::{Context, SignRequest as _};

    use super::super::super::address::Address;
    use super::*;

    /// reqsign is the oracle: both sign the same second.
    #[tokio::test]
    async fn signatures_are_those_of_reqsign() {
        let credential = Credential {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: Some("token/with+signs=".to_owned()),
            expires_in: None,
        };
        let address = Address::parse("https://s3.eu-x-1.example.com:8443/box").expect("an address");
        let keys = ["a", "a//b", "/lead", "a/../b", "ü ✓+%2F", "\u{1}~-_.!*'()"];
        let queries: [&[(&str, &str)]; 3] =
            [&[], &[("uploads", "")], &[("prefix", "a b/ü"), ("list-type", "2"), ("max-keys", "1"), ("max", "x"), ("a", "=&")]];
        for key in keys {
            for query in queries {
                let uri = address.uri(Some(key), query).expect("an address");
                let request = Request::builder().method(Method::PUT).uri(uri);
                let request = request.header("x-amz-meta-mark", "one two").header("content-type", "text/plain");
                let (parts, ()) = request.body(()).expect("a request").into_parts();
                let (ours, theirs) = loop {
                    let at = written(jiff::Timestamp::now());
                    let (mut ours, mut theirs) = (parts.clone(), parts.clone());
                    Key::new(credential.clone(), &at[..8], "eu-x-1").sign(&mut ours, &at).expect("signed");
                    let signer = reqsign_aws_v4::RequestSigner::new("s3", "eu-x-1");
                    signer.sign_request(&Context::new(), &mut theirs, Some(&credential), None).await.expect("signed");
                    if ours.headers["x-amz-date"] == theirs.headers["x-amz-date"] {
                        break (ours, theirs);
                    }
                };
                assert_eq!(ours.headers, theirs.headers, "{key} {query:?}");
            }
        }
    }

    #[test]
    fn inner_spaces_are_signed_as_one() {
        let key = Key::new(Credential::default(), "20260131", "x");
        let signature = |value: &str| {
            let request = Request::get("http://h/").header("x-amz-meta-a", value).body(()).expect("a request");
            let mut parts = request.into_parts().0;
            key.sign(&mut parts, "20260131T000000Z").expect("signed");
            parts.headers["authorization"].clone()
        };
        assert_eq!(signature("a  b"), signature(" a b "));
        assert_ne!(signature("a b"), signature("ab"));
    }
}
