//! Makes plans: renders and inspects what can be rendered and inspected now, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::Map;
use tokio_util::sync::CancellationToken;

use super::attempt::Work;
use super::level::{Level, render_failure};
use super::planned::{Half, Plan, PlanState, Planned};
use super::render::{config, known as known_part, question, shown};
use super::resolve::{Part, Rendered, Resolver, permanent};
use super::scope;
use super::session::{Asked, Session};
use super::surroundings::Surroundings;
use super::{Document, Executor, ExecutorError};
use crate::clock::{Clock, SystemClock};
use crate::engine::{Body, Definition, Resolution, StepDef, StepPath, Timeout};
use crate::error::Failure;
use crate::pipeline::template::{Each, Scope, StepView};
use crate::pipeline::{Loaded, StepSpec};
use crate::steps::{Depth, Registry};

/// How many steps are looked at at once.
const AT_ONCE: usize = 8;

/// What a run of this pipeline with these inputs would do. Needs no journal and leaves nothing behind.
pub async fn plan(
    registry: &Registry,
    path: &std::path::Path,
    loaded: &Loaded,
    inputs: &Map<String, serde_json::Value>,
) -> Result<Plan, ExecutorError> {
    let inputs = loaded.pipeline.inputs(inputs)?;
    let document = Document::new(path, loaded, inputs);
    make(registry, SystemClock::shared(), Asked::default(), loaded, &document, Depth::Thorough).await
}

/// The stores that a step of a pipeline would be given, and the folder where its relative places start.
pub async fn stores(
    registry: &Registry,
    path: &std::path::Path,
    loaded: &Loaded,
    inputs: &Map<String, serde_json::Value>,
) -> Result<(crate::stores::Stores, std::path::PathBuf), ExecutorError> {
    let document = Document::new(path, loaded, loaded.pipeline.inputs(inputs)?);
    let clock = SystemClock::shared();
    let session = Session::of_plan(registry, clock.clone(), Asked::default(), "", clock.now(), &document);
    let level = Level::open(&session, None, loaded.pipeline.clone(), document.inputs.clone(), None).await?;
    Ok((level.stores.clone(), level.base.clone()))
}

/// What a run would do, looked at before there is a journal for it: the run does not look again, and asks no command for
/// a secret a second time.
pub async fn preflight(registry: &Registry, new: &mut super::NewRun, depth: Depth) -> Result<Plan, ExecutorError> {
    let document = Document::new(&new.path, &new.loaded, new.loaded.pipeline.inputs(&new.inputs)?);
    super::start::knows(&new.loaded, new.until.as_deref())?;
    let plan = make(registry, SystemClock::shared(), new.asked.clone(), &new.loaded, &document, depth).await?;
    new.preflight = false;
    Ok(plan)
}

impl Executor {
    /// What a run would do.
    pub async fn plan(&self, new: &super::NewRun) -> Result<Plan, ExecutorError> {
        let document = Document::new(&new.path, &new.loaded, new.loaded.pipeline.inputs(&new.inputs)?);
        make(&self.registry, self.clock.clone(), self.asked.clone(), &new.loaded, &document, Depth::Thorough).await
    }
}

pub(super) async fn make(
    registry: &Registry,
    clock: Arc<dyn Clock>,
    asked: Asked,
    loaded: &Loaded,
    document: &Document,
    depth: Depth,
) -> Result<Plan, ExecutorError> {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let mut session = Session::of_plan(registry, clock.clone(), asked, &id, clock.now(), document);
    session.depth = depth;
    let session = Arc::new(session);
    let pipeline = loaded.pipeline.clone();
    let top = session.enter(Level::open(&session, None, pipeline, document.inputs.clone(), None).await?);
    let definition = loaded.pipeline.definition();
    let mut planner = Planner { session: session.clone(), steps: Vec::new(), looks: Vec::new() };
    planner.list(&top, &definition, &Halves::of(&definition)).await;
    let Planner { mut steps, looks, .. } = planner;
    let mut looked = futures::stream::iter(looks.into_iter().map(Look::inspect)).buffer_unordered(AT_ONCE);
    while let Some((at, found)) = looked.next().await {
        let step: &mut Planned = &mut steps[at];
        match found {
            Ok(Seen::Whole(preview)) => step.preview = Some(preview),
            Ok(Seen::Ahead(warnings)) => step.foreseen = warnings,
            Err((failure, is_certain)) => {
                step.state = PlanState::Failed;
                step.failure = Some(failure);
                // What is missing now may be what an earlier step brings. A wrong configuration stays wrong.
                step.is_blocking = is_certain || step.needs.is_empty();
            }
        }
    }
    drop(looked);
    let inputs = document.inputs.iter().map(|(name, value)| {
        (name.clone(), crate::secret::map_strings(value, &|text| crate::secret::unmarked(text).into_owned()))
    });
    let has_pivot = steps.iter().any(|step| step.half == Half::Pivot);
    let mut plan =
        Plan { pipeline: loaded.pipeline.name.clone(), inputs: inputs.collect(), steps, has_pivot, bytes: None, objects: None };
    plan.sum_up();
    Ok(plan)
}

