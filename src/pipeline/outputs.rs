//! What a step leaves, as far as it is known before it runs.

use serde_json::Value;

use super::model::StepSpec;

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
