//! What a YAML parser's complaint means in words, and the three mistakes that deserve their own.

use std::sync::Arc;

use super::code::Code;
use super::problem::Problem;
use super::source::{SourceFile, Span};

/// The problem behind a syntax error at a byte.
pub(crate) fn explain(file: &Arc<SourceFile>, at: usize, said: &str) -> Problem {
    let (line, _) = file.line_and_column(at);
    // The parser notices some mistakes only at the start of the next line.
    let nearby = || (line.saturating_sub(2).max(1)..=line).rev().filter_map(|line| file.line(line));
    if let Some(at) = nearby().find_map(|span| bare_template(file, span)) {
        return unquoted(file, at);
    }
    if let Some(tab) = nearby().chain(file.line(line + 1)).find_map(|span| indenting_tab(file, span)) {
        return Problem::new(Code::TabIndent, file, tab, "a line is indented with a tab")
            .label("a tab")
            .help("indent with spaces: YAML does not say how wide a tab is");
    }
    let span = Span { offset: at, len: file.text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8) };
    let said = said.trim().trim_end_matches('.');
    if let Some(name) = said.contains("anchor").then(|| word_at(file, at)).flatten() {
        return Problem::new(Code::UnknownAlias, file, name, format!("the alias `{}` names no anchor", file.slice(name)))
            .label("nothing above is anchored by this name")
            .help("write `&name` in front of the value that `*name` repeats, and quote a text that begins with `*`");
    }
    Problem::new(Code::YamlSyntax, file, span, format!("the file is not YAML: {said}")).label("here").help(advice(said))
}

/// A template without quotes, which YAML reads as a mapping within a mapping.
pub(crate) fn unquoted(file: &Arc<SourceFile>, at: usize) -> Problem {
    let (line, _) = file.line_and_column(at);
    let end = file.line(line).map_or(file.text.len(), Span::end);
    let rest = &file.text[at..end];
    // What stands right behind the braces belongs to the value, up to where a bracket or a comma ends it.
    let len = rest.find("}}").map_or(rest.trim_end().len(), |close| {
        let behind = &rest[close + 2..];
        let end = behind.find([',', '}', ']']).unwrap_or(behind.len());
        let end = behind.find(" #").map_or(end, |comment| comment.min(end));
        close + 2 + behind[..end].trim_end().len()
    });
    let span = Span { offset: at, len };
    let written = file.slice(span);
    let quote = if written.contains('"') { '\'' } else { '"' };
    Problem::new(Code::UnquotedTemplate, file, span, "a template has to stand in quotes")
        .label("YAML reads this as a mapping")
        .help(format!("quote the whole value: {quote}{written}{quote}"))
}

/// Where a line opens a template outside of quotes.
fn bare_template(file: &SourceFile, line: Span) -> Option<usize> {
    let text = file.slice(line);
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '#' && before.is_whitespace() => return None,
            // An apostrophe inside a word opens nothing.
            None if (c == '"' || c == '\'') && !before.is_alphanumeric() => quote = Some(c),
            None if opens_template(&text[at..]) => return Some(line.offset + at),
            _ => {}
        }
        before = c;
    }
    None
}

/// Two braces and a name: two braces alone are as likely a mapping gone wrong.
fn opens_template(text: &str) -> bool {
    text.strip_prefix("{{").is_some_and(|inner| inner.trim_start().starts_with(|c: char| c.is_alphabetic() || "(#".contains(c)))
}

fn indenting_tab(file: &SourceFile, line: Span) -> Option<Span> {
    let text = file.slice(line);
    let indent = text.len() - text.trim_start_matches([' ', '\t']).len();
    if indent == text.len() {
        return None;
    }
    text[..indent].find('\t').map(|at| Span { offset: line.offset + at, len: 1 })
}

fn word_at(file: &SourceFile, at: usize) -> Option<Span> {
    let rest = file.text[at..].strip_prefix('*')?;
    let len = rest.find(|c: char| c.is_whitespace() || ",[]{}".contains(c)).unwrap_or(rest.len());
    (len > 0).then_some(Span { offset: at, len: len + 1 })
}

fn advice(said: &str) -> &'static str {
    let said = said.to_ascii_lowercase();
    if said.contains("mapping values are not allowed") {
        "a value that holds `: ` has to stand in quotes, and every key on a line of its own"
    } else if said.contains("quoted") {
        "look for a quote that is not closed"
    } else if said.contains("flow") || said.contains(']') || said.contains('}') {
        "look for a bracket that is not closed, or a comma that is missing"
    } else if said.contains("indent") || said.contains("block") || said.contains("key") {
        "keys of the same mapping begin in the same column, and `-` of the same list too"
    } else {
        "quote texts that hold `: `, ` #`, or begin with one of `[]{}*&!|>%@`"
    }
}
