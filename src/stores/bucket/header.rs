//! Properties as headers, and back. Services sign plain ASCII with single spaces only; other values of the user's own
//! travel as RFC 2047 words (`=?UTF-8?B?w7w=?=`), as S3 gives them back itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, EXPIRES};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::types::Properties;
use crate::error::StepError;

/// Adds a header. Refuses what a signature cannot cover.
pub(super) fn put(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), StepError> {
    let refuse = || {
        StepError::permanent(format!("the store cannot keep `{name}: {value}`: a header there is plain ASCII text"))
            .help("change the object's properties, or leave it out with `exclude`")
    };
    let header = HeaderName::try_from(name).map_err(|_| refuse())?;
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(refuse());
    }
    headers.insert(header, HeaderValue::try_from(value).map_err(|_| refuse())?);
    Ok(())
}

/// The same for a value that no log may show.
pub(super) fn put_secret(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), StepError> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| StepError::permanent(format!("the option for `{name}` is no header's value")).help("correct it"))?;
    value.set_sensitive(true);
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// A header's text: UTF-8, else Latin-1.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(readable)
}

fn readable(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect(),
    }
}

/// The `ETag`. Some services give an empty one for what was made of parts.
pub(super) fn etag(headers: &HeaderMap) -> Option<String> {
    text(headers, ETAG.as_str()).filter(|etag| !etag.trim_matches('"').is_empty())
}

/// A date as HTTP writes it.
pub(super) fn date(headers: &HeaderMap, name: &str) -> Option<jiff::Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// A number.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The size of the whole object: from `Content-Range` of a part, else from `Content-Length`.
pub(super) fn whole_size(headers: &HeaderMap) -> Option<u64> {
    match headers.get("content-range") {
        Some(range) => range.to_str().ok()?.rsplit_once('/')?.1.trim().parse().ok(),
        None => number(headers, "content-length"),
    }
}

/// Where the part of an object begins that an answer holds: from `Content-Range`.
pub(super) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("content-range")?.to_str().ok()?;
    range.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// The properties in an answer. `own` is what names of the user's own begin with.
pub(super) fn properties(headers: &HeaderMap, own: &str, storage_class: &str) -> Properties {
    let mut user = BTreeMap::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(own) {
            user.insert(name.to_owned(), plain(&readable(value)));
        }
    }
    // Some services show how the body was framed on its way as if it were how the content is encoded.
    let content_encoding = text(headers, CONTENT_ENCODING.as_str()).map(|all| {
        let kept: Vec<&str> = all.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
        kept.join(",")
    });
    Properties {
        content_type: text(headers, CONTENT_TYPE.as_str()),
        content_encoding: content_encoding.filter(|encoding| !encoding.is_empty()),
        content_disposition: text(headers, CONTENT_DISPOSITION.as_str()),
        cache_control: text(headers, CACHE_CONTROL.as_str()),
        content_language: text(headers, CONTENT_LANGUAGE.as_str()),
        expires: text(headers, EXPIRES.as_str()),
        storage_class: text(headers, storage_class),
        user,
        tags: BTreeMap::new(),
    }
}

/// A value as it may go into a header.
pub(super) fn word(value: &str) -> String {
    let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value && !value.contains("  ");
    if is_plain { value.to_owned() } else { format!("=?UTF-8?B?{}?=", STANDARD.encode(value)) }
}

/// What a value with RFC 2047 words in it means. What is none stays as it is.
pub(super) fn plain(value: &str) -> String {
    if !value.contains("=?") {
        return value.to_owned();
    }
    let mut whole = String::new();
    let mut rest = value;
    let mut is_after_word = false;
    while let Some(at) = rest.find("=?") {
        let (before, from) = rest.split_at(at);
        let Some((word, after)) = decode_word(from) else {
            whole.push_str(before);
            whole.push_str("=?");
            rest = &from[2..];
            is_after_word = false;
            continue;
        };
        // White space between two words belongs to neither.
        if !(is_after_word && before.trim().is_empty()) {
            whole.push_str(before);
        }
        whole.push_str(&word);
        rest = after;
        is_after_word = true;
    }
    whole.push_str(rest);
    whole
}

/// The word at the beginning, and what follows it.
fn decode_word(text: &str) -> Option<(String, &str)> {
    let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (body, rest) = rest.split_once("?=")?;
    let bytes = match encoding {
        "B" | "b" => STANDARD.decode(body).ok()?,
        "Q" | "q" => {
            let mut bytes = Vec::new();
            let mut body = body.bytes();
            while let Some(byte) = body.next() {
                bytes.push(match byte {
                    b'_' => b' ',
                    b'=' => {
                        let high = char::from(body.next()?).to_digit(16)?;
                        let low = char::from(body.next()?).to_digit(16)?;
                        u8::try_from(high * 16 + low).ok()?
                    }
                    byte => byte,
                });
            }
            bytes
        }
        _ => return None,
    };
    let text = match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "us-ascii" => String::from_utf8(bytes).ok()?,
        "iso-8859-1" => bytes.into_iter().map(char::from).collect(),
        _ => return None,
    };
    Some((text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_travels_as_a_word_and_comes_back() {
        for value in ["plain", "", "ü ✓", " edge ", "two  spaces", "tab\there", "a=b; c?d"] {
            let sent = word(value);
            assert!(sent.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{sent}");
            assert_eq!(plain(&sent), value);
        }
        assert_eq!(word("plain text"), "plain text");
    }

    #[test]
    fn words_of_others_are_read() {
        assert_eq!(plain("=?UTF-8?Q?caf=C3=A9_au?= =?utf-8?B?IGxhaXQ=?= x"), "café au lait x");
        assert_eq!(plain("=?ISO-8859-1?Q?=E9?="), "é");
        for kept in ["a =? b", "=?x?y?z?=", "=?UTF-8?B?%%?="] {
            assert_eq!(plain(kept), kept);
        }
    }

    #[test]
    fn a_property_that_no_header_holds_is_refused_by_name() {
        let mut headers = HeaderMap::new();
        for value in ["ü", "a\nb"] {
            let error = put(&mut headers, "content-disposition", value).expect_err("refused");
            assert!(error.message.contains("content-disposition"), "{error}");
        }
        assert!(put(&mut headers, "x-amz-meta-a b", "c").is_err());
    }
}
