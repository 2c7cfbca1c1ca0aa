//! The graph of a pipeline: needs that exist, cycles shown whole, background steps that end, and the pivot.

use std::collections::{HashMap, HashSet, VecDeque};

use petgraph::Direction;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Bfs, EdgeRef as _, Reversed};

use super::code::Code;
use super::document::Data;
use super::model::{Pipeline, StepSpec};
use super::names::{MOST_HINTED, Mention, ids};
use super::nearest::suggest;
use super::problem::Problem;
use super::source::Span;
use crate::catalogue::{Background, Pivot, Undo};

/// The steps of one list as a graph: an edge goes from a step to the one that waits for it, and says where that is
/// written.
pub(crate) struct Graph {
    graph: DiGraph<usize, Span>,
}

/// Checks `needs`, fills in `edges`, and reports cycles.
pub(crate) fn edges(pipeline: &mut Pipeline, mentions: Vec<Vec<Mention>>, problems: &mut Vec<Problem>) -> [Graph; 2] {
    let mut mentions = mentions.into_iter();
    let main: Vec<_> = mentions.by_ref().take(pipeline.steps.len()).collect();
    let finally: Vec<_> = mentions.collect();
    let mut edges: Vec<Vec<Mention>> = Vec::new();
    let all = ids(pipeline);
    let mut graphs = [Graph { graph: DiGraph::new() }, Graph { graph: DiGraph::new() }];
    for (list, mentions, graph, is_finally) in [(&pipeline.steps, main, 0, false), (&pipeline.finally, finally, 1, true)] {
        let graph = &mut graphs[graph].graph;
        for at in 0..list.len() {
            graph.add_node(at);
        }
        for (at, (step, mentioned)) in list.iter().zip(mentions).enumerate() {
            let mut seen = HashSet::new();
            let mut mine: Vec<Mention> = Vec::new();
            for (id, span) in needs(step) {
                match all.get(id.as_str()) {
                    Some((_, in_finally)) if *in_finally == is_finally => mine.push((id, span)),
                    Some((_, true)) => problems.push(
                        Problem::new(
                            Code::NotAvailable,
                            &pipeline.file,
                            span,
                            format!("step `{}` needs `{id}`, a step of `finally`", step.id),
                        )
                        .label("runs when everything else is over")
                        .help("move that step to `steps:`"),
                    ),
                    Some((_, false)) => problems.push(
                        Problem::new(
                            Code::UnknownNeed,
                            &pipeline.file,
                            span,
                            format!("step `{}` of `finally` needs `{id}`, a step of `steps`", step.id),
                        )
                        .label("is always over when `finally` begins")
                        .help("take it out: every other step is over when `finally` begins"),
                    ),
                    None => {
                        let hint = if problems.len() > MOST_HINTED {
                            None
                        } else {
                            suggest(&id, list.iter().map(|step| step.id.as_str()).filter(|known| *known != step.id))
                        };
                        problems.push(
                            Problem::new(
                                Code::UnknownNeed,
                                &pipeline.file,
                                span,
                                format!("step `{}` needs `{id}`, but no step has that id", step.id),
                            )
                            .label("not a step of this pipeline")
                            .maybe_help(hint),
                        );
                    }
                }
            }
            mine.extend(mentioned);
            mine.retain(|(id, _)| seen.insert(id.clone()));
            for (id, span) in &mine {
                graph.add_edge(NodeIndex::new(all[id.as_str()].0), NodeIndex::new(at), *span);
            }
            edges.push(mine);
        }
    }
    drop(all);
    for (step, edges) in pipeline.steps.iter_mut().chain(&mut pipeline.finally).zip(edges) {
        step.edges = edges.into_iter().map(|(id, _)| id).collect();
    }
    graphs[0].cycles(pipeline, &pipeline.steps, problems);
    graphs[1].cycles(pipeline, &pipeline.finally, problems);
    graphs
}

