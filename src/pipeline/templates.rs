//! Template files: which keys of a configuration name one, and how its text takes the place of its name.

use serde_json::{Value, json};

use super::model::Pipeline;
use crate::catalogue::TypeInfo;

/// What a step type writes into the schema of a key that names a template file.
const FORMAT: &str = "template-file";

/// The keys of a configuration that name a template file, with the name.
pub(super) fn named(info: &TypeInfo, with: &Value) -> impl Iterator<Item = (String, String)> + use<> {
    let keys = info.config.get("properties").and_then(Value::as_object).into_iter().flatten();
    let keys = keys.filter(|(_, schema)| is_template_file(schema));
    let named = keys.filter_map(|(key, _)| Some((key.clone(), with.get(key)?.as_str()?.to_owned())));
    named.collect::<Vec<_>>().into_iter()
}

fn is_template_file(schema: &Value) -> bool {
    let options = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    schema.get("format").and_then(Value::as_str) == Some(FORMAT) || options.into_iter().any(is_template_file)
}

/// Puts the texts in place of the names. From here on they are values like any other: rendered with the rest of the
/// configuration, part of its digest, kept with the run.
pub(super) fn put_in(pipeline: &mut Pipeline) {
    for step in pipeline.steps.iter_mut().chain(&mut pipeline.finally) {
        for template in &step.templates {
            let with = if template.is_undo { step.undo.as_mut().map(|undo| &mut undo.with) } else { Some(&mut step.with) };
            if let Some(value) = with.and_then(|with| with.get_mut(&template.key)) {
                *value = json!({ "rendered": &*template.file.text });
            }
        }
    }
}
