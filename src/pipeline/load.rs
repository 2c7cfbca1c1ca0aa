//! From a path to a checked pipeline, with the pipelines that it uses as steps.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::code::Code;
use super::config::{self, Schemas, Subject, is_whole_template};
use super::document::{self, Data, Node};
use super::graph::{self, Exposed};
use super::inputs::is_templated;
use super::model::{Pipeline, RetrySpec, StepSpec, TemplateFile};
use super::names;
use super::nearest::suggest;
use super::problem::{Problem, Problems};
use super::read;
use super::source::{Files, SourceFile, Sources, Span, beside, shown};
use super::templates;
use crate::catalogue::{Catalogue, Kind};
use crate::secret::sanitize;

/// A larger file is not a pipeline.
const LARGEST: usize = 10_000_000;
/// How many steps a run may have, those of pipelines used as steps counted as often as they are used.
const MOST_STEPS: usize = 100_000;
/// How deep pipelines may use pipelines.
const DEEPEST: usize = 16;

/// A pipeline that may run, and what it was read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Its file and the files it uses.
    pub sources: Sources,
    /// What is odd and not wrong.
    pub warnings: Problems,
}

/// Reads and checks a pipeline. Everything that is wrong with it and with what it uses comes back at once.
pub fn load(path: &Path, files: &dyn Files, catalogue: &Catalogue) -> Result<Loaded, Problems> {
    let mut loader = Loader {
        files,
        catalogue,
        schemas: Schemas::default(),
        sources: Sources::default(),
        done: HashMap::new(),
        open: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    // The current folder folds to nothing, and a name that is nothing helps nobody.
    let name = Some(shown(path)).filter(|name| !name.is_empty()).unwrap_or_else(|| path.display().to_string());
    let pipeline = loader.file(&name, None);
    if let Some(pipeline) = &pipeline {
        let exposed = loader.exposed(pipeline);
        let pivot = graph::pivot_of(pipeline);
        loader.problems.extend(exposed.iter().map(|exposed| graph::before_pivot(pivot, exposed)));
    }
    match pipeline {
        Some(pipeline) if loader.problems.is_empty() => {
            Ok(Loaded { pipeline, sources: loader.sources, warnings: Problems::new(loader.warnings) })
        }
        _ => Err(Problems::new(loader.problems)),
    }
}

/// Where a pipeline is used as a step.
struct Used<'a> {
    file: &'a Arc<SourceFile>,
    span: Span,
}

struct Loader<'a> {
    files: &'a dyn Files,
    catalogue: &'a Catalogue,
    schemas: Schemas,
    sources: Sources,
    /// Every file is read and checked once, however often it is used.
    done: HashMap<String, (Option<Arc<Pipeline>>, Vec<ExposedIn>)>,
    open: Vec<String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// What of a pipeline cannot be undone and stands before its pivot, kept for those that use it.
type ExposedIn = Arc<Exposed>;

