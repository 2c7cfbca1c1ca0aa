//! What a step's configuration meant when the step looked at the world: the folder, the host and the stores it named.
//!
//! It is journaled with the inspection, so that an edit of a store, or a pipeline file in another folder, moves neither
//! the attempts nor the undo of what was begun before it.

use std::path::PathBuf;

use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::level::Level;
use super::render::{host_of, sha256_of};
use super::session::Session;
use crate::hosts::Hosts;
use crate::stores::{StoreOptions, Stores};

/// Where a step works: what its context is given.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) base: PathBuf,
    pub(super) hosts: Hosts,
    pub(super) stores: Stores,
}

impl Surroundings {
    /// What the pipeline says now.
    pub(super) fn now(level: &Level) -> Self {
        Self { base: level.base.clone(), hosts: level.hosts.clone(), stores: level.stores.clone() }
    }

    /// What was recorded; the pipeline's own where nothing was.
    pub(super) fn recorded(level: &Level, session: &Session, recorded: &Value) -> Self {
        let mut around = Self::now(level);
        if let Some(base) = recorded.get("base").and_then(Value::as_str) {
            around.base = base.into();
        }
        if let Some(host) = recorded.get("host") {
            let name = host.get("name").and_then(Value::as_str).unwrap_or("local");
            if level.host_values.get(name) != Some(host)
                && let Ok(host) = super::level::host(session, name, host)
            {
                let others = level.host_values.keys().filter(|other| *other != name);
                around.hosts = Hosts::new(others.filter_map(|other| level.hosts.get(other).ok()).chain([host]));
            }
        }
        let mut options = level.store_options.clone();
        let named = recorded.get("stores").and_then(Value::as_object).into_iter().flatten();
        for (name, was) in named {
            if let Ok(was) = StoreOptions::deserialize(was) {
                options.insert(name.clone(), was);
            }
        }
        // The same stores are opened once for all steps.
        if options != level.store_options {
            around.stores = Stores::new(options, session.vault.clone());
        }
        around
    }
}

/// The folder, the host and the stores that a configuration names, marks in place of secrets: what the journal keeps.
pub(super) fn surroundings(config: &Value, level: &Level) -> Value {
    let mut stores = Map::new();
    let bodies = [config.get("with"), config.pointer("/undo/with")];
    for body in bodies.into_iter().flatten() {
        each_text(body, &mut |text| {
            if let Some((name, options)) = text.split_once(':').and_then(|(name, _)| level.store_options.get_key_value(name)) {
                stores.insert(name.clone(), serde_json::to_value(options).unwrap_or_default());
            }
        });
    }
    let mut around = Map::new();
    // A name that is not text cannot be journaled; then the pipeline's folder counts, whichever that is.
    around.extend(level.base.to_str().map(|base| ("base".to_owned(), base.into())));
    around.extend(level.host_values.get(&host_of(config)).map(|host| ("host".to_owned(), host.clone())));
    if !stores.is_empty() {
        around.insert("stores".to_owned(), stores.into());
    }
    around.into()
}

/// Digest of a resolved definition and of what it means here: what the step would act on. Secrets are in it as marks,
/// that is by name.
pub(super) fn digest(config: &Value, around: &Value) -> String {
    sha256_of(&json!({ "config": config, "around": around }))
}

fn each_text(value: &Value, take: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => take(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, take)),
        Value::Object(fields) => fields.values().for_each(|item| each_text(item, take)),
        _ => {}
    }
}
