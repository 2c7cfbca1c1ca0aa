//! Cuts a template into text and tags, and reads the expressions inside the tags. The syntax is that of Handlebars:
//! `~` takes the white space beside a tag, a block's tag that stands alone takes its line, `\{{` is the braces themselves.

use serde_json::Value;

use super::evaluate::nearest;
use super::functions::{self, FUNCTIONS};
use super::{Expr, Kind, TemplateProblem};

/// How deep parentheses may nest.
const DEEPEST: usize = 64;

pub(super) const SYNTAX: &str = "template-syntax";

/// A tag's place: offset and length in bytes.
type Place = (usize, usize);

pub(super) enum Token {
    Text(String),
    Show(Expr),
    Open { at: Place, name: String, expr: Expr },
    Else { at: Place, chain: Option<(String, Expr)> },
    Close { at: Place, name: String },
}

type Parsed<T> = Result<T, TemplateProblem>;

pub(super) fn problem_at(offset: usize, len: usize, message: impl Into<String>) -> TemplateProblem {
    TemplateProblem { offset, len, message: message.into(), help: None, code: SYNTAX }
}

impl TemplateProblem {
    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }
}

pub(super) fn lex(text: &str) -> Parsed<Vec<Token>> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    while lexer.at < text.len() {
        lexer.text_and_tag()?;
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, what: &str) -> bool {
        let is_there = self.rest().starts_with(what);
        if is_there {
            self.at += what.len();
        }
        is_there
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn symbols(&mut self) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !is_symbol(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// The tag that begins at `start`, up to its end or to the end of its line.
    fn problem(&self, start: usize, message: impl Into<String>) -> TemplateProblem {
        let rest = &self.text[start..];
        let line = rest.find('\n').unwrap_or(rest.len());
        problem_at(start, rest.find("}}").map_or(line, |end| (end + 2).min(line)), message)
    }

    /// What stands at the cursor: one word of it.
    fn problem_here(&self, message: impl Into<String>) -> TemplateProblem {
        let rest = self.rest();
        let len = rest.find(|c: char| c.is_whitespace() || "(){}".contains(c)).unwrap_or(rest.len());
        problem_at(self.at, if len == 0 { rest.chars().next().map_or(0, char::len_utf8) } else { len }, message)
    }

    fn text_and_tag(&mut self) -> Parsed<()> {
        let Some(found) = self.rest().find("{{") else {
            self.tokens.push(Token::Text(self.rest().to_owned()));
            self.at = self.text.len();
            return Ok(());
        };
        let text = &self.rest()[..found];
        let start = self.at + found;
        // One backslash takes the meaning from the braces; of more, one is taken and the braces keep theirs.
        match text.len() - text.trim_end_matches('\\').len() {
            0 => self.tokens.push(Token::Text(text.to_owned())),
            1 => {
                let braces = if self.text[start..].starts_with("{{{{") { 4 } else { 2 };
                self.tokens.push(Token::Text(format!("{}{}", &text[..found - 1], &self.text[start..start + braces])));
                self.at = start + braces;
                return Ok(());
            }
            _ => self.tokens.push(Token::Text(text[..found - 1].to_owned())),
        }
        self.at = start;
        self.tag(start)
    }

    fn tag(&mut self, start: usize) -> Parsed<()> {
        if self.rest().starts_with("{{{{") {
            return Err(self
                .problem(start, "raw blocks are not part of ferry's templates")
                .help("write `\\{{` for the braces themselves"));
        }
        self.at += 2;
        if self.rest().starts_with('!') {
            return self.comment(start);
        }
        if self.take("~") {
            self.trim_before(char::is_whitespace);
        }
        self.space();
        if self.take("{") {
            let expr = self.expression(start)?;
            self.tokens.push(Token::Show(expr));
            self.space();
            return if self.take("}") { self.close(start).map(drop) } else { Err(self.unclosed(start, "}}}")) };
        }
        if self.take("#") {
            self.space();
            let (name, expr) = self.block_start(start)?;
            let at = self.close_alone(start)?;
            self.tokens.push(Token::Open { at, name, expr });
            return Ok(());
        }
        if self.take("/") {
            self.space();
            let name = self.symbols().to_owned();
            let at = self.close_alone(start)?;
            self.tokens.push(Token::Close { at, name });
            return Ok(());
        }
        if self.rest().starts_with(['>', '*']) {
            return Err(self
                .problem(start, "partials and decorators are not part of ferry's templates")
                .help("run another pipeline as a step with `uses: ./other.yaml`"));
        }
        let before = self.at;
        if self.take("^") || self.symbols() == "else" {
            self.space();
            let chain = if self.rest().starts_with(['}', '~']) { None } else { Some(self.block_start(start)?) };
            let at = self.close_alone(start)?;
            self.tokens.push(Token::Else { at, chain });
            return Ok(());
        }
        self.at = before;
        self.take("&");
        let expr = self.expression(start)?;
        self.tokens.push(Token::Show(expr));
        self.close(start).map(drop)
    }

    fn comment(&mut self, start: usize) -> Parsed<()> {
        let close = if self.rest().starts_with("!--") { "--}}" } else { "}}" };
        let skip = if close.len() == 4 { 3 } else { 1 };
        let Some(end) = self.rest()[skip..].find(close) else {
            return Err(self.problem(start, "this comment is never closed").help(format!("close it with `{close}`")));
        };
        self.at += skip + end + close.len();
        self.take_line(start);
        Ok(())
    }

    /// `if CONDITION` or `each LIST`.
    fn block_start(&mut self, start: usize) -> Parsed<(String, Expr)> {
        let place = self.at;
        let name = self.symbols();
        if !["if", "each"].contains(&name) {
            if self.rest().is_empty() {
                return Err(self.unclosed(start, "}}"));
            }
            let problem = match name {
                "" => self.problem(start, "there is no block without a name"),
                _ => problem_at(place, name.len(), format!("there is no block `{name}`")),
            };
            return Err(match (name, nearest(name, &["if", "each"])) {
                ("unless", _) => problem.help("write `{{#if (not …)}}`"),
                (_, Some(near)) => problem.help(format!("did you mean `{{{{#{near} …}}}}`?")),
                _ => problem.help("the blocks are `{{#if …}}` and `{{#each …}}`"),
            });
        }
        self.space();
        if self.rest().starts_with(['}', '~']) {
            let what = if name == "if" { "a condition" } else { "a list or a map" };
            return Err(self.problem(start, format!("`{name}` takes {what}")).help(format!("write `{{{{#{name} inputs.…}}}}`")));
        }
        let expr = self.term(start, 0)?;
        self.space();
        if let Some(rest) = self.rest().strip_prefix("as")
            && rest.trim_start().starts_with('|')
        {
            return Err(self
                .problem_here("blocks take no names of their own")
                .help("write `this` for the item, `@key` and `@index` for its place"));
        }
        if !self.rest().starts_with(['}', '~']) && !self.rest().is_empty() {
            return Err(self
                .problem_here(format!("`{name}` takes one value"))
                .help(format!("put a helper in parentheses: `{{{{#{name} (eq a b)}}}}`")));
        }
        Ok((name.to_owned(), expr))
    }

    /// The closing braces; gives the tag's place.
    fn close(&mut self, start: usize) -> Parsed<Place> {
        self.space();
        let trims = self.take("~");
        if !self.take("}}") {
            if self.rest().starts_with(')') {
                return Err(self.problem_here("this parenthesis closes nothing that is open"));
            }
            return Err(self.unclosed(start, "}}"));
        }
        let len = self.at - start;
        if trims {
            self.at += self.rest().len() - self.rest().trim_start().len();
        }
        Ok((start, len))
    }

    fn unclosed(&self, start: usize, braces: &str) -> TemplateProblem {
        if self.rest().is_empty() || self.rest().starts_with('}') || !self.rest().contains("}}") {
            return self
                .problem(start, "these braces are never closed")
                .help(format!("close them with `{braces}`, or write `\\{{{{` for the braces themselves"));
        }
        self.problem_here("this cannot stand here")
            .help("an expression is a name (`inputs.bucket`) or a helper and its arguments (`eq a \"b\"`)")
    }

    /// The closing braces of a tag that shows nothing: alone on its line, it takes the line with it.
    fn close_alone(&mut self, start: usize) -> Parsed<Place> {
        let place = self.close(start)?;
        if place.0 + place.1 == self.at {
            self.take_line(start);
        }
        Ok(place)
    }

    fn take_line(&mut self, start: usize) {
        let before = self.text[..start].trim_end_matches(is_blank);
        let after = self.rest().trim_start_matches(is_blank);
        let line_feed = if after.starts_with("\r\n") { 2 } else { usize::from(after.starts_with('\n')) };
        if (before.is_empty() || before.ends_with('\n')) && (after.is_empty() || line_feed > 0) {
            self.trim_before(is_blank);
            self.at += self.rest().len() - after.len() + line_feed;
        }
    }

    fn trim_before(&mut self, what: fn(char) -> bool) {
        if let Some(Token::Text(text)) = self.tokens.last_mut() {
            text.truncate(text.trim_end_matches(what).len());
        }
    }

    /// A term, or a helper and its arguments.
    fn expression(&mut self, start: usize) -> Parsed<Expr> {
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

    fn term(&mut self, start: usize, depth: usize) -> Parsed<Expr> {
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

fn is_symbol(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_$:".contains(c) || c >= '\u{80}'
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}
