//! What a person says a sync may do: how much it deletes, how fast it goes at which hour, what it reads again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::units::Rate;

/// `1%`, `0.5%`: of everything.
fn share(text: &str) -> Option<f64> {
    let number = text.trim().strip_suffix('%')?.trim_end().parse::<f64>().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}

/// A value that travels as a text, or as something simpler.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Flag(bool),
    Text(String),
}

fn read<'de, D: Deserializer<'de>, T>(deserializer: D, wanted: &str, of: impl Fn(Written) -> Option<T>) -> Result<T, D::Error> {
    let wrong = || serde::de::Error::custom(format!("expected {wanted}"));
    let written = Written::deserialize(deserializer).map_err(|_| wrong())?;
    of(written).ok_or_else(wrong)
}

/// What becomes of objects that are only at one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is ever deleted.
    #[default]
    Copy,
    /// What is only at the target is deleted there, once everything was copied.
    Mirror,
    /// Each object is deleted at the source, once everything was copied and its own copy is known to be whole.
    Move,
}

/// Which versions of an object are copied, where the source keeps more than one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Versions {
    /// The one that is there now.
    #[default]
    Current,
    /// All of them. Refused: see the manual.
    All,
}

/// How much may be deleted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxDelete {
    /// So many objects.
    Count(u64),
    /// Such a part of the objects at the target.
    Share(f64),
}

impl MaxDelete {
    /// How many of so many objects may be deleted.
    pub fn of(self, all: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a part of a number is no larger than it"
            )]
            Self::Share(share) => (all as f64 * share).floor() as u64,
        }
    }
}

impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

impl<'de> Deserialize<'de> for MaxDelete {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "a number of objects, or a part of them such as `1%`", |written| match written {
            Written::Number(count) => Some(Self::Count(count)),
            Written::Text(text) => share(&text).map(Self::Share).or_else(|| text.parse().ok().map(Self::Count)),
            Written::Flag(_) => None,
        })
    }
}

impl JsonSchema for MaxDelete {
    fn schema_name() -> Cow<'static, str> {
        "MaxDelete".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"], "minimum": 0, "pattern": r"^\d+$|^\d+(\.\d+)?\s*%$",
            "description": "A number of objects, or a part of those at the target: `1%`.", "examples": [100, "1%"]
        })
    }
}

/// What is read again at the target and compared with what was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Verify {
    /// Nothing.
    #[default]
    No,
    /// Every object that was copied.
    Full,
    /// Such a part of them.
    Sample(f64),
}

impl Verify {
    /// Whether this object is read again. The same for every attempt.
    pub fn takes(self, key: &str) -> bool {
        match self {
            Self::No => false,
            Self::Full => true,
            Self::Sample(share) => {
                let hash = *blake3::hash(key.as_bytes()).as_bytes();
                let drawn = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
                f64::from(drawn) < share * f64::from(u32::MAX)
            }
        }
    }
}

impl FromStr for Verify {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim() {
            "full" | "true" => Ok(Self::Full),
            "none" | "false" => Ok(Self::No),
            text => text.strip_prefix("sample").and_then(share).map(Self::Sample).ok_or(()),
        }
    }
}

impl<'de> Deserialize<'de> for Verify {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "`full`, `none` or a part such as `sample 5%`", |written| match written {
            Written::Flag(is_full) => Some(if is_full { Self::Full } else { Self::No }),
            Written::Text(text) => text.parse().ok(),
            Written::Number(_) => None,
        })
    }
}

impl JsonSchema for Verify {
    fn schema_name() -> Cow<'static, str> {
        "Verify".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["boolean", "string"], "pattern": r"^(full|none|true|false|sample\s*\d+(\.\d+)?\s*%)$",
            "description": "`full` (or true), `none`, or a part of the objects: `sample 5%`.", "examples": ["full", "sample 5%"]
        })
    }
}

/// How fast it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bandwidth {
    /// From one time of the day to another; the first that holds counts. An end before its beginning goes over midnight.
    times: Vec<(Time, Time, Rate)>,
    /// At all other times.
    otherwise: Option<Rate>,
}

