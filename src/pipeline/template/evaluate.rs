//! Evaluates templates: names are looked up strictly, and whole values keep their type.

use serde_json::{Map, Value};

use super::functions::{self, kind};
use super::{Expr, Kind, Piece, RenderError, Scope, StepView, Template};
use crate::secret::Vault;

/// Renders every scalar of a tree. Keys stay as they are: a value never changes the shape of the document.
pub fn render(value: &Value, scope: &Scope<'_>, vault: &Vault) -> Result<Value, RenderError> {
    match value {
        Value::String(text) => {
            let template = Template::parse(text).map_err(|problem| RenderError {
                message: problem.message,
                help: problem.help,
                waits_for: None,
            })?;
            template.render(scope, vault)
        }
        Value::Array(items) => items.iter().map(|item| render(item, scope, vault)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, item)| Ok((key.clone(), render(item, scope, vault)?)))
            .collect::<Result<Map<_, _>, _>>()
            .map(Value::Object),
        other => Ok(other.clone()),
    }
}

/// Whether a value counts as true in `if` and in `{{#if}}`: everything but `false`, `null`, `0`, and what is empty.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

impl Template {
    /// The value of this template.
    pub fn render(&self, scope: &Scope<'_>, vault: &Vault) -> Result<Value, RenderError> {
        let evaluator = Evaluator { scope, vault };
        if let Some((before, expr, after)) = self.whole() {
            return Ok(match evaluator.value(expr, None)? {
                // A block scalar ends with a line feed that a text wants to keep and a list does not.
                Value::String(text) => Value::String(format!("{before}{text}{after}")),
                // A file that is to hold `3` and a line feed holds both: white space that was written is text.
                value @ (Value::Number(_) | Value::Bool(_)) if !before.is_empty() || !after.is_empty() => {
                    Value::String(format!("{before}{value}{after}"))
                }
                value => value,
            });
        }
        let mut text = String::new();
        evaluator.pieces(&self.pieces, None, &mut text)?;
        Ok(Value::String(text))
    }
}

/// Where an `{{#each}}` is.
struct Item<'a> {
    value: &'a Value,
    key: Value,
    index: usize,
    is_last: bool,
}

/// What a name stands for.
enum Found {
    Value(Value),
    /// Everything but the last part is there: `default` may stand in.
    Missing(RenderError),
}

struct Evaluator<'a> {
    scope: &'a Scope<'a>,
    vault: &'a Vault,
}

