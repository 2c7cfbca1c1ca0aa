//! Storage classes: S3's names, Azure's access tiers, and what a person says of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Kind;

/// The key of a table for all that it does not name.
const OTHERWISE: &str = "otherwise";

/// S3's classes and the Azure tier that is most like each. The first of several goes back.
const TABLE: &[(&str, &str)] = &[
    ("STANDARD_IA", "Cool"),
    ("ONEZONE_IA", "Cool"),
    ("GLACIER_IR", "Cold"),
    ("GLACIER", "Archive"),
    ("DEEP_ARCHIVE", "Archive"),
];

/// What has no name of its own at either side: there it is what the store does without a word.
const USUAL: &[&str] = &["STANDARD", "Hot"];

/// Where one class goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum To {
    /// The same, or what is most like it.
    #[default]
    Keep,
    /// Where the store keeps what nothing is said of.
    Default,
    /// This one.
    Named(String),
}

impl From<String> for To {
    fn from(text: String) -> Self {
        match text.as_str() {
            "keep" => Self::Keep,
            "default" => Self::Default,
            _ => Self::Named(text),
        }
    }
}

/// Which storage class objects get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorageClass {
    table: BTreeMap<String, To>,
    otherwise: To,
}

impl StorageClass {
    /// The class at one kind of place of what lies in this one at another.
    pub(super) fn at<'a>(&'a self, to: Kind, from: Kind, class: Option<&'a str>) -> Option<&'a str> {
        let usual = if from == Kind::Azure { "Hot" } else { "STANDARD" };
        let name = class.unwrap_or(usual);
        let said = self.table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, to)| to);
        match said.unwrap_or(&self.otherwise) {
            To::Default => None,
            To::Named(name) => Some(name).filter(|_| matches!(to, Kind::S3 | Kind::Azure)).map(String::as_str),
            To::Keep => match (from, to) {
                (Kind::S3, Kind::S3) | (Kind::Azure, Kind::Azure) => class,
                (Kind::S3, Kind::Azure) => TABLE.iter().find(|(s3, _)| Some(*s3) == class).map(|(_, azure)| *azure),
                (Kind::Azure, Kind::S3) => TABLE.iter().find(|(_, azure)| Some(*azure) == class).map(|(s3, _)| *s3),
                _ => None,
            },
        }
    }

    /// Whether nothing of a class is lost where it gets none: it is the usual one.
    pub fn is_usual(class: &str) -> bool {
        USUAL.contains(&class)
    }
}

/// Whether what lies in this class has to be restored before it can be read.
pub fn is_archive(class: &str) -> bool {
    matches!(class, "GLACIER" | "DEEP_ARCHIVE" | "Archive")
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    All(String),
    Table(BTreeMap<String, String>),
}

impl<'de> Deserialize<'de> for StorageClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = "expected `keep`, `default`, a storage class, or a table such as `{ STANDARD_IA: Cool, otherwise: keep }`";
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(wrong))? {
            Written::All(all) => Ok(Self { table: BTreeMap::new(), otherwise: all.into() }),
            Written::Table(mut table) => {
                let otherwise = table.remove(OTHERWISE).map(To::from).unwrap_or_default();
                Ok(Self { table: table.into_iter().map(|(name, to)| (name, to.into())).collect(), otherwise })
            }
        }
    }
}

impl JsonSchema for StorageClass {
    fn schema_name() -> Cow<'static, str> {
        "StorageClass".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"], "additionalProperties": { "type": "string" },
            "description": "`keep`, `default`, a class for everything, or a table from the source's classes to the target's.",
            "examples": ["default", { "STANDARD_IA": "Cool", "GLACIER": "Cold", "otherwise": "keep" }]
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> StorageClass {
        serde_json::from_value(value).expect("a table")
    }

    #[test]
    fn a_class_stays_within_a_kind_and_is_mapped_across() {
        let keep = StorageClass::default();
        for (from, to, class, is) in [
            (Kind::S3, Kind::S3, Some("INTELLIGENT_TIERING"), Some("INTELLIGENT_TIERING")),
            (Kind::S3, Kind::Azure, Some("ONEZONE_IA"), Some("Cool")),
            (Kind::S3, Kind::Azure, Some("INTELLIGENT_TIERING"), None),
            (Kind::S3, Kind::Azure, None, None),
            (Kind::Azure, Kind::S3, Some("Cool"), Some("STANDARD_IA")),
            (Kind::Azure, Kind::S3, Some("Hot"), None),
            (Kind::S3, Kind::Directory, Some("STANDARD_IA"), None),
        ] {
            assert_eq!(keep.at(to, from, class), is, "{class:?}");
        }
    }

    #[test]
    fn a_person_says_where_classes_go() {
        let table = read(json!({"standard_ia": "Cold", "GLACIER": "default", "otherwise": "Cool"}));
        for (class, is) in [(Some("STANDARD_IA"), Some("Cold")), (Some("GLACIER"), None), (None, Some("Cool"))] {
            assert_eq!(table.at(Kind::Azure, Kind::S3, class), is, "{class:?}");
        }
        assert_eq!(read(json!("default")).at(Kind::S3, Kind::S3, Some("STANDARD_IA")), None);
        assert_eq!(read(json!("GLACIER_IR")).at(Kind::S3, Kind::Directory, None), Some("GLACIER_IR"));
        assert_eq!(read(json!({"STANDARD": "Cool"})).at(Kind::Azure, Kind::S3, None), Some("Cool"));
        assert!(serde_json::from_value::<StorageClass>(json!(3)).is_err());
    }
}