/// What stands under `needs`, with its places.
fn needs(step: &StepSpec) -> Vec<Mention> {
    let spans: HashMap<&str, Span> = match step.node.get("needs").map(|node| (&node.data, node)) {
        Some((Data::List(items), _)) => items.iter().rev().filter_map(|item| Some((item.text()?, item.span))).collect(),
        Some((_, node)) => node.text().map(|text| (text, node.span)).into_iter().collect(),
        None => HashMap::new(),
    };
    step.needs.iter().map(|id| (id.clone(), spans.get(id.as_str()).copied().unwrap_or(step.node.span))).collect()
}

impl Graph {
    fn cycles(&self, pipeline: &Pipeline, steps: &[StepSpec], problems: &mut Vec<Problem>) {
        for component in kosaraju_scc(&self.graph) {
            let inside: HashSet<NodeIndex> = component.iter().copied().collect();
            let Some(start) = component.iter().copied().min() else { continue };
            for at in component.iter().copied() {
                let Some(edge) = self.graph.find_edge(at, at) else { continue };
                let id = &steps[at.index()].id;
                problems.push(
                    Problem::new(
                        Code::Cycle,
                        &pipeline.file,
                        self.graph[edge],
                        format!("step `{id}` waits for itself: {id} → {id}"),
                    )
                    .label("itself")
                    .help("take this edge out: the step can never start"),
                );
            }
            if component.len() == 1 {
                continue;
            }
            let cycle = self.shortest_cycle(start, &inside);
            let name = |at: NodeIndex| steps[at.index()].id.as_str();
            // Told in the direction of waiting: `a` waits for `b`, which waits for `a`.
            let mut path: Vec<&str> = cycle.iter().map(|(waiting, _)| name(*waiting)).collect();
            path.push(name(start));
            let (_, first) = cycle[0];
            let mut problem =
                Problem::new(Code::Cycle, &pipeline.file, first, format!("steps wait for each other: {}", path.join(" → ")))
                    .label(format!("`{}` waits for `{}`", path[0], path[1]))
                    .help("take one of these edges out: nothing in a cycle can ever start");
            for (at, (_, span)) in cycle.iter().enumerate().skip(1).take(9) {
                problem = problem.and(&pipeline.file, *span, format!("`{}` waits for `{}`", path[at], path[at + 1]));
            }
            problems.push(problem);
        }
    }

    /// From a step along what it waits for, back to it: each step with the place of the edge that leaves it.
    fn shortest_cycle(&self, start: NodeIndex, inside: &HashSet<NodeIndex>) -> Vec<(NodeIndex, Span)> {
        let mut came: HashMap<NodeIndex, (NodeIndex, Span)> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for edge in self.graph.edges_directed(at, Direction::Incoming) {
                let next = edge.source();
                if next == at {
                    continue;
                }
                if next == start {
                    let mut cycle = vec![(at, *edge.weight())];
                    let mut back = at;
                    while back != start {
                        let (before, span) = came[&back];
                        cycle.push((before, span));
                        back = before;
                    }
                    cycle.reverse();
                    return cycle;
                }
                if inside.contains(&next) && !came.contains_key(&next) {
                    came.insert(next, (at, *edge.weight()));
                    queue.push_back(next);
                }
            }
        }
        unreachable!("a strongly connected component has a way back to each of its steps")
    }

    /// The steps that cannot start before this one has, itself included.
    ///
    /// A step starts when *all* its needs are over. In such a graph "every way to it leads over the pivot", which is what
    /// dominators say, asks too much: one way is enough to hold it back. So the question is reachability.
    pub fn behind(&self, at: usize) -> HashSet<usize> {
        let mut bfs = Bfs::new(&self.graph, NodeIndex::new(at));
        let mut found = HashSet::new();
        while let Some(next) = bfs.next(&self.graph) {
            found.insert(next.index());
        }
        found
    }

    /// The steps that must be over before this one starts, itself included.
    fn before(&self, at: usize) -> HashSet<usize> {
        let reversed = Reversed(&self.graph);
        let mut bfs = Bfs::new(reversed, NodeIndex::new(at));
        let mut found = HashSet::new();
        while let Some(next) = bfs.next(reversed) {
            found.insert(next.index());
        }
        found
    }

    /// The one step behind this one that nothing else stands behind.
    fn last_behind(&self, at: usize) -> Option<usize> {
        let mut ends = self
            .behind(at)
            .into_iter()
            .filter(|other| *other != at && self.graph.neighbors(NodeIndex::new(*other)).next().is_none());
        let end = ends.next()?;
        ends.next().is_none().then_some(end)
    }
}

