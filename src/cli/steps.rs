//! `ferry steps`: the catalogue of step types.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Context, Exit, Fault, nearest};
use crate::catalogue::{Background, Catalogue, Interrupted, Kind, Pivot, Traits, TypeInfo, Undo};

/// List the step types, or explain one: keys, outputs, undo, an example
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  ferry steps\n  ferry steps object.sync\n  ferry steps --json | jq -r '.types[].name'\n\n\
    JSON: {\"types\": [{\"name\", \"summary\", \"manual\", \"kind\", \"background\", \"pivot\", \"undo\", \"interrupted\",\n       \
    \"config\": JSON Schema of `with`, \"outputs\": JSON Schema, \"example\": YAML}]}"
)]
pub struct Steps {
    /// The step type to explain
    #[arg(value_name = "TYPE")]
    name: Option<String>,
}

impl Steps {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let catalogue = registry.catalogue();
        let types: Vec<&TypeInfo> = match &self.name {
            None => catalogue.iter().map(AsRef::as_ref).collect(),
            Some(name) => vec![find(catalogue, name)?],
        };
        if context.out.json {
            context.out.document(&json!({ "types": types.into_iter().map(data).collect::<Vec<_>>() }))?;
        } else if self.name.is_some() {
            let pages: Vec<String> = types.into_iter().map(page).collect();
            context.out.text(&pages.join("\n"))?;
        } else {
            context.out.text(&list(&types))?;
        }
        Ok(Exit::Succeeded)
    }
}

fn find<'a>(catalogue: &'a Catalogue, name: &str) -> Result<&'a TypeInfo, Fault> {
    catalogue.get(name).map(AsRef::as_ref).ok_or_else(|| {
        let near = nearest(name, catalogue.iter().map(|info| info.name.as_str()));
        Fault::wrong(format!("there is no step type `{name}`")).help(near.map_or_else(
            || "`ferry steps` lists the types".to_owned(),
            |near| format!("did you mean `{near}`? `ferry steps` lists the types"),
        ))
    })
}

fn list(types: &[&TypeInfo]) -> String {
    let width = types.iter().map(|info| info.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for info in types {
        let _ = writeln!(text, "{:width$}  {}", info.name, info.summary.trim_end_matches('.'));
    }
    text
}

fn data(info: &TypeInfo) -> Value {
    let Traits { undo, interrupted } = (info.traits.0)(&json!({}));
    json!({
        "name": info.name,
        "summary": info.summary,
        "manual": info.manual,
        "kind": info.kind,
        "background": info.background,
        "pivot": info.pivot,
        "undo": undo,
        "interrupted": interrupted,
        "config": info.config,
        "outputs": info.outputs,
        "example": info.example,
    })
}

fn page(info: &TypeInfo) -> String {
    let mut text = format!("{}\n\n{}\n", console::style(&info.name).bold(), info.manual.trim_end());
    text.push_str("\nKeys of `with`\n");
    text.push_str(&keys(&info.config, true));
    text.push_str("\nOutputs\n");
    text.push_str(&keys(&info.outputs, false));
    let Traits { undo, interrupted } = (info.traits.0)(&json!({}));
    if info.kind == Kind::Task {
        let _ = writeln!(text, "\nUndo         {}", undo_text(undo));
        let _ = writeln!(text, "Interrupted  {}", interrupted_text(interrupted));
        let _ = writeln!(text, "Background   {}", background_text(info.background));
        if info.pivot == Pivot::Inside {
            text.push_str(
                "Pivot        inside: until there it is undone, from there on it is not; it has to be the pivot, stand behind\n",
            );
            text.push_str("             it or say `undo: skip`\n");
        }
    }
    let _ = writeln!(text, "\nExample\n{}", indent(info.example.trim_matches('\n'), "  "));
    text
}

/// The properties of a JSON Schema, one paragraph each.
fn keys(schema: &Value, say_required: bool) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|keys| !keys.is_empty()) else {
        return match schema.get("type").and_then(Value::as_str) {
            Some("object") | None => "  none\n".to_owned(),
            Some(other) => format!("  {other}\n"),
        };
    };
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = String::new();
    for (name, property) in properties {
        let _ = write!(text, "  {name}: {}", type_text(schema, property));
        if say_required && required.contains(&name.as_str()) {
            text.push_str(", required");
        }
        if let Some(default) = property.get("default").filter(|default| !default.is_null()) {
            let _ = write!(text, ", default {default}");
        }
        text.push('\n');
        if let Some(description) = property.get("description").and_then(Value::as_str) {
            let _ = writeln!(text, "{}", indent(description, "      "));
        }
    }
    text
}

