//! Sets of numbers that lie close together, kept as ranges.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A set of numbers: first and last of each run of numbers without a hole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds all numbers from `first` to `last`.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last.max(first));
        // What overlaps or touches from below, then from above.
        if let Some((&below, &end)) = self.0.range(..=first).next_back()
            && end.saturating_add(1) >= first
        {
            (first, last) = (below, last.max(end));
        }
        while let Some((&above, &end)) = self.0.range(first..=last.saturating_add(1)).next() {
            self.0.remove(&above);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// How many numbers are in it.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The greatest of them.
    pub(super) fn greatest(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, last)| *last)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// First and last of each range, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// What is in this set and not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (first, last) in self.iter() {
            let mut from = first;
            let below = other.0.range(..=first).next_back();
            for (start, end) in below.into_iter().chain(other.0.range((Bound::Excluded(first), Bound::Included(last)))) {
                if *end < from {
                    continue;
                }
                if *start > from {
                    rest.add(from, start - 1);
                }
                from = end.saturating_add(1);
            }
            if from <= last {
                rest.add(from, last);
            }
        }
        rest
    }

    /// What is in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(ranges: T) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|(first, last)| all.add(first, last));
        all
    }
}

impl std::fmt::Display for Ranges {
    /// The first ones: `3, 17–20, and 5 more`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 5;
        for (at, (first, last)) in self.iter().take(SHOWN).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}–{last}")? }
        }
        let rest: u64 = self.iter().skip(SHOWN).map(|(first, last)| last - first + 1).sum();
        if rest > 0 { write!(f, ", and {rest} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(first, last)| first..=last).collect()
    }

    fn some() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0_u64..60, 0_u64..6), 0..12)
            .prop_map(|list| list.into_iter().map(|(first, more)| (first, first + more)).collect())
    }

    proptest! {
        #[test]
        fn they_are_sets(one in some(), other in some()) {
            let (a, b): (Ranges, Ranges) = (one.into_iter().collect(), other.into_iter().collect());
            let (x, y) = (all(&a), all(&b));
            prop_assert_eq!(a.count(), x.len() as u64);
            prop_assert_eq!(a.greatest(), x.last().copied());
            prop_assert_eq!(all(&a.without(&b)), &x - &y);
            prop_assert_eq!(all(&a.and(&b)), &x & &y);
            // No two ranges touch.
            let ends: Vec<(u64, u64)> = a.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }

    #[test]
    fn the_first_are_shown() {
        let ranges: Ranges = [(3, 3), (17, 20), (30, 30), (40, 41), (50, 50), (60, 62)].into_iter().collect();
        assert_eq!(ranges.to_string(), "3, 17–20, 30, 40–41, 50, and 3 more");
    }
}
