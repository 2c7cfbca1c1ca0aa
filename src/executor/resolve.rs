//! Answers `Resolve`: what `if`, `for_each`, `lock` and the inputs of a pipeline say, with the operands for `why`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::level::{Level, render_failure};
use super::render::shown;
use super::surroundings::{digest, surroundings};
use crate::engine::Resolution;
use crate::error::{ErrorClass, Failure};
use crate::pipeline::StepSpec;
use crate::pipeline::template::{Scope, Template, is_truthy, render};
use crate::secret::{Vault, is_marked};

/// Operands are for people: what is longer is cut.
const LONGEST_OPERAND: usize = 1024;

/// What was rendered. The inputs of a pipeline are not yet checked against it.
pub(super) enum Rendered {
    Answer(Resolution),
    Inputs { given: Map<String, Value>, digest: String, lock: Option<String> },
}

/// Which part of a step is being resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A step by itself, or the whole of a `for_each`.
    Step,
    /// One instance of a `for_each`.
    Instance,
}

pub(super) struct Resolver<'a> {
    pub(super) level: &'a Level,
    pub(super) spec: &'a StepSpec,
    pub(super) scope: &'a Scope<'a>,
    pub(super) vault: &'a Vault,
    pub(super) operands: Map<String, Value>,
    /// The step whose outputs were not there yet.
    pub(super) waits_for: Option<String>,
}

impl Resolver<'_> {
    /// Renders what the part says. Operands are collected on the way.
    pub(super) fn resolve(&mut self, part: Part) -> Rendered {
        self.try_resolve(part).unwrap_or_else(|failure| Rendered::Answer(Resolution::Failed { failure }))
    }

    /// As [`Resolver::resolve`], before anything has run: the step that has to be over first is the error.
    pub(super) fn waiting(&mut self, part: Part) -> Result<Rendered, String> {
        let rendered = self.resolve(part);
        self.waits_for.take().map_or(Ok(rendered), Err)
    }

    fn try_resolve(&mut self, part: Part) -> Result<Rendered, Failure> {
        if !self.is_wanted(part)? {
            return Ok(Rendered::Answer(Resolution::Skip));
        }
        if let (Some(over), Part::Step) = (&self.spec.for_each, part) {
            let value = self.render("for_each", over)?;
            let items = instances(&value).map_err(|message| self.failure(&message, "keys have to be there once each"))?;
            return Ok(Rendered::Answer(Resolution::Instances { items }));
        }
        let lock = match &self.spec.lock {
            None => None,
            Some(name) => match self.render("lock", name)? {
                Value::String(name) if is_marked(&name) => {
                    return Err(self.failure("the name of its lock is a secret", "name it otherwise"));
                }
                Value::String(name) if !name.is_empty() => Some(name),
                other => return Err(self.failure(&format!("its `lock` is {other}, not a name"), "give a text")),
            },
        };
        if self.spec.module.is_none() {
            return Ok(Rendered::Answer(Resolution::Run { lock }));
        }
        let with = self.render("with", &self.spec.with)?;
        let config = json!({ "uses": self.spec.uses, "with": with });
        let digest = digest(&config, &surroundings(&config, self.level));
        let given = match with {
            Value::Object(given) => given,
            _ => Map::new(),
        };
        Ok(Rendered::Inputs { given, digest, lock })
    }

    /// A condition that names `each` is asked for every instance, any other one once.
    fn is_wanted(&mut self, part: Part) -> Result<bool, Failure> {
        let Some(condition) = &self.spec.if_ else { return Ok(true) };
        let is_over_all = self.spec.for_each.is_some();
        if is_over_all && (mentions_each(condition) != (part == Part::Instance)) {
            return Ok(true);
        }
        let value = self.render("if", condition)?;
        let is_wanted = match &value {
            // Text from a template in the middle of text: `if: "{{ inputs.live }}"` keeps its type, ` {{ … }} ` does not.
            Value::String(text) if text.trim().eq_ignore_ascii_case("false") => false,
            other => is_truthy(other),
        };
        Ok(is_wanted)
    }

    fn render(&mut self, key: &str, value: &Value) -> Result<Value, Failure> {
        let rendered = render(value, self.scope, self.vault)
            .inspect_err(|error| self.waits_for.clone_from(&error.waits_for))
            .map_err(|error| render_failure(&format!("`{key}` of step `{}`", self.spec.id), &error))?;
        if key != "with" {
            let mut values = Map::new();
            self.collect(value, &mut values);
            self.operands.insert(key.to_owned(), json!({ "text": value, "values": values, "result": short(&rendered) }));
        }
        Ok(rendered)
    }

    /// The value of every name that a template mentions.
    fn collect(&self, value: &Value, values: &mut Map<String, Value>) {
        match value {
            Value::String(text) => {
                let Ok(template) = Template::parse(text) else { return };
                for name in template.names() {
                    let name = name.text();
                    if let Ok(value) = render(&Value::from(format!("{{{{ {name} }}}}")), self.scope, self.vault) {
                        values.insert(name, short(&value));
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(item, values)),
            Value::Object(fields) => fields.values().for_each(|item| self.collect(item, values)),
            _ => {}
        }
    }

    fn failure(&self, message: &str, help: &str) -> Failure {
        permanent(format!("step `{}`: {message}", self.spec.id), help)
    }
}

pub(super) fn permanent(message: impl Into<String>, help: impl Into<String>) -> Failure {
    Failure {
        message: message.into(),
        class: ErrorClass::Permanent,
        help: Some(help.into()),
        retry_after: None,
        causes: Vec::new(),
    }
}

fn short(value: &Value) -> Value {
    let text = value.to_string();
    if text.len() <= LONGEST_OPERAND {
        return value.clone();
    }
    let cut = (0..=LONGEST_OPERAND).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..cut]).into()
}

