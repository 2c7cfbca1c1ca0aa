//! Cuts a template into text and tags, which `expression` reads. The syntax is that of Handlebars:
//! `~` takes the white space beside a tag, a block's tag that stands alone takes its line, `\{{` is the braces themselves.

use super::evaluate::nearest;
use super::{Expr, TemplateProblem};

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

pub(super) type Parsed<T> = Result<T, TemplateProblem>;

pub(super) fn problem_at(offset: usize, len: usize, message: impl Into<String>) -> TemplateProblem {
    TemplateProblem { offset, len, message: message.into(), help: None, code: SYNTAX }
}

impl TemplateProblem {
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn code(mut self, code: &'static str) -> Self {
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

pub(super) struct Lexer<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn take(&mut self, what: &str) -> bool {
        let is_there = self.rest().starts_with(what);
        if is_there {
            self.at += what.len();
        }
        is_there
    }

    pub(super) fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    pub(super) fn symbols(&mut self) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !is_symbol(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// The tag that begins at `start`, up to its end or to the end of its line.
    pub(super) fn problem(&self, start: usize, message: impl Into<String>) -> TemplateProblem {
        let rest = &self.text[start..];
        let line = rest.find('\n').unwrap_or(rest.len());
        problem_at(start, rest.find("}}").map_or(line, |end| (end + 2).min(line)), message)
    }

    /// What stands at the cursor: one word of it.
    pub(super) fn problem_here(&self, message: impl Into<String>) -> TemplateProblem {
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

    pub(super) fn unclosed(&self, start: usize, braces: &str) -> TemplateProblem {
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
}

pub(super) fn is_symbol(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_$:".contains(c) || c >= '\u{80}'
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}
