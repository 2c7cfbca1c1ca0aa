//! Secrets in values that others can read, such as the arguments of a program: found before anything is rendered.

use jsonschema::paths::Location;
use serde_json::Value;

use super::Subject;
use crate::pipeline::code::Code;
use crate::pipeline::names::locate;
use crate::pipeline::problem::Problem;
use crate::pipeline::template::Template;

/// What a step type writes into the schema of a key whose value others can read: what to do with a secret instead.
const KEYWORD: &str = "x-public";

impl Subject<'_> {
    /// Refuses secrets in the values that the type calls public.
    pub(super) fn no_secrets(&self, problems: &mut Vec<Problem>) {
        let keys = self.info.config.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (key, schema) in keys {
            let (Some(help), Some(value)) = (schema.get(KEYWORD).and_then(Value::as_str), self.with.get(key)) else { continue };
            self.no_secret_in(key, value, &Location::new().join(key.as_str()), help, problems);
        }
    }

    fn no_secret_in(&self, key: &str, value: &Value, place: &Location, help: &str, problems: &mut Vec<Problem>) {
        let text = match value {
            Value::String(text) => text,
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.no_secret_in(key, item, &place.join(index), help, problems);
                }
                return;
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.no_secret_in(key, field, &place.join(name.as_str()), help, problems);
                }
                return;
            }
            _ => return,
        };
        // A template that cannot be read is told where templates are read.
        let Ok(template) = Template::parse(text) else { return };
        let names = template.names();
        let Some(secret) = names.iter().find(|name| name.path.first().is_some_and(|root| root == "secrets")) else { return };
        let (name, uses) = (secret.path.join("."), &self.info.name);
        let span = locate(&self.pipeline.file, self.span(place), text, secret.offset, secret.len);
        problems.push(
            Problem::new(Code::PublicSecret, &self.pipeline.file, span, format!("`{name}` stands in `{key}` of `{uses}`"))
                .label("a secret cannot stand here")
                .help(help),
        );
    }
}
