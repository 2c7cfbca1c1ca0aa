//! The helpers of templates: what each is called, how many arguments it takes, and what it does.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::RenderError;
use crate::secret::{Vault, is_marked};
use crate::units::{ByteSize, Rate, Span};

/// A helper.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub name: &'static str,
    /// How many arguments it takes at least.
    pub least: usize,
    /// And at most.
    pub most: usize,
    /// How it is written.
    pub usage: &'static str,
}

const fn function(name: &'static str, least: usize, most: usize, usage: &'static str) -> Function {
    Function { name, least, most, usage }
}

/// Every helper there is. `default`, `and` and `or` are evaluated by the evaluator, since they do not need all of their
/// arguments.
pub(super) static FUNCTIONS: [Function; 16] = [
    function("eq", 2, 2, "{{ eq a b }}"),
    function("ne", 2, 2, "{{ ne a b }}"),
    function("lt", 2, 2, "{{ lt a b }}"),
    function("gt", 2, 2, "{{ gt a b }}"),
    function("and", 2, usize::MAX, "{{ and a b … }}"),
    function("or", 2, usize::MAX, "{{ or a b … }}"),
    function("not", 1, 1, "{{ not a }}"),
    function("default", 2, 2, "{{ default name \"fallback\" }}"),
    function("json", 1, 1, "{{ json value }}"),
    function("join", 2, 2, "{{ join list \",\" }}"),
    function("lower", 1, 1, "{{ lower text }}"),
    function("upper", 1, 1, "{{ upper text }}"),
    function("replace", 3, 3, "{{ replace text \"from\" \"to\" }}"),
    function("trim", 1, 1, "{{ trim text }}"),
    function("base64", 1, 1, "{{ base64 text }}"),
    function("sha256", 1, 1, "{{ sha256 text }}"),
];

/// The helper of this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// Applies a helper to its evaluated arguments, of which there are as many as it takes.
pub(super) fn apply(function: &Function, args: &[Value], vault: &Vault) -> Result<Value, RenderError> {
    let name = function.name;
    Ok(match name {
        "eq" | "ne" => {
            for arg in args {
                refuse_secret(name, arg)?;
            }
            Value::Bool(equal(&args[0], &args[1]) == (name == "eq"))
        }
        "lt" | "gt" => {
            for arg in args {
                refuse_secret(name, arg)?;
            }
            let wanted = if name == "lt" { Ordering::Less } else { Ordering::Greater };
            Value::Bool(compare(name, &args[0], &args[1])? == wanted)
        }
        "not" => Value::Bool(!truth(name, &args[0])?),
        "json" => Value::String(to_json(&args[0], vault)),
        "join" => {
            let Value::Array(items) = &args[0] else {
                return Err(RenderError::new(format!("`join` takes a list, this is {}", kind(&args[0]))));
            };
            // A mark may be joined as it is: putting texts together and revealing them may be done in either order.
            let separator = text(name, &args[1])?;
            let items = items.iter().map(|item| text(name, item)).collect::<Result<Vec<_>, _>>()?;
            Value::String(items.join(&separator))
        }
        _ => {
            let args = args.iter().map(|arg| text(name, arg)).collect::<Result<Vec<_>, _>>()?;
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let derived = vault.derive(name, &args);
            Value::String(derived.unwrap_or_else(|| unreachable!("`{name}` is in the table and has no code")))
        }
    })
}

/// Whether a condition holds; a secret has no truth that may be told.
pub(super) fn truth(name: &str, value: &Value) -> Result<bool, RenderError> {
    if let Value::String(_) = value {
        refuse_secret(name, value)?;
    }
    Ok(super::is_truthy(value))
}

/// What a scalar says inside a text.
pub(super) fn text(name: &str, value: &Value) -> Result<String, RenderError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(RenderError::new(format!("`{name}` takes a text, this is {}", kind(value)))
            .help("write `(json …)` around it for its JSON")),
    }
}

/// What people call the kind of a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// The answer to a comparison would tell something of the secret, and it goes to the journal.
fn refuse_secret(name: &str, value: &Value) -> Result<(), RenderError> {
    if holds_mark(value) {
        return Err(RenderError::new(format!("`{name}` would compare a secret, and the answer would tell something of it"))
            .help("compare something that is not a secret, or let a `command` step compare it"));
    }
    Ok(())
}

fn holds_mark(value: &Value) -> bool {
    match value {
        Value::String(text) => is_marked(text),
        Value::Array(items) => items.iter().any(holds_mark),
        Value::Object(fields) => fields.iter().any(|(key, item)| is_marked(key) || holds_mark(item)),
        _ => false,
    }
}

/// Equality of JSON, where `1` and `1.0` are one number.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => order(a, b) == Some(Ordering::Equal),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

fn order(a: &Number, b: &Number) -> Option<Ordering> {
    // Integers first: a byte count above 2^53 must not be rounded.
    if let (Some(a), Some(b)) = (a.as_i128(), b.as_i128()) {
        return Some(a.cmp(&b));
    }
    a.as_f64()?.partial_cmp(&b.as_f64()?)
}

/// Numbers by size; values with units by what they mean.
fn compare(name: &str, a: &Value, b: &Value) -> Result<Ordering, RenderError> {
    if let (Value::Number(a), Value::Number(b)) = (a, b)
        && let Some(order) = order(a, b)
    {
        return Ok(order);
    }
    let written = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    if let (Some(a), Some(b)) = (written(a), written(b)) {
        if let (Ok(a), Ok(b)) = (a.trim().parse::<f64>(), b.trim().parse::<f64>())
            && let Some(order) = a.partial_cmp(&b)
        {
            return Ok(order);
        }
        if let (Ok(a), Ok(b)) = (a.parse::<ByteSize>(), b.parse::<ByteSize>()) {
            return Ok(a.cmp(&b));
        }
        if let (Ok(a), Ok(b)) = (a.parse::<Span>(), b.parse::<Span>()) {
            return Ok(a.cmp(&b));
        }
        if let (Ok(a), Ok(b)) = (a.parse::<Rate>(), b.parse::<Rate>()) {
            return Ok(a.cmp(&b));
        }
    }
    Err(RenderError::new(format!("`{name}` cannot order {} and {}", shown(a), shown(b)))
        .help("it compares two numbers, two sizes (`1MiB`), two rates (`20MB/s`) or two durations (`90s`)"))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Number(number) => format!("`{number}`"),
        other => kind(other).to_owned(),
    }
}

/// JSON text in which every string that holds a secret is a mark for its quoted form: a value with quotes in it must
/// not break the text it is put into.
fn to_json(value: &Value, vault: &Vault) -> String {
    let quoted = |text: &str| vault.derive("json", &[text]).unwrap_or_default();
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| to_json(item, vault)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(key, item)| format!("{}:{}", quoted(key), to_json(item, vault))).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}
