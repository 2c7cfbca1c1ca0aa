//! Places in the write-ahead log, as PostgreSQL writes them.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A place in the write-ahead log: bytes since its beginning. Written as `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// How many bytes this lies behind another place; none when it is ahead.
    pub fn behind(self, other: Self) -> u64 {
        other.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no place in the write-ahead log: it is written like `16/B374D848`");
        let (high, low) = text.trim().split_once('/').ok_or_else(wrong)?;
        let number = |part: &str| {
            let is_hex = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(part, 16).ok()).flatten().ok_or_else(wrong)
        };
        Ok(Self(u64::from(number(high)?) << 32 | u64::from(number(low)?)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Lsn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Lsn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$",
            "description": "A place in the write-ahead log, such as `16/B374D848`.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "1/A"] {
            assert_eq!(text.parse::<Lsn>().expect(text).to_string(), text);
        }
        for wrong in ["", "/", "1/", "/1", "1/2/3", "G/1", "+1/1", "100000000/0", "1"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_distance_is_in_bytes() {
        let at = |text: &str| text.parse::<Lsn>().expect("a place");
        assert_eq!(at("0/FFFFFFFF").behind(at("1/0")), 1);
        assert_eq!(at("1/0").behind(at("0/FFFFFFFF")), 0);
        assert!(at("1/0") > at("0/FFFFFFFF"));
    }
}