/// A type as people say it: `string`, `list of string`, `text | lines`.
fn type_text(root: &Value, schema: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
        return root.get("$defs").and_then(|defs| defs.get(name)).map_or_else(|| name.to_owned(), |def| type_text(root, def));
    }
    if let Some(format) = schema.get("format").and_then(Value::as_str).filter(|f| matches!(*f, "bytes" | "rate" | "duration")) {
        return format.to_owned();
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return choices.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    if let Some(constant) = schema.get("const") {
        return constant.as_str().map_or_else(|| constant.to_string(), str::to_owned);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array) {
            let mut texts: Vec<String> = choices.iter().map(|choice| type_text(root, choice)).filter(|t| t != "null").collect();
            texts.dedup();
            return texts.join(" | ");
        }
    }
    match schema.get("type") {
        Some(Value::String(name)) if name == "array" => match schema.get("items") {
            Some(items) => format!("list of {}", type_text(root, items)),
            None => "list".to_owned(),
        },
        Some(Value::String(name)) if name == "object" => match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("map of {}", type_text(root, values)),
            _ => "map".to_owned(),
        },
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect::<Vec<_>>().join(" | ")
        }
        _ => "any".to_owned(),
    }
}

fn indent(text: &str, by: &str) -> String {
    text.lines().map(|line| if line.is_empty() { String::new() } else { format!("{by}{line}") }).collect::<Vec<_>>().join("\n")
}

fn undo_text(undo: Undo) -> &'static str {
    match undo {
        Undo::Built => "puts back what it changed",
        Undo::Nothing => "nothing to undo",
        Undo::Impossible => "impossible: it has to stand behind the pivot or say `undo: skip`",
    }
}

fn interrupted_text(interrupted: Interrupted) -> &'static str {
    match interrupted {
        Interrupted::RunAgain => "runs again, from its checkpoint if it has one",
        Interrupted::LookFirst => "looks at the world first, then goes on",
        Interrupted::AskPerson => "asks a person",
    }
}

fn background_text(background: Background) -> &'static str {
    match background {
        Background::No => "no",
        Background::ReadyAtStart => "yes; ready as soon as it has started",
        Background::ReadyWhenSaid => "yes; ready when it says so",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_as_people_say_them() {
        let root = json!({ "$defs": { "How": { "oneOf": [{ "const": "text" }, { "const": "lines" }] } } });
        for (schema, told) in [
            (json!({ "type": "string" }), "string"),
            (json!({ "type": ["string", "null"] }), "string"),
            (json!({ "type": ["string", "integer"], "format": "bytes" }), "bytes"),
            (json!({ "type": "array", "items": { "type": "string" } }), "list of string"),
            (json!({ "type": "object", "additionalProperties": { "type": "integer" } }), "map of integer"),
            (json!({ "$ref": "#/$defs/How" }), "text | lines"),
            (json!({ "anyOf": [{ "$ref": "#/$defs/How" }, { "type": "null" }] }), "text | lines"),
            (json!(true), "any"),
        ] {
            assert_eq!(type_text(&root, &schema), told, "{schema}");
        }
    }
}
