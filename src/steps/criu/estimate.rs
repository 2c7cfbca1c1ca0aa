//! How long a process will not run, as far as it can be known before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mode::Mode;
use crate::units::{ByteSize, Rate, Span};

/// What no process is frozen for less than: CRIU starts on both hosts, and an address moves.
const AT_LEAST: Duration = Duration::from_millis(150);
/// Bytes in a second at which a process is dumped into memory. Measured, as those below: docs/performance.md.
const DUMP: u64 = 800_000_000;
/// At which it is restored from there.
const RESTORE: u64 = 450_000_000;
/// At which images go straight to a host that is near.
const STRAIGHT: u64 = 1_000_000_000;
/// At which memory follows at best: each page is asked for and put into its place.
const FOLLOW: u64 = 150_000_000;

/// What the plan expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// How fast bytes go from host to host, where that was measured.
    pub rate: Option<Rate>,
    /// How long it will not run.
    pub freeze: Span,
    /// How long its memory will follow.
    pub follow: Option<Span>,
}

impl Estimate {
    pub(super) fn new(mode: Mode, memory: ByteSize, rate: Option<Rate>) -> Self {
        let at = |rate: u64| Duration::from_millis(memory.0.saturating_mul(1000) / rate.max(1));
        // Straight from host to host nothing was sampled.
        let way = at(rate.map_or(STRAIGHT, |rate| rate.0));
        if mode == Mode::PostCopy {
            return Self { rate, freeze: Span(AT_LEAST), follow: Some(Span(at(FOLLOW).max(way))) };
        }
        Self { rate, freeze: Span(AT_LEAST + at(DUMP) + way + at(RESTORE)), follow: None }
    }

    /// As a plan says it.
    pub(super) fn says(&self) -> String {
        let rate = self.rate.map(|rate| format!(" ({rate} from host to host)")).unwrap_or_default();
        let follow = self.follow.map(|follow| format!(", its memory follows in about {follow}")).unwrap_or_default();
        format!("expects a freeze of about {}{follow}{rate}", self.freeze)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_grows_with_memory_unless_memory_follows() {
        let freeze = |mode, megabytes: u64| {
            Estimate::new(mode, ByteSize(megabytes * 1_000_000), Some(Rate(360_000_000))).freeze.0.as_millis()
        };
        assert_eq!(freeze(Mode::Checkpoint, 0), 150);
        assert!((3000..3500).contains(&freeze(Mode::Checkpoint, 500)), "measured: 3,054 ms");
        assert_eq!(freeze(Mode::PostCopy, 50), freeze(Mode::PostCopy, 5000));
    }
}
