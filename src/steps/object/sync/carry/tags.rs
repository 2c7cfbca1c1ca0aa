//! Whether tags are carried: each object's are a request of their own.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Whether tags are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tags {
    /// Those of objects that are said to have some.
    #[default]
    Auto,
    /// Every object is asked for its tags.
    Yes,
    /// None.
    No,
}

impl Tags {
    /// Whether an object is asked that is said to have so many.
    pub fn asks(self, told: u32) -> bool {
        match self {
            Self::Auto => told > 0,
            Self::Yes => true,
            Self::No => false,
        }
    }
}

const WANTED: &str = "expected true, false or `auto`";

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Flag(bool),
    Text(String),
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer) {
            Ok(Written::Flag(true)) => Ok(Self::Yes),
            Ok(Written::Flag(false)) => Ok(Self::No),
            Ok(Written::Text(text)) => match text.as_str() {
                "auto" => Ok(Self::Auto),
                "true" => Ok(Self::Yes),
                "false" => Ok(Self::No),
                _ => Err(D::Error::custom(WANTED)),
            },
            Err(_) => Err(D::Error::custom(WANTED)),
        }
    }
}

impl JsonSchema for Tags {
    fn schema_name() -> Cow<'static, str> {
        "Tags".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["auto", true, false], "description": "Whether tags are carried." })
    }
}
