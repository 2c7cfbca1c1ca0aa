//! YAML as a tree that knows where everything stands in its file.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};

use super::code::Code;
use super::problem::Problem;
use super::scalar;
use super::source::{SourceFile, Span};
use super::syntax;

/// Deeper nesting is refused: every reader behind this one walks the tree by recursion.
const DEEPEST: usize = 100;
/// How much aliases may add to a file, counted as bytes of text and 16 for each value.
const MOST_ALIASED: usize = 10_000_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub data: Data,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Null, a boolean, a number or text.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it stands.
    pub span: Span,
    /// The key.
    pub text: String,
}

impl Node {
    /// The value without its places.
    pub fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => items.iter().map(Self::to_value).collect(),
            Data::Map(fields) => {
                Value::Object(fields.iter().map(|(key, node)| (key.text.clone(), node.to_value())).collect::<Map<_, _>>())
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, node)| node)
    }

    /// A key and its value.
    pub fn entry(&self, key: &str) -> Option<(&Key, &Self)> {
        match &self.data {
            Data::Map(fields) => fields.iter().find(|(have, _)| have.text == key).map(|(have, node)| (have, node)),
            _ => None,
        }
    }

    /// The text of a scalar that is text.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// What it is, in a word with its article.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
            Data::Scalar(value) => kind(value),
        }
    }

    fn weight(&self) -> usize {
        16 + match &self.data {
            Data::Scalar(Value::String(text)) => text.len(),
            Data::Scalar(_) => 0,
            Data::List(items) => items.iter().map(Self::weight).sum(),
            Data::Map(fields) => fields.iter().map(|(key, node)| key.text.len() + node.weight()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.data {
            Data::Scalar(_) => 0,
            Data::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Data::Map(fields) => fields.iter().map(|(_, node)| node.depth()).max().unwrap_or(0),
        }
    }
}

/// What a JSON value is, in a word with its article.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Reads a file. A tree comes back unless the syntax itself is broken; what else is wrong comes beside it.
pub(crate) fn parse(file: &Arc<SourceFile>) -> (Option<Node>, Vec<Problem>) {
    let mut reader = Reader::new(file);
    let tree = match reader.document() {
        Ok(tree) => Some(tree),
        Err(problem) => {
            // What stands before a broken place was read, but the reader may have misunderstood it already.
            reader.problems.clear();
            reader.problems.push(*problem);
            None
        }
    };
    (tree, reader.problems)
}

type Fatal = Box<Problem>;
type Fields = Vec<(Key, Node)>;

struct Reader<'a> {
    file: &'a Arc<SourceFile>,
    parser: Parser<'a, StrInput<'a>>,
    offsets: Offsets,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    problems: Vec<Problem>,
}

/// The YAML parser counts characters; places are in bytes.
struct Offsets {
    start: usize,
    bytes: Option<Vec<usize>>,
    end: usize,
}

impl Offsets {
    fn new(text: &str, start: usize) -> Self {
        let body = &text[start..];
        let bytes = (!body.is_ascii()).then(|| body.char_indices().map(|(at, _)| start + at).collect());
        Self { start, bytes, end: text.len() }
    }

    fn byte(&self, index: usize) -> usize {
        match &self.bytes {
            None => (self.start + index).min(self.end),
            Some(bytes) => bytes.get(index).copied().unwrap_or(self.end),
        }
    }
}

