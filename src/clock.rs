//! Time as an argument: the wall clock and the monotonic clock that everything which does asks.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// A source of time. Intervals are always taken from `monotonic`, so that a wall clock that jumps moves no deadline.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall-clock time, for people and records only.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A shared system clock.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self { start: std::time::Instant::now() })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
