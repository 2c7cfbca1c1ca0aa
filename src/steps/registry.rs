//! Step types behind one object-safe face, found by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Preview, Step, StepContext};
use crate::catalogue::{Catalogue, TraitsOf, TypeInfo};
use crate::error::StepError;
use crate::secret::{MISPLACED_SECRET, is_marked, misplaced, shown_way};

/// A configured step whose type is known only by name. `before` and outputs travel as JSON.
pub trait DynStep: Send + Sync {
    /// See [`Step::inspect`].
    fn inspect<'a>(&'a self, ctx: &'a StepContext) -> BoxFuture<'a, Result<Value, StepError>>;
    /// See [`Step::preview`].
    fn preview(&self, before: &Value) -> Result<Preview, StepError>;
    /// See [`Step::run`].
    fn run<'a>(&'a self, ctx: &'a StepContext, before: &'a Value) -> BoxFuture<'a, Result<Value, StepError>>;
    /// See [`Step::undo`].
    fn undo<'a>(&'a self, ctx: &'a StepContext, before: &'a Value) -> BoxFuture<'a, Result<(), StepError>>;
}

struct Erased<S>(S);

fn to_json(what: &str, value: &impl Serialize) -> Result<Value, StepError> {
    serde_json::to_value(value).map_err(|error| StepError::permanent(format!("cannot write {what} as JSON")).cause(error))
}

fn from_json<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T, StepError> {
    T::deserialize(value).map_err(|error| {
        StepError::permanent(format!("cannot read {what} from the journal"))
            .cause(error)
            .help("the run was started by another version of ferry: resume it with that version, or roll it back with it")
    })
}

impl<S: Step> DynStep for Erased<S> {
    fn inspect<'a>(&'a self, ctx: &'a StepContext) -> BoxFuture<'a, Result<Value, StepError>> {
        async move { to_json("what inspect saw", &self.0.inspect(ctx).await?) }.boxed()
    }

    fn preview(&self, before: &Value) -> Result<Preview, StepError> {
        Ok(self.0.preview(&from_json("what inspect saw", before)?))
    }

    fn run<'a>(&'a self, ctx: &'a StepContext, before: &'a Value) -> BoxFuture<'a, Result<Value, StepError>> {
        async move { to_json("the outputs", &self.0.run(ctx, &from_json("what inspect saw", before)?).await?) }.boxed()
    }

    fn undo<'a>(&'a self, ctx: &'a StepContext, before: &'a Value) -> BoxFuture<'a, Result<(), StepError>> {
        async move { self.0.undo(ctx, &from_json("what inspect saw", before)?).await }.boxed()
    }
}

type Foresee = dyn for<'a> Fn(&'a Value, &'a StepContext) -> BoxFuture<'a, Result<Vec<String>, StepError>> + Send + Sync;

type Make = dyn Fn(&Value) -> Result<Box<dyn DynStep>, StepError> + Send + Sync;

/// The step types of this process, by name.
#[derive(Clone, Default)]
pub struct Registry {
    makers: BTreeMap<String, Arc<Make>>,
    seers: BTreeMap<String, Arc<Foresee>>,
    catalogue: Catalogue,
}

impl Registry {
    /// Adds a built-in type.
    #[must_use]
    pub fn with<S: Step>(mut self) -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let config = generator.root_schema_for::<S>().to_value();
        let outputs = SchemaSettings::draft2020_12().into_generator().root_schema_for::<S::Output>().to_value();
        let manual = config.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let summary = manual.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let info = TypeInfo {
            name: S::TYPE.to_owned(),
            summary,
            manual,
            config,
            outputs,
            example: S::EXAMPLE.to_owned(),
            kind: S::KIND,
            background: S::BACKGROUND,
            pivot: S::PIVOT,
            tools: S::TOOLS.iter().map(|tool| (*tool).to_owned()).collect(),
            traits: TraitsOf(Arc::new(S::traits)),
        };
        let make = |with: &Value| -> Result<Box<dyn DynStep>, StepError> {
            let step = S::deserialize(with).map_err(|error| {
                StepError::permanent(format!(
                    "the configuration of `{}` is wrong once its templates are rendered: {error}",
                    S::TYPE
                ))
                .help(format!("`ferry steps {}` lists its keys", S::TYPE))
            })?;
            Ok(Box::new(Erased(step)))
        };
        self.add(info, Arc::new(make));
        self.seers.insert(S::TYPE.to_owned(), Arc::new(|with, ctx| S::foresee(with, ctx).boxed()));
        self
    }

    /// Adds a type that is described at run time: a plugin's.
    pub fn add(&mut self, info: TypeInfo, make: Arc<Make>) {
        self.makers.insert(info.name.clone(), make);
        self.catalogue.add(info);
    }

    /// What is known of the types without running them.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The step of this type with this rendered `with`.
    pub fn make(&self, uses: &str, with: &Value) -> Result<Box<dyn DynStep>, StepError> {
        let make = self.makers.get(uses).ok_or_else(|| {
            StepError::permanent(format!("there is no step type `{uses}` in this ferry")).help("`ferry steps` lists the types")
        })?;
        if let Some(info) = self.catalogue.get(uses) {
            no_misplaced_secret(info, with)?;
        }
        make(with)
    }
}

impl Registry {
    /// See [`Step::foresee`].
    pub async fn foresee(&self, uses: &str, with: &Value, ctx: &StepContext) -> Result<Vec<String>, StepError> {
        match self.seers.get(uses) {
            Some(foresee) => foresee(with, ctx).await,
            None => Ok(Vec::new()),
        }
    }
}

/// A key that takes no secrets would use the mark of one as it is written, for a name of a file or an address.
fn no_misplaced_secret(info: &TypeInfo, with: &Value) -> Result<(), StepError> {
    let mut first = None;
    misplaced(&info.config, with, &is_marked, &mut |way, _| {
        first.get_or_insert_with(|| shown_way(way));
    });
    let Some(key) = first else { return Ok(()) };
    Err(StepError::permanent(format!("a secret stands in `{key}` of `{}`, which takes none", info.name)).help(MISPLACED_SECRET))
}
