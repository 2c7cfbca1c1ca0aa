//! XML of the services, read as it streams by: elements open, leaves have text, elements close.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::StepError;

/// What is met while reading.
pub(super) enum Met<'a> {
    /// The element that begins next has a text that is percent-encoded, as Azure does with what XML cannot hold.
    Marked,
    /// An element begins.
    Open(&'a str),
    /// An element ends; its name and its text. For one that holds others the text means nothing.
    Close(&'a str, String),
}

/// Reads a document. Names come without their namespace.
pub(super) fn read(xml: &[u8], mut on: impl FnMut(Met<'_>)) -> Result<(), StepError> {
    let text = std::str::from_utf8(xml).map_err(|_| garbled())?;
    let mut reader = Reader::from_str(text);
    let mut collected = String::new();
    let mut depth = 0_usize;
    loop {
        match reader.read_event().map_err(|_| garbled())? {
            Event::Start(start) => {
                depth += 1;
                collected.clear();
                if start.attributes_raw().contains("Encoded=\"true\"") {
                    on(Met::Marked);
                }
                on(Met::Open(start.local_name().as_ref()));
            }
            Event::Empty(empty) => {
                let name = empty.local_name();
                on(Met::Open(name.as_ref()));
                on(Met::Close(name.as_ref(), String::new()));
            }
            Event::Text(part) => collected.push_str(&part.xml10_content()),
            Event::CData(part) => collected.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) => {
                let named = match &*reference.xml10_content() {
                    "amp" => Some('&'),
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    _ => reference.resolve_char_ref().map_err(|_| garbled())?,
                };
                collected.push(named.ok_or_else(garbled)?);
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                on(Met::Close(end.local_name().as_ref(), std::mem::take(&mut collected)));
            }
            // A document that was cut short is not a short document.
            Event::Eof if depth > 0 => return Err(garbled()),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

/// The text of the first element of this name.
pub(super) fn find(xml: &[u8], wanted: &str) -> Option<String> {
    let mut found = None;
    let read = read(xml, |met| {
        if let Met::Close(name, text) = met
            && name == wanted
            && found.is_none()
        {
            found = Some(text);
        }
    });
    read.ok().and(found)
}

/// Whether the root element is `<Error>`.
pub(super) fn is_error(xml: &[u8]) -> bool {
    let text = xml.trim_ascii_start();
    let text = match text.strip_prefix(b"<?xml") {
        Some(rest) => match rest.iter().position(|byte| *byte == b'>') {
            Some(end) => rest[end + 1..].trim_ascii_start(),
            None => return false,
        },
        None => text,
    };
    text.strip_prefix(b"<Error").is_some_and(|rest| rest.first().is_some_and(|byte| !byte.is_ascii_alphanumeric()))
}

/// Text as an element's content.
pub(super) fn escape(to: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            // A parser makes a line feed of it.
            '\r' => to.push_str("&#13;"),
            '\n' => to.push_str("&#10;"),
            '\t' => to.push_str("&#9;"),
            c => to.push(c),
        }
    }
}

/// Whether XML 1.0 can hold the text at all.
pub(super) fn can_hold(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..))
}

fn garbled() -> StepError {
    StepError::transient("the store's answer cannot be read: it is not the XML that was expected")
        .help("see that `endpoint` is the store itself, and not a page or a proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_have_their_text() {
        let xml = b"<?xml version=\"1.0\"?>\n<a:R xmlns:a='x'><Key> a&amp;&#x9;b </Key><E/><Key><![CDATA[<]]></Key></a:R>";
        let mut met = Vec::new();
        read(xml, |one| {
            if let Met::Close(name, text) = one {
                met.push(format!("{name}={text}"));
            }
        })
        .expect("it reads");
        assert_eq!(met[..3], ["Key= a&\tb ", "E=", "Key=<"]);
        assert_eq!(find(xml, "Key").as_deref(), Some(" a&\tb "));
        assert!(read(b"<a><b>", |_| {}).is_err());
        assert!(read(b"not found", |_| {}).is_ok());
    }

    #[test]
    fn an_error_is_known_by_its_root() {
        assert!(is_error(b"\n<?xml version=\"1.0\"?>\n  <Error><Code>x</Code></Error>"));
        assert!(is_error(b"<Error xmlns='x'/>"));
        assert!(!is_error(b"<Errors/>"));
        assert!(!is_error(b"<CopyObjectResult/>"));
    }

    #[test]
    fn what_is_escaped_comes_back() {
        for key in ["a&b<c>\"", "\r\n\t", "ü ", "]]>"] {
            let mut xml = "<K>".to_owned();
            escape(&mut xml, key);
            xml.push_str("</K>");
            assert_eq!(find(xml.as_bytes(), "K").as_deref(), Some(key));
            assert!(can_hold(key));
        }
        assert!(!can_hold("\u{1}"));
        assert!(!can_hold("\u{ffff}"));
    }
}
