//! Templates: Handlebars text, evaluated strictly, with whole-value expressions that keep their type.
//!
//! In: a scalar of the YAML tree, and a [`Scope`] of names. Out: a JSON value. A value that is exactly one
//! `{{ expression }}` keeps its JSON type; mixed text gives a string. Never here: an empty string for a missing name, a
//! change of the document's shape, a secret (only its mark passes through).
//!
//! The syntax is that of Handlebars, and a test holds it to the `handlebars` crate. The parser is our own because every
//! name needs its place in the text (that is where problems point, and where edges come from), because a hostile
//! template must be a problem and never a stack overflow, and because marks have to follow values through every helper.

mod evaluate;
mod expression;
mod functions;
mod lex;
mod parse;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use evaluate::{is_truthy, render};

/// Why a scalar is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateProblem {
    /// Where it begins, in bytes of the scalar.
    pub offset: usize,
    /// How long the place is, in bytes.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// `template-syntax`, `unknown-helper` or `helper-arguments`.
    pub code: &'static str,
}

/// Why a template could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RenderError {
    /// What failed.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The step whose outputs are not there yet, when that is the reason.
    pub waits_for: Option<String>,
}

impl RenderError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, waits_for: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A name that a template mentions, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRef {
    /// Its parts: `["steps", "copy", "outputs", "bytes"]`.
    pub path: Vec<String>,
    /// Where it begins, in bytes of the scalar.
    pub offset: usize,
    /// How long it is, in bytes.
    pub len: usize,
    /// Whether `default` catches a missing last part.
    pub is_optional: bool,
}

impl NameRef {
    /// The name as a template writes it: `steps.copy.outputs.[a key]`.
    pub fn text(&self) -> String {
        let is_plain = |part: &str| !part.is_empty() && part.chars().all(lex::is_symbol);
        let parts = self.path.iter().map(|part| if is_plain(part) { part.clone() } else { format!("[{part}]") });
        parts.collect::<Vec<_>>().join(".")
    }
}

/// The names that a template may use.
pub struct Scope<'a> {
    /// The run's inputs, or those of the pipeline used as a step.
    pub inputs: &'a Map<String, Value>,
    /// The mark of each secret, by name.
    pub secrets: BTreeMap<String, String>,
    /// The outputs of a step, by id.
    pub steps: &'a dyn Fn(&str) -> StepView,
    /// The instance of a `for_each`.
    pub each: Option<Each>,
    /// The hosts, by name.
    pub hosts: Map<String, Value>,
    /// `id`, `status`, `started_at`.
    pub run: Map<String, Value>,
    /// The variables that the pipeline lists under `env`.
    pub env: Map<String, Value>,
    /// The pipeline's name.
    pub pipeline_name: &'a str,
}

/// The instance of a `for_each`.
#[derive(Debug, Clone, PartialEq)]
pub struct Each {
    /// Its key, or its value as text.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Its position, from 0.
    pub index: usize,
}

/// What a template sees of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepView {
    /// It is over and left these.
    Outputs(Value),
    /// It is not over.
    NotYet,
    /// It was skipped: it has no outputs.
    Skipped,
    /// There is no such step.
    Unknown,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Show(Expr),
    If { condition: Expr, then: Vec<Piece>, otherwise: Vec<Piece> },
    Each { over: Expr, body: Vec<Piece>, otherwise: Vec<Piece> },
}

/// An expression and its place in the text.
#[derive(Debug, Clone, PartialEq)]
struct Expr {
    kind: Kind,
    offset: usize,
    len: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Literal(Value),
    /// A name that begins at the top: `inputs.bucket`.
    Name(Vec<String>),
    /// `this`, `this.a`: the item of the innermost `{{#each}}`.
    This(Vec<String>),
    /// `@key`, `@index`, `@first`, `@last` of the innermost `{{#each}}`.
    Local(String),
    Call {
        function: &'static functions::Function,
        args: Vec<Expr>,
    },
}

/// How each helper is written.
pub(crate) fn helpers() -> impl Iterator<Item = &'static str> {
    functions::FUNCTIONS.iter().map(|function| function.usage)
}

impl Template {
    /// Reads a scalar. Everything that can be known without values is found here: braces, blocks, helpers' names and
    /// how many arguments they take. Whether names exist is for the caller to check (`names`).
    pub fn parse(text: &str) -> Result<Self, TemplateProblem> {
        parse::parse(text).map(|pieces| Self { pieces })
    }

    /// Whether there is anything to render.
    pub fn is_plain(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Whether the scalar is exactly one `{{ expression }}`, so that its value keeps its type.
    pub fn is_whole_value(&self) -> bool {
        self.whole().is_some()
    }

    /// Every name that begins at the top, in the order of the text.
    pub fn names(&self) -> Vec<NameRef> {
        let mut names = Vec::new();
        names_of_pieces(&self.pieces, &mut names);
        names
    }

    /// The names whose values become a part of a text: not those that a helper takes, nor a whole value, which keeps its
    /// type.
    pub fn names_in_text(&self) -> Vec<NameRef> {
        let mut names = Vec::new();
        if !self.is_whole_value() {
            shown_in(&self.pieces, &mut names);
        }
        names
    }

    fn whole(&self) -> Option<(&str, &Expr, &str)> {
        let blank = |text: &str| text.chars().all(char::is_whitespace);
        match self.pieces.as_slice() {
            [Piece::Show(expr)] => Some(("", expr, "")),
            [Piece::Text(before), Piece::Show(expr)] if blank(before) => Some((before, expr, "")),
            [Piece::Show(expr), Piece::Text(after)] if blank(after) => Some(("", expr, after)),
            [Piece::Text(before), Piece::Show(expr), Piece::Text(after)] if blank(before) && blank(after) => {
                Some((before, expr, after))
            }
            _ => None,
        }
    }
}

fn names_of_pieces(pieces: &[Piece], names: &mut Vec<NameRef>) {
    for piece in pieces {
        match piece {
            Piece::Text(_) => {}
            Piece::Show(expr) => names_of(expr, false, names),
            Piece::If { condition: expr, then: inner, otherwise } | Piece::Each { over: expr, body: inner, otherwise } => {
                names_of(expr, false, names);
                names_of_pieces(inner, names);
                names_of_pieces(otherwise, names);
            }
        }
    }
}

fn shown_in(pieces: &[Piece], names: &mut Vec<NameRef>) {
    for piece in pieces {
        match piece {
            Piece::Show(expr) if matches!(expr.kind, Kind::Name(_)) => names_of(expr, false, names),
            Piece::Text(_) | Piece::Show(_) => {}
            Piece::If { then: inner, otherwise, .. } | Piece::Each { body: inner, otherwise, .. } => {
                shown_in(inner, names);
                shown_in(otherwise, names);
            }
        }
    }
}

fn names_of(expr: &Expr, is_optional: bool, names: &mut Vec<NameRef>) {
    match &expr.kind {
        Kind::Name(path) => {
            names.push(NameRef { path: path.clone(), offset: expr.offset, len: expr.len, is_optional });
        }
        Kind::Call { function, args } => {
            for (position, arg) in args.iter().enumerate() {
                names_of(arg, function.name == "default" && position == 0, names);
            }
        }
        Kind::Literal(_) | Kind::This(_) | Kind::Local(_) => {}
    }
}

#[cfg(test)]
mod tests;
