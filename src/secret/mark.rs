//! The grammar of marks. A mark is a name between two private-use characters, or a call: the name of a helper and its
//! arguments, each between the same two characters, with the marks in them kept. A call can be worked out wherever the
//! secrets at its leaves are known, and no two different calls have one mark.

use std::borrow::Cow;

use serde_json::Value;

/// Opens a mark. Both are private-use characters that no protocol and no person writes.
pub const MARK_START: char = '\u{F5E5}';
/// Closes a mark.
pub const MARK_END: char = '\u{F5E6}';
/// What people see in place of a secret.
pub const MASK: &str = "***";

/// Takes the power to mark from text that comes from outside.
pub fn sanitize(text: &str) -> Cow<'_, str> {
    if text.contains([MARK_START, MARK_END]) {
        Cow::Owned(text.replace([MARK_START, MARK_END], "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether a text holds a mark.
pub fn is_marked(text: &str) -> bool {
    text.contains(MARK_START)
}

/// The mark of the secret of this name.
pub fn mark(name: &str) -> String {
    format!("{MARK_START}{name}{MARK_END}")
}

/// The mark of what a helper makes of texts, of which some hold marks.
pub fn call(helper: &str, args: &[&str]) -> String {
    let args: String = args.iter().map(|arg| mark(arg)).collect();
    mark(&format!("{helper}{args}"))
}

/// A text for people: each mark becomes `***`.
pub fn unmarked(text: &str) -> Cow<'_, str> {
    if !is_marked(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(pieces(text).into_iter().map(|piece| if let Piece::Text(text) = piece { text } else { MASK }).collect())
}

/// Calls `take` with the name of every secret that the marks in a value stand for.
pub fn each_name(value: &Value, take: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => names_in(text, take),
        Value::Array(items) => items.iter().for_each(|item| each_name(item, take)),
        Value::Object(fields) => {
            for (key, item) in fields {
                names_in(key, take);
                each_name(item, take);
            }
        }
        _ => {}
    }
}

fn names_in(text: &str, take: &mut dyn FnMut(&str)) {
    for piece in pieces(text) {
        if let Piece::Mark(inside) = piece {
            match parse(inside) {
                Some(Mark::Name(name)) => take(name),
                Some(Mark::Call { args, .. }) => args.into_iter().for_each(|arg| names_in(arg, take)),
                None => {}
            }
        }
    }
}

/// A part of a marked text.
pub(super) enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// What is between the outermost characters of a mark.
    Mark(&'a str),
    /// A mark that does not end.
    Broken,
}

/// What a mark says.
pub(super) enum Mark<'a> {
    Name(&'a str),
    Call { helper: &'a str, args: Vec<&'a str> },
}

/// The parts of a text, in order.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(MARK_START) {
        if start > 0 {
            found.push(Piece::Text(&rest[..start]));
        }
        let after = &rest[start + MARK_START.len_utf8()..];
        let mut depth = 1;
        let end = after.find(|c: char| {
            depth += i32::from(c == MARK_START) - i32::from(c == MARK_END);
            depth == 0
        });
        let Some(end) = end else {
            found.push(Piece::Broken);
            return found;
        };
        found.push(Piece::Mark(&after[..end]));
        rest = &after[end + MARK_END.len_utf8()..];
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    found
}

/// What the inside of a mark says; `None` when it is not one that ferry wrote.
pub(super) fn parse(inside: &str) -> Option<Mark<'_>> {
    let Some(start) = inside.find(MARK_START) else { return Some(Mark::Name(inside)) };
    let args = pieces(&inside[start..]).into_iter().map(|piece| match piece {
        Piece::Mark(arg) => Some(arg),
        Piece::Text(_) | Piece::Broken => None,
    });
    Some(Mark::Call { helper: &inside[..start], args: args.collect::<Option<_>>()? })
}
