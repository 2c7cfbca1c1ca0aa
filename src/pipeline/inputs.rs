//! Inputs: their types, and the check of what a run is given.

use serde_json::{Map, Number, Value};

use super::code::Code;
use super::document::kind;
use super::model::{InputSpec, Pipeline};
use super::nearest::suggest;
use super::problem::{Problem, Problems};
use crate::units::{ByteSize, Rate, Span as Time};

/// What an input's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    List,
    /// A mapping.
    Map,
    /// A number of bytes, `1MiB`.
    Bytes,
    /// Bytes per second, `200MB/s`.
    Rate,
    /// A length of time, `2h30m`.
    Duration,
}

impl InputType {
    /// Every type by its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("string", Self::String),
        ("integer", Self::Integer),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("list", Self::List),
        ("map", Self::Map),
        ("bytes", Self::Bytes),
        ("rate", Self::Rate),
        ("duration", Self::Duration),
    ];

    /// Its name in the language.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("string", |(name, _)| name)
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::String => "a text",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "`true` or `false`",
            Self::List => "a list",
            Self::Map => "a mapping",
            Self::Bytes => "a size such as `512KiB`, `1.5GB` or a number of bytes",
            Self::Rate => "a rate such as `200MB/s`",
            Self::Duration => "a duration such as `500ms`, `90s` or `2h30m`",
        }
    }

    /// The value as this type, or what was wanted. Text from a command line is read as what the type asks for.
    pub(crate) fn read(self, value: &Value) -> Result<Value, String> {
        let wrong = || Err(format!("{} was expected, not {}", self.wanted(), told(value)));
        match (self, value) {
            (Self::String, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::List, Value::Array(_))
            | (Self::Map, Value::Object(_)) => Ok(value.clone()),
            (Self::Integer, Value::Number(number)) if !number.is_f64() => Ok(value.clone()),
            (Self::Integer, Value::String(text)) => match text.trim().parse::<i64>() {
                Ok(number) => Ok(number.into()),
                Err(_) => wrong(),
            },
            (Self::Number, Value::String(text)) => match text.trim().parse::<i64>() {
                Ok(number) => Ok(number.into()),
                Err(_) => text.trim().parse().ok().and_then(Number::from_f64).map_or_else(wrong, |number| Ok(number.into())),
            },
            (Self::Boolean, Value::String(text)) => match text.trim() {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => wrong(),
            },
            (Self::List, Value::String(text)) => match serde_json::from_str::<Value>(text) {
                Ok(list @ Value::Array(_)) => Ok(list),
                // `-i buckets=a,b` is what people write.
                _ if !text.trim_start().starts_with(['[', '{']) => {
                    Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
                }
                _ => wrong(),
            },
            (Self::Map, Value::String(text)) => match serde_json::from_str::<Value>(text) {
                Ok(map @ Value::Object(_)) => Ok(map),
                _ => wrong(),
            },
            (Self::Bytes, Value::String(text)) if text.parse::<ByteSize>().is_ok() => Ok(value.clone()),
            (Self::Bytes, Value::Number(number)) if number.is_u64() => Ok(value.clone()),
            (Self::Rate, Value::String(text)) if text.parse::<Rate>().is_ok() => Ok(value.clone()),
            (Self::Duration, Value::String(text)) if text.parse::<Time>().is_ok() => Ok(value.clone()),
            _ => wrong(),
        }
    }
}

/// A value in a message: short ones as they are, others by what they are.
pub(crate) fn told(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 40 => format!("the text `{}`", crate::secret::unmarked(text)),
        Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::Null => "nothing".to_owned(),
        other => kind(other).to_owned(),
    }
}

impl InputSpec {
    /// The value as the input takes it, or what is wrong with it.
    pub(crate) fn accept(&self, value: &Value) -> Result<Value, String> {
        let value = self.kind.read(value)?;
        if !self.allowed.is_empty() && !self.allowed.contains(&value) {
            let allowed: Vec<String> = self.allowed.iter().map(|one| format!("`{}`", shown(one))).collect();
            return Err(format!("one of {} was expected, not {}", allowed.join(", "), told(&value)));
        }
        Ok(value)
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Pipeline {
    /// The inputs of a run: what was given, checked and read as its type, and the defaults of the rest. The places of
    /// the problems are where the pipeline lists the inputs.
    pub fn inputs(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Problems> {
        let mut problems = Vec::new();
        let mut values = Map::new();
        for name in given.keys().filter(|name| !self.inputs.contains_key(name.as_str())) {
            let (key, label) = match self.root.entry("inputs").or_else(|| self.root.entry("name")) {
                Some((key, _)) if key.text == "inputs" => (key.span, "it lists these"),
                Some((key, _)) => (key.span, "it lists no inputs"),
                None => (self.root.span, ""),
            };
            problems.push(
                Problem::new(Code::UnknownInput, &self.file, key, format!("the pipeline has no input `{name}`"))
                    .label(label)
                    .maybe_help(suggest(name, self.inputs.keys().map(String::as_str))),
            );
        }
        for (name, spec) in &self.inputs {
            match (given.get(name), &spec.default) {
                (Some(value), _) => match spec.accept(value) {
                    Ok(value) => drop(values.insert(name.clone(), value)),
                    Err(wrong) => problems.push(
                        Problem::new(Code::WrongInput, &self.file, spec.span, format!("the input `{name}` is wrong: {wrong}"))
                            .label("listed here")
                            .help(format!("give {}", spec.kind.wanted())),
                    ),
                },
                (None, Some(default)) => drop(values.insert(name.clone(), default.clone())),
                (None, None) => problems.push(
                    Problem::new(Code::MissingInput, &self.file, spec.span, format!("the input `{name}` is missing"))
                        .label("it has no default")
                        .help(format!("give it with `-i {name}=…`, in a file with `--inputs`, or write a `default:`")),
                ),
            }
        }
        if problems.is_empty() { Ok(values) } else { Err(Problems::new(problems)) }
    }
}

/// Whether a text holds a template.
pub(crate) fn is_templated(text: &str) -> bool {
    text.contains("{{")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_from_a_command_line_becomes_what_the_type_asks_for() {
        for (kind, given, read) in [
            (InputType::Integer, json!("5"), json!(5)),
            (InputType::Number, json!("1.5"), json!(1.5)),
            (InputType::Boolean, json!("true"), json!(true)),
            (InputType::List, json!("a, b"), json!(["a", "b"])),
            (InputType::List, json!("[1,2]"), json!([1, 2])),
            (InputType::Map, json!("{\"a\":1}"), json!({ "a": 1 })),
            (InputType::Bytes, json!("1MiB"), json!("1MiB")),
            (InputType::String, json!("5"), json!("5")),
        ] {
            assert_eq!(kind.read(&given), Ok(read));
        }
        for (kind, given) in [
            (InputType::Integer, json!(1.5)),
            (InputType::String, json!(5)),
            (InputType::Bytes, json!("1 parsec")),
            (InputType::Duration, json!(5)),
            (InputType::Map, json!([])),
            (InputType::Boolean, json!("yes")),
        ] {
            assert!(kind.read(&given).is_err(), "{given}");
        }
    }
}
