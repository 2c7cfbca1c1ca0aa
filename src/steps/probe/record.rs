//! What was seen so far: kept in the step's folder, so that a runner that dies takes nothing of it along.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{Answer, Kind};
use super::times::{Shares, Times, micros};
use crate::error::StepError;
use crate::secret::Vault;
use crate::units::Span;

/// The file in the step's folder.
const NAME: &str = "probe.json";
/// How many gaps the file keeps.
const KEPT_GAPS: usize = 50;
/// How many of them the outputs show.
const SHOWN_GAPS: usize = 10;
/// How many different reasons are told apart.
const REASONS: usize = 20;
/// How much of a reason is kept.
const LONGEST_REASON: usize = 200;

/// All that was seen, over all attempts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// When watching began.
    pub(super) began: Option<Timestamp>,
    kinds: BTreeMap<Kind, Track>,
    gaps: Vec<Gap>,
    reasons: BTreeMap<String, u64>,
    first_failure: Option<Failed>,
    last_failure: Option<Failed>,
    #[serde(with = "micros")]
    overslept: Duration,
    #[serde(with = "micros")]
    watched: Duration,
    /// How many attempts have watched.
    pub(super) attempts: u32,
}

/// What one kind of client saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Track {
    good: u64,
    errors: u64,
    #[serde(with = "micros")]
    longest: Duration,
    first_failure: Option<Failed>,
    last_failure: Option<Failed>,
    times: Times,
    /// Good answers since the duty was done, of this attempt.
    #[serde(skip)]
    after: u64,
    /// The last good answer of this attempt, and the errors since.
    #[serde(skip)]
    last_good: Option<Duration>,
    #[serde(skip)]
    errors_since: u64,
}

/// A time without a good answer, between two that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// How long it was.
    length: Span,
    /// The kind of client.
    client: Kind,
    /// How long after the beginning of the watch it began.
    offset: Span,
    /// When that was.
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: Timestamp,
    /// How many errors fell into it.
    errors: u64,
}

/// A question without a good answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// How long after the beginning of the watch it was.
    offset: Span,
    /// When that was.
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: Timestamp,
    /// The kind of client.
    client: Kind,
    /// What was said.
    pub(super) what: String,
}

/// How often something was said in place of a good answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// What was said.
    what: String,
    /// How often.
    count: u64,
}

/// What one kind of client saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KindSeen {
    /// The longest time between two good answers.
    pub longest_gap: Span,
    /// How many answers were good.
    good: u64,
    /// How many were not, or did not come.
    errors: u64,
    /// How long the good answers took.
    took: Shares,
    /// The first question without a good answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<Failed>,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failed>,
}

/// What clients saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// The longest time between two good answers, of any kind of client.
    pub longest_gap: Span,
    /// How many answers were not good, or did not come.
    pub errors: u64,
    /// How many were good.
    pub good: u64,
    /// How long was watched.
    watched: Span,
    /// By how much this machine at most put a question too late: a gap that is no longer says nothing about the service.
    overslept: Span,
    /// How many attempts watched. Nobody did between one and the next.
    attempts: u32,
    /// What the client with the kept connection saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<KindSeen>,
    /// What clients with new connections saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh: Option<KindSeen>,
    /// The first question without a good answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_failure: Option<Failed>,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failed>,
    /// The ten longest gaps; `probe.json` in the step's folder of the run has fifty.
    gaps: Vec<Gap>,
    /// What was said in place of good answers, and how often.
    reasons: Vec<Reason>,
}

impl Record {
    /// What earlier attempts have seen. Nothing, when the file cannot be read: the disk was full, or the power went.
    pub(super) fn load(scratch: &Path) -> Result<Self, String> {
        match std::fs::read(scratch.join(NAME)) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes it for attempts to come. The old one stays until the new one is whole.
    pub(super) async fn save(&self, scratch: &Path) -> Result<(), StepError> {
        let unwritable = |error: std::io::Error| {
            StepError::permanent(format!("cannot write `{NAME}` in the step's folder"))
                .cause(error)
                .help("make room, then resume the run")
        };
        let text = serde_json::to_vec(self).map_err(|error| unwritable(error.into()))?;
        let (path, next) = (scratch.join(NAME), scratch.join("probe.next"));
        tokio::fs::create_dir_all(scratch).await.map_err(unwritable)?;
        tokio::fs::write(&next, text).await.map_err(unwritable)?;
        tokio::fs::rename(&next, path).await.map_err(unwritable)
    }

    /// An attempt begins to watch.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.began.get_or_insert(now);
        self.attempts += 1;
    }

    /// The duty is done: from here on good answers count towards the end.
    pub(super) fn is_over(&mut self) {
        self.kinds.values_mut().for_each(|track| track.after = 0);
    }

