//! `with` against the JSON Schema of a step type: each error as a problem at the place that caused it.

use std::collections::HashMap;
use std::sync::Arc;

use jsonschema::Validator;
use jsonschema::error::{ValidationError, ValidationErrorKind as Kind};
use jsonschema::paths::{Location, LocationSegment};
use serde_json::Value;

use super::code::Code;
use super::document::{Data, Node, kind};
use super::inputs::is_templated;
use super::model::Pipeline;
use super::names::{MOST_HINTED, locate};
use super::nearest::suggest;
use super::problem::Problem;
use super::reader::meant_boolean;
use super::source::Span;
use super::template::Template;
use super::told::{Told, best, shown, types};
use crate::catalogue::TypeInfo;
use crate::units::{ByteSize, Rate, Span as Time};

/// The schemas of the types that a pipeline uses, each compiled once.
#[derive(Default)]
pub(crate) struct Schemas {
    compiled: HashMap<String, Arc<Validator>>,
}

impl Schemas {
    fn get(&mut self, info: &TypeInfo) -> Arc<Validator> {
        if let Some(found) = self.compiled.get(&info.name) {
            return Arc::clone(found);
        }
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(true)
            .with_format("bytes", |text: &str| text.parse::<ByteSize>().is_ok())
            .with_format("rate", |text: &str| text.parse::<Rate>().is_ok())
            .with_format("duration", |text: &str| text.parse::<Time>().is_ok())
            // Which stores and hosts there are depends on the pipeline: these two always answer no, and the error is
            // dropped or explained where the pipeline is known.
            .with_format("place", |_: &str| false)
            .with_format("host", |_: &str| false)
            .build(&info.config)
            // A plugin's schema that is no schema is the plugin's fault, told where plugins are loaded.
            .unwrap_or_else(|_| jsonschema::options().build(&Value::Bool(true)).expect("`true` is a schema"));
        let validator = Arc::new(validator);
        self.compiled.insert(info.name.clone(), Arc::clone(&validator));
        validator
    }
}

/// One configuration to check.
pub(crate) struct Subject<'a> {
    pub pipeline: &'a Pipeline,
    pub info: &'a TypeInfo,
    pub with: &'a Value,
    /// The `with` node, if there is one.
    pub node: Option<&'a Node>,
    /// What is underlined when something is missing: `with`, else `uses`.
    pub head: Span,
    /// The step in messages: `the step `copy``.
    pub what: String,
}

/// Checks a configuration.
pub(crate) fn check(schemas: &mut Schemas, subject: &Subject<'_>, problems: &mut Vec<Problem>) {
    let validator = schemas.get(subject.info);
    for error in validator.iter_errors(subject.with) {
        for error in settle(subject, &error) {
            subject.explain(&error, problems);
        }
    }
}

/// What is left of an error after templates are excused, as the errors worth telling.
fn settle<'e>(subject: &Subject<'_>, error: &'e ValidationError<'e>) -> Vec<Told<'e>> {
    let excused = subject.excuse(error);
    match (excused, error.kind()) {
        (true, _) => Vec::new(),
        (false, Kind::AnyOf { context } | Kind::OneOfNotValid { context }) => {
            let mut branches: Vec<Vec<Told<'e>>> = Vec::new();
            for branch in context {
                let left: Vec<Told<'e>> = branch.iter().flat_map(|error| settle(subject, error)).collect();
                if left.is_empty() {
                    return Vec::new();
                }
                branches.push(left);
            }
            best(error, branches)
        }
        (false, Kind::PropertyNames { error }) => settle(subject, error),
        (false, Kind::OneOfMultipleValid { .. }) => {
            let keys = subject.alternatives(error);
            let given = at(subject.with, error.instance_path());
            let has = |key: &String| given.is_some_and(|given| given.get(key).is_some());
            if keys.iter().filter(|key| has(key)).count() > 1 {
                return vec![Told::OneKey(error.instance_path().clone(), keys, true)];
            }
            vec![Told::One(error)]
        }
        (false, _) => vec![Told::One(error)],
    }
}

