//! What a step leaves, as far as it is known before it runs.

use serde_json::Value;

use super::inputs::InputType;
use super::model::{Pipeline, StepSpec};

/// What is known of the names of outputs.
pub(crate) enum Known<'a> {
    /// Exactly these.
    These(Vec<&'a str>),
    /// Any name may be there.
    Any,
}

/// The outputs of one instance of a step.
pub(crate) fn of(step: &StepSpec) -> Known<'_> {
    if let Some(module) = &step.module {
        return Known::These(module.outputs.keys().map(String::as_str).collect());
    }
    step.info.as_ref().map_or(Known::Any, |info| of_schema(&info.outputs, &info.outputs, 0))
}

/// A struct's schema lists all that it serialises to, unless it says otherwise.
fn of_schema<'a>(root: &'a Value, schema: &'a Value, depth: usize) -> Known<'a> {
    let Value::Object(fields) = schema else { return Known::Any };
    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
        return match target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(schema) if depth < 8 => of_schema(root, schema, depth + 1),
            _ => Known::Any,
        };
    }
    let is_open = ["patternProperties", "anyOf", "oneOf", "allOf", "if", "unevaluatedProperties"]
        .iter()
        .any(|key| fields.contains_key(*key))
        || fields.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
    match fields.get("properties").and_then(Value::as_object) {
        Some(properties) if !is_open => Known::These(properties.keys().map(String::as_str).collect()),
        _ => match fields.get("type").and_then(Value::as_str) {
            Some("null") => Known::These(Vec::new()),
            _ => Known::Any,
        },
    }
}

/// A value that is no text, number or boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Mapping,
    List,
}

impl Shape {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mapping => "a mapping",
            Self::List => "a list",
        }
    }
}

/// The shape of what a name stands for, when it is known to be one whatever happens. `step` is the step that it names.
pub(crate) fn shape(pipeline: &Pipeline, step: Option<&StepSpec>, name: &[String]) -> Option<Shape> {
    let parts: Vec<&str> = name.iter().map(String::as_str).collect();
    match (parts.as_slice(), step) {
        (["inputs" | "hosts"] | ["hosts", _], _) => Some(Shape::Mapping),
        (["inputs", input], _) => match pipeline.inputs.get(*input)?.kind {
            InputType::Map => Some(Shape::Mapping),
            InputType::List => Some(Shape::List),
            _ => None,
        },
        (["steps", _, "outputs", rest @ ..], Some(step)) => shape_of_output(step, rest),
        _ => None,
    }
}

fn shape_of_output(step: &StepSpec, rest: &[&str]) -> Option<Shape> {
    let rest = match (&step.for_each, rest) {
        // By the keys of its instances.
        (Some(_), []) => return Some(Shape::Mapping),
        (Some(_), [_, rest @ ..]) | (None, rest) => rest,
    };
    if let Some(module) = &step.module {
        return match rest {
            [] => Some(Shape::Mapping),
            [output] => match module.outputs.get(*output)? {
                Value::Object(_) => Some(Shape::Mapping),
                Value::Array(_) => Some(Shape::List),
                _ => None,
            },
            _ => None,
        };
    }
    let root = &step.info.as_ref()?.outputs;
    let schema = rest.iter().try_fold(target(root, root)?, |schema, part| target(root, schema.get("properties")?.get(*part)?))?;
    match schema.get("type")?.as_str()? {
        "object" => Some(Shape::Mapping),
        "array" => Some(Shape::List),
        _ => None,
    }
}

/// The schema behind references.
fn target<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Value> {
    let mut schema = schema;
    for _ in 0..8 {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(target) => schema = root.pointer(target.strip_prefix('#')?)?,
            None => return Some(schema),
        }
    }
    None
}
