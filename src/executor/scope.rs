//! The names that a template of a step may use, with what they are now.

use serde_json::{Map, Value};

use super::level::Level;
use super::session::Session;
use crate::engine::{Engine, Node, RunStatus, State, StepPath};
use crate::pipeline::template::{self, Each, Scope, StepView};

/// Calls `render` with the scope of a level. A plan has no `status`: nobody knows yet how the run ends.
pub(super) fn with<R>(
    session: &Session,
    level: &Level,
    each: Option<Each>,
    steps: &dyn Fn(&str) -> StepView,
    status: Option<String>,
    render: impl FnOnce(&Scope<'_>) -> R,
) -> R {
    let mut run = Map::from_iter([
        ("id".to_owned(), Value::from(session.run.as_str())),
        ("started_at".to_owned(), Value::from(session.started_at.to_string())),
    ]);
    run.extend(status.map(|status| ("status".to_owned(), Value::from(status))));
    render(&Scope {
        inputs: &level.inputs,
        secrets: level.secrets.clone(),
        steps,
        each,
        hosts: level.host_values.clone(),
        run,
        env: level.env.clone(),
        pipeline_name: &level.pipeline.name,
    })
}

/// A run's state as templates see it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) session: &'a Session,
    pub(super) engine: &'a Engine,
}

impl View<'_> {
    pub(super) fn scope<R>(self, level: &Level, each: Option<Each>, render: impl FnOnce(&Scope<'_>) -> R) -> R {
        let steps = |id: &str| self.step(level, id);
        with(self.session, level, each, &steps, Some(status_text(self.engine.outcome())), render)
    }

    /// The scope of an `undo:` body: what a step has left counts, whatever has become of the step since.
    pub(super) fn undo_scope<R>(self, level: &Level, node: &Node, render: impl FnOnce(&Scope<'_>) -> R) -> R {
        let steps = |id: &str| {
            let is_own = node.path.id() == id;
            let left =
                if is_own { Some(node) } else { self.engine.step(&level.path_of(id)) }.and_then(|node| node.output.clone());
            left.map_or_else(|| self.step(level, id), StepView::Outputs)
        };
        with(self.session, level, Self::each(node), &steps, Some(status_text(self.engine.outcome())), render)
    }

    /// The instance of a `for_each` that a step is.
    pub(super) fn each(node: &Node) -> Option<Each> {
        node.each.as_ref().map(|(key, value)| Each { key: key.clone(), value: value.clone(), index: node.each_index })
    }

    /// What `steps.ID` is for the steps of a level.
    pub(super) fn step(self, level: &Level, id: &str) -> StepView {
        let path = level.path_of(id);
        match self.engine.step(&path) {
            None => StepView::Unknown,
            Some(node) => self.node(&path, node),
        }
    }

    fn node(self, path: &StepPath, node: &Node) -> StepView {
        match node.state {
            State::Skipped => StepView::Skipped,
            // Only those who tolerate its failure get to ask.
            State::Failed if node.def.continue_on_error => StepView::Skipped,
            State::Succeeded if node.def.for_each && node.each.is_none() => {
                // By key, so that an instance that runs again replaces what it left and never appends.
                let mut outputs = Map::new();
                for child in self.engine.children(node) {
                    if let (Some((key, _)), StepView::Outputs(output)) = (&child.each, self.node(&child.path, child)) {
                        outputs.insert(key.clone(), output);
                    }
                }
                StepView::Outputs(Value::Object(outputs))
            }
            State::Succeeded => StepView::Outputs(match self.session.level(Some(path)) {
                Some(inner) if node.output.is_none() => self.outputs(&inner).unwrap_or(Value::Null),
                _ => node.output.clone().unwrap_or(Value::Null),
            }),
            _ => StepView::NotYet,
        }
    }

    /// The `outputs` of a pipeline, once its steps are over.
    pub(super) fn outputs(self, level: &Level) -> Result<Value, template::RenderError> {
        self.scope(level, None, |scope| {
            let render = |value| template::render(value, scope, &self.session.vault);
            let outputs = level.pipeline.outputs.iter().map(|(name, value)| Ok((name.clone(), render(value)?)));
            outputs.collect::<Result<Map<_, _>, _>>().map(Value::Object)
        })
    }
}

pub(super) fn status_text(status: RunStatus) -> String {
    serde_json::to_value(status).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