/// The value at a place.
fn at<'v>(value: &'v Value, place: &Location) -> Option<&'v Value> {
    place.segments().try_fold(value, |value, segment| match segment {
        LocationSegment::Property(name) => value.get(&*name),
        LocationSegment::Index(index) => value.get(index),
    })
}

/// Whether a text gives a value of any type once it is rendered.
pub(crate) fn is_whole_template(text: &str) -> bool {
    is_templated(text) && Template::parse(text).is_ok_and(|template| template.is_whole_value())
}

impl Subject<'_> {
    /// Whether a template makes it impossible to say that this is wrong.
    fn excuse(&self, error: &ValidationError<'_>) -> bool {
        let Some(value) = at(self.with, error.instance_path()) else { return false };
        let Value::String(text) = value else {
            // Which of several shapes fits can depend on any template inside.
            return matches!(
                error.kind(),
                Kind::OneOfMultipleValid { .. } | Kind::Contains | Kind::UniqueItems | Kind::Not { .. }
            ) && holds_template(value);
        };
        match error.kind() {
            Kind::Format { format } if format == "place" => self.place(text).is_none(),
            Kind::Format { format } if format == "host" => self.host(text).is_none(),
            _ if !is_templated(text) => false,
            // Text around a template makes it text: that is known. What it says is not.
            Kind::Type { .. } | Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => is_whole_template(text),
            _ => true,
        }
    }

    /// What is wrong with a place: `store:prefix/`, a URL, or a directory, which begins with `/`, `.` or `~`.
    fn place(&self, text: &str) -> Option<(Code, String, Option<String>)> {
        let before = text.split(':').next().unwrap_or_default();
        if text.contains("://") || text.starts_with(['/', '.', '~']) || is_templated(before) || before.contains("}}") {
            return None;
        }
        let stores = || self.pipeline.stores.keys().map(String::as_str);
        if !text.contains(':') {
            let help = match self.pipeline.stores.contains_key(text) {
                true => Some(format!("write `{text}:` for all of the store, or `{text}:prefix/`")),
                false => Some("write `store:prefix/`, a URL, or a directory such as `./data/`".to_owned()),
            };
            return Some((Code::WrongValue, format!("`{text}` is not a place"), help));
        }
        if self.pipeline.stores.contains_key(before) {
            return None;
        }
        let help = suggest(before, stores()).unwrap_or_else(|| format!("list `{before}` under `stores:`"));
        Some((Code::UnknownStore, format!("the pipeline has no store `{before}`"), Some(help)))
    }

    fn host(&self, text: &str) -> Option<(Code, String, Option<String>)> {
        host(self.pipeline, text)
    }

    fn span(&self, place: &Location) -> Span {
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
                LocationSegment::Index(index) => name.push_str(&format!("[{index}]")),
            }
        }
        if name.is_empty() { "with".to_owned() } else { name }
    }

    fn explain(&self, told: &Told<'_>, problems: &mut Vec<Problem>) {
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
            let problem = match value {
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
            };
            problem
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
                    let owner = if place.is_empty() { format!("`{uses}`") } else { format!("`{name}` of `{uses}`") };
                    problems.push(
                        Problem::new(Code::UnknownKey, file, span, format!("{owner} has no key `{wrong}`"))
                            .label(format!("not a key of {owner}"))
                            .maybe_help(suggest(wrong, known.iter().map(String::as_str)).or_else(|| Some(manual()))),
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
                    "rate" => text.parse::<Rate>().err().map(|error| (Code::WrongValue, error.to_string(), None)),
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
    fn alternatives(&self, error: &ValidationError<'_>) -> Vec<String> {
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

/// What is wrong with the name of a host.
pub(crate) fn host(pipeline: &Pipeline, text: &str) -> Option<(Code, String, Option<String>)> {
    if is_templated(text) || text == "local" || pipeline.hosts.contains_key(text) {
        return None;
    }
    let help = suggest(text, pipeline.hosts.keys().map(String::as_str).chain(["local"]));
    Some((Code::UnknownHost, format!("the pipeline has no host `{text}`"), help))
}

fn holds_template(value: &Value) -> bool {
    match value {
        Value::String(text) => is_templated(text),
        Value::Array(items) => items.iter().any(holds_template),
        Value::Object(fields) => fields.values().any(holds_template),
        _ => false,
    }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