impl<'a> Reader<'a> {
    fn new(file: &'a Arc<SourceFile>) -> Self {
        let start = if file.text.starts_with('\u{FEFF}') { '\u{FEFF}'.len_utf8() } else { 0 };
        Self {
            file,
            parser: Parser::new_from_str(&file.text[start..]),
            offsets: Offsets::new(&file.text, start),
            anchors: HashMap::new(),
            aliased: 0,
            problems: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let (start, end) = (self.offsets.byte(span.start.index()), self.offsets.byte(span.end.index()));
                Ok((event, Span::between(start, end)))
            }
            Some(Err(error)) => {
                let at = self.offsets.byte(error.marker().index());
                Err(Box::new(syntax::explain(self.file, at, error.info())))
            }
            None => Ok((Event::StreamEnd, Span::between(self.file.text.len(), self.file.text.len()))),
        }
    }

    fn document(&mut self) -> Result<Node, Fatal> {
        let mut tree = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if tree.is_some() => {
                    return Err(Box::new(
                        Problem::new(Code::SeveralDocuments, self.file, span, "the file holds more than one YAML document")
                            .label("a second document starts here")
                            .help("a file is one pipeline: move the second one to a file of its own"),
                    ));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                other => tree = Some(self.node(other, span, 0)?),
            }
        }
        let end = Span::between(0, 0);
        Ok(tree.unwrap_or(Node { span: end, data: Data::Scalar(Value::Null) }))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Fatal> {
        if depth >= DEEPEST {
            return Err(Box::new(self.too_deep(span)));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let value =
                    if style == ScalarStyle::Plain && !is_text { scalar::plain(&text) } else { Value::String(text.into_owned()) };
                (Node { span: self.trimmed(span), data: Data::Scalar(value) }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break span,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                (Node { span: Self::around(span, items.last().map(|item| item.span), end), data: Data::List(items) }, anchor)
            }
            Event::MappingStart(anchor, _) => {
                let (fields, end, is_template) = self.fields(span, depth)?;
                if is_template {
                    // Read on as if it were quoted: one mistake is told once.
                    let template = syntax::unquoted(self.file, span.offset);
                    let text = self.file.slice(template.span).to_owned();
                    let node = Node { span: template.span, data: Data::Scalar(Value::String(text)) };
                    self.problems.push(template);
                    return Ok(node);
                }
                let last = fields.last().map(|(key, node)| if node.span.len == 0 { key.span } else { node.span });
                (Node { span: Self::around(span, last, end), data: Data::Map(fields) }, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(Box::new(syntax::explain(self.file, span.offset, "a value is missing")));
            }
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// The fields of a mapping, its end, and whether it is a template that was meant.
    fn fields(&mut self, start: Span, depth: usize) -> Result<(Fields, Span, bool), Fatal> {
        let mut is_template = false;
        let mut fields = Fields::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok((fields, span, is_template));
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            let text = match key.data {
                Data::Scalar(Value::String(text)) => text,
                // `1: x` and `true: x` are read as people mean them: JSON knows only text as a key.
                Data::Scalar(Value::Number(_) | Value::Bool(_)) => self.file.slice(key.span).to_owned(),
                _ if self.file.text[start.offset..].starts_with("{{") => {
                    is_template = true;
                    continue;
                }
                data => {
                    let is = if matches!(data, Data::Scalar(_)) { "empty" } else { "not a scalar" };
                    self.problems.push(
                        Problem::new(Code::KeyNotText, self.file, key.span, "a key has to be text")
                            .label(format!("this key is {is}"))
                            .help("write `name: value`"),
                    );
                    continue;
                }
            };
            if let Some(first) = seen.get(&text).copied() {
                self.problems.push(
                    Problem::new(
                        Code::DuplicateKey,
                        self.file,
                        key.span,
                        format!("the key `{text}` stands twice in the same mapping"),
                    )
                    .label("again here")
                    .and(self.file, first, "first here")
                    .help("keep one of them: YAML has no rule for which would count"),
                );
                continue;
            }
            seen.insert(text.clone(), key.span);
            fields.push((Key { span: key.span, text }, value));
        }
    }

    /// A copy of what was anchored, standing where the alias stands, as long as the copies stay small.
    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Node, Fatal> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Box::new(
                Problem::new(Code::UnknownAlias, self.file, span, "the alias names a value that holds it")
                    .help("a value cannot contain itself"),
            ));
        };
        if depth + node.depth() >= DEEPEST {
            return Err(Box::new(self.too_deep(span)));
        }
        self.aliased = self.aliased.saturating_add(node.weight());
        if self.aliased > MOST_ALIASED {
            return Err(Box::new(
                Problem::new(Code::AliasBomb, self.file, span, "the aliases of this file make it too large")
                    .label("10 MB of copies are reached here")
                    .help("write a pipeline that is used as a step (`uses: ./x.yaml`), or a `for_each`, instead of aliases of aliases"),
            ));
        }
        let mut node = node.clone();
        // Inside, places stay where the text stands: that is what there is to correct.
        if matches!(node.data, Data::Scalar(_)) {
            node.span = span;
        }
        Ok(node)
    }

    fn too_deep(&self, span: Span) -> Problem {
        Problem::new(Code::TooDeep, self.file, span, format!("values are nested more than {DEEPEST} deep"))
            .help("a pipeline never needs that; look for a bracket that is not closed")
    }

    /// A block scalar's range ends behind its last line break: underline what people see.
    fn trimmed(&self, span: Span) -> Span {
        Span { offset: span.offset, len: self.file.slice(span).trim_end().len() }
    }

    /// A flow collection ends at its bracket, a block collection with its last value.
    fn around(start: Span, last: Option<Span>, end: Span) -> Span {
        if end.len > 0 {
            return Span::between(start.offset, end.end());
        }
        Span::between(start.offset, last.map_or(start.end(), |last| last.end().max(start.offset)))
    }
}