/// A step that is going to be looked at.
struct Look {
    at: usize,
    work: Work,
    /// Whether its configuration is known, and not only a part of it.
    is_whole: bool,
}

/// What a look at a step has found.
enum Seen {
    Whole(crate::steps::Preview),
    /// Warnings of a step that waits for others.
    Ahead(Vec<String>),
}

impl Look {
    /// The preview, or what is wrong and whether that is certain to stay so.
    async fn inspect(self) -> (usize, Result<Seen, (Failure, bool)>) {
        if !self.is_whole {
            return (self.at, self.work.foresee().await.map(Seen::Ahead).map_err(|failure| (failure, false)));
        }
        if let Err(failure) = self.work.is_well_made() {
            return (self.at, Err((failure, true)));
        }
        let seen = self.work.inspect().await.map_err(|failure| (failure, false));
        let preview = seen.and_then(|before| self.work.preview(&before).map_err(|failure| (failure, true)));
        (self.at, preview.map(Seen::Whole))
    }
}

struct Planner {
    session: Arc<Session>,
    steps: Vec<Planned>,
    looks: Vec<Look>,
}

/// What is known of the steps of one list while it is planned.
type Known = BTreeMap<String, StepView>;

impl Planner {
    fn list<'a>(&'a mut self, level: &'a Arc<Level>, definition: &'a Definition, halves: &'a Halves) -> BoxFuture<'a, ()> {
        async move {
            let mut known = Known::new();
            for def in in_order(&definition.steps) {
                self.step(level, def, halves.of_step(&def.id), &mut known).await;
            }
            if level.path.is_none() {
                for def in in_order(&definition.finally) {
                    self.step(level, def, Half::Finally, &mut known).await;
                }
            }
        }
        .boxed()
    }

    async fn step(&mut self, level: &Arc<Level>, def: &StepDef, half: Half, known: &mut Known) {
        let path = level.path_of(&def.id);
        self.part(level, def, path, half, None, Part::Step, known).await;
    }

    #[expect(clippy::too_many_arguments, reason = "a step, its place and what is known around it")]
    fn part<'a>(
        &'a mut self,
        level: &'a Arc<Level>,
        def: &'a StepDef,
        path: StepPath,
        half: Half,
        each: Option<Each>,
        part: Part,
        known: &'a mut Known,
    ) -> BoxFuture<'a, ()> {
        async move {
            let Some((spec, _)) = level.spec(&def.id) else { return };
            let mut planned = Planned {
                step: path.clone(),
                name: spec.name.clone(),
                uses: spec.uses.clone(),
                needs: def.needs.iter().map(|need| level.path_of(need)).collect(),
                state: PlanState::Ready,
                half,
                pivot_inside: def.pivot && def.pivot_inside,
                undo: def.undo,
                preview: None,
                waits_for: None,
                foreseen: Vec::new(),
                failure: None,
                is_blocking: false,
                question: None,
            };
            let at = self.steps.len();
            let resolved = self.scope(level, each.clone(), known, |scope, vault| {
                let mut resolver = Resolver { level, spec, scope, vault, operands: Map::new(), waits_for: None };
                resolver.waiting(part)
            });
            match resolved {
                Err(waits_for) => {
                    planned.state = PlanState::Later;
                    planned.waits_for = Some(waits_for);
                    self.steps.push(planned);
                }
                Ok(Rendered::Answer(Resolution::Skip)) => {
                    planned.state = PlanState::Skipped;
                    self.steps.push(planned);
                    if part == Part::Step {
                        known.insert(def.id.clone(), StepView::Skipped);
                    }
                }
                Ok(Rendered::Answer(Resolution::Failed { failure })) => self.failed(planned, failure),
                Ok(Rendered::Answer(Resolution::Instances { items })) => {
                    planned.state = PlanState::Group;
                    self.steps.push(planned);
                    for (index, (key, value)) in items.into_iter().enumerate() {
                        let instance = path.instance(&key);
                        let each = Some(Each { key, value, index });
                        self.part(level, def, instance, half, each, Part::Instance, known).await;
                    }
                }
                Ok(Rendered::Inputs { given, .. }) => {
                    planned.state = PlanState::Group;
                    self.steps.push(planned);
                    if let Err(failure) = self.module(level, def, spec, path, half, &given).await {
                        self.steps[at].state = PlanState::Failed;
                        self.steps[at].failure = Some(failure);
                        self.steps[at].is_blocking = true;
                    }
                }
                Ok(Rendered::Answer(_)) => self.task(level, spec, def, planned, each, known),
            }
        }
        .boxed()
    }

    async fn module(
        &mut self,
        level: &Arc<Level>,
        def: &StepDef,
        spec: &StepSpec,
        path: StepPath,
        half: Half,
        given: &Map<String, serde_json::Value>,
    ) -> Result<(), Failure> {
        let (Some(module), Body::Pipeline(definition)) = (&spec.module, &def.body) else { return Ok(()) };
        let inputs = module.inputs(given).map_err(|problems| {
            let text = problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ");
            permanent(format!("the inputs of `{path}` are wrong: {text}"), "correct its `with`")
        })?;
        let inner = Level::open(&self.session, Some(path), module.clone(), inputs, Some(level)).await?;
        let inner = self.session.enter(inner);
        // Inside a step the pivot is that step, unless it marks one of its own.
        let halves = if half == Half::Before { Halves::of(definition) } else { Halves::all(half) };
        self.list(&inner, definition, &halves).await;
        Ok(())
    }

    fn task(
        &mut self,
        level: &Arc<Level>,
        spec: &StepSpec,
        def: &StepDef,
        mut planned: Planned,
        each: Option<Each>,
        known: &Known,
    ) {
        let rendered = self.scope(level, each.clone(), known, |scope, vault| config(spec, scope, vault));
        let config = match rendered {
            Ok(config) => config,
            Err(error) => {
                if let Some(waits_for) = error.waits_for {
                    planned.state = PlanState::Later;
                    planned.waits_for = Some(waits_for);
                    let part = self.scope(level, each, known, |scope, vault| known_part(spec, scope, vault));
                    if self.session.missing_in(&part).is_none() {
                        self.looks.push(self.look(level, def, planned.step.clone(), part, false));
                    }
                    return self.steps.push(planned);
                }
                return self.failed(planned, render_failure(&format!("step `{}`", spec.id), &error));
            }
        };
        if let Some(missing) = self.session.missing_in(&config) {
            return self.failed(planned, missing);
        }
        if let Body::Approval { .. } = def.body {
            planned.state = PlanState::Approval;
            planned.question = Some(shown(&question(&config["with"]).0.into()));
            return self.steps.push(planned);
        }
        self.looks.push(self.look(level, def, planned.step.clone(), config, true));
        self.steps.push(planned);
    }

    /// A look at the step that is listed next.
    fn look(&self, level: &Arc<Level>, def: &StepDef, step: StepPath, config: serde_json::Value, is_whole: bool) -> Look {
        let work = Work {
            session: self.session.clone(),
            around: Surroundings::now(level),
            step,
            inspection: 0,
            config,
            number: 0,
            interrupted: false,
            past_pivot: false,
            checkpoint: None,
            timeout: Timeout { attempt: def.timeout.attempt, idle: None },
            asks: false,
            outbox: None,
            cancel: CancellationToken::new(),
            over: CancellationToken::new(),
        };
        Look { at: self.steps.len(), work, is_whole }
    }

    fn failed(&mut self, mut planned: Planned, failure: Failure) {
        planned.state = PlanState::Failed;
        planned.failure = Some(failure);
        planned.is_blocking = true;
        self.steps.push(planned);
    }

    fn scope<R>(
        &self,
        level: &Level,
        each: Option<Each>,
        known: &Known,
        render: impl FnOnce(&Scope<'_>, &crate::secret::Vault) -> R,
    ) -> R {
        let steps = |id: &str| match known.get(id) {
            Some(view) => view.clone(),
            None if level.spec(id).is_some() => StepView::NotYet,
            None => StepView::Unknown,
        };
        scope::with(&self.session, level, each, &steps, None, |scope| render(scope, &self.session.vault))
    }
}

