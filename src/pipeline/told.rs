//! Of all that a schema says of a wrong value, what is worth telling.

use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind as Kind};
use jsonschema::paths::Location;
use serde_json::Value;

/// An error to tell.
pub(super) enum Told<'e> {
    /// As the schema says it.
    One(&'e ValidationError<'e>),
    /// At this place one of these belongs.
    OneOf(Location, Vec<String>),
    /// The mapping at this place needs one of these keys, and whether it has several.
    OneKey(Location, Vec<String>, bool),
}

impl Told<'_> {
    pub(super) fn place(&self) -> &Location {
        match self {
            Self::One(error) => error.instance_path(),
            Self::OneOf(place, _) | Self::OneKey(place, ..) => place,
        }
    }

    /// The key whose absence is all that it says of this place.
    fn missing(&self, at: &Location) -> Option<&str> {
        match self {
            Self::One(error) if error.instance_path() == at => match error.kind() {
                Kind::Required { property } => property.as_str(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it only says that something else altogether belongs at this place, and what.
    fn wants(&self, at: &Location) -> Option<Vec<String>> {
        match self {
            Self::OneOf(place, wants) if place == at => Some(wants.clone()),
            Self::One(error) if error.instance_path() == at => match error.kind() {
                Kind::Type { kind } => Some(types(kind)),
                Kind::Constant { expected_value } => Some(vec![shown(expected_value)]),
                Kind::Enum { options } => Some(options.as_array().into_iter().flatten().map(shown).collect()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Of several ways to be right, the one that was meant: where the place itself fits and something inside is wrong.
pub(super) fn best<'e>(error: &ValidationError<'_>, branches: Vec<Vec<Told<'e>>>) -> Vec<Told<'e>> {
    let at = error.instance_path();
    let keys: Option<Vec<String>> = branches
        .iter()
        .map(|branch| match branch.as_slice() {
            [only] => only.missing(at).map(str::to_owned),
            _ => None,
        })
        .collect();
    if let Some(keys) = keys.filter(|keys| keys.len() > 1) {
        return vec![Told::OneKey(at.clone(), keys, false)];
    }
    let mut wanted: Vec<String> = Vec::new();
    let mut meant: Option<Vec<Told<'e>>> = None;
    for branch in branches {
        if let Some(wants) = branch.iter().find_map(|told| told.wants(at)) {
            wanted.extend(wants.into_iter().filter(|want| want != "null"));
            continue;
        }
        let depth = |branch: &[Told<'e>]| {
            // Fewer and deeper errors are nearer to what was meant.
            (std::cmp::Reverse(branch.len()), branch.iter().map(|told| told.place().segments().count()).max())
        };
        if meant.as_ref().is_none_or(|have| depth(&branch) > depth(have)) {
            meant = Some(branch);
        }
    }
    meant.unwrap_or_else(|| {
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|want| seen.insert(want.clone()));
        vec![Told::OneOf(at.clone(), wanted)]
    })
}

pub(super) fn types(kind: &TypeKind) -> Vec<String> {
    let name = |kind: jsonschema::JsonType| {
        match kind {
            jsonschema::JsonType::Array => "a list",
            jsonschema::JsonType::Boolean => "a boolean",
            jsonschema::JsonType::Integer => "an integer",
            jsonschema::JsonType::Null => "null",
            jsonschema::JsonType::Number => "a number",
            jsonschema::JsonType::Object => "a mapping",
            jsonschema::JsonType::String => "text",
        }
        .to_owned()
    };
    match kind {
        TypeKind::Single(one) => vec![name(*one)],
        TypeKind::Multiple(set) => set.iter().map(name).collect(),
    }
}

pub(super) fn shown(value: &Value) -> String {
    format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
