//! How long a probe watches, how often it asks, and what it must not see.

use std::time::Duration;

use super::client::Kind;
use super::record::Seen;
use crate::error::StepError;
use crate::units::Span;

/// Below this a pace says more about this machine than about the service.
const FASTEST: Duration = Duration::from_millis(1);

/// What all probes are told alike.
#[derive(Debug, Clone)]
pub(in crate::steps) struct Terms {
    /// What is asked, for people.
    pub(in crate::steps) title: String,
    /// The kinds of clients.
    pub(in crate::steps) clients: Vec<Kind>,
    /// The pace of the one that keeps its connection.
    pub(in crate::steps) every: Span,
    /// The pace of those that make a new one.
    pub(in crate::steps) fresh_every: Span,
    /// How long an answer may take.
    pub(in crate::steps) at_most: Span,
    /// How many good answers of each kind are wanted once the duty is done.
    pub(in crate::steps) after: u64,
    /// How long it may take to get the first good answers.
    pub(in crate::steps) ready_within: Span,
    /// How long to watch without being told when the duty is done.
    pub(in crate::steps) lasts: Option<Span>,
    /// The longest gap that is no failure.
    pub(in crate::steps) max_gap: Option<Span>,
    /// The most errors that are no failure.
    pub(in crate::steps) max_errors: Option<u64>,
}

/// Both kinds of clients.
pub(in crate::steps) fn ways() -> Vec<Kind> {
    vec![Kind::Kept, Kind::Fresh]
}

pub(in crate::steps) fn ten_seconds() -> Span {
    Span(Duration::from_secs(10))
}

pub(in crate::steps) fn half_minute() -> Span {
    Span(Duration::from_secs(30))
}

pub(in crate::steps) fn twenty() -> u64 {
    20
}

impl Terms {
    /// Whether they make sense.
    pub(in crate::steps) fn check(&self) -> Result<(), StepError> {
        if self.clients.is_empty() {
            return Err(StepError::permanent("a probe without clients sees nothing").help("leave `clients` out for both kinds"));
        }
        for (name, every) in [("every", self.every), ("fresh_every", self.fresh_every)] {
            if every.0 < FASTEST {
                return Err(StepError::permanent(format!("`{name}: {every}` is faster than a probe can ask"))
                    .help("1ms is the fastest; with 5ms a gap is told to 5 ms"));
            }
        }
        Ok(())
    }

    /// How often this kind asks, if it is one of them.
    pub(super) fn every(&self, kind: Kind) -> Option<Duration> {
        let every = match kind {
            Kind::Kept => self.every,
            Kind::Fresh => self.fresh_every,
        };
        self.clients.contains(&kind).then_some(every.0)
    }

    /// What a plan says of it.
    pub(in crate::steps) fn told(&self) -> String {
        let kinds: Vec<String> = [(Kind::Kept, "one kept connection"), (Kind::Fresh, "new connections")]
            .into_iter()
            .filter_map(|(kind, words)| Some(format!("{words} every {}", Span(self.every(kind)?))))
            .collect();
        let until = match self.lasts {
            Some(lasts) => format!("for {lasts}"),
            None => "until the step that it serves is over".to_owned(),
        };
        format!("asks {} by {} {until}", self.title, kinds.join(" and "))
    }

    /// Whether what was seen is what may be seen.
    pub(in crate::steps) fn hold(&self, seen: &Seen) -> Result<(), StepError> {
        let mut broken = Vec::new();
        if let Some(limit) = self.max_gap
            && seen.longest_gap.0 > limit.0
        {
            broken.push(format!("the longest gap was {}, longer than {limit}", seen.longest_gap));
        }
        if let Some(limit) = self.max_errors
            && seen.errors > limit
        {
            let errors = if seen.errors == 1 { "1 error".to_owned() } else { format!("{} errors", seen.errors) };
            let first = seen.first_failure.as_ref().map(|first| format!(", the first: {}", first.what)).unwrap_or_default();
            broken.push(format!("there were {errors}, more than {limit}{first}"));
        }
        if broken.is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!("clients of {} saw more than they may: {}", self.title, broken.join("; "))).help(
            "`probe.json` in the step's folder of the run has the longest gaps and the reasons of the errors; raise `max_gap` or \
             `max_errors` if this was good enough, then resume the run",
        ))
    }
}
