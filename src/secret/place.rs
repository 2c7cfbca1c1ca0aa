//! Where in a configuration a secret may stand: a key that takes none would use a mark as it is written.

use serde_json::Value;

use super::mark::unmarked;

/// What a schema says of a key that takes secrets: its type asks for the value at the sink.
const TAKES: &str = "x-secret";

/// What a schema says of a key whose value others can read. Its type refuses secrets with a help of its own.
const PUBLIC: &str = "x-public";

/// What to do with a secret in a key that takes none.
pub const MISPLACED_SECRET: &str =
    "names, places and choices are kept and shown as they are: use an input for it, or a key that takes secrets";

/// How deep references are followed: a schema may name itself.
const DEEPEST: usize = 16;

/// A part of the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A key of a mapping.
    Key(String),
    /// A place in a list.
    Index(usize),
}

/// Calls `found` with the way to every text that `is_secret`, and with the text, where the schema lets no secret stand.
pub fn misplaced(schema: &Value, value: &Value, is_secret: &dyn Fn(&str) -> bool, found: &mut dyn FnMut(&[Part], &str)) {
    Walk { root: schema, is_secret, found, way: Vec::new() }.walk(&[schema], value);
}

/// A way as people write it: `undo.headers.0`.
pub fn shown_way(way: &[Part]) -> String {
    let parts: Vec<String> = way
        .iter()
        .map(|part| match part {
            Part::Key(key) => unmarked(key).into_owned(),
            Part::Index(index) => index.to_string(),
        })
        .collect();
    parts.join(".")
}

struct Walk<'a> {
    root: &'a Value,
    is_secret: &'a dyn Fn(&str) -> bool,
    found: &'a mut dyn FnMut(&[Part], &str),
    way: Vec<Part>,
}

impl<'a> Walk<'a> {
    fn walk(&mut self, schemas: &[&'a Value], value: &Value) {
        let mut all = Vec::new();
        for schema in schemas {
            self.expand(schema, DEEPEST, &mut all);
        }
        if all.iter().any(|schema| schema.get(TAKES) == Some(&Value::Bool(true)) || schema.get(PUBLIC).is_some()) {
            return;
        }
        match value {
            Value::String(text) => self.look(text),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let inner: Vec<&Value> = all.iter().filter_map(|schema| item_of(schema, index)).collect();
                    self.at(Part::Index(index), &inner, item);
                }
            }
            Value::Object(fields) => {
                for (key, item) in fields {
                    self.look(key);
                    let inner: Vec<&Value> = all.iter().flat_map(|schema| fields_of(schema, key)).collect();
                    self.at(Part::Key(key.clone()), &inner, item);
                }
            }
            _ => {}
        }
    }

    fn at(&mut self, part: Part, schemas: &[&'a Value], value: &Value) {
        self.way.push(part);
        self.walk(schemas, value);
        self.way.pop();
    }

    fn look(&mut self, text: &str) {
        if (self.is_secret)(text) {
            (self.found)(&self.way, text);
        }
    }

    /// The schema and all that it is made of. Which of several fits is not asked: one that takes secrets is enough.
    fn expand(&self, schema: &'a Value, depth: usize, all: &mut Vec<&'a Value>) {
        if depth == 0 {
            return;
        }
        all.push(schema);
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        if let Some(target) = target.and_then(|pointer| self.root.pointer(pointer)) {
            self.expand(target, depth - 1, all);
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for branch in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.expand(branch, depth - 1, all);
            }
        }
    }
}

fn item_of(schema: &Value, index: usize) -> Option<&Value> {
    schema.get("prefixItems").and_then(|items| items.get(index)).or_else(|| schema.get("items"))
}

fn fields_of<'a>(schema: &'a Value, key: &str) -> Vec<&'a Value> {
    if let Some(own) = schema.get("properties").and_then(|fields| fields.get(key)) {
        return vec![own];
    }
    let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(|fields| fields.values());
    patterns.chain(schema.get("additionalProperties")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_stands_where_the_schema_takes_one_and_nowhere_else() {
        let schema = json!({
            "$defs": { "Text": { "type": "string", "x-secret": true }, "Tree": { "properties": { "sub": { "$ref": "#/$defs/Tree" } } } },
            "properties": {
                "content": { "anyOf": [{ "$ref": "#/$defs/Text" }, { "type": "null" }] },
                "env": { "additionalProperties": { "$ref": "#/$defs/Text" } },
                "list": { "items": { "type": "string" } },
                "json": { "x-secret": true },
                "run": { "x-public": "use `env`" },
                "tree": { "$ref": "#/$defs/Tree" },
            },
        });
        let value = json!({
            "content": "S", "env": { "A": "S" }, "list": ["x", "S"], "json": { "S": ["S", { "a": "S" }] }, "run": ["S"],
            "tree": { "sub": { "sub": { "S": "x" } } }, "path": "S",
        });
        let mut found = Vec::new();
        misplaced(&schema, &value, &|text| text == "S", &mut |way, _| found.push(way.to_vec()));
        let key = |name: &str| Part::Key(name.to_owned());
        assert_eq!(found, [vec![key("list"), Part::Index(1)], vec![key("tree"), key("sub"), key("sub")], vec![key("path")]]);
    }
}
