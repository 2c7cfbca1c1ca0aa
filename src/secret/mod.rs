//! Secrets as a type: a mark stands in for the value everywhere, and only a sink that needs the value asks for it.
//!
//! A rendered configuration, an output, a log line never holds a secret. It holds a *mark*, `U+F5E5 name U+F5E6`. What
//! a template helper makes of one is a mark that says so, and [`Vault::reveal`] turns either into the value at the last
//! moment. Text that comes from outside is passed through [`sanitize`] once, so that nobody can forge a mark.

mod forms;
mod helper;
mod mark;
mod place;
mod vault;

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use mark::{MARK_END, MARK_START, MASK, call, each_name, is_marked, mark, sanitize, unmarked};
pub use place::{MISPLACED_SECRET, Part, misplaced, shown_way};
pub use vault::{UnknownSecret, Vault};

/// Applies `change` to every string of a JSON value, keys included.
pub fn map_strings(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => Value::Array(items.iter().map(|item| map_strings(item, change)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, item)| (change(key), map_strings(item, change))).collect())
        }
        other => other.clone(),
    }
}

/// A string of a step's configuration that may hold secrets. It prints, serialises and compares as its marks;
/// `StepContext::reveal` gives the value.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Wraps rendered text, marks and all.
    pub fn new(marked: impl Into<String>) -> Self {
        Self(marked.into())
    }

    /// The text with its marks in place: for passing on, never for the outside.
    pub fn marked(&self) -> &str {
        &self.0
    }

    /// Whether a secret is in it.
    pub fn is_secret(&self) -> bool {
        is_marked(&self.0)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&unmarked(&self.0))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&unmarked(&self.0), f)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A text that may hold secrets.", "x-secret": true })
    }
}
