//! The JSON Schema of the language with the step types of a catalogue in it, for editors.

use serde_json::{Map, Value, json};

use super::language::{self, LEVELS, Level};
use crate::catalogue::{Catalogue, TypeInfo};

/// What a value of any type may be instead: a template that gives it.
const TEMPLATE: &str = "#/$defs/template";

/// The JSON Schema (2020-12) of a pipeline that may use these types. It is more lenient than `check`: a schema knows no
/// names and no graph.
pub fn schema(catalogue: &Catalogue) -> Value {
    let mut defs = Map::new();
    defs.insert(
        "template".to_owned(),
        json!({ "type": "string", "pattern": "\\{\\{", "description": "A template: `{{ … }}`, in quotes." }),
    );
    for level in LEVELS.iter().skip(1) {
        defs.insert(level.name.to_owned(), of_level(level));
    }
    let mut cases = Vec::new();
    for info in catalogue.iter() {
        cases.push(json!({
            "if": { "required": ["uses"], "properties": { "uses": { "const": info.name } } },
            "then": with_of(info, &mut defs)
        }));
    }
    let uses = uses(catalogue);
    if let Some(Value::Object(step)) = defs.get_mut("step") {
        step["properties"]["uses"] = uses.clone();
        step.insert("allOf".to_owned(), Value::Array(cases.clone()));
    }
    if let Some(Value::Object(undo)) = defs.get_mut("undo") {
        undo["properties"]["uses"] = uses;
        undo.insert("allOf".to_owned(), Value::Array(cases));
    }
    let mut root = of_level(&language::PIPELINE);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("ferry pipeline");
    root["$defs"] = Value::Object(defs);
    root
}

fn of_level(level: &Level) -> Value {
    let mut properties = Map::new();
    for key in level.keys {
        let mut schema: Value = serde_json::from_str(key.schema).expect("a test reads every schema of the language");
        if let Value::Bool(_) = schema {
            schema = json!({});
        }
        schema["description"] = json!(key.doc);
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = level.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mapping = json!({
        "type": "object",
        "description": level.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false
    });
    // Four levels have a short form.
    match level.name {
        "host" => json!({ "description": level.doc, "anyOf": [{ "const": "local" }, mapping] }),
        "timeout" | "lock" => json!({ "description": level.doc, "anyOf": [{ "type": "string" }, mapping] }),
        "secret" => {
            let mut mapping = mapping;
            mapping["minProperties"] = json!(1);
            mapping["maxProperties"] = json!(1);
            mapping
        }
        _ => mapping,
    }
}

/// The step types with what they do, so that an editor can offer them, and the path of a pipeline.
fn uses(catalogue: &Catalogue) -> Value {
    let types = catalogue.iter().map(|info| json!({ "const": info.name, "description": info.summary }));
    let path = json!({ "type": "string", "pattern": "^(\\.{0,2}/)|\\.ya?ml$", "description": "The path of a pipeline that runs as one step." });
    json!({
        "description": "The step type (`ferry steps` lists them), or the path of a pipeline, from this file's folder.",
        "anyOf": types.chain([path]).collect::<Vec<_>>()
    })
}

/// What a type asks of the step around it. Its configuration goes among the definitions.
fn with_of(info: &TypeInfo, defs: &mut Map<String, Value>) -> Value {
    let name = format!("with.{}", info.name);
    let mut config = info.config.clone();
    if let Some(fields) = config.as_object_mut() {
        fields.remove("$schema");
        fields.remove("title");
        if let Some(Value::Object(inner)) = fields.remove("$defs") {
            for (inner_name, mut schema) in inner {
                adapt(&mut schema, &name);
                defs.insert(format!("{name}.{inner_name}"), schema);
            }
        }
    }
    adapt(&mut config, &name);
    let is_required = config.get("required").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty());
    defs.insert(name.clone(), config);
    let with = json!({ "properties": { "with": { "$ref": format!("#/$defs/{name}") } } });
    if is_required {
        let mut with = with;
        with["required"] = json!(["with"]);
        return with;
    }
    with
}

/// Makes a type's schema one for an editor: references point at the new place, forms that only `check` knows are taken
/// out, and wherever a value stands, a template may stand.
fn adapt(schema: &mut Value, name: &str) {
    let Value::Object(fields) = schema else { return };
    if let Some(Value::String(target)) = fields.get_mut("$ref")
        && let Some(inner) = target.strip_prefix("#/$defs/")
    {
        *target = format!("#/$defs/{name}.{inner}");
    }
    // `duration` is a standard form with another meaning (ISO 8601); the others are ours.
    if fields
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|form| ["bytes", "rate", "duration", "place", "host"].contains(&form))
    {
        fields.remove("format");
    }
    for key in ["allOf", "anyOf", "oneOf", "prefixItems"] {
        if let Some(Value::Array(items)) = fields.get_mut(key) {
            for item in items {
                adapt(item, name);
            }
        }
    }
    for key in ["not", "if", "then", "else"] {
        if let Some(inner) = fields.get_mut(key) {
            adapt(inner, name);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner @ Value::Object(_)) = fields.get_mut(key) {
            adapt(inner, name);
            or_template(inner);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        for inner in properties.values_mut() {
            adapt(inner, name);
            or_template(inner);
        }
    }
}

/// `anyOf` this or a template, with the description outside, where editors look for it.
fn or_template(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let is_free = fields
        .get("type")
        .is_none_or(|kind| kind == "string" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("string"))))
        && !["enum", "const", "pattern", "minLength", "maxLength", "$ref", "anyOf", "oneOf", "allOf"]
            .iter()
            .any(|key| fields.contains_key(*key));
    if is_free {
        return;
    }
    let mut outer = Map::new();
    for key in ["description", "default", "examples"] {
        if let Some(value) = fields.remove(key) {
            outer.insert(key.to_owned(), value);
        }
    }
    outer.insert("anyOf".to_owned(), json!([Value::Object(std::mem::take(fields)), { "$ref": TEMPLATE }]));
    *fields = outer;
}
