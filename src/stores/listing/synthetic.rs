//! A bucket for tests that only lists: any names, far away, with the faults that services have.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::StepError;
use crate::stores::Facts;
use crate::stores::bucket::{
    Answer, Bucket, BucketError, Can, Carry, Condition, CopyFrom, Entry, Got, Head, Page, PageQuery, Part, Properties, Upload,
};

/// The bucket.
pub struct Synthetic {
    /// What it holds.
    pub names: BTreeSet<String>,
    /// Before each answer.
    pub latency: Duration,
    /// When it was made.
    pub since: Instant,
    /// How many pages were asked for.
    pub requests: AtomicUsize,
    /// Requests under way.
    pub at_once: AtomicUsize,
    /// How many of them at once.
    pub most_at_once: AtomicUsize,
    /// Begins at the first name whatever was asked for.
    pub ignores_start: bool,
    /// Leaves the first name behind the start out.
    pub skips_first_behind_start: bool,
}

impl Synthetic {
    /// With these names, 25 ms away.
    pub fn new(names: BTreeSet<String>) -> Self {
        Self {
            names,
            latency: Duration::from_millis(25),
            since: Instant::now(),
            requests: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            ignores_start: false,
            skips_first_behind_start: false,
        }
    }

    fn page(&self, query: &PageQuery) -> Page {
        let start = query.token.as_ref().or(query.start_after.as_ref().filter(|_| !self.ignores_start));
        let from = start.map_or(Bound::Unbounded, |start| Bound::Excluded(start.clone()));
        let skipped = usize::from(self.skips_first_behind_start && query.token.is_none() && query.start_after.is_some());
        let names = self.names.range((from, Bound::Unbounded)).skip(skipped).take(1000);
        let entries: Vec<Entry> = names.map(|key| Entry { key: key.clone(), ..Entry::default() }).collect();
        let last = entries.last().map(|entry| entry.key.clone());
        let next = last.filter(|last| self.names.last() != Some(last));
        Page { entries, prefixes: Vec::new(), next }
    }
}

fn only_lists<T>() -> Result<T, BucketError> {
    Err(StepError::permanent("this bucket only lists").into())
}

impl Bucket for Synthetic {
    fn list(&self, query: PageQuery) -> Answer<'_, Page> {
        Box::pin(async move {
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.most_at_once.fetch_max(self.at_once.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(self.latency).await;
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            Ok(self.page(&query))
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        let head = self.names.contains(key).then(Head::default).ok_or(BucketError::Missing);
        Box::pin(async { head })
    }

    fn get<'a>(&'a self, _: &'a str, _: Option<Range<u64>>, _: Option<&'a str>) -> Answer<'a, Got> {
        Box::pin(async { only_lists() })
    }

    fn tags<'a>(&'a self, _: &'a str) -> Answer<'a, BTreeMap<String, String>> {
        Box::pin(async { only_lists() })
    }

    fn put<'a>(&'a self, _: &'a str, _: &'a Properties, _: Bytes, _: &'a Condition) -> Answer<'a, Facts> {
        Box::pin(async { only_lists() })
    }

    fn begin<'a>(&'a self, _: &'a str, _: &'a Properties) -> Answer<'a, String> {
        Box::pin(async { only_lists() })
    }

    fn put_part<'a>(&'a self, _: &'a str, _: &'a str, _: u32, _: Bytes) -> Answer<'a, Part> {
        Box::pin(async { only_lists() })
    }

    fn complete<'a>(&'a self, _: &'a str, _: &'a str, _: &'a Properties, _: &'a [Part], _: &'a Condition) -> Answer<'a, Facts> {
        Box::pin(async { only_lists() })
    }

    fn abort<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async { only_lists() })
    }

    fn uploads<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Upload>> {
        Box::pin(async { only_lists() })
    }

    fn delete<'a>(&'a self, _: &'a [String]) -> Answer<'a, Vec<(String, StepError)>> {
        Box::pin(async { only_lists() })
    }

    fn delete_if<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async { only_lists() })
    }

    fn can_copy(&self, _: &str) -> bool {
        false
    }

    fn copy<'a>(&'a self, _: &'a CopyFrom, _: &'a str, _: Carry<'a>, _: &'a Condition) -> Answer<'a, Facts> {
        Box::pin(async { only_lists() })
    }

    fn copy_part<'a>(&'a self, _: &'a CopyFrom, _: Range<u64>, _: &'a str, _: &'a str, _: u32) -> Answer<'a, Part> {
        Box::pin(async { only_lists() })
    }

    fn throttled(&self) -> u64 {
        0
    }

    fn can(&self) -> Can {
        Can { conditions: true, copies_across: false, tags: false, starts_after: true, deletes_at_once: 1 }
    }

    fn name(&self) -> &'static str {
        "synthetic"
    }
}
