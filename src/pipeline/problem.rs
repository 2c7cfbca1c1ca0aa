//! Problems: what is wrong with a file, where, and what to write instead. All of a file's at once.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents};
use miette::{SourceCode, SourceSpan, SpanContents};
use serde_json::{Value, json};

use super::code::Code;
use super::source::{SourceFile, Span};

/// More are counted, not drawn: nobody reads the hundredth.
const MOST_DRAWN: usize = 50;
const WIDTH: usize = 110;

/// Another place that belongs to a problem.
#[derive(Debug, Clone)]
pub struct Related {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Where in it.
    pub span: Span,
    /// What is there.
    pub label: String,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Its kind.
    pub code: Code,
    /// What is wrong: lower case, no full stop, names in backticks.
    pub message: String,
    /// The file.
    pub file: Arc<SourceFile>,
    /// Where in it.
    pub span: Span,
    /// What is underlined there.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(code: Code, file: &Arc<SourceFile>, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            file: Arc::clone(file),
            span,
            label: String::new(),
            help: None,
            related: Vec::new(),
        }
    }

    /// What is underlined.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What to write instead, if anything is known.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Another place that belongs to it.
    #[must_use]
    pub fn and(mut self, file: &Arc<SourceFile>, span: Span, label: impl Into<String>) -> Self {
        self.related.push(Related { file: Arc::clone(file), span, label: label.into() });
        self
    }

    fn to_json(&self) -> Value {
        let place = |file: &SourceFile, span: Span| {
            let (line, column) = file.line_and_column(span.offset);
            let (end_line, end_column) = file.line_and_column(span.end());
            json!({ "file": file.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column,
                "offset": span.offset, "length": span.len })
        };
        let related: Vec<Value> =
            self.related.iter().map(|other| json!({ "label": other.label, "place": place(&other.file, other.span) })).collect();
        json!({ "code": self.code, "message": self.message, "label": self.label, "help": self.help,
            "place": place(&self.file, self.span), "related": related })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        // A place in another file cannot be drawn into this one: it is named.
        let elsewhere = self.related.iter().filter(|other| !Arc::ptr_eq(&other.file, &self.file)).map(|other| {
            let (line, column) = other.file.line_and_column(other.span.offset);
            format!("{}:{line}:{column}: {}", other.file.name, other.label)
        });
        let lines: Vec<String> = self.help.iter().cloned().chain(elsewhere).collect();
        (!lines.is_empty()).then(|| Box::new(lines.join("\n")) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        // What could not be read has no line to show.
        let is_unread = self.file.text.is_empty() && matches!(self.code, Code::CannotRead | Code::TooLarge | Code::NotText);
        (!is_unread).then_some(&*self.file as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = (!self.label.is_empty()).then(|| self.label.clone());
        let first = LabeledSpan::new_primary_with_span(label, self.span);
        let others = self
            .related
            .iter()
            .filter(|other| Arc::ptr_eq(&other.file, &self.file))
            .map(|other| LabeledSpan::new_with_span(Some(other.label.clone()), other.span));
        Some(Box::new(std::iter::once(first).chain(others)))
    }
}

impl From<Span> for SourceSpan {
    fn from(span: Span) -> Self {
        Self::new(span.offset.into(), span.len)
    }
}

impl SourceCode for SourceFile {
    /// miette's own reader walks the file from its start for each label; this one knows where the lines begin.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let wanted = Span { offset: span.offset().min(self.text.len()), len: span.len() };
        let (line, lines) = self.window(wanted, before, after);
        let data = &self.text.as_bytes()[lines.offset..lines.end()];
        let count = self.slice(lines).matches('\n').count();
        // Asked for without context, it is the header that wants to know where the place itself begins.
        let (line, column) = if (before, after) == (0, 0) { self.line_and_column(wanted.offset) } else { (line, 1) };
        Ok(Box::new(MietteSpanContents::new_named(self.name.clone(), data, lines.into(), line - 1, column - 1, count)))
    }
}

/// Everything that is wrong with a pipeline, by place.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    items: Vec<Problem>,
}

impl Problems {
    /// These problems, sorted by file and place.
    pub fn new(mut items: Vec<Problem>) -> Self {
        items.sort_by(|a, b| (&a.file.name, a.span, a.code, &a.message).cmp(&(&b.file.name, b.span, b.code, &b.message)));
        items.dedup_by(|a, b| a.code == b.code && a.span == b.span && a.message == b.message && a.file.name == b.file.name);
        Self { items }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Each, by place.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.items.iter()
    }

    /// As data: an array with code, message, label, help and place of each.
    pub fn to_json(&self) -> Value {
        self.items.iter().map(Problem::to_json).collect()
    }

    /// As people read them, with the lines of the file.
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).without_syntax_highlighting();
        let mut text = String::new();
        for problem in self.items.iter().take(MOST_DRAWN) {
            if !text.is_empty() {
                text.push('\n');
            }
            handler.render_report(&mut text, problem).expect("writing to a string does not fail");
        }
        if self.items.len() > MOST_DRAWN {
            use fmt::Write as _;
            let _ = writeln!(text, "\n  and {} more", self.items.len() - MOST_DRAWN);
        }
        text
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.items.as_slice() {
            [] => f.write_str("no problem"),
            [one] => f.write_str(&one.message),
            [first, rest @ ..] => write!(f, "{} (and {} more)", first.message, rest.len()),
        }
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.items.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}