impl Evaluator<'_> {
    fn pieces(&self, pieces: &[Piece], item: Option<&Item<'_>>, out: &mut String) -> Result<(), RenderError> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Show(expr) => match self.value(expr, item)? {
                    Value::String(text) => out.push_str(&text),
                    value @ (Value::Number(_) | Value::Bool(_)) => out.push_str(&value.to_string()),
                    Value::Null => {
                        return Err(RenderError::new(format!("`{}` is null, which says nothing inside a text", show(expr)))
                            .help("write `default` for what is to stand in its place"));
                    }
                    value => {
                        return Err(RenderError::new(format!("`{}` is {} inside a text", show(expr), kind(&value)))
                            .help("write `{{ json … }}` for its JSON, or `{{ join … \",\" }}` for a list"));
                    }
                },
                Piece::If { condition, then, otherwise } => {
                    let holds = functions::truth("if", &self.value(condition, item)?)?;
                    self.pieces(if holds { then } else { otherwise }, item, out)?;
                }
                Piece::Each { over, body, otherwise } => {
                    let repeated = self.value(over, item)?;
                    let items: Vec<(Value, &Value)> = match &repeated {
                        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (Value::from(index), item)).collect(),
                        Value::Object(fields) => fields.iter().map(|(key, item)| (Value::String(key.clone()), item)).collect(),
                        other => {
                            return Err(RenderError::new(format!("`each` takes a list or a map, this is {}", kind(other))));
                        }
                    };
                    if items.is_empty() {
                        self.pieces(otherwise, item, out)?;
                    }
                    let last = items.len().saturating_sub(1);
                    for (index, (key, value)) in items.into_iter().enumerate() {
                        self.pieces(body, Some(&Item { value, key, index, is_last: index == last }), out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn value(&self, expr: &Expr, item: Option<&Item<'_>>) -> Result<Value, RenderError> {
        match self.find(expr, item)? {
            Found::Value(value) => Ok(value),
            Found::Missing(error) => Err(error),
        }
    }

    fn find(&self, expr: &Expr, item: Option<&Item<'_>>) -> Result<Found, RenderError> {
        let outside = || RenderError::new(format!("`{}` is only known inside `{{{{#each}}}}`", show(expr)));
        Ok(match &expr.kind {
            Kind::Literal(value) => Found::Value(value.clone()),
            Kind::Name(path) => self.name(path)?,
            Kind::This(path) => descend(item.ok_or_else(outside)?.value, path, 0, "this")?,
            Kind::Local(local) => {
                let item = item.ok_or_else(outside)?;
                Found::Value(match local.as_str() {
                    "key" => item.key.clone(),
                    "index" => Value::from(item.index),
                    "first" => Value::Bool(item.index == 0),
                    "last" => Value::Bool(item.is_last),
                    other => unreachable!("the parser lets no `@{other}` through"),
                })
            }
            Kind::Call { function, args } => Found::Value(match function.name {
                "default" => match self.find(&args[0], item)? {
                    Found::Value(value) if !value.is_null() => value,
                    _ => self.value(&args[1], item)?,
                },
                name @ ("and" | "or") => {
                    let ends_it = name == "or";
                    let mut holds = !ends_it;
                    for arg in args {
                        holds = functions::truth(name, &self.value(arg, item)?)?;
                        if holds == ends_it {
                            break;
                        }
                    }
                    Value::Bool(holds)
                }
                _ => {
                    let args = args.iter().map(|arg| self.value(arg, item)).collect::<Result<Vec<_>, _>>()?;
                    functions::apply(function, &args, self.vault)?
                }
            }),
        })
    }

    fn name(&self, path: &[String]) -> Result<Found, RenderError> {
        let scope = self.scope;
        let root = path.first().map_or("", String::as_str);
        let map = |fields: &Map<String, Value>| fields_at(fields, path, root);
        match root {
            "inputs" => map(scope.inputs),
            "hosts" => map(&scope.hosts),
            "run" => match path {
                [_, part, ..] if part == "status" && !scope.run.contains_key(part) => Err(RenderError {
                    message: "how the run ends is not known yet".to_owned(),
                    help: None,
                    waits_for: Some("how the run ends".to_owned()),
                }),
                _ => map(&scope.run),
            },
            "env" => map(&scope.env),
            "secrets" => match path {
                [_, name] => Ok(match scope.secrets.get(name) {
                    Some(mark) => Found::Value(Value::String(mark.clone())),
                    None => Found::Missing(missing("secrets", name, scope.secrets.keys())),
                }),
                _ => Err(RenderError::new(format!("`{}` names no secret", path.join(".")))
                    .help("a secret is named `secrets.NAME`, and has no parts")),
            },
            "pipeline" => match path {
                [_, name] if name == "name" => Ok(Found::Value(Value::String(scope.pipeline_name.to_owned()))),
                _ => Err(RenderError::new(format!("`{}` is not known", path.join("."))).help("write `pipeline.name`")),
            },
            "each" => {
                let Some(each) = &scope.each else {
                    return Err(RenderError::new("`each` is only known to a step with `for_each`"));
                };
                let fields = Map::from_iter([
                    ("key".to_owned(), Value::String(each.key.clone())),
                    ("value".to_owned(), each.value.clone()),
                    ("index".to_owned(), Value::from(each.index)),
                ]);
                map(&fields)
            }
            "steps" => self.step(path),
            other => Err(missing_root(other)),
        }
    }

    fn step(&self, path: &[String]) -> Result<Found, RenderError> {
        let (id, rest) = match path {
            [_, id, outputs, rest @ ..] if outputs == "outputs" => (id, rest),
            _ => {
                return Err(RenderError::new(format!("`{}` names no outputs", path.join(".")))
                    .help("write `steps.ID.outputs`, and behind it the name of the output"));
            }
        };
        match (self.scope.steps)(id) {
            StepView::Outputs(outputs) => descend(&outputs, rest, 0, &format!("steps.{id}.outputs")),
            StepView::Skipped => Ok(Found::Missing(
                RenderError::new(format!("step `{id}` was skipped and has no outputs"))
                    .help(format!("write `default steps.{id}.outputs… \"…\"` for what is to stand in their place")),
            )),
            StepView::NotYet => Err(RenderError {
                message: format!("the outputs of step `{id}` are not there yet"),
                help: None,
                waits_for: Some(id.clone()),
            }),
            StepView::Unknown => Err(RenderError::new(format!("there is no step `{id}`"))),
        }
    }
}

fn fields_at(fields: &Map<String, Value>, path: &[String], root: &str) -> Result<Found, RenderError> {
    let Some(first) = path.get(1) else {
        return Ok(Found::Value(Value::Object(fields.clone())));
    };
    match fields.get(first) {
        Some(value) => descend(value, path, 2, &format!("{root}.{first}")),
        None if path.len() == 2 => Ok(Found::Missing(missing(root, first, fields.keys()))),
        None => Err(missing(root, first, fields.keys())),
    }
}

/// Follows the parts of a path from `at` on.
fn descend(value: &Value, path: &[String], at: usize, shown: &str) -> Result<Found, RenderError> {
    let mut value = value;
    let mut shown = shown.to_owned();
    for (position, part) in path.iter().enumerate().skip(at) {
        let (next, error) = match value {
            Value::Object(fields) => (fields.get(part), missing(&shown, part, fields.keys())),
            Value::Array(items) => (
                part.parse::<usize>().ok().and_then(|index| items.get(index)),
                RenderError::new(format!("`{shown}` is a list of {} and has no `{part}`", items.len())),
            ),
            other => return Err(RenderError::new(format!("`{shown}` is {} and has no `{part}`", kind(other)))),
        };
        match next {
            Some(next) => value = next,
            None if position + 1 == path.len() => return Ok(Found::Missing(error)),
            None => return Err(error),
        }
        shown = format!("{shown}.{part}");
    }
    Ok(Found::Value(value.clone()))
}

fn missing<'a>(of: &str, part: &str, known: impl Iterator<Item = &'a String>) -> RenderError {
    let error = RenderError::new(format!("`{of}` has no `{part}`"));
    let known: Vec<&str> = known.map(String::as_str).collect();
    match nearest(part, &known) {
        Some(near) => error.help(format!("did you mean `{of}.{near}`?")),
        None => error,
    }
}

fn missing_root(root: &str) -> RenderError {
    const ROOTS: [&str; 8] = ["inputs", "secrets", "steps", "each", "hosts", "run", "pipeline", "env"];
    let error = RenderError::new(format!("`{root}` is not a name that templates know"));
    error.help(match nearest(root, &ROOTS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("names begin with {}", ROOTS.map(|root| format!("`{root}`")).join(", ")),
    })
}

/// The known word that a mistyped one was most likely meant to be.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + word.chars().count().max(candidate.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn show(expr: &Expr) -> String {
    match &expr.kind {
        Kind::Literal(value) => value.to_string(),
        Kind::Name(path) => path.join("."),
        Kind::This(path) => std::iter::once("this").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("."),
        Kind::Local(name) => format!("@{name}"),
        Kind::Call { function, .. } => format!("{} …", function.name),
    }
}