/// The key by which a step goes on until it is told to stop, and the one inside it that would end it. A template may say
/// anything: the step itself sees what comes of it.
fn endless(step: &StepSpec) -> Option<(&str, &str)> {
    let told = step.info.as_ref()?.config.get("x-endless")?;
    let (key, unless) = (told.get("key")?.as_str()?, told.get("unless")?.as_str()?);
    let value = step.with.get(key)?;
    let is_endless = value.as_bool() == Some(true) || value.as_object().is_some_and(|map| !map.contains_key(unless));
    is_endless.then_some((key, unless))
}

/// Checks the background steps and fills in what `background: true` stands for.
pub(crate) fn background(pipeline: &mut Pipeline, graphs: &[Graph; 2], problems: &mut Vec<Problem>) {
    let file = std::sync::Arc::clone(&pipeline.file);
    for (list, graph) in [(&mut pipeline.steps, &graphs[0]), (&mut pipeline.finally, &graphs[1])] {
        let positions: HashMap<String, usize> = list.iter().enumerate().rev().map(|(at, step)| (step.id.clone(), at)).collect();
        for at in 0..list.len() {
            let step = &list[at];
            if step.background.is_none() && !step.background_true {
                if let Some((key, unless)) = endless(step) {
                    let message = format!("step `{}` has no end: nothing tells it to stop", step.id);
                    problems.push(
                        Problem::new(Code::NoBackground, &file, step.key_span("uses"), message)
                            .label(format!("goes on for ever with `{key}`"))
                            .help(format!("write `background: {{ until: STEP }}` beside it, or `{key}: {{ {unless}: … }}`")),
                    );
                }
                continue;
            }
            let span = step.span_of("background");
            let problem =
                |message: String, label: &str| Problem::new(Code::NoBackground, &file, span, message).label(label.to_owned());
            if step.module.is_some() || StepSpec::is_module(&step.uses) {
                problems.push(
                    problem(format!("step `{}` runs a pipeline and cannot run in the background", step.id), "not for a pipeline")
                        .help("write `background` at the step inside it that serves others"),
                );
                continue;
            }
            if step.info.as_ref().is_some_and(|info| info.background == Background::No) {
                problems.push(
                    problem(format!("a step of type `{}` cannot run in the background", step.uses), "not for this type")
                        .help("take `background` out; `ferry steps` says which types serve others while they run"),
                );
                continue;
            }
            if step.background_true {
                match graph.last_behind(at) {
                    Some(end) => list[at].background = Some(list[end].id.clone()),
                    None => problems.push(
                        problem(format!("step `{}` does not say when it ends", step.id), "until which step?")
                            .help("write `background: { until: STEP }`: not exactly one last step stands behind it"),
                    ),
                }
                continue;
            }
            let Some(until) = &step.background else { continue };
            let until_span = step.node.get("background").and_then(|node| node.get("until")).map_or(span, |node| node.span);
            match positions.get(until) {
                None => problems.push(
                    Problem::new(
                        Code::UnknownStep,
                        &file,
                        until_span,
                        format!("step `{}` runs until `{until}`, but no step beside it has that id", step.id),
                    )
                    .label("not a step of this list")
                    .maybe_help(suggest(until, positions.keys().map(String::as_str))),
                ),
                Some(end) if graph.before(at).contains(end) => problems.push(
                    Problem::new(
                        Code::NoBackground,
                        &file,
                        until_span,
                        format!("step `{}` runs until `{until}`, which is over before it starts", step.id),
                    )
                    .label("already over")
                    .help("name a step that stands behind it"),
                ),
                Some(_) => {}
            }
        }
    }
}

