//! An error of a schema as a problem: in words, at its place, with what to write instead.

use std::fmt::Write as _;

use jsonschema::error::{ValidationError, ValidationErrorKind as Kind};
use jsonschema::paths::{Location, LocationSegment};
use serde_json::Value;

use super::{Subject, at};
use crate::pipeline::code::Code;
use crate::pipeline::document::{Data, kind};
use crate::pipeline::inputs::is_templated;
use crate::pipeline::names::{MOST_HINTED, locate};
use crate::pipeline::nearest::suggest;
use crate::pipeline::problem::Problem;
use crate::pipeline::reader::meant_boolean;
use crate::pipeline::source::Span;
use crate::pipeline::told::{Told, shown, types};
use crate::units::{ByteSize, Rate, Span as Time};

impl Subject<'_> {
    pub(super) fn span(&self, place: &Location) -> Span {
        self.find(place).map_or(self.head, |(span, _)| span)
    }

    /// The span of a value and, if it is the value of a key, of that key.
    fn find(&self, place: &Location) -> Option<(Span, Option<Span>)> {
        let mut node = self.node?;
        let mut key = None;
        for segment in place.segments() {
            match (segment, &node.data) {
                (LocationSegment::Property(name), Data::Map(_)) => {
                    let (found, value) = node.entry(&name)?;
                    key = Some(found.span);
                    node = value;
                }
                (LocationSegment::Index(index), Data::List(items)) => {
                    key = None;
                    node = items.get(index)?;
                }
                _ => return None,
            }
        }
        Some((node.span, key))
    }

    /// The place in words: `expect.status`.
    fn named(place: &Location) -> String {
        let mut name = String::new();
        for segment in place.segments() {
            match segment {
                LocationSegment::Property(part) if name.is_empty() => name.push_str(&part),
                LocationSegment::Property(part) => {
                    name.push('.');
                    name.push_str(&part);
                }
                LocationSegment::Index(index) => {
                    let _ = write!(name, "[{index}]");
                }
            }
        }
        if name.is_empty() { "with".to_owned() } else { name }
    }

    pub(super) fn explain(&self, told: &Told<'_>, problems: &mut Vec<Problem>) {
        let file = &self.pipeline.file;
        let place = told.place();
        let name = Self::named(place);
        let uses = &self.info.name;
        let manual = || format!("`ferry steps {uses}` lists what may stand here");
        let wrong_type = |wants: &[String]| {
            let value = at(self.with, place).unwrap_or(&Value::Null);
            let mut wants = wants.to_vec();
            wants.retain(|want| want != "null");
            let wanted = if wants.is_empty() { "something else".to_owned() } else { either(&wants) };
            let is_choice = wants.iter().all(|want| want.starts_with('`'));
            match value {
                Value::String(text) if is_choice => {
                    let known: Vec<&str> = wants.iter().map(|want| want.trim_matches('`')).collect();
                    Problem::new(Code::WrongValue, file, self.span(place), format!("`{name}` of `{uses}` cannot be `{text}`"))
                        .label("not one of the values that may stand here")
                        .maybe_help(suggest(text, known.iter().copied()).or_else(|| Some(manual())))
                }
                _ => Problem::new(
                    Code::WrongType,
                    file,
                    self.span(place),
                    format!("`{name}` of `{uses}` has to be {wanted}, but is {}", kind(value)),
                )
                .label(format!("this is {}", kind(value)))
                .help(match value {
                    Value::String(text) if wants.len() == 1 && wants[0] == "a boolean" && meant_boolean(text).is_some() => {
                        format!("write `{}`", meant_boolean(text).unwrap_or_default())
                    }
                    Value::Number(number) if self.is_duration(told) => format!("write the unit: `{number}s`, `{number}m`"),
                    Value::String(text) if is_templated(text) => {
                        "text around a template makes it text: write exactly one `{{ … }}` to keep the type".to_owned()
                    }
                    _ => manual(),
                }),
            }
        };
        let error = match told {
            Told::OneOf(_, wants) => return problems.push(wrong_type(wants)),
            Told::OneKey(_, keys, is_several) => return problems.push(self.one_key(place, keys, *is_several)),
            Told::One(error) => error,
        };
        let value = at(self.with, place).unwrap_or(&Value::Null);
        let simple = |code: Code, message: String| Problem::new(code, file, self.span(place), message);
        match error.kind() {
            Kind::Type { kind } => problems.push(wrong_type(&types(kind))),
            Kind::Constant { expected_value } => problems.push(wrong_type(&[shown(expected_value)])),
            Kind::Enum { options } => {
                let wants: Vec<String> = options.as_array().into_iter().flatten().map(shown).collect();
                problems.push(wrong_type(&wants));
            }
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                let known = self.keys_at(error);
                // Each is looked for among all keys, and nobody reads the hundredth.
                for wrong in unexpected.iter().take(MOST_HINTED) {
                    let span = self.find(&place.join(wrong.as_str())).and_then(|(_, key)| key).unwrap_or(self.head);
                    let formerly = self.info.config.pointer("/x-formerly").filter(|_| place.is_empty());
                    let formerly = formerly.and_then(|formerly| formerly.get(wrong)?.as_str()).map(str::to_owned);
                    let owner = if place.is_empty() { format!("`{uses}`") } else { format!("`{name}` of `{uses}`") };
                    problems.push(
                        Problem::new(Code::UnknownKey, file, span, format!("{owner} has no key `{wrong}`"))
                            .label(format!("not a key of {owner}"))
                            .maybe_help(
                                formerly.or_else(|| suggest(wrong, known.iter().map(String::as_str))).or_else(|| Some(manual())),
                            ),
                    );
                }
            }
            Kind::Required { property } => {
                let missing = property.as_str().unwrap_or_default();
                let (message, span) = if place.is_empty() {
                    (format!("{} has no `{missing}`", self.what), self.head)
                } else {
                    let (span, key) = self.find(place).unwrap_or((self.head, None));
                    (
                        format!("`{name}` of `{uses}` has no `{missing}`"),
                        key.unwrap_or(Span { offset: span.offset, len: span.len.min(1) }),
                    )
                };
                let doc = self.property_doc(error, missing);
                problems.push(
                    Problem::new(Code::MissingKey, file, span, message)
                        .label(format!("`{missing}` is missing"))
                        .help(doc.map_or_else(manual, |doc| format!("`{missing}`: {doc}"))),
                );
            }
            Kind::Format { format } => {
                let text = value.as_str().unwrap_or_default();
                let (code, message, help) = match format.as_str() {
                    "place" => self.place(text),
                    "host" => self.host(text),
                    "bytes" => text.parse::<ByteSize>().err().map(|error| (Code::WrongValue, error.to_string(), None)),
                    "rate" => text.parse::<Rate>().err().map(|error| {
                        let help = Rate::meant(text).map(|meant| format!("did you mean `{meant}`?"));
                        (Code::WrongValue, error.to_string(), help)
                    }),
                    "duration" => text.parse::<Time>().err().map(|error| (Code::WrongValue, error.to_string(), None)),
                    _ => None,
                }
                .unwrap_or_else(|| (Code::WrongValue, format!("`{text}` is not of the form `{format}`"), None));
                // Of a place only the store's name is wrong.
                let span = match (code, text.split_once(':')) {
                    (Code::UnknownStore, Some((store, _))) => locate(file, self.span(place), text, 0, store.len()),
                    _ => self.span(place),
                };
                problems.push(
                    Problem::new(code, file, span, message)
                        .label(format!("`{name}` of `{uses}`"))
                        .maybe_help(help.or_else(|| Some(manual()))),
                );
            }
            Kind::OneOfMultipleValid { .. } => problems.push(
                simple(Code::WrongValue, format!("`{name}` of `{uses}` says more than one thing at once"))
                    .label("only one of these may stand here")
                    .help(manual()),
            ),
            _ => problems.push(
                simple(Code::WrongValue, format!("`{name}` of `{uses}` is wrong: {}", lower(&error.to_string())))
                    .label("not allowed here")
                    .help(manual()),
            ),
        }
    }

    /// Whether a duration belongs where an error is.
    fn is_duration(&self, told: &Told<'_>) -> bool {
        match told {
            Told::One(error) => {
                self.schema_of(error).and_then(|schema| schema.get("format")).and_then(Value::as_str) == Some("duration")
            }
            _ => false,
        }
    }

    /// The problem of a mapping that has to have exactly one of some keys.
    fn one_key(&self, place: &Location, keys: &[String], is_several: bool) -> Problem {
        let file = &self.pipeline.file;
        let name = if place.is_empty() { self.what.clone() } else { format!("`{}` of `{}`", Self::named(place), self.info.name) };
        let all = either(&keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>());
        if !is_several {
            let span = self.find(place).and_then(|(_, key)| key).unwrap_or(self.head);
            return Problem::new(Code::MissingKey, file, span, format!("{name} has none of {}", all.replace(" or ", " and ")))
                .label("one of them is missing")
                .help(format!("write one of {all}"));
        }
        let given: Vec<(&String, Span)> =
            keys.iter().filter_map(|key| self.find(&place.join(key.as_str()))?.1.map(|span| (key, span))).collect();
        let mut problem = Problem::new(
            Code::WrongValue,
            file,
            given.get(1).map_or(self.head, |(_, span)| *span),
            format!("{name} has more than one of {}", all.replace(" or ", " and ")),
        )
        .label("only one of them may stand here")
        .help(format!("keep one of {all}"));
        if let Some((key, span)) = given.first() {
            problem = problem.and(file, *span, format!("`{key}` is here already"));
        }
        problem
    }

    /// The keys of which the alternatives of a `oneOf` ask one each.
    pub(super) fn alternatives(&self, error: &ValidationError<'_>) -> Vec<String> {
        let branches = self.info.config.pointer(error.schema_path().as_str()).and_then(Value::as_array);
        let only = |branch: &Value| match branch.get("required")?.as_array()?.as_slice() {
            [Value::String(key)] => Some(key.clone()),
            _ => None,
        };
        branches.and_then(|branches| branches.iter().map(only).collect()).unwrap_or_default()
    }

    /// The schema object that an error's keyword stands in.
    fn schema_of(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let path = error.schema_path().as_str();
        self.info.config.pointer(path.rsplit_once('/')?.0)
    }

    fn keys_at(&self, error: &ValidationError<'_>) -> Vec<String> {
        let schema = self.schema_of(error);
        schema
            .and_then(|schema| schema.get("properties")?.as_object())
            .into_iter()
            .flat_map(|known| known.keys().cloned())
            .collect()
    }

    fn property_doc(&self, error: &ValidationError<'_>, property: &str) -> Option<String> {
        let text = self.schema_of(error)?.get("properties")?.get(property)?.get("description")?.as_str()?;
        let first = text.split("\n\n").next()?.replace('\n', " ");
        Some(first.split_once(". ").map_or(first.as_str(), |(first, _)| first).trim_end_matches('.').to_owned())
    }
}

/// `a, b or c`.
fn either(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
