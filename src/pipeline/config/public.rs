//! Secrets in values that others can read, such as the arguments of a program or the name of a file: found before
//! anything is rendered.

use jsonschema::paths::Location;
use serde_json::Value;

use super::Subject;
use crate::pipeline::code::Code;
use crate::pipeline::names::locate;
use crate::pipeline::problem::Problem;
use crate::pipeline::template::{NameRef, Template};
use crate::secret::{MISPLACED_SECRET, Part, misplaced, shown_way};

/// What a step type writes into the schema of a key whose value others can read: what to do with a secret instead.
const KEYWORD: &str = "x-public";

impl Subject<'_> {
    /// Refuses secrets in the values that the type calls public, and in those that are used as they are written.
    pub(super) fn no_secrets(&self, problems: &mut Vec<Problem>) {
        let keys = self.info.config.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (key, schema) in keys {
            let (Some(help), Some(value)) = (schema.get(KEYWORD).and_then(Value::as_str), self.with.get(key)) else { continue };
            self.no_secret_in(key, value, &Location::new().join(key.as_str()), help, problems);
        }
        let names_one = |text: &str| secret_in(text).is_some();
        misplaced(&self.info.config, self.with, &names_one, &mut |way, text| {
            let place = way.iter().fold(Location::new(), |place, part| match part {
                Part::Key(key) => place.join(key.as_str()),
                Part::Index(index) => place.join(*index),
            });
            self.refuse_secret(&shown_way(way), text, &place, MISPLACED_SECRET, problems);
        });
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
        self.refuse_secret(key, text, place, help, problems);
    }

    fn refuse_secret(&self, key: &str, text: &str, place: &Location, help: &str, problems: &mut Vec<Problem>) {
        let Some(secret) = secret_in(text) else { return };
        let (name, uses) = (secret.path.join("."), &self.info.name);
        let span = locate(&self.pipeline.file, self.span(place), text, secret.offset, secret.len);
        problems.push(
            Problem::new(Code::PublicSecret, &self.pipeline.file, span, format!("`{name}` stands in `{key}` of `{uses}`"))
                .label("a secret cannot stand here")
                .help(help),
        );
    }
}

/// The first secret that a text names. A template that cannot be read is told where templates are read.
fn secret_in(text: &str) -> Option<NameRef> {
    let names = Template::parse(text).ok()?.names();
    names.into_iter().find(|name| name.path.first().is_some_and(|root| root == "secrets"))
}