impl Loader<'_> {
    fn file(&mut self, name: &str, used: Option<&Used<'_>>) -> Option<Arc<Pipeline>> {
        if let Some((done, _)) = self.done.get(name) {
            return done.clone();
        }
        let file = self.read(name, used)?;
        self.open.push(name.to_owned());
        let (tree, problems) = document::parse(&file);
        self.problems.extend(problems);
        let pipeline = tree.and_then(|tree| self.check(&file, tree, used.is_some()));
        self.open.pop();
        let exposed = pipeline.as_ref().map(|pipeline| pipeline.1.clone()).unwrap_or_default();
        let pipeline = pipeline.map(|(pipeline, _)| pipeline);
        self.done.insert(name.to_owned(), (pipeline.clone(), exposed));
        pipeline
    }

    fn read(&mut self, name: &str, used: Option<&Used<'_>>) -> Option<Arc<SourceFile>> {
        let empty = Arc::new(SourceFile::new(name, "".into()));
        let (file, span) = used.map_or((&empty, Span::default()), |used| (used.file, used.span));
        let label = if used.is_some() { "used here" } else { "" };
        let problem = match self.files.read(Path::new(name)) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                Problem::new(Code::CannotRead, file, span, format!("`{name}` is a folder, not a pipeline file"))
                    .help("name a file in it")
            }
            Err(error) => {
                Problem::new(Code::CannotRead, file, span, format!("cannot read `{name}`: {}", said(&error))).help(match used {
                    Some(_) => "paths of files that a pipeline uses start at the pipeline's own folder",
                    None => "paths on the command line start at the current folder; `ferry init` writes a first pipeline",
                })
            }
            Ok(bytes) if bytes.len() > LARGEST => {
                let size = bytes.len() / 1_000_000;
                Problem::new(Code::TooLarge, file, span, format!("`{name}` is {size} MB large; a pipeline has at most 10 MB"))
                    .help("keep data out of the pipeline: pass it as an input, or let a step read it from a file")
            }
            Ok(bytes) => match String::from_utf8(bytes) {
                // Nobody may forge the mark of a secret. The replacement is as long, so that places stay.
                Ok(text) => {
                    let text: Arc<str> = sanitize(&text).into();
                    self.sources.insert(Path::new(name), Arc::clone(&text));
                    return Some(Arc::new(SourceFile::new(name, text)));
                }
                Err(error) => {
                    let at = error.utf8_error().valid_up_to();
                    Problem::new(Code::NotText, file, span, format!("`{name}` is not UTF-8 text (byte {at})"))
                        .help("save the file as UTF-8; a pipeline is a YAML file")
                }
            },
        };
        self.problems.push(problem.label(label));
        self.done.insert(name.to_owned(), (None, Vec::new()));
        None
    }

    fn check(&mut self, file: &Arc<SourceFile>, tree: Node, is_used: bool) -> Option<(Arc<Pipeline>, Vec<ExposedIn>)> {
        let (pipeline, problems) = read::read(file, tree);
        self.problems.extend(problems);
        let mut pipeline = pipeline?;
        self.resolve(&mut pipeline);
        self.templates(&mut pipeline);
        self.count(&mut pipeline);
        let mut warnings = Vec::new();
        let (mentions, problems) = names::check(&pipeline, &mut warnings);
        self.problems.extend(problems);
        self.warnings.append(&mut warnings);
        let graphs = graph::edges(&mut pipeline, mentions, &mut self.problems);
        graph::background(&mut pipeline, &graphs, &mut self.problems);
        for step in pipeline.steps.iter().chain(&pipeline.finally) {
            self.step(&pipeline, step);
        }
        templates::put_in(&mut pipeline);
        let done = &self.done;
        let exposed_in = |name: &str| {
            let inside = done.get(name).map(|(_, exposed)| exposed.as_slice()).unwrap_or_default();
            inside.iter().map(|one| (**one).clone()).collect()
        };
        pipeline.has_pivot = graph::pivot_of(&pipeline).is_some();
        // While two steps share an id, nobody can say which of them stands behind the pivot.
        let exposed = if graph::ids_are_unique(&pipeline) {
            graph::pivot(&pipeline, &graphs[0], &exposed_in, &mut self.problems)
        } else {
            Vec::new()
        };
        if is_used {
            self.not_used_here(&pipeline);
        }
        Some((Arc::new(pipeline), exposed.into_iter().map(Arc::new).collect()))
    }

    fn exposed(&self, pipeline: &Pipeline) -> Vec<Exposed> {
        let found = self.done.get(&pipeline.file.name).map(|(_, exposed)| exposed.as_slice()).unwrap_or_default();
        found.iter().map(|one| (**one).clone()).collect()
    }

    /// Finds the type or the pipeline behind each `uses`.
    fn resolve(&mut self, pipeline: &mut Pipeline) {
        let file = Arc::clone(&pipeline.file);
        for step in pipeline.steps.iter_mut().chain(&mut pipeline.finally).filter(|step| !step.uses.is_empty()) {
            let span = step.span_of("uses");
            if StepSpec::is_module(&step.uses) {
                step.module = self.module(&file, &step.uses, span);
            } else {
                step.info = self.catalogue.get(&step.uses).cloned();
                if step.info.is_none() {
                    self.unknown_type(&file, &step.uses, span);
                }
            }
        }
    }

    /// Reads the template files that steps name.
    fn templates(&mut self, pipeline: &mut Pipeline) {
        let file = Arc::clone(&pipeline.file);
        for step in pipeline.steps.iter_mut().chain(&mut pipeline.finally) {
            let undo = step.undo.as_ref().and_then(|undo| Some((self.catalogue.get(&undo.uses).cloned()?, &undo.with)));
            let bodies = step.info.clone().map(|info| (false, info, &step.with)).into_iter();
            let bodies = bodies.chain(undo.map(|(info, with)| (true, info, with)));
            let named: Vec<_> = bodies
                .flat_map(|(is_undo, info, with)| templates::named(&info, with).map(move |(key, name)| (is_undo, key, name)))
                .collect();
            for (is_undo, key, name) in named {
                let body = if is_undo { step.node.get("undo") } else { Some(&*step.node) };
                let span = body.and_then(|body| body.get("with")?.get(&key)).map_or(step.node.span, |node| node.span);
                if is_templated(&name) {
                    self.problems.push(
                        Problem::new(
                            Code::WrongValue,
                            &file,
                            span,
                            format!("`{key}` of step `{}` is a template itself", step.id),
                        )
                        .label("which file this is cannot be known before the run")
                        .help("write the name of the file as it is, relative to the pipeline; templates belong into the file"),
                    );
                } else if let Some(file) = self.read(&shown(&beside(&file.name, &name)), Some(&Used { file: &file, span })) {
                    step.templates.push(TemplateFile { is_undo, key, file });
                }
            }
        }
    }

    /// Counts the steps of a run. Pipelines of pipelines multiply: sixteen files of ten steps each could stand for more
    /// than any machine holds, so what is too large is left out before anything walks over it.
    fn count(&mut self, pipeline: &mut Pipeline) {
        let mut total = 0_usize;
        for step in pipeline.steps.iter_mut().chain(&mut pipeline.finally) {
            let mine = 1 + step.module.as_ref().map_or(0, |module| module.size);
            if total + mine > MOST_STEPS {
                self.problems.push(
                    Problem::new(
                        Code::TooManySteps,
                        &pipeline.file,
                        step.span_of("uses"),
                        format!("the pipeline has more than {MOST_STEPS} steps"),
                    )
                    .label(format!("the step `{}` is one too many", step.id))
                    .help("use `for_each`, whose instances are made when it runs, or several pipelines"),
                );
                step.module = None;
                total = MOST_STEPS;
                break;
            }
            total += mine;
        }
        pipeline.size = total;
    }

    fn unknown_type(&mut self, file: &Arc<SourceFile>, uses: &str, span: Span) {
        let help = suggest(uses, self.catalogue.iter().map(|info| info.name.as_str()).collect::<Vec<_>>());
        self.problems.push(
            Problem::new(Code::UnknownType, file, span, format!("there is no step type `{uses}`")).label("not a step type").help(
                help.unwrap_or_else(|| "`ferry steps` lists the types; the path of a pipeline begins with `./`".to_owned()),
            ),
        );
    }

    fn module(&mut self, file: &Arc<SourceFile>, uses: &str, span: Span) -> Option<Arc<Pipeline>> {
        let name = shown(&beside(&file.name, uses));
        if let Some(at) = self.open.iter().position(|open| *open == name) {
            let mut way: Vec<&str> = self.open[at..].iter().map(String::as_str).collect();
            way.push(&name);
            self.problems.push(
                Problem::new(Code::ModuleCycle, file, span, format!("pipelines use each other in a circle: {}", way.join(" → ")))
                    .label("uses a pipeline that is already open")
                    .help("a pipeline cannot be a step of itself"),
            );
            return None;
        }
        if self.open.len() >= DEEPEST {
            self.problems.push(
                Problem::new(
                    Code::ModuleDepth,
                    file,
                    span,
                    format!("pipelines used as steps are nested more than {DEEPEST} deep"),
                )
                .label("too deep")
                .help("use this pipeline from one that stands further out"),
            );
            return None;
        }
        self.file(&name, Some(&Used { file, span }))
    }

    fn step(&mut self, pipeline: &Pipeline, step: &StepSpec) {
        let file = &pipeline.file;
        if let Some(Value::String(on)) = &step.on
            && let Some((code, message, help)) = config::host(pipeline, on)
        {
            self.problems.push(
                Problem::new(code, file, step.span_of("on"), message).label("not a host of this pipeline").maybe_help(help),
            );
        }
        let head = step.node.entry("with").map_or_else(|| step.span_of("uses"), |(key, _)| key.span);
        if step.max_parallel.is_some() && step.for_each.is_none() {
            self.warnings.push(
                Problem::new(
                    Code::NoEffect,
                    file,
                    step.key_span("max_parallel"),
                    "`max_parallel` of a step has no effect without `for_each`",
                )
                .label("nothing to limit")
                .help("the `max_parallel` of the pipeline limits all steps together"),
            );
        }
        self.approval(pipeline, step);
        if let Some(module) = &step.module {
            self.module_inputs(pipeline, step, module, head);
        }
        if let Some(info) = &step.info {
            let what = format!("step `{}`", step.id);
            let subject = Subject { pipeline, info, with: &step.with, node: step.node.get("with"), head, what };
            config::check(&mut self.schemas, &subject, &mut self.problems);
        }
        if let (Some(undo), Some(node)) = (&step.undo, step.node.get("undo")) {
            if step.module.is_some() || StepSpec::is_module(&step.uses) {
                self.problems.push(
                    Problem::new(
                        Code::NoUndo,
                        file,
                        step.span_of("undo"),
                        format!("step `{}` runs a pipeline, which is undone step by step", step.id),
                    )
                    .label("nothing to replace here")
                    .help("write `undo` at the steps inside it, or `undo: skip` here for all of them"),
                );
                return;
            }
            let span = node.get("uses").map_or(node.span, |node| node.span);
            match self.catalogue.get(&undo.uses).cloned() {
                Some(info) => {
                    let head = node.entry("with").map_or(span, |(key, _)| key.span);
                    let what = format!("`undo` of step `{}`", step.id);
                    let subject = Subject { pipeline, info: &info, with: &undo.with, node: node.get("with"), head, what };
                    config::check(&mut self.schemas, &subject, &mut self.problems);
                }
                None => self.unknown_type(file, &undo.uses, span),
            }
        }
    }

    /// The engine holds the limit of an approval, and renders nothing. Limits and attempts are of what a runner does: a
    /// person's time to answer is another thing, and the key that does nothing must not look like the one that does.
    fn approval(&mut self, pipeline: &Pipeline, step: &StepSpec) {
        let is_approval = step.info.as_ref().is_some_and(|info| info.kind == Kind::Approval);
        if is_approval && step.node.get("timeout").is_some() {
            self.problems.push(
                Problem::new(
                    Code::UnknownKey,
                    &pipeline.file,
                    step.key_span("timeout"),
                    format!("`timeout` limits attempts, and the approval `{}` has none", step.id),
                )
                .label("not a key of an approval")
                .help("write `with: { at_most: … }` for how long the run waits for an answer"),
            );
        }
        // `exhausted` stays: it says what a no does to the run.
        if is_approval && step.retry != (RetrySpec { exhausted: step.retry.exhausted, ..RetrySpec::default() }) {
            self.warnings.push(
                Problem::new(
                    Code::NoEffect,
                    &pipeline.file,
                    step.key_span("retry"),
                    format!("the approval `{}` is not tried again: `retry` has no effect but for `exhausted`", step.id),
                )
                .label("nothing to try again")
                .help("`ferry resume` asks again after a no"),
            );
        }
        let templated = step.with.get("at_most").and_then(Value::as_str).is_some_and(is_templated);
        if is_approval && templated {
            let span = step.node.get("with").and_then(|with| with.get("at_most")).map_or(step.node.span, |node| node.span);
            self.problems.push(
                Problem::new(Code::WrongValue, &pipeline.file, span, "`at_most` of an approval cannot hold a template")
                    .label("a template")
                    .help("no template can stand here: the value is needed before anything is rendered"),
            );
        }
    }

    /// `with` of a step that runs a pipeline: its inputs.
    fn module_inputs(&mut self, pipeline: &Pipeline, step: &StepSpec, module: &Pipeline, head: Span) {
        let file = &pipeline.file;
        let Value::Object(given) = &step.with else { return };
        let fields = match step.node.get("with").map(|with| &with.data) {
            Some(Data::Map(fields)) => fields.as_slice(),
            _ => &[],
        };
        for (key, node) in fields {
            let (name, key, span) = (&key.text, key.span, node.span);
            let Some(value) = given.get(name) else { continue };
            let Some(input) = module.inputs.get(name) else {
                self.problems.push(
                    Problem::new(Code::UnknownInput, file, key, format!("`{}` has no input `{name}`", step.uses))
                        .label("not an input of that pipeline")
                        .maybe_help(suggest(name, module.inputs.keys().map(String::as_str))),
                );
                continue;
            };
            if value.as_str().is_some_and(is_whole_template) {
                continue;
            }
            // A template with text around it is text; what it says is not known.
            let is_partial = value.as_str().is_some_and(is_templated);
            let wrong = if is_partial { None } else { input.accept(value).err() };
            if let Some(wrong) = wrong {
                self.problems.push(
                    Problem::new(
                        Code::WrongInput,
                        file,
                        span,
                        format!("the input `{name}` of `{}` is wrong: {wrong}", step.uses),
                    )
                    .label(format!("this is {}", document::kind(value)))
                    .and(&module.file, input.span, format!("`{name}` is listed here")),
                );
            }
        }
        for (name, input) in module.inputs.iter().filter(|(name, input)| input.default.is_none() && !given.contains_key(*name)) {
            self.problems.push(
                Problem::new(
                    Code::MissingInput,
                    file,
                    head,
                    format!("step `{}` does not give the input `{name}` of `{}`", step.id, step.uses),
                )
                .label(format!("`{name}` is missing"))
                .and(&module.file, input.span, format!("`{name}` is listed here"))
                .help(format!("write `with: {{ {name}: … }}`")),
            );
        }
    }

    fn not_used_here(&mut self, pipeline: &Pipeline) {
        for key in ["finally", "on_failure", "max_parallel"] {
            if let Some((key, _)) = pipeline.root.entry(key) {
                self.warnings.push(
                    Problem::new(
                        Code::NoEffect,
                        &pipeline.file,
                        key.span,
                        format!("`{}` has no effect when the pipeline is used as a step", key.text),
                    )
                    .label("only the outermost pipeline's counts")
                    .help("keep it for running this file by itself, or move it to the pipeline that uses it"),
                );
            }
        }
    }
}

fn said(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "no permission to read it".to_owned(),
        _ => error.to_string(),
    }
}
