//! A pipeline with its inputs: the run's own, or one that is used as a step. Names in templates mean what they mean here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::scope;
use super::session::Session;
use crate::engine::StepPath;
use crate::error::{ErrorClass, Failure, StepError};
use crate::hosts::{Host, Hosts, LocalHost, Target};
use crate::pipeline::{HostSpec, Pipeline, StepSpec, template};
use crate::secret::Text;
use crate::stores::{StoreOptions, Stores};

pub(super) struct Level {
    /// The step that runs it; `None` at the top.
    pub(super) path: Option<StepPath>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) inputs: Map<String, Value>,
    /// Name in the pipeline, mark.
    pub(super) secrets: BTreeMap<String, String>,
    /// Those that the pipeline lists, of the run's environment.
    pub(super) env: Map<String, Value>,
    pub(super) hosts: Hosts,
    /// What `hosts.NAME` is in a template.
    pub(super) host_values: Map<String, Value>,
    pub(super) stores: Stores,
    pub(super) store_options: BTreeMap<String, StoreOptions>,
    /// Where its relative paths begin.
    pub(super) base: PathBuf,
    index: HashMap<String, (bool, usize)>,
}

impl Level {
    /// Gets everything ready that steps of this pipeline may need. A pipeline used as a step sees the stores and hosts
    /// of the one around it, so that places can be handed in as inputs; its own come first.
    pub(super) async fn open(
        session: &Session,
        path: Option<StepPath>,
        pipeline: Arc<Pipeline>,
        inputs: Map<String, Value>,
        around: Option<&Self>,
    ) -> Result<Self, Failure> {
        let env = pipeline.env.iter().filter_map(|name| Some((name.clone(), session.env.get(name)?.clone()))).collect();
        let base = session.folder.join(&pipeline.file.name).parent().map(Path::to_owned).unwrap_or_default();
        // One name for one folder: it is recorded with what steps saw, and compared when the pipeline was edited.
        let base = std::fs::canonicalize(&base).unwrap_or(base);
        let mut level = Self {
            index: index(&pipeline),
            secrets: BTreeMap::new(),
            hosts: Hosts::default(),
            host_values: around.map(|around| around.host_values.clone()).unwrap_or_default(),
            stores: Stores::default(),
            store_options: around.map(|around| around.store_options.clone()).unwrap_or_default(),
            path,
            pipeline,
            inputs,
            env,
            base,
        };
        level.secrets = super::secrets::load(session, &level).await?;
        level.open_hosts(session)?;
        level.open_stores(session)?;
        Ok(level)
    }

    fn open_hosts(&mut self, session: &Session) -> Result<(), Failure> {
        self.host_values.entry("local").or_insert_with(|| json!({ "name": "local" }));
        let mut values = Map::new();
        for (name, spec) in &self.pipeline.hosts {
            let value = match spec {
                HostSpec::Local => json!({ "name": name }),
                HostSpec::Ssh(keys) => {
                    let mut value = self.render_early(session, &format!("host `{name}`"), &Value::from(keys.clone()))?;
                    value["name"] = name.as_str().into();
                    // What is recorded with a step has to mean the same from another folder.
                    for key in ["identity", "config"] {
                        if let Some(path) = value.get(key).and_then(Value::as_str).filter(|path| !path.starts_with('~')) {
                            value[key] = self.base.join(path).to_string_lossy().into();
                        }
                    }
                    value
                }
            };
            values.insert(name.clone(), value);
        }
        self.host_values.extend(values);
        let hosts = self.host_values.iter().map(|(name, value)| {
            host(session, name, value).map_err(|error| Failure {
                message: format!("host `{name}`: {}", error.message),
                ..session.vault.mask_failure(&error)
            })
        });
        self.hosts = Hosts::new(hosts.collect::<Result<Vec<_>, _>>()?);
        Ok(())
    }

    fn open_stores(&mut self, session: &Session) -> Result<(), Failure> {
        let mut opened = BTreeMap::new();
        for (name, options) in &self.pipeline.stores {
            let what = format!("store `{name}`");
            let mut rendered = StoreOptions::new();
            for (key, value) in options {
                let text = match self.render_early(session, &what, value)? {
                    Value::Null => continue,
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                rendered.insert(key.clone(), Text::new(text));
            }
            opened.insert(name.clone(), rendered);
        }
        self.store_options.extend(opened);
        self.stores = Stores::new(self.store_options.clone(), session.vault.clone());
        Ok(())
    }

    /// Renders what may name inputs, secrets and the environment only.
    pub(super) fn render_early(&self, session: &Session, what: &str, value: &Value) -> Result<Value, Failure> {
        let steps = |_: &str| template::StepView::NotYet;
        scope::with(session, self, None, &steps, Some("running".to_owned()), |scope| {
            template::render(value, scope, &session.vault)
        })
        .map_err(|error| render_failure(what, &error))
    }

    /// The step of this id, and whether it is of `finally`.
    pub(super) fn spec(&self, id: &str) -> Option<(&StepSpec, bool)> {
        let &(is_finally, at) = self.index.get(id)?;
        let list = if is_finally { &self.pipeline.finally } else { &self.pipeline.steps };
        list.get(at).map(|spec| (spec, is_finally))
    }

    /// The path of a step of this pipeline.
    pub(super) fn path_of(&self, id: &str) -> StepPath {
        self.path.as_ref().map_or_else(|| StepPath::root(id), |path| path.child(id))
    }
}

/// The host that a value of `hosts` means. Nothing is connected before a step needs it.
pub(super) fn host(session: &Session, name: &str, value: &Value) -> Result<Arc<dyn Host>, StepError> {
    match value.as_object().filter(|keys| keys.contains_key("ssh")) {
        None => Ok(Arc::new(LocalHost::named(name))),
        Some(keys) => Ok(session.reached.host(name, Target::read(keys, Path::new(""))?)),
    }
}

/// A pipeline of 10,000 steps is asked for each of them: not by walking the list.
fn index(pipeline: &Pipeline) -> HashMap<String, (bool, usize)> {
    let lists = [(false, &pipeline.steps), (true, &pipeline.finally)];
    lists
        .into_iter()
        .flat_map(|(is_finally, list)| list.iter().enumerate().map(move |(at, step)| (step.id.clone(), (is_finally, at))))
        .collect()
}

/// A template that cannot be rendered stays so until somebody changes something.
pub(super) fn render_failure(what: &str, error: &template::RenderError) -> Failure {
    Failure {
        message: format!("cannot render {what}: {}", error.message),
        class: ErrorClass::Permanent,
        help: error.help.clone().or_else(|| Some("correct the pipeline, then `ferry resume --pipeline FILE`".to_owned())),
        retry_after: None,
        causes: Vec::new(),
    }
}
