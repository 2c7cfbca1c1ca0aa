//! The names that templates mention: whether they exist, whether they have a value there, and the edges they make.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::code::Code;
use super::document::{Data, Node};
use super::inputs::is_templated;
use super::model::{Pipeline, StepSpec};
use super::nearest::suggest;
use super::outputs::{self, Known, Shape};
use super::problem::Problem;
use super::source::{SourceFile, Span};
use super::template::{NameRef, Template};

/// After so many problems nobody reads hints, and looking for them would cost the square of the file's size.
pub(crate) const MOST_HINTED: usize = 50;

/// In a longer text a place is not looked for: with many templates in it that would cost the square of its length.
const LONGEST_SEARCHED: usize = 20_000;

/// What a lock is called is written down for every run to read.
const LOCK: &str = "in `lock`";

/// What may be mentioned at a place.
#[derive(Debug, Clone, Copy, Default)]
struct Here {
    /// In words, for messages.
    what: &'static str,
    secrets: bool,
    hosts: bool,
    steps: bool,
    run: bool,
    status: bool,
    each: bool,
    /// Its own outputs: only what undoes a step may read what it left.
    own: bool,
}

/// Where a step is: its index, and whether in `finally`.
pub(crate) type Ids<'a> = HashMap<&'a str, (usize, bool)>;

pub(crate) struct Names<'a> {
    pipeline: &'a Pipeline,
    /// The file that is being read: the pipeline's own, or a template file that one of its steps names.
    file: Arc<SourceFile>,
    ids: Ids<'a>,
    pub problems: Vec<Problem>,
    used: std::collections::HashSet<(&'static str, String)>,
}

/// An edge that a template makes: the id and where it is mentioned.
pub(crate) type Mention = (String, Span);

pub(crate) fn ids(pipeline: &Pipeline) -> Ids<'_> {
    let main = pipeline.steps.iter().enumerate().map(|(at, step)| (step.id.as_str(), (at, false)));
    let finally = pipeline.finally.iter().enumerate().map(|(at, step)| (step.id.as_str(), (at, true)));
    // Of two with one id the first is meant.
    finally.rev().chain(main.rev()).filter(|(id, _)| !id.is_empty()).collect()
}

/// Checks every template of a pipeline. Gives the mentions of each step of `steps`, then of `finally`.
pub(crate) fn check(pipeline: &Pipeline, warnings: &mut Vec<Problem>) -> (Vec<Vec<Mention>>, Vec<Problem>) {
    let file = Arc::clone(&pipeline.file);
    let mut names = Names { pipeline, file, ids: ids(pipeline), problems: Vec::new(), used: std::collections::HashSet::new() };
    let root = &pipeline.root;
    let base = Here::default();
    let mut none = Vec::new();
    for (key, here) in [
        ("secrets", Here { what: "under `secrets`", ..base }),
        ("hosts", Here { what: "under `hosts`", ..base }),
        ("stores", Here { what: "under `stores`", secrets: true, ..base }),
        ("outputs", Here { what: "under `outputs`", secrets: true, hosts: true, steps: true, run: true, ..base }),
    ] {
        if let Some(node) = root.get(key) {
            names.walk(node, here, None, &mut none);
        }
    }
    let mut mentions = Vec::with_capacity(pipeline.steps.len() + pipeline.finally.len());
    for (list, is_finally) in [(&pipeline.steps, false), (&pipeline.finally, true)] {
        for step in list {
            let mut found = Vec::new();
            names.step(step, is_finally, &mut found);
            mentions.push(found);
        }
    }
    names.unused(warnings);
    (mentions, names.problems)
}

