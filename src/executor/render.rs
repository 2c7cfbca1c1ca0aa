//! Renders what a step says: its configuration, the digest of it, the question of an approval.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::pipeline::StepSpec;
use crate::pipeline::template::{RenderError, Scope, render};
use crate::secret::{Vault, unmarked};

/// The resolved definition of a step: `uses`, `with`, `on` if given, and `undo` if the pipeline gives a body that does
/// not need the step's own outputs. This is what the journal keeps as `config`, with its `surroundings`: an undo needs
/// nothing else but secrets.
pub(super) fn config(spec: &StepSpec, scope: &Scope<'_>, vault: &Vault) -> Result<Value, RenderError> {
    let mut config = Map::new();
    config.insert("uses".to_owned(), spec.uses.as_str().into());
    config.insert("with".to_owned(), render(&spec.with, scope, vault)?);
    if let Some(host) = &spec.on {
        config.insert("on".to_owned(), render(host, scope, vault)?);
    }
    if let Some(body) = &spec.undo {
        match render(&body.with, scope, vault) {
            Ok(with) => drop(config.insert("undo".to_owned(), json!({ "uses": body.uses, "with": with }))),
            // It names what the step itself will leave: it is rendered when it is needed.
            Err(error) if error.waits_for.as_deref() == Some(&spec.id) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Value::Object(config))
}

/// What of it is known while the rest waits for other steps: the keys of `with` that can be rendered.
pub(super) fn known(spec: &StepSpec, scope: &Scope<'_>, vault: &Vault) -> Value {
    let fields = spec.with.as_object().into_iter().flatten();
    let with: Map<_, _> = fields.filter_map(|(key, value)| Some((key.clone(), render(value, scope, vault).ok()?))).collect();
    json!({ "uses": spec.uses, "with": with })
}

/// The host that a configuration names.
pub(super) fn host_of(config: &Value) -> String {
    match config.get("on") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Object(host)) => host.get("name").and_then(Value::as_str).unwrap_or("local").to_owned(),
        _ => "local".to_owned(),
    }
}

/// Of what a person is shown, bound to run and step.
pub(super) fn question_digest(run: &str, step: &str, message: &str, approvers: &[String]) -> String {
    sha256(&json!([run, step, message, approvers]).to_string())
}

/// The question of an approval: what is shown and who may answer.
pub(super) fn question(with: &Value) -> (String, Vec<String>) {
    let message = with.get("message").map(shown).unwrap_or_default();
    let approvers = match with.get("approvers") {
        Some(Value::Array(names)) => names.iter().map(shown).collect(),
        Some(Value::String(name)) => vec![name.clone()],
        _ => Vec::new(),
    };
    (message, approvers)
}

/// A value as text for people.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => unmarked(text).into_owned(),
        other => unmarked(&other.to_string()).into_owned(),
    }
}

/// Digest of a value. The order of its keys means nothing.
pub(super) fn sha256_of(value: &Value) -> String {
    sha256(&canonical(value).to_string())
}

fn sha256(text: &str) -> String {
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

/// With keys in order: what a person writes in another order is the same.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let sorted: std::collections::BTreeMap<_, _> =
                fields.iter().map(|(key, item)| (key.clone(), canonical(item))).collect();
            sorted.into_iter().collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_means_nothing() {
        assert_eq!(canonical(&json!({ "b": [{ "y": 1, "x": 2 }], "a": 0 })).to_string(), r#"{"a":0,"b":[{"x":2,"y":1}]}"#);
    }

    #[test]
    fn an_answer_is_bound_to_run_step_and_text() {
        let base = question_digest("r", "s", "Go?", &[]);
        for other in
            [question_digest("q", "s", "Go?", &[]), question_digest("r", "t", "Go?", &[]), question_digest("r", "s", "Go!", &[])]
        {
            assert_ne!(base, other);
        }
    }
}