/// Which steps of a list stand where.
struct Halves {
    pivots: BTreeSet<String>,
    after: BTreeSet<String>,
    all: Option<Half>,
}

impl Halves {
    fn of(definition: &Definition) -> Self {
        let pivots: BTreeSet<String> = definition.steps.iter().filter(|def| def.pivot).map(|def| def.id.clone()).collect();
        let mut after = BTreeSet::new();
        let mut work: Vec<&str> = pivots.iter().map(String::as_str).collect();
        let mut behind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for def in &definition.steps {
            for need in &def.needs {
                behind.entry(need).or_default().push(&def.id);
            }
        }
        while let Some(id) = work.pop() {
            for &next in behind.get(id).into_iter().flatten() {
                if after.insert(next.to_owned()) {
                    work.push(next);
                }
            }
        }
        Self { pivots, after, all: None }
    }

    fn all(half: Half) -> Self {
        Self { pivots: BTreeSet::new(), after: BTreeSet::new(), all: Some(half) }
    }

    fn of_step(&self, id: &str) -> Half {
        match self.all {
            Some(half) => half,
            None if self.pivots.contains(id) => Half::Pivot,
            None if self.after.contains(id) => Half::After,
            None => Half::Before,
        }
    }
}

/// Needs first; otherwise as they are written.
fn in_order(steps: &[StepDef]) -> Vec<&StepDef> {
    let by_id: BTreeMap<&str, &StepDef> = steps.iter().map(|def| (def.id.as_str(), def)).collect();
    let (mut order, mut seen) = (Vec::with_capacity(steps.len()), BTreeSet::new());
    for def in steps {
        // Not by recursion: a chain may be ten thousand steps long.
        let mut work = vec![(def, false)];
        while let Some((def, is_done)) = work.pop() {
            if is_done {
                order.push(def);
            } else if seen.insert(def.id.as_str()) {
                work.push((def, true));
                work.extend(def.needs.iter().rev().filter_map(|need| by_id.get(need.as_str())).map(|need| (*need, false)));
            }
        }
    }
    order
}