impl Bandwidth {
    /// The limit at this time of the day.
    pub fn at(&self, now: Time) -> Option<Rate> {
        let holds = |from: Time, to: Time| if from < to { from <= now && now < to } else { now >= from || now < to };
        self.times.iter().find(|(from, to, _)| holds(*from, *to)).map(|(_, _, rate)| *rate).or(self.otherwise)
    }

    /// Whether it depends on the time.
    pub fn is_by_time(&self) -> bool {
        !self.times.is_empty()
    }

    /// The same at all times.
    pub fn always(rate: Rate) -> Self {
        Self { times: Vec::new(), otherwise: Some(rate) }
    }
}

fn hours(text: &str) -> Option<(Time, Time)> {
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    let (from, to) = text.split_once('-')?;
    Some((time(from)?, if to.trim() == "24:00" { Time::MIN } else { time(to)? }))
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Times(BTreeMap<String, Rate>),
            Rate(Rate),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Rate(rate)) => Ok(Self::always(rate)),
            Ok(Written::Times(all)) => {
                let mut bandwidth = Self { times: Vec::new(), otherwise: None };
                for (text, rate) in all {
                    if text == "otherwise" {
                        bandwidth.otherwise = Some(rate);
                        continue;
                    }
                    let wrong = || serde::de::Error::custom(format!("`{text}` is not a time of the day such as `08:00-18:00`"));
                    let (from, to) = hours(&text).ok_or_else(wrong)?;
                    bandwidth.times.push((from, to, rate));
                }
                Ok(bandwidth)
            }
            Err(_) => {
                Err(serde::de::Error::custom("expected a rate such as `50MB/s`, or rates by hours: `{ '08:00-18:00': 50MB/s }`"))
            }
        }
    }
}

impl JsonSchema for Bandwidth {
    fn schema_name() -> Cow<'static, str> {
        "Bandwidth".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"], "format": "rate",
            "propertyNames": { "pattern": r"^(otherwise|\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2})$" },
            "additionalProperties": { "type": "string", "format": "rate" },
            "description": "A rate such as `200MB/s`, or rates by hours of the local time.",
            "examples": ["200MB/s", { "08:00-18:00": "50MB/s" }]
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_of_the_objects_is_a_number_of_them() {
        let most = |value| serde_json::from_value::<MaxDelete>(value);
        assert_eq!(most(json!("1%")).expect("a part").of(250), 2);
        assert_eq!(most(json!(7)).expect("a number").of(1), 7);
        assert_eq!(most(json!("7")).expect("a number").to_string(), "7");
        assert_eq!(most(json!("0.5%")).expect("a part").to_string(), "0.5%");
        for wrong in [json!("101%"), json!("-1%"), json!("some"), json!(true)] {
            assert!(most(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sample_is_about_as_large_as_it_says_and_always_the_same() {
        let verify: Verify = serde_json::from_value(json!("sample 5%")).expect("a sample");
        let taken = (0..10_000).filter(|number| verify.takes(&number.to_string())).count();
        assert!((400..600).contains(&taken), "{taken}");
        assert_eq!(serde_json::from_value::<Verify>(json!(true)).expect("a flag"), Verify::Full);
        assert!(serde_json::from_value::<Verify>(json!("half")).is_err());
    }

    #[test]
    fn the_hour_decides() {
        let written = json!({ "08:00-18:00": "50MB/s", "22:00-06:30": "1GB/s", "otherwise": "200MB/s" });
        let bandwidth: Bandwidth = serde_json::from_value(written).expect("a timetable");
        let at = |hour, minute| bandwidth.at(Time::new(hour, minute, 0, 0).expect("a time")).map(|rate| rate.0 / 1_000_000);
        assert_eq!(at(7, 59), Some(200));
        assert_eq!(at(8, 0), Some(50));
        assert_eq!(at(18, 0), Some(200));
        assert_eq!((at(23, 0), at(6, 29), at(6, 30)), (Some(1000), Some(1000), Some(200)));
        assert!(serde_json::from_value::<Bandwidth>(json!({ "8-18": "50MB/s" })).is_err());
        assert!(serde_json::from_value::<Bandwidth>(json!({ "25:00-26:00": "50MB/s" })).is_err());
    }
}
