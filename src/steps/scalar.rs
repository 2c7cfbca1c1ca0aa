//! Texts and commands as people write them in YAML: `8080` and `true` are texts where a text is wanted.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::secret::{Text, unmarked};

/// A text, a number or a truth value, taken as the text that it is written as. May hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar(pub Text);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(Text::new(text))),
            serde_json::Value::Number(number) => Ok(Self(Text::new(number.to_string()))),
            serde_json::Value::Bool(truth) => Ok(Self(Text::new(truth.to_string()))),
            serde_json::Value::Null => Err(serde::de::Error::custom("expected a text, found nothing")),
            serde_json::Value::Array(_) => Err(serde::de::Error::custom("expected a text, found a list")),
            serde_json::Value::Object(_) => Err(serde::de::Error::custom("expected a text, found a mapping")),
        }
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"], "x-secret": true })
    }
}

/// A command: a string goes to `sh -c`, a list is executed as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// For `sh -c`.
    Shell(String),
    /// Program and arguments.
    Exact(Vec<String>),
}

impl Line {
    /// Program and arguments.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Shell(line) => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
            Self::Exact(argv) => argv.clone(),
        }
    }

    /// The beginning of it, for people.
    pub fn title(&self) -> String {
        const LONGEST: usize = 60;
        let whole = match self {
            Self::Shell(line) => line.trim().to_owned(),
            Self::Exact(argv) => argv.join(" "),
        };
        let whole = unmarked(&whole).into_owned();
        let first = whole.lines().next().unwrap_or_default();
        let short: String = first.chars().take(LONGEST).collect();
        if short.len() < whole.len() { format!("{} …", short.trim_end()) } else { short }
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let empty = || serde::de::Error::custom("a command cannot be empty");
        match value {
            serde_json::Value::String(line) if line.trim().is_empty() => Err(empty()),
            serde_json::Value::String(line) => Ok(Self::Shell(line)),
            serde_json::Value::Array(items) if items.is_empty() => Err(empty()),
            serde_json::Value::Array(items) => items
                .into_iter()
                .map(|item| serde_json::from_value::<Scalar>(item).map(|Scalar(text)| text.marked().to_owned()))
                .collect::<Result<_, _>>()
                .map(Self::Exact)
                .map_err(serde::de::Error::custom),
            _ => Err(serde::de::Error::custom("expected a command: a string for `sh -c`, or a list of program and arguments")),
        }
    }
}

impl JsonSchema for Line {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A command: a string goes to `sh -c`, a list is executed as it is.",
            "anyOf": [
                { "type": "string", "minLength": 1 },
                { "type": "array", "items": { "type": ["string", "number", "boolean"] }, "minItems": 1 },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_is_a_string_or_a_list() {
        let line = |value| serde_json::from_value::<Line>(value);
        assert_eq!(line(json!("a | b")).expect("a string").argv(), ["sh", "-c", "a | b"]);
        assert_eq!(line(json!(["sleep", 5, true])).expect("a list").argv(), ["sleep", "5", "true"]);
        for wrong in [json!(""), json!(" \n"), json!([]), json!({}), json!(7), json!([["a"]])] {
            assert!(line(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_title_is_one_short_line_without_secrets() {
        let secret = crate::secret::mark("key");
        assert_eq!(Line::Shell(format!("echo {secret}")).title(), "echo ***");
        assert_eq!(Line::Shell("set -e\nrm x\n".to_owned()).title(), "set -e …");
        assert_eq!(Line::Shell("true\n".to_owned()).title(), "true");
    }
}
