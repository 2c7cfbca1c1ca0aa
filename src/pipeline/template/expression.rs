//! Reads what stands inside a tag: names, literals, helpers and their arguments.

use serde_json::Value;

use super::evaluate::nearest;
use super::functions::{self, FUNCTIONS};
use super::lex::{Lexer, Parsed, is_symbol, problem_at};
use super::{Expr, Kind};

/// How deep parentheses may nest.
const DEEPEST: usize = 64;

impl Lexer<'_> {
    /// A term, or a helper and its arguments.
    pub(super) fn expression(&mut self, start: usize) -> Parsed<Expr> {
        self.space();
        if self.rest().starts_with(['}', '~']) {
            return Err(self.problem(start, "there is nothing between these braces").help("write a name: `{{ inputs.bucket }}`"));
        }
        self.call(start, 0)
    }

    fn at_end(&self) -> bool {
        let rest = self.rest();
        rest.is_empty() || rest.starts_with(['}', ')', '~'])
    }

    fn call(&mut self, start: usize, depth: usize) -> Parsed<Expr> {
        let offset = self.at;
        let first = self.term_or_word(start, depth)?;
        let end = self.at;
        let mut args = Vec::new();
        self.space();
        while !self.at_end() {
            args.push(self.term(start, depth)?);
            self.space();
        }
        let Kind::Name(path) = &first.kind else {
            return match args.first() {
                None => Ok(first),
                Some(arg) => Err(problem_at(arg.offset, arg.len, "this cannot stand here")
                    .help("only a helper takes arguments, and its name comes first: `eq a b`")),
            };
        };
        let [name] = path.as_slice() else {
            if args.is_empty() {
                return checked(first);
            }
            return Err(problem_at(offset, end - offset, format!("`{}` is not a helper", path.join(".")))
                .help(format!("the helpers are {}", helpers()))
                .code("unknown-helper"));
        };
        let Some(function) = functions::find(name) else {
            if args.is_empty() {
                return checked(first);
            }
            let known = FUNCTIONS.each_ref().map(|function| function.name);
            let help = match nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the helpers are {}", helpers()),
            };
            return Err(problem_at(offset, end - offset, format!("there is no helper `{name}`"))
                .help(help)
                .code("unknown-helper"));
        };
        if args.len() < function.least || args.len() > function.most {
            let wanted = match (function.least, function.most) {
                (1, 1) => "1 argument".to_owned(),
                (least, most) if least == most => format!("{least} arguments"),
                (least, _) => format!("at least {least} arguments"),
            };
            return Err(problem_at(offset, end - offset, format!("`{name}` takes {wanted}, not {}", args.len()))
                .help(format!("write `{}`", function.usage))
                .code("helper-arguments"));
        }
        let len = args.last().map_or(end, |last| last.offset + last.len) - offset;
        Ok(Expr { kind: Kind::Call { function, args }, offset, len })
    }

    pub(super) fn term(&mut self, start: usize, depth: usize) -> Parsed<Expr> {
        let term = self.term_or_word(start, depth)?;
        checked(term)
    }

    fn term_or_word(&mut self, start: usize, depth: usize) -> Parsed<Expr> {
        self.space();
        let offset = self.at;
        let kind = match self.rest().chars().next() {
            None => return Err(self.unclosed(start, "}}")),
            Some('(') => {
                if depth >= DEEPEST {
                    return Err(problem_at(offset, 1, format!("parentheses nest deeper than {DEEPEST} levels")));
                }
                self.at += 1;
                self.space();
                if self.rest().starts_with(')') {
                    return Err(problem_at(offset, self.at + 1 - offset, "there is nothing between these parentheses"));
                }
                let inner = self.call(start, depth + 1)?;
                self.space();
                if !self.take(")") {
                    return Err(problem_at(offset, 1, "this parenthesis is never closed"));
                }
                return Ok(Expr { offset, len: self.at - offset, ..inner });
            }
            Some('\'') => Kind::Literal(self.single_quoted()?),
            Some('"' | '{') => match self.json() {
                Some(value) => Kind::Literal(value),
                None => {
                    return Err(self
                        .problem(offset, "this is not a JSON text")
                        .help("close the quotes; inside them write `\\\"` for a quote and `\\\\` for a backslash"));
                }
            },
            Some('[') => match self.json() {
                Some(value) => Kind::Literal(value),
                None => self.path()?,
            },
            Some(c) if c.is_ascii_digit() || c == '-' => {
                let rest = self.rest();
                let len = rest.find(|c| !(is_symbol(c) || c == '.')).unwrap_or(rest.len());
                match serde_json::from_str(&rest[..len]) {
                    Ok(number) => {
                        self.at += len;
                        Kind::Literal(number)
                    }
                    Err(_) => self.path()?,
                }
            }
            Some(_) => self.path()?,
        };
        if self.rest().starts_with('=') {
            return Err(problem_at(offset, self.at + 1 - offset, "helpers take no named arguments")
                .help("write the arguments behind the helper's name; `eq a b` compares"));
        }
        Ok(Expr { kind, offset, len: self.at - offset })
    }

    /// A JSON value at the cursor.
    fn json(&mut self) -> Option<Value> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    fn single_quoted(&mut self) -> Parsed<Value> {
        let offset = self.at;
        let mut value = String::new();
        let mut chars = self.text[offset + 1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' => {
                    self.at = offset + 1 + at + 1;
                    return Ok(Value::String(value));
                }
                '\\' => value.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, 'r')) => '\r',
                    Some((_, c @ ('\'' | '"' | '\\' | '/'))) => c,
                    _ => {
                        return Err(
                            problem_at(offset + 1 + at, 1, "this backslash escapes nothing").help("write `\\\\` for a backslash")
                        );
                    }
                }),
                c => value.push(c),
            }
        }
        Err(self.problem(offset, "these quotes are never closed"))
    }

    /// `a.b.[c d]`, `a/b`, `this.a`, `@key`, `@root.a`.
    fn path(&mut self) -> Parsed<Kind> {
        let offset = self.at;
        if self.rest().starts_with("..") {
            return Err(self
                .problem_here("`..` is not part of ferry's templates")
                .help("names begin at the top also inside `{{#each}}`: write `inputs.…`"));
        }
        let is_local = self.take("@");
        let mut path = Vec::new();
        let starts_here = self.take("./");
        loop {
            if self.take("[") {
                let Some(end) = self.rest().find(']') else {
                    return Err(self.problem(self.at - 1, "this bracket is never closed"));
                };
                path.push(self.rest()[..end].to_owned());
                self.at += end + 1;
            } else {
                let word = self.symbols();
                if word.is_empty() {
                    return Err(if path.is_empty() && !is_local && !starts_here {
                        self.problem_here("this is not a name")
                            .help("an expression is a name (`inputs.bucket`) or a helper and its arguments (`eq a \"b\"`)")
                    } else {
                        problem_at(offset, self.at - offset, "this name ends with nothing behind its last dot")
                            .help("write the part's name, or `.[a name with spaces]`")
                    });
                }
                path.push(word.to_owned());
            }
            if !self.take(".") && !self.take("/") {
                break;
            }
        }
        let is_word = !self.text[offset..].starts_with('[');
        let first = path.first().map_or("", String::as_str);
        Ok(match (is_local, first, path.len()) {
            (true, "key" | "index" | "first" | "last", 1) => Kind::Local(path.remove(0)),
            (true, "root", 2..) => Kind::Name(path.split_off(1)),
            (true, _, _) => {
                return Err(problem_at(offset, self.at - offset, format!("there is no `@{}`", path.join(".")))
                    .help("inside `{{#each}}` there are `@key`, `@index`, `@first` and `@last`"));
            }
            (false, "this", _) if is_word => Kind::This(path.split_off(1)),
            (false, "true", 1) if is_word => Kind::Literal(Value::Bool(true)),
            (false, "false", 1) if is_word => Kind::Literal(Value::Bool(false)),
            (false, "null", 1) if is_word => Kind::Literal(Value::Null),
            _ if starts_here => Kind::This(path),
            _ => Kind::Name(path),
        })
    }
}

/// A name that is a helper's alone is a call without its arguments.
fn checked(term: Expr) -> Parsed<Expr> {
    if let Kind::Name(path) = &term.kind
        && let [name] = path.as_slice()
        && let Some(function) = functions::find(name)
    {
        return Err(problem_at(term.offset, term.len, format!("the helper `{name}` has no arguments here"))
            .help(format!("write `{}`, with parentheses around it inside another helper", function.usage))
            .code("helper-arguments"));
    }
    Ok(term)
}

fn helpers() -> String {
    FUNCTIONS.each_ref().map(|function| format!("`{}`", function.name)).join(", ")
}
