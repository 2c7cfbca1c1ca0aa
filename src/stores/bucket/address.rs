//! Addresses, byte for byte: what is not unreserved (RFC 3986) goes out as `%XX`, and nothing else is changed.

use http::Uri;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};

use crate::error::StepError;

/// Where a bucket is asked.
#[derive(Debug, Clone)]
pub(super) struct Address {
    scheme: Scheme,
    authority: Authority,
    /// What comes before the key's slash: empty, or `/bucket`.
    base: String,
}

impl Address {
    /// From `https://host:port/base`. Default ports are left out, as a `Host` header does.
    pub fn parse(endpoint: &str) -> Result<Self, StepError> {
        let wrong =
            || StepError::permanent("the store's `endpoint` is not an address").help("write it like `https://s3.example.com`");
        let url = url::Url::parse(endpoint).map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            scheme: url.scheme().parse().map_err(|_| wrong())?,
            authority: authority.parse().map_err(|_| wrong())?,
            base: url.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The same with another host.
    pub fn with_host(&self, host: &str) -> Option<Self> {
        Some(Self { authority: host.parse().ok()?, ..self.clone() })
    }

    /// The host and its port.
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// The address without a key.
    pub fn to_url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.base)
    }

    /// The address of a key, or of the bucket itself. A query's pair with an empty value stands without `=`'s right
    /// side, as `?uploads=` does.
    pub fn uri(&self, key: Option<&str>, query: &[(&str, &str)]) -> Result<Uri, StepError> {
        let mut text = String::with_capacity(self.base.len() + key.map_or(1, |key| key.len() * 3 / 2 + 1) + query.len() * 32);
        text.push_str(&self.base);
        if let Some(key) = key {
            text.push('/');
            encode(&mut text, key, true);
        } else if text.is_empty() {
            text.push('/');
        }
        for (at, (name, value)) in query.iter().enumerate() {
            text.push(if at == 0 { '?' } else { '&' });
            encode(&mut text, name, false);
            text.push('=');
            encode(&mut text, value, false);
        }
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        let path = PathAndQuery::from_maybe_shared(text).ok();
        parts.path_and_query = path;
        match (parts.path_and_query.is_some(), Uri::from_parts(parts)) {
            (true, Ok(uri)) => Ok(uri),
            _ => Err(StepError::permanent("the name is too long for an address").help("leave it out with `exclude`")),
        }
    }
}

/// Appends `text`, percent-encoded. Slashes stay as they are in a key.
pub(super) fn encode(to: &mut String, text: &str, keeps_slashes: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || (keeps_slashes && byte == b'/') {
            to.push(char::from(byte));
        } else {
            to.push('%');
            to.push(char::from(DIGITS[usize::from(byte >> 4)]));
            to.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// The same as a text of its own.
pub(super) fn encoded(text: &str, keeps_slashes: bool) -> String {
    let mut to = String::with_capacity(text.len() + 16);
    encode(&mut to, text, keeps_slashes);
    to
}

/// What a listing with `encoding-type=url` means: `%XX`, and `+` for a space, since services write either.
pub(super) fn decoded(text: &str) -> Result<String, StepError> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let pair = [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
                let [Some(high), Some(low)] = pair else { return Err(garbled(text)) };
                bytes.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits fit a byte"));
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| garbled(text))
}

fn garbled(text: &str) -> StepError {
    StepError::permanent(format!("the store lists a name that cannot be read: `{text}`")).help("rename the object")
}

/// Whether a URL parser would take parts of the key away.
pub(super) fn has_dots(key: &str) -> bool {
    key.split('/').any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_out_exactly() {
        let address = Address::parse("http://127.0.0.1:9000/box").expect("an address");
        for (key, path) in [
            ("a//b", "/box/a//b"),
            ("/lead", "/box//lead"),
            ("a/./b/../c", "/box/a/./b/../c"),
            ("a+b c%2F", "/box/a%2Bb%20c%252F"),
            ("ü\u{1}\n", "/box/%C3%BC%01%0A"),
            ("", "/box/"),
        ] {
            assert_eq!(address.uri(Some(key), &[]).expect(key).path(), path);
        }
        let uri = address.uri(None, &[("prefix", "a/b&c"), ("uploads", "")]).expect("an address");
        assert_eq!(uri.to_string(), "http://127.0.0.1:9000/box?prefix=a%2Fb%26c&uploads=");
        let uri = Address::parse("https://box.example.com:443").expect("an address").uri(None, &[]).expect("an address");
        assert_eq!(uri.to_string(), "https://box.example.com/");
    }

    #[test]
    fn what_was_encoded_comes_back() {
        for key in ["a b+c%2F", "ü\u{1}\u{7f}", "plain", "%", "\u{10ffff}"] {
            assert_eq!(decoded(&encoded(key, false)).expect(key), key);
        }
        assert_eq!(decoded("a+b%20c").expect("both forms of a space"), "a b c");
        assert!(decoded("%4").is_err());
        assert!(decoded("%FF").is_err());
    }
}