impl Names<'_> {
    fn step(&mut self, step: &StepSpec, is_finally: bool, found: &mut Vec<Mention>) {
        let base =
            Here { what: "in a step", secrets: true, hosts: true, steps: true, run: true, status: is_finally, ..Here::default() };
        let each = step.for_each.is_some();
        let get = |key: &str| step.node.get(key);
        for (key, here) in [
            ("for_each", Here { what: "in `for_each`", ..base }),
            ("if", Here { each, ..base }),
            ("lock", Here { what: LOCK, each, secrets: false, ..base }),
            ("on", Here { each, ..base }),
            ("with", Here { each, ..base }),
        ] {
            if let Some(node) = get(key) {
                self.walk(node, here, Some((step, is_finally)), found);
            }
        }
        if let Some(node) = get("undo").and_then(|undo| undo.get("with")) {
            self.walk(node, Here { each, own: true, ..base }, Some((step, is_finally)), found);
        }
        for template in &step.templates {
            let span = Span::between(0, template.file.text.len());
            let text = Node { span, data: Data::Scalar(Value::from(&*template.file.text)) };
            let known = found.len();
            let outer = std::mem::replace(&mut self.file, Arc::clone(&template.file));
            self.walk(&text, Here { each, own: template.is_undo, ..base }, Some((step, is_finally)), found);
            self.file = outer;
            // What a cycle is told with has to stand in the pipeline's own file.
            let named = step.node.get(if template.is_undo { "undo" } else { "with" }).map_or(step.node.span, |node| node.span);
            found.iter_mut().skip(known).for_each(|(_, span)| *span = named);
        }
    }

    fn walk(&mut self, node: &Node, here: Here, step: Option<(&StepSpec, bool)>, found: &mut Vec<Mention>) {
        match &node.data {
            Data::List(items) => {
                for item in items {
                    self.walk(item, here, step, found);
                }
            }
            Data::Map(fields) => {
                for (key, item) in fields {
                    if is_templated(&key.text) {
                        self.problems.push(
                            Problem::new(Code::WrongValue, &self.file, key.span, "a key cannot hold a template")
                                .label("a template")
                                .help("templates are rendered in values only: a value can never change the shape of the file"),
                        );
                    }
                    self.walk(item, here, step, found);
                }
            }
            Data::Scalar(_) => {
                if let Some(text) = node.text().filter(|text| is_templated(text)) {
                    self.template(node, text, here, step, found);
                }
            }
        }
    }

    fn template(&mut self, node: &Node, text: &str, here: Here, step: Option<(&StepSpec, bool)>, found: &mut Vec<Mention>) {
        let Err(at) = self.part_of(node, text, 0..text.len(), here, step, found) else { return };
        if text.contains("{{#") {
            // Inside a block names mean other things.
            return;
        }
        // The rest of a text with one mistake is read expression by expression, so that the others are told too.
        let mut from = 0;
        while let Some(open) = text[from..].find("{{").map(|open| from + open) {
            if self.problems.len() > MOST_HINTED {
                return;
            }
            let Some(end) = text[open..].find("}}").map(|close| open + close + 2) else { return };
            let inner = text[open + 2..end].trim_start();
            let is_block = inner.starts_with(['/', '^', '{', '!']) || inner.starts_with("else");
            if !(open..end).contains(&at) && !is_block {
                let _ = self.part_of(node, text, open..end, here, step, found);
            }
            from = end;
        }
    }

    /// Checks a part of a scalar as a template of its own. Gives the place of the mistake that made it unreadable.
    fn part_of(
        &mut self,
        node: &Node,
        text: &str,
        part: std::ops::Range<usize>,
        here: Here,
        step: Option<(&StepSpec, bool)>,
        found: &mut Vec<Mention>,
    ) -> Result<(), usize> {
        let file = &Arc::clone(&self.file);
        let base = part.start;
        match Template::parse(&text[part]) {
            Err(problem) => {
                let span = locate(file, node.span, text, base + problem.offset, problem.len);
                let code = if problem.code == "unknown-helper" { Code::UnknownHelper } else { Code::TemplateSyntax };
                self.problems
                    .push(Problem::new(code, file, span, problem.message).label("in this template").maybe_help(problem.help));
                Err(base + problem.offset)
            }
            Ok(template) => {
                let known = self.problems.len();
                for name in template.names() {
                    let span = locate(file, node.span, text, base + name.offset, name.len);
                    self.name(&name, span, here, step, found);
                }
                // A name that is wrong stands for nothing.
                let in_text = if self.problems.len() == known { template.names_in_text() } else { Vec::new() };
                for name in in_text {
                    let span = locate(file, node.span, text, base + name.offset, name.len);
                    self.in_text(&name, span);
                }
                Ok(())
            }
        }
    }

    fn report(&mut self, code: Code, span: Span, message: String, label: &str, help: Option<String>) {
        let problem = Problem::new(code, &self.file, span, message).label(label).maybe_help(help);
        self.problems.push(problem);
    }

    fn hint<'n>(&self, wrong: &str, known: impl IntoIterator<Item = &'n str> + Clone) -> Option<String> {
        if self.problems.len() > MOST_HINTED { None } else { suggest(wrong, known) }
    }

    fn name(&mut self, name: &NameRef, span: Span, here: Here, step: Option<(&StepSpec, bool)>, found: &mut Vec<Mention>) {
        let pipeline = self.pipeline;
        let path: Vec<&str> = name.path.iter().map(String::as_str).collect();
        let Some((&root, rest)) = path.split_first() else { return };
        let first = rest.first().copied();
        match root {
            "inputs" => {
                self.listed(Code::UnknownInput, "input", "inputs", first, span, pipeline.inputs.keys().map(String::as_str));
            }
            "env" => self.listed(Code::UnknownName, "variable", "env", first, span, pipeline.env.iter().map(String::as_str)),
            "secrets" if here.secrets => {
                self.listed(Code::UnknownSecret, "secret", "secrets", first, span, pipeline.secrets.keys().map(String::as_str));
            }
            "hosts" if here.hosts => {
                let known = pipeline.hosts.keys().map(String::as_str).chain(["local"]);
                self.listed(Code::UnknownHost, "host", "hosts", first, span, known);
            }
            "steps" if here.steps => self.step_name(name, rest, span, here, step, found),
            "run" if here.run => match first {
                Some("id" | "started_at") => {}
                Some("status") if here.status => {}
                Some("status") => self.report(
                    Code::NotAvailable,
                    span,
                    "`run.status` has no value here: the run is not over".to_owned(),
                    "only steps under `finally` know it",
                    Some("move the step to `finally:`".to_owned()),
                ),
                other => self.part("run", other, span, &["id", "started_at", "status"]),
            },
            "pipeline" if first == Some("name") => {}
            "pipeline" => self.part("pipeline", first, span, &["name"]),
            "each" if here.each => match first {
                Some("key" | "value" | "index") => {}
                other => self.part("each", other, span, &["key", "value", "index"]),
            },
            "each" => {
                let help = if here.what == "in `for_each`" {
                    "`each` is what `for_each` makes: write what it runs over"
                } else {
                    "give the step a `for_each`, or name the value in another way"
                };
                self.report(
                    Code::NotAvailable,
                    span,
                    format!("`{}` has no value {}", path.join("."), if step.is_some() { "in this step" } else { here.what }),
                    "only a step with `for_each` has it",
                    Some(help.to_owned()),
                );
            }
            "secrets" if here.what == LOCK => self.report(
                Code::PublicSecret,
                span,
                format!("`{}` stands in `lock`", path.join(".")),
                "a secret cannot be a lock's name",
                Some("the name of a lock is kept in the journal, where every run reads it: use an input".to_owned()),
            ),
            "secrets" | "hosts" | "steps" | "run" => self.report(
                Code::NotAvailable,
                span,
                format!("`{root}` has no value {}", here.what),
                "not known yet",
                Some("only `inputs`, `env` and `pipeline.name` are known here".to_owned()),
            ),
            other => {
                let known = ["inputs", "secrets", "steps", "each", "hosts", "run", "pipeline", "env"];
                // `{{ bucket }}` is nearly always `{{ inputs.bucket }}`.
                let help = if pipeline.inputs.contains_key(other) {
                    Some(format!("did you mean `inputs.{other}`?"))
                } else if self.ids.contains_key(other) {
                    Some(format!("did you mean `steps.{other}.outputs`?"))
                } else {
                    self.hint(other, known)
                };
                self.report(
                    Code::UnknownName,
                    span,
                    format!("there is no name `{other}`"),
                    "not a name that templates know",
                    help,
                );
            }
        }
    }

    fn part(&mut self, root: &str, part: Option<&str>, span: Span, known: &[&'static str]) {
        let message = match part {
            Some(part) => format!("`{root}` has no `{part}`"),
            None => format!("`{root}` is not a value by itself"),
        };
        let names: Vec<String> = known.iter().map(|name| format!("`{root}.{name}`")).collect();
        self.report(
            Code::UnknownName,
            span,
            message,
            "not a name that templates know",
            Some(format!("known: {}", names.join(", "))),
        );
    }

    fn listed<'n>(
        &mut self,
        code: Code,
        what: &str,
        root: &'static str,
        name: Option<&str>,
        span: Span,
        known: impl IntoIterator<Item = &'n str> + Clone,
    ) {
        let Some(name) = name else {
            // `{{ inputs }}` is the whole mapping; of secrets and variables nobody means all.
            if root == "inputs" || root == "hosts" {
                self.used.insert((root, String::new()));
            } else {
                self.part(root, None, span, &["NAME"]);
            }
            return;
        };
        if known.clone().into_iter().any(|have| have == name) {
            self.used.insert((root, name.to_owned()));
            return;
        }
        let help = self.hint(name, known).unwrap_or_else(|| format!("list `{name}` under `{root}:`"));
        self.report(
            code,
            span,
            format!("the template names the {what} `{name}`, but the pipeline does not list it"),
            &format!("not under `{root}`"),
            Some(help),
        );
    }

    fn step_name(
        &mut self,
        name: &NameRef,
        rest: &[&str],
        span: Span,
        here: Here,
        step: Option<(&StepSpec, bool)>,
        found: &mut Vec<Mention>,
    ) {
        let Some((&id, rest)) = rest.split_first() else {
            return self.part("steps", None, span, &["ID.outputs"]);
        };
        let Some(&(at, is_finally)) = self.ids.get(id) else {
            let help = self.hint(id, self.ids.keys().copied());
            return self.report(
                Code::UnknownStep,
                span,
                format!("the template names the step `{id}`, but no step has that id"),
                "not a step of this pipeline",
                help,
            );
        };
        let pipeline = self.pipeline;
        let target = if is_finally { &pipeline.finally[at] } else { &pipeline.steps[at] };
        match step {
            Some((me, _)) if me.id == id => {
                if !here.own {
                    return self.report(
                        Code::NotAvailable,
                        span,
                        format!("the step `{id}` has no outputs before it is over"),
                        "its own outputs",
                        Some("only `undo:` of a step may read what the step itself left".to_owned()),
                    );
                }
            }
            Some((_, mine)) if mine == is_finally => found.push((id.to_owned(), span)),
            // When `finally` begins, every other step is over: no edge is needed.
            Some((_, true)) => {}
            Some((_, false)) | None => {
                if is_finally {
                    return self.report(
                        Code::NotAvailable,
                        span,
                        format!("`steps.{id}` has no value here: it is a step of `finally`"),
                        "runs when everything else is over",
                        Some("move that step to `steps:`".to_owned()),
                    );
                }
            }
        }
        match rest.split_first() {
            Some((&"outputs", rest)) => self.output(name, target, rest, span),
            Some((&other, _)) => self.report(
                Code::UnknownName,
                span,
                format!("`steps.{id}` has no `{other}`"),
                "not a name that templates know",
                Some(format!("what a step leaves is under `steps.{id}.outputs`")),
            ),
            None => self.part(&format!("steps.{id}"), None, span, &["outputs"]),
        }
    }

    fn output(&mut self, name: &NameRef, target: &StepSpec, rest: &[&str], span: Span) {
        // The outputs of a `for_each` are a mapping by key, and its keys are not known here.
        let rest = if target.for_each.is_some() { rest.get(1..).unwrap_or_default() } else { rest };
        let Some(&output) = rest.first() else { return };
        if name.is_optional && rest.len() == 1 {
            return;
        }
        let Known::These(known) = outputs::of(target) else { return };
        if known.contains(&output) {
            return;
        }
        let help = if known.is_empty() {
            Some(format!("`{}` leaves nothing", target.uses))
        } else {
            self.hint(output, known.iter().copied())
        };
        self.report(
            Code::UnknownOutput,
            span,
            format!("the step `{}` has no output `{output}`", target.id),
            &format!("`{}` does not leave this", target.uses),
            help,
        );
    }

    /// A mapping or a list has no one way to stand inside a text.
    fn in_text(&mut self, name: &NameRef, span: Span) {
        let step = name.path.get(1).and_then(|id| self.ids.get(id.as_str()));
        let list = |is_finally| if is_finally { &self.pipeline.finally } else { &self.pipeline.steps };
        let step = step.map(|&(at, is_finally)| &list(is_finally)[at]);
        let Some(shape) = outputs::shape(self.pipeline, step, &name.path) else { return };
        let (name, what) = (name.text(), shape.name());
        let help = match shape {
            Shape::Mapping => format!("name one of its values, or write `{{{{ json {name} }}}}` for its JSON"),
            Shape::List => format!("write `{{{{ join {name} \",\" }}}}`, or `{{{{ json {name} }}}}` for its JSON"),
        };
        self.report(Code::WrongType, span, format!("`{name}` is {what}, which cannot stand inside a text"), what, Some(help));
    }

    fn unused(&self, warnings: &mut Vec<Problem>) {
        if !self.problems.is_empty() {
            return;
        }
        let pipeline = self.pipeline;
        for (root, what) in [("inputs", "input"), ("secrets", "secret")] {
            let Some(Data::Map(fields)) = pipeline.root.get(root).map(|node| &node.data) else { continue };
            if self.used.contains(&(root, String::new())) {
                continue;
            }
            for (key, _) in fields.iter().filter(|(key, _)| !self.used.contains(&(root, key.text.clone()))) {
                let name = &key.text;
                warnings.push(
                    Problem::new(Code::Unused, &pipeline.file, key.span, format!("the {what} `{name}` is never used"))
                        .label("no template mentions it")
                        .help(format!("write `{{{{ {root}.{name} }}}}` where it is meant, or take it out")),
                );
            }
        }
    }
}

/// Where a part of a scalar stands in the file. The scalar's text is not always what is written (quotes, escapes, folded
/// lines), so the part is looked for: the n-th time it stands in the text is the n-th time it is written.
pub(crate) fn locate(file: &SourceFile, span: Span, text: &str, offset: usize, len: usize) -> Span {
    let Some(part) = text.get(offset..offset + len).filter(|part| !part.is_empty()) else { return span };
    if text.len() > LONGEST_SEARCHED {
        return span;
    }
    let nth = text[..offset].matches(part).count();
    match file.slice(span).match_indices(part).nth(nth) {
        Some((at, _)) => Span { offset: span.offset + at, len },
        None => span,
    }
}