/// A step that cannot be undone and that nothing inside its pipeline holds back until a pivot.
#[derive(Clone)]
pub(crate) struct Exposed {
    /// Its path within the pipeline: `replica/base`.
    pub path: String,
    pub file: std::sync::Arc<super::source::SourceFile>,
    pub span: Span,
    pub uses: String,
    /// It can be undone until it has passed the pivot inside it.
    pub holds_pivot: bool,
}

/// The pivot of a pipeline: the step that is one, or that runs a pipeline which has one.
fn pivots(steps: &[StepSpec]) -> Vec<usize> {
    let is_pivot = |step: &StepSpec| step.pivot || step.module.as_ref().is_some_and(|module| module.has_pivot);
    steps.iter().enumerate().filter(|(_, step)| is_pivot(step)).map(|(at, _)| at).collect()
}

/// Whether every id says which step is meant.
pub(crate) fn ids_are_unique(pipeline: &Pipeline) -> bool {
    ids(pipeline).len() == pipeline.steps.iter().chain(&pipeline.finally).filter(|step| !step.id.is_empty()).count()
}

/// The step of a pipeline after whose start a run no longer rolls back by itself.
pub(crate) fn pivot_of(pipeline: &Pipeline) -> Option<&StepSpec> {
    pivots(&pipeline.steps).first().map(|at| &pipeline.steps[*at])
}

/// Checks where the pivot stands, and gives what it does not cover.
pub(crate) fn pivot(
    pipeline: &Pipeline,
    graph: &Graph,
    exposed_in: &dyn Fn(&str) -> Vec<Exposed>,
    problems: &mut Vec<Problem>,
) -> Vec<Exposed> {
    let file = &pipeline.file;
    for step in pipeline.finally.iter().filter(|step| step.pivot) {
        problems.push(
            Problem::new(
                Code::PivotPlace,
                file,
                step.key_span("pivot"),
                format!("step `{}` of `finally` cannot be the pivot", step.id),
            )
            .label("not in `finally`")
            .help("`finally` runs when everything is over; put the pivot under `steps:`"),
        );
    }
    let found = pivots(&pipeline.steps);
    if let [first, others @ ..] = found.as_slice() {
        let first_step = &pipeline.steps[*first];
        for other in others.iter().map(|at| &pipeline.steps[*at]) {
            problems.push(
                Problem::new(
                    Code::SecondPivot,
                    file,
                    other.key_span("pivot"),
                    format!("`{}` is a second pivot: `{}` is one already", other.id, first_step.id),
                )
                .label("the second")
                .and(file, first_step.key_span("pivot"), "the first")
                .help("keep the one after whose start the run must not go back; the steps behind it are past it anyway"),
            );
        }
    }
    let pivot = found.first().copied();
    let covered = pivot.map(|at| graph.behind(at)).unwrap_or_default();
    let mut exposed = Vec::new();
    let mut held = Vec::new();
    for (at, step) in pipeline.steps.iter().enumerate() {
        let mut here = impossible(pipeline, step, exposed_in);
        if here.is_empty() {
            continue;
        }
        // Inside the step that runs the pivot's own pipeline, what that pipeline does not cover stays uncovered.
        let is_covered = covered.contains(&at) && (Some(at) != pivot || step.pivot);
        if is_covered {
            held.push(step.id.as_str());
        } else {
            exposed.append(&mut here);
        }
    }
    if let Some(at) = pivot {
        let step = &pipeline.steps[at];
        let others: Vec<&str> = held.iter().copied().filter(|id| *id != step.id).collect();
        for key in ["if", "for_each"] {
            if step.node.get(key).is_some() && !others.is_empty() {
                let what = if key == "if" { "may be skipped" } else { "may run over nothing" };
                problems.push(
                    Problem::new(
                        Code::PivotPlace,
                        file,
                        step.key_span(key),
                        format!("the pivot `{}` {what}, but `{}` relies on it", step.id, others.join("`, `")),
                    )
                    .label("then the run never passes the pivot")
                    .help(format!("take `{key}` from the pivot, and put it on the steps behind it")),
                );
            }
        }
        // It may fail before it has passed the pivot; one that is passed at its start cannot.
        let starts_past = step.module.is_none() && step.info.as_ref().is_none_or(|info| info.pivot == Pivot::AtStart);
        if step.continue_on_error && !starts_past && !others.is_empty() {
            problems.push(
                Problem::new(
                    Code::PivotPlace,
                    file,
                    step.key_span("continue_on_error"),
                    format!("the pivot `{}` may fail before it is passed, but `{}` relies on it", step.id, others.join("`, `")),
                )
                .label("then what is behind it starts before the pivot")
                .help("take `continue_on_error` from the pivot"),
            );
        }
        if step.background.is_some() || step.background_true {
            problems.push(
                Problem::new(
                    Code::PivotPlace,
                    file,
                    step.key_span("background"),
                    format!("the pivot `{}` cannot run in the background", step.id),
                )
                .label("a step that serves others")
                .help("make the step that switches over the pivot"),
            );
        }
    }
    // One is enough to refuse the pipeline; a pipeline used a thousand times need not be told a thousand times.
    exposed.truncate(MOST_HINTED);
    exposed
}

