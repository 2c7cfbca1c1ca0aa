//! The bandwidth limit: bytes are paid for before they are passed on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::Bandwidth;

/// A limit shared by all copies of a step; none means no limit.
#[derive(Debug)]
pub struct Pace {
    bandwidth: Option<Bandwidth>,
    /// When the bytes passed on so far are paid for.
    paid_until: Mutex<Instant>,
}

impl Pace {
    /// At most this much.
    pub fn new(bandwidth: Option<Bandwidth>) -> Self {
        Self { bandwidth, paid_until: Mutex::new(Instant::now()) }
    }

    /// Waits until this many bytes may pass.
    pub async fn pay(&self, bytes: u64) {
        let Some(bandwidth) = &self.bandwidth else { return };
        let now = if bandwidth.is_by_time() { jiff::Zoned::now().time() } else { jiff::civil::Time::MIN };
        let Some(rate) = bandwidth.at(now) else { return };
        let due = {
            let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            // What was not used in the past cannot be saved up for a burst.
            let from = (*paid_until).max(Instant::now());
            *paid_until = from + Duration::from_secs_f64(bytes as f64 / rate.0 as f64);
            *paid_until
        };
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_paid_for_in_time() {
        let pace = Pace::new(Some(Bandwidth::always(crate::units::Rate(100_000))));
        let start = Instant::now();
        for _ in 0..10 {
            pace.pay(2500).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(249), "{:?}", start.elapsed());
    }
}
