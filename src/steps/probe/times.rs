//! How long answers took: counts in buckets that grow with the time, sixteen to each doubling.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Buckets to a doubling: a share of the whole is told to six per cent.
const PARTS: u64 = 16;

/// Counts of times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times {
    buckets: BTreeMap<u16, u64>,
    #[serde(with = "micros")]
    longest: Duration,
}

/// How long answers took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shares {
    /// Half of them took no longer.
    p50: Span,
    /// Nine of ten took no longer.
    p90: Span,
    /// 99 of 100 took no longer.
    p99: Span,
    /// 999 of 1,000 took no longer.
    p999: Span,
    /// The longest.
    max: Span,
}

impl Times {
    pub(super) fn note(&mut self, time: Duration) {
        *self.buckets.entry(bucket(time)).or_default() += 1;
        self.longest = self.longest.max(time);
    }

    /// The time that this part of a thousand did not exceed.
    fn at(&self, thousandth: u64) -> Duration {
        let all: u64 = self.buckets.values().sum();
        let wanted = (all * thousandth).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return upper(*bucket).min(self.longest);
            }
        }
        self.longest
    }

    pub(super) fn shares(&self) -> Shares {
        let max = Duration::from_micros(whole_micros(self.longest));
        Shares {
            p50: Span(self.at(500)),
            p90: Span(self.at(900)),
            p99: Span(self.at(990)),
            p999: Span(self.at(999)),
            max: Span(max),
        }
    }
}

pub(super) fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn bucket(time: Duration) -> u16 {
    let micros = whole_micros(time);
    if micros < PARTS {
        return u16::try_from(micros).unwrap_or(0);
    }
    let doublings = u64::from(micros.ilog2()) - u64::from(PARTS.ilog2());
    u16::try_from(doublings * PARTS + (micros >> doublings)).unwrap_or(u16::MAX)
}

/// The longest time that falls into a bucket.
fn upper(bucket: u16) -> Duration {
    let bucket = u64::from(bucket);
    if bucket < PARTS {
        return Duration::from_micros(bucket);
    }
    let (doublings, part) = (bucket / PARTS - 1, bucket % PARTS + PARTS);
    let above = u32::try_from(doublings).ok().and_then(|doublings| (part + 1).checked_shl(doublings)).unwrap_or(u64::MAX);
    Duration::from_micros(above - 1)
}

/// A duration as whole microseconds.
pub(super) mod micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::steps::probe) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(super::whole_micros(*time))
    }

    pub(in crate::steps::probe) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_that_ends_behind_it() {
        for micros in (0..5000).chain([10_000, 123_456, 7_000_000, 86_400_000_000]) {
            let (time, end) = (Duration::from_micros(micros), upper(bucket(Duration::from_micros(micros))));
            assert!(end >= time, "{time:?} {end:?}");
            assert!(end.as_micros() <= u128::from(micros) * 17 / 16 + 1, "{time:?} {end:?}");
        }
    }

    #[test]
    fn shares_are_told_to_a_few_per_cent() {
        let mut times = Times::default();
        (1..=1000).for_each(|millis| times.note(Duration::from_millis(millis)));
        let shares = times.shares();
        for (share, exact) in [(shares.p50, 500.0), (shares.p90, 900.0), (shares.p99, 990.0), (shares.max, 1000.0)] {
            let ratio = share.0.as_secs_f64() * 1000.0 / exact;
            assert!((1.0..1.07).contains(&ratio), "{share:?} for {exact} ms");
        }
        assert_eq!(Times::default().shares().max, Span(Duration::ZERO));
    }
}