    /// How many good answers of this kind have come since then.
    pub(super) fn after(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |track| track.after)
    }

    /// A good answer before the watch: it counts for nothing, but a gap may begin with it.
    pub(super) fn await_next(&mut self, kind: Kind, came: Duration) {
        self.kinds.entry(kind).or_default().last_good = Some(came);
    }

    /// Takes an answer. `wall` is the wall-clock time of the moment 0 of the monotonic clock.
    pub(super) fn note(&mut self, answer: &Answer, wall: Timestamp, vault: &Vault) {
        let instant = |time: Duration| wall.checked_add(time).unwrap_or(wall);
        let began = self.began.unwrap_or(wall);
        let offset = |at: Timestamp| rounded(Duration::try_from(at.duration_since(began)).unwrap_or_default());
        self.overslept = self.overslept.max(answer.overslept);
        let track = self.kinds.entry(answer.kind).or_default();
        if let Err(error) = &answer.result {
            track.errors += 1;
            track.errors_since += 1;
            let what = reason(error, vault);
            let at = instant(answer.asked);
            let failed = Failed { offset: offset(at), at, client: answer.kind, what: what.clone() };
            track.first_failure.get_or_insert_with(|| failed.clone());
            track.last_failure = Some(failed.clone());
            self.first_failure.get_or_insert_with(|| failed.clone());
            self.last_failure = Some(failed);
            let is_new = !self.reasons.contains_key(&what) && self.reasons.len() >= REASONS;
            *self.reasons.entry(if is_new { "something else".to_owned() } else { what }).or_default() += 1;
            return;
        }
        track.good += 1;
        track.after += 1;
        track.times.note(answer.came.saturating_sub(answer.asked));
        if let Some(last) = track.last_good {
            let length = answer.came.saturating_sub(last);
            track.longest = track.longest.max(length);
            let at = instant(last);
            let gap = Gap { length: rounded(length), client: answer.kind, offset: offset(at), at, errors: track.errors_since };
            keep(&mut self.gaps, gap);
        }
        track.last_good = Some(answer.came);
        track.errors_since = 0;
    }

    /// A gap that is still open counts as far as it has come.
    pub(super) fn close(&mut self, now: Duration) {
        for track in self.kinds.values_mut() {
            if let Some(last) = track.last_good.filter(|_| track.errors_since > 0) {
                track.longest = track.longest.max(now.saturating_sub(last));
            }
        }
    }

    pub(super) fn watched(&mut self, time: Duration) {
        self.watched += time;
    }

    /// How many answers were good, how many not, and the longest gap.
    pub(super) fn sums(&self) -> (u64, u64, Duration) {
        let tracks = self.kinds.values();
        tracks.fold((0, 0, Duration::ZERO), |(good, errors, longest), track| {
            (good + track.good, errors + track.errors, longest.max(track.longest))
        })
    }

    /// What the outputs tell.
    pub(super) fn seen(&self) -> Seen {
        let (good, errors, longest) = self.sums();
        let kind = |kind| {
            self.kinds.get(&kind).map(|track: &Track| KindSeen {
                longest_gap: rounded(track.longest),
                good: track.good,
                errors: track.errors,
                took: track.times.shares(),
                first_failure: track.first_failure.clone(),
                last_failure: track.last_failure.clone(),
            })
        };
        let mut reasons: Vec<Reason> =
            self.reasons.iter().map(|(what, count)| Reason { what: what.clone(), count: *count }).collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        Seen {
            longest_gap: rounded(longest),
            errors,
            good,
            watched: Span(Duration::from_millis(u64::try_from(self.watched.as_millis()).unwrap_or(u64::MAX))),
            overslept: rounded(self.overslept),
            attempts: self.attempts,
            kept: kind(Kind::Kept),
            fresh: kind(Kind::Fresh),
            first_failure: self.first_failure.clone(),
            last_failure: self.last_failure.clone(),
            gaps: self.gaps.iter().take(SHOWN_GAPS).cloned().collect(),
            reasons,
        }
    }
}

/// To a tenth of a millisecond.
fn rounded(time: Duration) -> Span {
    Span(Duration::from_micros(u64::try_from(time.as_micros() / 100 * 100).unwrap_or(u64::MAX)))
}

/// Keeps the longest gaps, longest first.
fn keep(gaps: &mut Vec<Gap>, gap: Gap) {
    if gaps.len() >= KEPT_GAPS && gaps.last().is_some_and(|last| last.length >= gap.length) {
        return;
    }
    let place = gaps.partition_point(|other| other.length >= gap.length);
    gaps.insert(place, gap);
    gaps.truncate(KEPT_GAPS);
}

/// Why there was no good answer, short and without secrets.
pub(super) fn reason(error: &StepError, vault: &Vault) -> String {
    let mut text = error.message.clone();
    if let Some(cause) = error.cause.as_ref().map(ToString::to_string).filter(|cause| !text.contains(cause.as_str())) {
        text = format!("{text}: {cause}");
    }
    let masked = vault.mask(&text);
    let mut short: String = masked.chars().take(LONGEST_REASON).collect();
    if short.len() < masked.len() {
        short.push('…');
    }
    short
}
