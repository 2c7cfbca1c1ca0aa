//! `with` against the JSON Schema of a step type: each error as a problem at the place that caused it.

mod explain;
mod public;

use std::collections::HashMap;
use std::sync::Arc;

use jsonschema::Validator;
use jsonschema::error::{ValidationError, ValidationErrorKind as Kind};
use jsonschema::paths::{Location, LocationSegment};
use serde_json::Value;

use super::code::Code;
use super::document::Node;
use super::inputs::is_templated;
use super::model::Pipeline;
use super::nearest::suggest;
use super::problem::Problem;
use super::source::Span;
use super::template::Template;
use super::told::{Told, best};
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
    /// The step in messages, its id in backticks.
    pub what: String,
}

/// Checks a configuration.
pub(crate) fn check(schemas: &mut Schemas, subject: &Subject<'_>, problems: &mut Vec<Problem>) {
    subject.no_secrets(problems);
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
            let help = if self.pipeline.stores.contains_key(text) {
                Some(format!("write `{text}:` for all of the store, or `{text}:prefix/`"))
            } else {
                Some("write `store:prefix/`, a URL, or a directory such as `./data/`".to_owned())
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
