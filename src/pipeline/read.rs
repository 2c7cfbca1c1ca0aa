//! From the tree to a [`Pipeline`]: shapes and types, no names yet.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::code::Code;
use super::document::{Data, Node};
use super::inputs::{InputType, is_templated};
use super::language;
use super::model::{Defaults, HostSpec, InputSpec, Pipeline, RetrySpec, SecretSpec, StepSpec, TimeoutSpec, UndoBody};
use super::problem::Problem;
use super::reader::{Reader, is_null, meant_boolean};
use super::source::{SourceFile, Span};
use super::template::Template;
use crate::engine::{Backoff, Exhausted, OnFailure};

/// Reads a tree. `None` when it is not even a mapping.
pub(crate) fn read(file: &Arc<SourceFile>, root: Node) -> (Option<Pipeline>, Vec<Problem>) {
    let mut reader = Reader { file, problems: Vec::new() };
    let pipeline = reader.pipeline(root);
    (pipeline, reader.problems)
}

impl Reader<'_> {
    fn pipeline(&mut self, root: Node) -> Option<Pipeline> {
        if !matches!(root.data, Data::Map(_)) {
            let said = if is_null(&root) {
                "the file is empty".to_owned()
            } else {
                format!("the file is {}, not a mapping", root.kind())
            };
            self.problems.push(
                self.problem(Code::WrongType, root.span, said)
                    .label("a pipeline belongs here")
                    .help("begin with `name: …` and `steps:`; `ferry init` writes a first pipeline"),
            );
            return None;
        }
        let first_line = self.file.line(1).unwrap_or_default();
        self.level(&root, &language::PIPELINE, "the pipeline", first_line);
        let root = Arc::new(root);
        let get = |key: &str| root.get(key).filter(|node| !is_null(node));
        let stem = Path::new(&self.file.name).file_stem().map_or_else(|| "pipeline".into(), |stem| stem.to_string_lossy());
        let env = get("env").map(|node| self.texts(node, "env")).unwrap_or_default();
        let pipeline = Pipeline {
            name: get("name").and_then(|node| self.plain_text(node, "name")).unwrap_or_else(|| stem.into_owned()),
            description: get("description").and_then(|node| self.plain_text(node, "description")),
            env: env.iter().map(|(name, _)| name.clone()).collect(),
            inputs: self.named(get("inputs"), "inputs", Self::input),
            secrets: self.named(get("secrets"), "secrets", Self::secret),
            hosts: self.named(get("hosts"), "hosts", Self::host),
            stores: self.named(get("stores"), "stores", Self::store),
            defaults: get("defaults").map(|node| self.defaults(node)).unwrap_or_default(),
            on_failure: get("on_failure")
                .and_then(|node| self.choice(node, "on_failure", &[("stop", OnFailure::Stop), ("rollback", OnFailure::Rollback)]))
                .unwrap_or_default(),
            max_parallel: get("max_parallel").and_then(|node| self.count(node, "max_parallel")),
            steps: get("steps").map(|node| self.steps(node, "steps")).unwrap_or_default(),
            finally: get("finally").map(|node| self.steps(node, "finally")).unwrap_or_default(),
            outputs: self.named(get("outputs"), "outputs", |_, node, _, _| Some(node.to_value())),
            file: Arc::clone(self.file),
            root: Arc::clone(&root),
            size: 0,
            has_pivot: false,
        };
        if let Some(node) = get("steps")
            && matches!(&node.data, Data::List(items) if items.is_empty())
        {
            self.problems.push(
                self.problem(Code::WrongValue, node.span, "the pipeline has no step")
                    .label("an empty list")
                    .help("a pipeline has at least one step: a run that does nothing would report a success that means nothing"),
            );
        }
        self.unique_ids(&pipeline);
        self.no_open_secrets(&pipeline, &env);
        Some(pipeline)
    }

    /// What is listed under `env` is kept in the journal as it is.
    fn no_open_secrets(&mut self, pipeline: &Pipeline, env: &[(String, Span)]) {
        for (name, span) in env {
            let is_this = |source: &SecretSpec| matches!(source, SecretSpec::Env(variable) if variable == name);
            let Some((secret, _)) = pipeline.secrets.iter().find(|(_, source)| is_this(source)) else { continue };
            self.problems.push(
                self.problem(Code::PublicSecret, *span, format!("`{name}` is under `env`, and is the secret `{secret}`"))
                    .label("its value would be kept in the journal")
                    .help(format!("take it out here, and write `secrets.{secret}` in place of `env.{name}`")),
            );
        }
    }

    /// A mapping from names to things of one kind. Names follow the rule of ids, so that templates can mention them.
    fn named<T>(
        &mut self,
        node: Option<&Node>,
        what: &str,
        read: impl Fn(&mut Self, &Node, &str, Span) -> Option<T>,
    ) -> IndexMap<String, T> {
        let mut things = IndexMap::new();
        let Some(node) = node else { return things };
        for (key, node) in self.mapping(node, what).unwrap_or_default() {
            self.check_id(&key.text, key.span, &format!("a name under `{what}`"));
            if let Some(thing) = read(self, node, &key.text, key.span) {
                things.insert(key.text.clone(), thing);
            }
        }
        things
    }

    fn check_id(&mut self, id: &str, span: Span, what: &str) -> bool {
        let is_good = id.starts_with(|c: char| c.is_ascii_alphabetic())
            && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if !is_good {
            let mut tidy: String =
                id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '-' }).collect();
            if !tidy.starts_with(|c: char| c.is_ascii_alphabetic()) {
                tidy.insert_str(0, "s-");
            }
            self.problems.push(
                self.problem(Code::BadId, span, format!("`{id}` cannot be {what}"))
                    .label("a letter, then letters, digits, `_` and `-`")
                    .help(format!("write `{}`", tidy.trim_end_matches('-'))),
            );
        }
        is_good
    }

    fn input(&mut self, node: &Node, name: &str, at: Span) -> Option<InputSpec> {
        self.level(node, &language::INPUT, &format!("the input `{name}`"), at)?;
        let get = |key: &str| node.get(key).filter(|node| !is_null(node));
        let kind = match get("type") {
            Some(node) => self.choice(node, "type", &InputType::ALL)?,
            None => InputType::String,
        };
        let mut allowed = Vec::new();
        if let Some(list) = get("enum") {
            let Data::List(items) = &list.data else {
                self.wrong_type(list, "enum", "a list");
                return None;
            };
            allowed = items.iter().filter_map(|item| self.input_value(kind, item, name)).collect();
        }
        let mut spec = InputSpec {
            kind,
            default: None,
            description: get("description").and_then(|node| self.plain_text(node, "description")),
            allowed,
            span: at,
        };
        if let Some(node) = get("default") {
            spec.default = self.input_value(kind, node, name);
            if let Some(default) = &spec.default
                && let Err(wrong) = spec.accept(default)
            {
                self.problems.push(
                    self.problem(Code::WrongValue, node.span, format!("the default of the input `{name}` is wrong: {wrong}"))
                        .label("not one of `enum`"),
                );
            }
        }
        Some(spec)
    }

    fn input_value(&mut self, kind: InputType, node: &Node, name: &str) -> Option<Value> {
        let value = node.to_value();
        match kind.read(&value) {
            // What a command line may write as text, a file writes as what it is.
            Ok(read) if read == value => Some(value),
            Ok(_) => {
                self.wrong_type(node, &format!("inputs.{name}"), kind.name());
                None
            }
            Err(wrong) => {
                self.problems.push(
                    self.problem(Code::WrongType, node.span, format!("the input `{name}` is of type `{}`: {wrong}", kind.name()))
                        .label(format!("this is {}", node.kind())),
                );
                None
            }
        }
    }

    fn secret(&mut self, node: &Node, name: &str, at: Span) -> Option<SecretSpec> {
        let what = format!("the secret `{name}`");
        let fields = self.level(node, &language::SECRET, &what, at)?;
        let [(key, node)] = fields else {
            let said = if fields.is_empty() { "has no source" } else { "has more than one source" };
            self.problems.push(
                self.problem(if fields.is_empty() { Code::MissingKey } else { Code::WrongValue }, at, format!("{what} {said}"))
                    .label("one source belongs here")
                    .help("write one of `{ env: NAME }`, `{ file: PATH }`, `{ command: … }`"),
            );
            return None;
        };
        match key.text.as_str() {
            "env" => self.plain_text(node, "env").map(SecretSpec::Env),
            "file" => self.text(node, "file").map(SecretSpec::File),
            "command" => match &node.data {
                Data::Scalar(Value::String(_)) => Some(SecretSpec::Command(node.to_value())),
                Data::List(items) if !items.is_empty() && items.iter().all(|item| item.text().is_some()) => {
                    Some(SecretSpec::Command(node.to_value()))
                }
                _ => {
                    self.wrong_type(node, "command", "text or a list of texts");
                    None
                }
            },
            _ => None,
        }
    }

    fn host(&mut self, node: &Node, name: &str, at: Span) -> Option<HostSpec> {
        if let Some(text) = node.text() {
            return self.choice(node, &format!("hosts.{name}"), &[("local", ())]).map(|()| HostSpec::Local).or_else(|| {
                if let Some(last) = self.problems.last_mut() {
                    last.help = Some(format!("write `{{ ssh: {text} }}` for a machine by SSH, or `local`"));
                }
                None
            });
        }
        self.level(node, &language::HOST, &format!("the host `{name}`"), at)?;
        self.plain(node, &language::HOST).filter(|keys| keys.contains_key("ssh")).map(HostSpec::Ssh)
    }

    fn store(&mut self, node: &Node, name: &str, at: Span) -> Option<Map<String, Value>> {
        let fields = self.mapping(node, &format!("stores.{name}"))?;
        for (key, value) in fields {
            if !matches!(value.data, Data::Scalar(_)) {
                self.wrong_type(value, &key.text, "text, a number or a boolean");
            }
        }
        if node.get("scheme").is_none_or(|node| node.text().is_none()) {
            self.problems.push(
                self.problem(Code::MissingKey, at, format!("the store `{name}` has no `scheme`"))
                    .label("`scheme` is missing")
                    .help("write which kind of store it is: `scheme: s3`, `azblob`, `gcs`, `fs`, `sftp`, `webdav`, …"),
            );
        }
        match node.to_value() {
            Value::Object(options) => Some(options),
            _ => Some(Map::new()),
        }
    }

    fn defaults(&mut self, node: &Node) -> Defaults {
        let _ = self.level(node, &language::DEFAULTS, "`defaults`", node.span);
        let get = |key: &str| node.get(key).filter(|node| !is_null(node));
        Defaults {
            retry: get("retry").map(|node| self.retry(node)).unwrap_or_default(),
            timeout: get("timeout").map(|node| self.timeout(node)).unwrap_or_default(),
            finally_timeout: get("finally_timeout").and_then(|node| self.duration(node, "finally_timeout")),
        }
    }

    fn retry(&mut self, node: &Node) -> RetrySpec {
        let _ = self.level(node, &language::RETRY, "`retry`", node.span);
        let get = |key: &str| node.get(key).filter(|node| !is_null(node));
        let backoffs = [("constant", Backoff::Constant), ("linear", Backoff::Linear), ("exponential", Backoff::Exponential)];
        let ends = [("pause", Exhausted::Pause), ("fail", Exhausted::Fail), ("rollback", Exhausted::Rollback)];
        RetrySpec {
            attempts: get("attempts").and_then(|node| self.count(node, "attempts")),
            backoff: get("backoff").and_then(|node| self.choice(node, "backoff", &backoffs)),
            initial: get("initial").and_then(|node| self.duration(node, "initial")),
            max: get("max").and_then(|node| self.duration(node, "max")),
            jitter: get("jitter").and_then(|node| self.boolean(node, "jitter")),
            exhausted: get("exhausted").and_then(|node| self.choice(node, "exhausted", &ends)),
            interruptions: get("interruptions").and_then(|node| self.count(node, "interruptions")),
        }
    }

    fn timeout(&mut self, node: &Node) -> TimeoutSpec {
        if let Data::Scalar(_) = node.data {
            return TimeoutSpec { attempt: self.duration(node, "timeout"), idle: None };
        }
        let _ = self.level(node, &language::TIMEOUT, "`timeout`", node.span);
        let get = |key: &str| node.get(key).filter(|node| !is_null(node));
        TimeoutSpec {
            attempt: get("attempt").and_then(|node| self.duration(node, "attempt")),
            idle: get("idle").and_then(|node| self.duration(node, "idle")),
        }
    }

    fn steps(&mut self, node: &Node, what: &str) -> Vec<StepSpec> {
        let Data::List(items) = &node.data else {
            self.wrong_type(node, what, "a list of steps");
            return Vec::new();
        };
        items.iter().filter_map(|node| self.step(node)).collect()
    }

    fn step(&mut self, node: &Node) -> Option<StepSpec> {
        let id = node.get("id").and_then(Node::text).unwrap_or_default().to_owned();
        let what = if id.is_empty() { "the step".to_owned() } else { format!("the step `{id}`") };
        let first = match &node.data {
            Data::Map(fields) => fields.first().map_or(node.span, |(key, _)| key.span),
            _ => node.span,
        };
        if is_null(node) {
            self.wrong_type(node, "steps", "a step");
            return None;
        }
        let before = self.problems.len();
        self.level(node, &language::STEP, &what, first)?;
        let get = |key: &str| node.get(key).filter(|node| !is_null(node));
        if let Some(node) = get("id")
            && let Some(id) = self.plain_text(node, "id")
        {
            self.check_id(&id, node.span, "an id");
        }
        let uses = get("uses").and_then(|node| self.plain_text(node, "uses")).unwrap_or_default();
        if id.is_empty() || uses.is_empty() {
            // Every such step has its problem above; a later check must not report it a second time.
            debug_assert!(self.problems.len() > before, "a step without id or type is a problem");
        }
        let (undo, undo_skip) = get("undo").map(|node| self.undo(node)).unwrap_or_default();
        let (background, background_true) = get("background").map(|node| self.background(node)).unwrap_or_default();
        if let Some(node) = get("if")
            && let Some(text) = node.text().filter(|text| is_templated(text))
        {
            self.condition(node, text);
        } else if let Some(node) = get("if")
            && !matches!(node.data, Data::Scalar(Value::Bool(_)))
        {
            self.wrong_type(node, "if", "a template that gives `true` or `false`");
            if let (Some(text), Some(last)) = (node.text(), self.problems.last_mut()) {
                last.help = Some(match meant_boolean(text) {
                    Some(value) => format!("write `{value}`"),
                    None => format!("write it as a template: \"{{{{ {text} }}}}\""),
                });
            }
        }
        if let Some(node) = get("for_each")
            && !(matches!(node.data, Data::List(_) | Data::Map(_)) || node.text().is_some_and(is_templated))
        {
            self.wrong_type(node, "for_each", "a list, a mapping or a template that gives one");
        }
        if let Some(Data::List(items)) = get("for_each").map(|node| &node.data) {
            self.unique_items(items);
        }
        let on = get("on").and_then(|node| self.text(node, "on")).map(Value::String);
        let (lock, lock_wait) = get("lock").map(|node| self.lock(node)).unwrap_or_default();
        Some(StepSpec {
            id,
            uses,
            name: get("name").and_then(|node| self.plain_text(node, "name")),
            with: get("with").map_or_else(|| Value::Object(Map::new()), |node| self.with(node)),
            needs: get("needs").map(|node| self.texts(node, "needs")).unwrap_or_default().into_iter().map(|(id, _)| id).collect(),
            if_: get("if").map(Node::to_value),
            for_each: get("for_each").map(Node::to_value),
            max_parallel: get("max_parallel").and_then(|node| self.parallel(node)),
            retry: get("retry").map(|node| self.retry(node)).unwrap_or_default(),
            timeout: get("timeout").map(|node| self.timeout(node)).unwrap_or_default(),
            on,
            pivot: get("pivot").and_then(|node| self.boolean(node, "pivot")).unwrap_or_default(),
            background,
            undo,
            undo_skip,
            continue_on_error: get("continue_on_error")
                .and_then(|node| self.boolean(node, "continue_on_error"))
                .unwrap_or_default(),
            lock,
            lock_wait,
            placement: get("placement").and_then(|node| self.plain_text(node, "placement")),
            module: None,
            info: None,
            edges: Vec::new(),
            node: Arc::new(node.clone()),
            background_true,
            templates: Vec::new(),
        })
    }

    /// Text around an expression makes it text, and text is true whatever it says. A block may well give `false`.
    fn condition(&mut self, node: &Node, text: &str) {
        let Ok(template) = Template::parse(text) else { return };
        if template.is_plain() || !(template.is_whole_value() || text.contains("{{#")) {
            self.problems.push(
                self.problem(Code::WrongType, node.span, "`if` has text around its template, so that it is always true")
                    .label("this is text")
                    .help("write exactly one `{{ … }}`: `and`, `or`, `not`, `eq` and others put conditions together"),
            );
        }
    }

    /// Instances are named by their value: two of the same name would be one.
    fn unique_items(&mut self, items: &[Node]) {
        let mut seen: HashMap<String, Span> = HashMap::new();
        for item in items {
            // An item that is a mapping carries its key in itself.
            let key = match &item.data {
                Data::Map(_) => item.get("key"),
                _ => Some(item),
            };
            let text = match key.map(|key| &key.data) {
                Some(Data::Scalar(Value::String(text))) => text.clone(),
                Some(Data::Scalar(value @ (Value::Number(_) | Value::Bool(_)))) => value.to_string(),
                _ => {
                    self.problems.push(
                        self.problem(Code::WrongValue, item.span, "an item of `for_each` has no key")
                            .label("neither a text nor a mapping with `key`")
                            .help("instances are named: write a mapping from keys to items, or items with `key: …`"),
                    );
                    continue;
                }
            };
            if is_templated(&text) {
                continue;
            }
            if let Some(first) = seen.get(&text) {
                self.problems.push(
                    self.problem(Code::WrongValue, item.span, format!("`for_each` runs over `{text}` twice"))
                        .label("again here")
                        .and(self.file, *first, "first here")
                        .help("instances are named by their value; write a mapping to give each a key of its own"),
                );
            } else {
                seen.insert(text, item.span);
            }
        }
    }

    fn with(&mut self, node: &Node) -> Value {
        if let value @ Value::Object(_) = node.to_value() {
            return value;
        }
        self.wrong_type(node, "with", "a mapping");
        Value::Object(Map::new())
    }

    fn background(&mut self, node: &Node) -> (Option<String>, bool) {
        match &node.data {
            Data::Scalar(Value::Bool(yes)) => (None, *yes),
            Data::Map(_) => {
                let _ = self.level(node, &language::BACKGROUND, "`background`", node.span);
                let until = node.get("until").filter(|node| !is_null(node)).and_then(|node| self.plain_text(node, "until"));
                (until, false)
            }
            _ => {
                self.wrong_type(node, "background", "`true` or `{ until: STEP }`");
                (None, false)
            }
        }
    }

    fn lock(&mut self, node: &Node) -> (Option<Value>, Option<Duration>) {
        if let Data::Scalar(_) = node.data {
            return (self.text(node, "lock").map(Value::String), None);
        }
        let _ = self.level(node, &language::LOCK, "`lock`", node.span);
        let get = |key: &str| node.get(key).filter(|node| !is_null(node));
        let name = get("name").and_then(|node| self.text(node, "name")).map(Value::String);
        (name, get("wait").and_then(|node| self.duration(node, "wait")))
    }

    fn undo(&mut self, node: &Node) -> (Option<UndoBody>, bool) {
        match &node.data {
            Data::Scalar(_) => (None, self.choice(node, "undo", &[("auto", false), ("skip", true)]).unwrap_or_default()),
            Data::Map(_) => {
                let _ = self.level(node, &language::UNDO, "`undo`", node.span);
                let uses = node.get("uses").filter(|node| !is_null(node)).and_then(|node| self.plain_text(node, "uses"));
                let with = node.get("with").filter(|node| !is_null(node)).map(|node| self.with(node));
                let with = with.unwrap_or_else(|| Value::Object(Map::new()));
                (uses.map(|uses| UndoBody { uses, with }), false)
            }
            Data::List(_) => {
                self.wrong_type(node, "undo", "`auto`, `skip` or a step body");
                (None, false)
            }
        }
    }

    /// Both stay: what is wrong inside the second is to be told too. Whoever names the id is taken to mean the first.
    fn unique_ids(&mut self, pipeline: &Pipeline) {
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for step in pipeline.steps.iter().chain(&pipeline.finally).filter(|step| !step.id.is_empty()) {
            let span = step.span_of("id");
            if let Some(first) = seen.get(step.id.as_str()) {
                self.problems.push(
                    Problem::new(Code::DuplicateId, self.file, span, format!("two steps have the id `{}`", step.id))
                        .label("again here")
                        .and(self.file, *first, "first here")
                        .help("give one of them another id: outputs, `needs` and the journal name steps by it"),
                );
            } else {
                seen.insert(&step.id, span);
            }
        }
    }
}
