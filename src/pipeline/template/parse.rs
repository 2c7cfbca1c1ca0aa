//! Puts the tags of a template together: text, expressions, `{{#if}}`, `{{#each}}`.

use super::lex::{SYNTAX, Token, lex, problem_at};
use super::{Expr, Piece, TemplateProblem};
use crate::secret::{MARK_END, MARK_START};

/// How deep blocks may nest: a template comes from a file, and the stack ends.
const DEEPEST: usize = 64;

pub(super) fn parse(text: &str) -> Result<Vec<Piece>, TemplateProblem> {
    // Nobody forges a mark. The replacement is as long as what it replaces, so that places stay right.
    let text = text.replace([MARK_START, MARK_END], "\u{FFFD}");
    let mut builder = Builder { tokens: lex(&text)?.into_iter(), depth: 0 };
    let (pieces, end) = builder.pieces()?;
    match end {
        End::Text => Ok(pieces),
        End::Else { at, .. } => Err(outside(at, "`{{else}}` stands outside of a block")),
        End::Close { at, name } => Err(outside(at, &format!("`{{{{/{name}}}}}` closes nothing that is open"))),
    }
}

fn outside((offset, len): (usize, usize), message: &str) -> TemplateProblem {
    problem_at(offset, len, message)
}

/// What ended a sequence of pieces.
enum End {
    Text,
    Else { at: (usize, usize), chain: Option<(String, Expr)> },
    Close { at: (usize, usize), name: String },
}

struct Builder {
    tokens: std::vec::IntoIter<Token>,
    depth: usize,
}

impl Builder {
    /// Pieces up to the end of the text, or to the tag that ends this branch of a block.
    fn pieces(&mut self) -> Result<(Vec<Piece>, End), TemplateProblem> {
        let mut pieces: Vec<Piece> = Vec::new();
        while let Some(token) = self.tokens.next() {
            match token {
                Token::Text(text) => match pieces.last_mut() {
                    Some(Piece::Text(before)) => before.push_str(&text),
                    _ if text.is_empty() => {}
                    _ => pieces.push(Piece::Text(text)),
                },
                Token::Show(expr) => pieces.push(Piece::Show(expr)),
                Token::Open { at, name, expr } => {
                    let (piece, closed) = self.block(at, &name, expr)?;
                    if closed != name {
                        return Err(problem_at(at.0, at.1, format!("`{{{{#{name}}}}}` is closed by `{{{{/{closed}}}}}`")));
                    }
                    pieces.push(piece);
                }
                Token::Else { at, chain } => return Ok((pieces, End::Else { at, chain })),
                Token::Close { at, name } => return Ok((pieces, End::Close { at, name })),
            }
        }
        Ok((pieces, End::Text))
    }

    /// The branches of a block whose opening tag was read, and the name of the tag that closed it.
    fn block(&mut self, at: (usize, usize), name: &str, expr: Expr) -> Result<(Piece, String), TemplateProblem> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(problem_at(at.0, at.1, format!("blocks nest deeper than {DEEPEST} levels")));
        }
        let (first, end) = self.pieces()?;
        let unclosed = || TemplateProblem {
            offset: at.0,
            len: at.1,
            message: format!("`{{{{#{name}}}}}` is never closed"),
            help: Some(format!("close it with `{{{{/{name}}}}}`")),
            code: SYNTAX,
        };
        let (second, closed) = match end {
            End::Text => return Err(unclosed()),
            End::Close { name: closed, .. } => (Vec::new(), closed),
            End::Else { at, chain: Some((inner, condition)) } => {
                let (piece, closed) = self.block(at, &inner, condition)?;
                (vec![piece], closed)
            }
            End::Else { chain: None, .. } => match self.pieces()? {
                (second, End::Close { name: closed, .. }) => (second, closed),
                (_, End::Else { at, .. }) => {
                    return Err(problem_at(at.0, at.1, "this block already has an `{{else}}`"));
                }
                (_, End::Text) => return Err(unclosed()),
            },
        };
        self.depth -= 1;
        let piece = if name == "if" {
            Piece::If { condition: expr, then: first, otherwise: second }
        } else {
            Piece::Each { over: expr, body: first, otherwise: second }
        };
        Ok((piece, closed))
    }
}
