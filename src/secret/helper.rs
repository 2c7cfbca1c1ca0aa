//! What can be made of a text: the helpers of templates, and the forms in which a text turns up in the texts of others.
//! All are pure, so that a mark that names one can be worked out in any process.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Ways to write a text inside JSON, without the quotes around it.
pub(super) const JSON_STYLES: [&str; 6] = ["plain", "ascii", "ascii-upper", "html", "slashes", "twice"];

/// Ways to write a text inside a URL or a form, by who writes so.
pub(super) const URL_STYLES: [&str; 7] = ["form", "strict", "component", "quote", "path", "query", "userinfo"];

/// The helpers that write base64.
pub(super) const BASE64: [&str; 4] = ["base64", "base64-bare", "base64url", "base64url-bare"];

/// Widths at which programs break lines of base64.
pub(super) const WIDTHS: [&str; 2] = ["64", "76"];

/// What a helper makes of its arguments; `None` when there is no such helper or not with such arguments.
pub(super) fn apply(helper: &str, args: &[&str]) -> Option<String> {
    Some(match (helper, args) {
        ("lower", [text]) => text.to_lowercase(),
        ("upper", [text]) => text.to_uppercase(),
        ("trim", [text]) => text.trim().to_owned(),
        ("replace", [text, from, to]) => text.replace(from, to),
        ("sha256", [text]) => format!("{:x}", Sha256::digest(text.as_bytes())),
        ("json", [text]) => Value::from(*text).to_string(),
        // A number of JSON with this text. Whoever reveals a whole value makes it a number again.
        ("number", [text]) => (*text).to_owned(),
        ("line", [text, number]) => text.lines().nth(number.parse().ok()?)?.to_owned(),
        ("json", [text, style]) => json(text, style)?,
        ("url", [text, style]) => url(text, style, false)?,
        ("url-lower", [text, style]) => url(text, style, true)?,
        ("base64-row", [text, width, number]) => {
            let (width, number): (usize, usize) = (width.parse().ok()?, number.parse().ok()?);
            rows(&STANDARD.encode(text), width).nth(number)?.to_owned()
        }
        ("base64-part", [text, lead]) => part(&STANDARD_NO_PAD, text, lead.parse().ok()?)?,
        ("base64url-part", [text, lead]) => part(&URL_SAFE_NO_PAD, text, lead.parse().ok()?)?,
        (_, [text]) => base64_engine(helper)?.encode(text),
        _ => return None,
    })
}

/// The kind of base64 that a helper's name means.
pub(super) fn base64_engine(helper: &str) -> Option<&'static GeneralPurpose> {
    match helper {
        "base64" => Some(&STANDARD),
        "base64-bare" => Some(&STANDARD_NO_PAD),
        "base64url" => Some(&URL_SAFE),
        "base64url-bare" => Some(&URL_SAFE_NO_PAD),
        _ => None,
    }
}

/// The lines of a text in base64.
pub(super) fn rows(encoded: &str, width: usize) -> impl Iterator<Item = &str> {
    // Base64 is ASCII: every byte is a character.
    (0..encoded.len()).step_by(width.max(1)).map(move |at| &encoded[at..encoded.len().min(at + width.max(1))])
}

/// The first digit that a text alone decides when it stands `lead` bytes behind the beginning of a group.
pub(super) fn first_own_digit(lead: usize) -> usize {
    (8 * lead).div_ceil(6)
}

/// The digits that a text alone decides, whatever stands around it: `user:password` shifts the encoding.
fn part(engine: &GeneralPurpose, text: &str, lead: usize) -> Option<String> {
    let encoded = engine.encode([vec![0; lead.min(2)], text.as_bytes().to_vec()].concat());
    let end = 8 * (lead + text.len()) / 6;
    encoded.get(first_own_digit(lead)..end).map(str::to_owned)
}

fn url(text: &str, style: &str, is_lower: bool) -> Option<String> {
    use std::fmt::Write as _;
    let kept = match style {
        "form" => "*-._",
        "strict" => "-._~",
        // `encodeURIComponent`
        "component" => "-_.!~*'()",
        // Python's `quote`
        "quote" => "_.-~/",
        // The URL standard's path, query and user.
        "path" => "!$%&'()*+,-./:;=@[\\]^_|~",
        "query" => "!$%&()*+,-./:;=?@[\\]^_`{|}~",
        "userinfo" => "!$%&'()*+,-._~",
        _ => return None,
    };
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' if style == "form" => written.push('+'),
            _ if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => written.push(char::from(byte)),
            _ if is_lower => drop(write!(written, "%{byte:02x}")),
            _ => drop(write!(written, "%{byte:02X}")),
        }
    }
    Some(written)
}

fn json(text: &str, style: &str) -> Option<String> {
    use std::fmt::Write as _;
    let quoted = |text: &str| {
        let quoted = Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let plain = quoted(text);
    let mut written = String::with_capacity(plain.len());
    let mut units = [0; 2];
    match style {
        "plain" => return Some(plain),
        "twice" => return Some(quoted(&plain)),
        // PHP
        "slashes" => return Some(plain.replace('/', "\\/")),
        // Go
        "html" => return Some(plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")),
        "ascii" | "ascii-upper" => {}
        _ => return None,
    }
    for c in plain.chars() {
        if c.is_ascii() {
            written.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            let _ = if style == "ascii" { write!(written, "\\u{unit:04x}") } else { write!(written, "\\u{unit:04X}") };
        }
    }
    Some(written)
}
