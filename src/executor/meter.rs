//! How fast the instances of a `for_each` go together: what they say of their progress, added up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::StepPath;

/// Where bytes move for so long, it is known how fast they do.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// What has moved in one `for_each`.
#[derive(Debug, Default)]
pub(super) struct Meter {
    bytes: AtomicU64,
    ended: AtomicU64,
    has_ended: Notify,
}

impl Meter {
    /// Waits until as many have ended as are at it at once, or until bytes have moved for some seconds. Gives thousandths of a
    /// byte a second; one that has ended counts as a byte more, so that those who tell of no bytes are measured by that.
    pub(super) async fn rate(&self, at_once: u32) -> u64 {
        let (from, bytes, ended) = (Instant::now(), self.bytes.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed));
        loop {
            let next = self.has_ended.notified();
            let (moved, gone) = (self.bytes.load(Ordering::Relaxed) - bytes, self.ended.load(Ordering::Relaxed) - ended);
            let took = from.elapsed();
            if gone >= u64::from(at_once) || (moved > 0 && took >= LONG_ENOUGH) {
                let milliseconds = took.as_millis().max(1);
                return u64::try_from(u128::from(moved + gone) * 1_000_000 / milliseconds).unwrap_or(u64::MAX);
            }
            let _ = tokio::time::timeout(LONG_ENOUGH, next).await;
        }
    }
}

/// Those of a session.
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<HashMap<StepPath, Arc<Meter>>>);

impl Meters {
    /// The meter of this `for_each`.
    pub(super) fn of(&self, group: &StepPath) -> Arc<Meter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(group.clone()).or_default().clone()
    }

    /// A step has moved so many bytes.
    pub(super) fn moved(&self, step: &StepPath, bytes: u64) {
        self.each_around(step, |meter| {
            meter.bytes.fetch_add(bytes, Ordering::Relaxed);
        });
    }

    /// A step is done.
    pub(super) fn ended(&self, step: &StepPath) {
        self.each_around(step, |meter| {
            meter.ended.fetch_add(1, Ordering::Relaxed);
            // One that waits is woken, and one that is about to wait.
            meter.has_ended.notify_one();
        });
    }

    fn each_around(&self, step: &StepPath, then: impl Fn(&Meter)) {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if meters.is_empty() {
            return;
        }
        let mut around = step.parent();
        while let Some(at) = around {
            if let Some(meter) = meters.get(&at) {
                then(meter);
            }
            around = at.parent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_measures_what_has_moved_inside_until_one_has_ended() {
        let (meters, group, other) = (Meters::default(), StepPath::root("each"), StepPath::root("other"));
        let (meter, beside) = (meters.of(&group), meters.of(&other));
        meters.moved(&group.instance("a"), 1_000_000_000);
        meters.ended(&group.instance("a").child("inner"));
        assert_eq!((meter.bytes.load(Ordering::Relaxed), meter.ended.load(Ordering::Relaxed)), (1_000_000_000, 1));
        assert_eq!((beside.bytes.load(Ordering::Relaxed), beside.ended.load(Ordering::Relaxed)), (0, 0));
        // What was before does not count; what ends while it waits wakes it.
        let measured = tokio::spawn(async move { meter.rate(1).await });
        tokio::task::yield_now().await;
        meters.moved(&group.instance("b"), 999);
        meters.ended(&group.instance("b"));
        assert!(measured.await.is_ok_and(|rate| rate > 0 && rate <= 1_000_000_000));
    }
}