fn mentions_each(value: &Value) -> bool {
    match value {
        Value::String(text) => Template::parse(text)
            .is_ok_and(|template| template.names().iter().any(|name| name.path.first().is_some_and(|first| first == "each"))),
        Value::Array(items) => items.iter().any(mentions_each),
        Value::Object(fields) => fields.values().any(mentions_each),
        _ => false,
    }
}

/// Keys and values of what a `for_each` runs over. Instances are known by key, never by place, so that a list that
/// grows in the middle moves nobody.
pub(super) fn instances(value: &Value) -> Result<Vec<(String, Value)>, String> {
    let items: Vec<(String, Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, item)| (key.clone(), item.clone())).collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let key = match item {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(_) | Value::Bool(_) => Some(item.to_string()),
                    Value::Object(fields) => match fields.get("key") {
                        Some(Value::String(key)) => Some(key.clone()),
                        Some(key @ (Value::Number(_) | Value::Bool(_))) => Some(key.to_string()),
                        _ => None,
                    },
                    _ => None,
                };
                key.map(|key| (key, item.clone()))
                    .ok_or_else(|| format!("item {} of its `for_each` has no key: give a map, or items with `key`", at + 1))
            })
            .collect::<Result<_, _>>()?,
        other => return Err(format!("its `for_each` is {}, not a list or a map", kind(other))),
    };
    let mut seen = BTreeMap::new();
    for (at, (key, _)) in items.iter().enumerate() {
        if is_marked(key) {
            return Err("a key of its `for_each` is a secret".to_owned());
        }
        if let Some(first) = seen.insert(key, at) {
            return Err(format!(
                "its `for_each` has the key `{}` twice, at {} and {}",
                shown(&key.as_str().into()),
                first + 1,
                at + 1
            ));
        }
    }
    Ok(items)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_keys_of_their_own() {
        let keys = |value: Value| instances(&value).map(|items| items.into_iter().map(|(key, _)| key).collect::<Vec<_>>());
        assert_eq!(keys(json!(["a", 2, true])), Ok(vec!["a".to_owned(), "2".to_owned(), "true".to_owned()]));
        assert_eq!(keys(json!({ "x": 1, "y": 2 })), Ok(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(keys(json!([{ "key": "k", "size": 1 }])), Ok(vec!["k".to_owned()]));
        assert_eq!(keys(json!([])), Ok(Vec::new()));
        assert!(keys(json!(["a", "b", "a"])).is_err_and(|message| message.contains("twice, at 1 and 3")));
        assert!(keys(json!([{ "size": 1 }])).is_err_and(|message| message.contains("item 1")));
        assert!(keys(json!("a,b")).is_err());
        assert!(keys(json!([crate::secret::mark("s")])).is_err());
    }
}
