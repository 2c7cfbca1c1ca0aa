//! Reading a node as what the language expects there, with a problem in words when it is something else.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::code::Code;
use super::document::{Data, Key, Node};
use super::inputs::is_templated;
use super::language::Level;
use super::nearest::suggest;
use super::problem::Problem;
use super::source::{SourceFile, Span};
use crate::engine::Parallel;
use crate::units::Span as Time;

/// Reads one file's tree and gathers what is wrong with it.
pub(crate) struct Reader<'a> {
    pub file: &'a Arc<SourceFile>,
    pub problems: Vec<Problem>,
}

/// The fields of a mapping that may not be empty when it stands there.
pub(crate) type Fields<'n> = &'n [(Key, Node)];

impl Reader<'_> {
    pub fn problem(&self, code: Code, span: Span, message: impl Into<String>) -> Problem {
        Problem::new(code, self.file, span, message)
    }

    pub fn wrong_type(&mut self, node: &Node, what: &str, wanted: &str) {
        let template = node.text().is_some_and(is_templated);
        let kind = node.kind();
        let mut problem = self
            .problem(Code::WrongType, node.span, format!("{} has to be {wanted}, but is {kind}", quoted(what)))
            .label(if node.span.len == 0 { format!("{wanted} belongs here") } else { format!("this is {kind}") });
        if template {
            problem = problem.help("no template can stand here: the value is needed before anything is rendered");
        } else if let Some(text) = node.text().filter(|_| wanted.contains("integer") || wanted.contains("boolean")) {
            if text.parse::<f64>().is_ok() || text == "true" || text == "false" {
                problem = problem.help(format!("take the quotes away: {text}"));
            }
        } else if wanted == "text" && matches!(&node.data, Data::Scalar(value) if !value.is_null()) {
            problem = problem.help(format!("put it in quotes: \"{}\"", self.file.slice(node.span)));
        }
        self.problems.push(problem);
    }

    /// The fields of a level: a mapping with known keys, and all that it has to have.
    pub fn level<'n>(&mut self, node: &'n Node, level: &Level, what: &str, at: Span) -> Option<Fields<'n>> {
        let fields = self.mapping(node, what)?;
        self.known_keys(fields, level);
        for key in level.keys.iter().filter(|key| key.required) {
            let found = fields.iter().find(|(have, _)| have.text == key.name);
            if found.is_none_or(|(_, node)| is_null(node)) {
                let span = found.map_or(at, |(key, _)| key.span);
                self.problems.push(
                    self.problem(Code::MissingKey, span, format!("{what} has no `{}`", key.name))
                        .label(if found.is_some() {
                            "nothing stands here".to_owned()
                        } else {
                            format!("`{}` is missing", key.name)
                        })
                        .help(format!("write `{}: …`: {}", key.name, lower_first(key.doc))),
                );
            }
        }
        Some(fields)
    }

    pub fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> Option<Fields<'n>> {
        match &node.data {
            Data::Map(fields) => Some(fields),
            Data::Scalar(Value::Null) => Some(&[]),
            _ => {
                self.wrong_type(node, what, "a mapping");
                None
            }
        }
    }

    fn known_keys(&mut self, fields: Fields<'_>, level: &Level) {
        for (key, _) in fields {
            if level.keys.iter().any(|known| known.name == key.text) {
                continue;
            }
            let help = if key.text == "<<" {
                Some("YAML 1.2 has no merge keys; `defaults:` and pipelines used as steps take their place".to_owned())
            } else {
                suggest(&key.text, level.keys.iter().map(|known| known.name))
            };
            let article = if level.name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
            let shown = match level.name {
                name @ ("defaults" | "retry" | "timeout" | "background" | "lock" | "undo") => format!("`{name}`"),
                name => format!("{article} {name}"),
            };
            self.problems.push(
                self.problem(Code::UnknownKey, key.span, format!("{shown} has no key `{}`", key.text))
                    .label(format!("not a key of {shown}"))
                    .maybe_help(help),
            );
        }
    }

    /// The keys of a mapping whose values are all text or numbers.
    pub fn plain(&mut self, node: &Node, level: &Level) -> Option<Map<String, Value>> {
        let mut keys = Map::new();
        for key in level.keys {
            let Some(value) = node.get(key.name).filter(|value| !is_null(value)) else { continue };
            let is_number = key.value == "number" && matches!(value.data, Data::Scalar(Value::Number(_)));
            let read = if is_number { Some(value.to_value()) } else { self.text(value, key.name).map(Value::from) };
            keys.insert(key.name.to_owned(), read?);
        }
        Some(keys)
    }

    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        if let Some(text) = node.text() {
            return Some(text.to_owned());
        }
        self.wrong_type(node, what, "text");
        None
    }

    /// Text in which no template is rendered.
    pub fn plain_text(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if is_templated(&text) {
            self.problems.push(
                self.problem(Code::WrongValue, node.span, format!("`{what}` cannot hold a template"))
                    .label("a template")
                    .help("no template can stand here: the value is needed before anything is rendered"),
            );
            return None;
        }
        Some(text)
    }

    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Data::Scalar(Value::Bool(value)) = node.data {
            return Some(value);
        }
        if let Some(say) = node.text().and_then(meant_boolean) {
            self.problems.push(
                self.problem(Code::WrongType, node.span, format!("`{what}` has to be a boolean, but is a text"))
                    .label("this is a text in YAML 1.2")
                    .help(format!("write `{say}`")),
            );
        } else {
            self.wrong_type(node, what, "a boolean");
            self.or_help("write `true` or `false`");
        }
        None
    }

    /// Adds a help to the last problem where it has none.
    fn or_help(&mut self, help: &str) {
        if let Some(last) = self.problems.last_mut() {
            last.help.get_or_insert_with(|| help.to_owned());
        }
    }

    pub fn count(&mut self, node: &Node, what: &str) -> Option<u32> {
        let Data::Scalar(Value::Number(number)) = &node.data else {
            self.wrong_type(node, what, "an integer");
            self.or_help("write a whole number from 1 on");
            return None;
        };
        let count = number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        if count.is_none() {
            self.problems.push(
                self.problem(Code::WrongValue, node.span, format!("`{what}` cannot be {number}"))
                    .label("out of range")
                    .help("write a whole number from 1 on"),
            );
        }
        count
    }

    /// How many instances of a `for_each` at once.
    pub fn parallel(&mut self, node: &Node) -> Option<Parallel> {
        if node.text() == Some("auto") {
            return Some(Parallel::Auto);
        }
        self.count(node, "max_parallel").map(Parallel::AtMost)
    }

    pub fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let wanted = "a duration such as `90s` or `2h30m`";
        let Some(text) = node.text().filter(|text| !is_templated(text)) else {
            self.wrong_type(node, what, wanted);
            if let (Data::Scalar(Value::Number(number)), Some(last)) = (&node.data, self.problems.last_mut()) {
                last.help = Some(format!("write the unit: `{number}s`, `{number}m`"));
            }
            return None;
        };
        match text.parse::<Time>() {
            Ok(time) => Some(time.0),
            Err(error) => {
                self.problems.push(
                    self.problem(Code::WrongValue, node.span, error.to_string())
                        .label("not a duration")
                        .help(format!("write {wanted}")),
                );
                None
            }
        }
    }

    pub fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&'static str, T)]) -> Option<T> {
        let Some(text) = node.text() else {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
            self.wrong_type(node, what, &names.join(" or "));
            return None;
        };
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            self.problems.push(
                self.problem(Code::WrongValue, node.span, format!("`{what}` cannot be `{text}`"))
                    .label("not one of the values that may stand here")
                    .maybe_help(suggest(text, choices.iter().map(|(name, _)| *name))),
            );
        }
        found
    }

    /// A list of texts without repetition; a single text counts as a list of one.
    pub fn texts(&mut self, node: &Node, what: &str) -> Vec<(String, Span)> {
        let items = match &node.data {
            Data::List(items) => items.as_slice(),
            Data::Scalar(Value::String(_)) => std::slice::from_ref(node),
            Data::Scalar(Value::Null) => &[],
            _ => {
                self.wrong_type(node, what, "a list");
                &[]
            }
        };
        let mut seen = HashSet::new();
        let mut texts = Vec::new();
        for item in items {
            if let Some(text) = self.plain_text(item, what)
                && seen.insert(text.clone())
            {
                texts.push((text, item.span));
            }
        }
        texts
    }
}

/// What YAML 1.1 read as a boolean.
pub(crate) fn meant_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Some(true),
        "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// A key stands in backticks, a phrase has its own.
fn quoted(what: &str) -> String {
    if what.contains([' ', '`']) { what.to_owned() } else { format!("`{what}`") }
}

pub(crate) fn is_null(node: &Node) -> bool {
    matches!(node.data, Data::Scalar(Value::Null))
}

fn lower_first(text: &str) -> String {
    let first = text.split_inclusive(['.', ':']).next().unwrap_or(text).trim_end_matches(['.', ':']);
    let mut chars = first.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}