/// What of a step cannot be undone.
fn impossible(pipeline: &Pipeline, step: &StepSpec, exposed_in: &dyn Fn(&str) -> Vec<Exposed>) -> Vec<Exposed> {
    if step.undo_skip || step.undo.is_some() {
        return Vec::new();
    }
    if let Some(module) = &step.module {
        let mut inside = exposed_in(&module.file.name);
        for one in &mut inside {
            one.path = format!("{}/{}", step.id, one.path);
        }
        return inside;
    }
    let Some(info) = &step.info else { return Vec::new() };
    let holds_pivot = info.pivot == Pivot::Inside;
    if !holds_pivot && (info.traits.0)(&step.with).undo != Undo::Impossible {
        return Vec::new();
    }
    vec![Exposed {
        path: step.id.clone(),
        file: std::sync::Arc::clone(&pipeline.file),
        span: step.span_of("uses"),
        uses: step.uses.clone(),
        holds_pivot,
    }]
}

/// The problem of a step that cannot be undone and may start before any pivot.
pub(crate) fn before_pivot(pivot: Option<&StepSpec>, exposed: &Exposed) -> Problem {
    let (message, help) = match pivot {
        Some(pivot) => (
            format!("step `{}` cannot be undone, and may start before the pivot `{}`", exposed.path, pivot.id),
            format!("let it need `{}`, or write `undo: skip` if nothing has to be put back", pivot.id),
        ),
        None if exposed.holds_pivot => (
            format!("step `{}` holds a pivot inside, and the pipeline has no pivot", exposed.path),
            "write `pivot: true` at it: until it passes its pivot a rollback undoes it, from there on the run goes forward"
                .to_owned(),
        ),
        None => (
            format!("step `{}` cannot be undone, and the pipeline has no pivot", exposed.path),
            "write `pivot: true` at the step after whose start the run must not go back, and let this one stand behind it; \
             or write `undo: skip` if nothing has to be put back"
                .to_owned(),
        ),
    };
    let label = if exposed.holds_pivot {
        format!("a step of type `{}` cannot be undone once it has passed its pivot", exposed.uses)
    } else {
        format!("a step of type `{}` cannot be undone", exposed.uses)
    };
    Problem::new(Code::BeforePivot, &exposed.file, exposed.span, message).label(label).help(help)
}
