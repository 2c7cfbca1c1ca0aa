//! Values with units as people write them: `1MiB`, `200MB/s`, `90s`, `2h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a value with a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct UnitError {
    /// The text that was read.
    pub text: String,
    /// What was expected, with an example.
    pub wanted: &'static str,
}

const SIZE: &str = "a size such as `512KiB`, `1.5GB` or a number of bytes";
const RATE: &str = "a rate such as `200MB/s`";
const TIME: &str = "a duration such as `500ms`, `90s` or `2h30m`";

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.to_owned(), wanted: SIZE };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" | "k" => 1_000,
            "mb" | "m" => 1_000_000,
            "gb" | "g" => 1_000_000_000,
            "tb" | "t" => 1_000_000_000_000,
            "pb" => 1_000_000_000_000_000,
            "kib" | "ki" => 1 << 10,
            "mib" | "mi" => 1 << 20,
            "gib" | "gi" => 1 << 30,
            "tib" | "ti" => 1 << 40,
            "pib" | "pi" => 1 << 50,
            _ => return Err(error()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(ByteSize).ok_or_else(error);
        }
        let value: f64 = number.parse().map_err(|_| error())?;
        let bytes = value * factor as f64;
        if !bytes.is_finite() || bytes < 0.0 || bytes >= u64::MAX as f64 {
            return Err(error());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked above")]
        Ok(ByteSize(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    /// Binary units with one digit after the point: `1.5 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit < UNITS.len() - 1 {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.to_owned(), wanted: RATE };
        let size = text.trim().strip_suffix("/s").ok_or_else(error)?;
        let rate = size.parse::<ByteSize>().map_err(|_| error())?;
        if rate.0 == 0 { Err(error()) } else { Ok(Rate(rate.0)) }
    }
}

impl Rate {
    /// How a text that is no rate would be written if it is one in another spelling: `5MBps`, `5MB/sec`, `5MB`. Bits
    /// (`5Mbps`, `5Mbit/s`) are not guessed at: whoever means them has to divide.
    pub fn meant(text: &str) -> Option<String> {
        let size = ["ps", "/sec", "/second", " per second", ""].iter().find_map(|end| text.trim().strip_suffix(end))?;
        let written = format!("{}/s", size.trim());
        let is_bits = size.ends_with('b') && size.len() < text.trim().len();
        (!is_bits && written.parse::<Self>().is_ok()).then_some(written)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize(self.0))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.to_owned(), wanted: TIME };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(error());
        }
        let mut total = 0.0_f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(error)?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let seconds = match unit {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return Err(error()),
            };
            total += number.parse::<f64>().map_err(|_| error())? * seconds;
            rest = after.trim_start();
        }
        Duration::try_from_secs_f64(total).map(Span).map_err(|_| error())
    }
}

impl fmt::Display for Span {
    /// The two largest units that matter: `2h30m`, `1m5s`, `3.2s`, `15ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.as_secs();
        let (days, hours, minutes, seconds) = (all / 86400, all / 3600 % 24, all / 60 % 60, all % 60);
        let pair = |f: &mut fmt::Formatter<'_>, a: u64, x: &str, b: u64, y: &str| {
            if b == 0 { write!(f, "{a}{x}") } else { write!(f, "{a}{x}{b}{y}") }
        };
        if days > 0 {
            pair(f, days, "d", hours, "h")
        } else if hours > 0 {
            pair(f, hours, "h", minutes, "m")
        } else if minutes > 0 {
            pair(f, minutes, "m", seconds, "s")
        } else if self.0 >= Duration::from_secs(1) {
            let tenths = self.0.as_millis() / 100;
            if tenths.is_multiple_of(10) { write!(f, "{}s", tenths / 10) } else { write!(f, "{}.{}s", tenths / 10, tenths % 10) }
        } else if self.0 >= Duration::from_millis(1) {
            write!(f, "{}ms", self.0.as_millis())
        } else if self.0.is_zero() {
            write!(f, "0s")
        } else {
            write!(f, "{}us", self.0.as_micros())
        }
    }
}

/// A unit travels as the text a person writes; a size may also be a plain number of bytes.
macro_rules! travels_as_text {
    ($name:ident, $title:literal, $types:expr, $wanted:expr, $examples:expr, $exact:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let exact: fn(&$name) -> String = $exact;
                serializer.serialize_str(&exact(self))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Written {
                    Number(u64),
                    Text(String),
                }
                let text = match Written::deserialize(deserializer) {
                    Ok(Written::Text(text)) => text,
                    Ok(Written::Number(number)) => number.to_string(),
                    Err(_) => return Err(serde::de::Error::custom(concat!("expected ", $title))),
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $types, "format": $title, "description": $wanted, "examples": $examples })
            }
        }
    };
}

travels_as_text!(ByteSize, "bytes", ["string", "integer"], SIZE, ["512KiB", "1.5GB"], |size| size.0.to_string());
travels_as_text!(Rate, "rate", "string", RATE, ["200MB/s"], |rate| format!("{}B/s", rate.0));
travels_as_text!(Span, "duration", "string", TIME, ["90s", "2h30m"], |span| {
    let nanos = span.0.as_nanos();
    if nanos.is_multiple_of(1_000_000_000) {
        format!("{}s", span.0.as_secs())
    } else if nanos.is_multiple_of(1_000_000) {
        format!("{}ms", span.0.as_millis())
    } else if nanos < 1_000_000 {
        format!("{}us", span.0.as_micros())
    } else {
        let shown = format!("{}.{:03}", span.0.as_millis(), span.0.subsec_micros() % 1000);
        format!("{}ms", shown.trim_end_matches('0').trim_end_matches('.'))
    }
});

/// `Duration` as whole milliseconds, for records that programs read.
pub mod duration_ms {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    /// Writes whole milliseconds.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads whole milliseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// `Option<Duration>` as whole milliseconds.
pub mod option_duration_ms {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    /// Writes whole milliseconds or null.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::duration_ms::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads whole milliseconds or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("1MiB", 1 << 20), ("1.5GB", 1_500_000_000), ("2 kb", 2000), ("512KiB", 524_288)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "1XB", "-1", "1e3", "99999999999999TB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, millis, shown) in [
            ("90s", 90_000, "1m30s"),
            ("2h30m", 9_000_000, "2h30m"),
            ("500ms", 500, "500ms"),
            ("1.5s", 1500, "1.5s"),
            ("1d", 86_400_000, "1d"),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.0, Duration::from_millis(millis));
            assert_eq!(span.to_string(), shown);
        }
        for text in ["", "5", "s", "5 parsecs", "-3s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let short = [7, 1_001, 222_800, 1_234_567, 86_400_000_001].map(Duration::from_micros);
        assert_eq!(serde_json::to_string(&Span(short[2])).expect("a span is JSON"), "\"222.8ms\"");
        for span in [Duration::ZERO, Duration::from_millis(1500), Duration::from_mins(150)].into_iter().chain(short) {
            let text = serde_json::to_string(&Span(span)).expect("a span is JSON");
            assert_eq!(serde_json::from_str::<Span>(&text).expect("read back"), Span(span));
        }
        assert_eq!(serde_json::from_str::<Rate>("\"200MB/s\"").expect("a rate"), Rate(200_000_000));
        assert_eq!(serde_json::from_str::<ByteSize>("12").expect("a number"), ByteSize(12));
    }
}
