//! How much is done at once: found by trying, as long as nobody says a number.
//!
//! The number of places doubles while that moves more, then stays, and is tried a little higher now and then. A service
//! that asks for fewer requests (429, 503) halves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where it begins.
const FIRST: usize = 32;
/// Every place holds a connection to either side; many systems allow 1,024 open files.
const MOST: usize = 256;
/// No decision is made on less than this.
const LOOK: Duration = Duration::from_millis(150);
/// Without as many ends as there are places, one is made after this.
const LONG_LOOK: Duration = Duration::from_secs(1);
/// How long nothing is tried after a service asked for fewer requests.
const CARE: Duration = Duration::from_secs(5);
/// How long a level is kept before a higher one is tried again.
const STAY: Duration = Duration::from_secs(3);

/// Places for requests. Their number may change while they are taken.
#[derive(Debug)]
pub struct Gate {
    places: Arc<Semaphore>,
    limit: AtomicUsize,
    /// Places to take away as soon as they are free.
    debt: AtomicUsize,
    waiting: AtomicUsize,
}

/// A place that is taken.
pub struct Place {
    permit: Option<OwnedSemaphorePermit>,
    gate: Arc<Gate>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let owes = self.gate.debt.fetch_update(Ordering::AcqRel, Ordering::Acquire, |debt| debt.checked_sub(1)).is_ok();
        if let Some(permit) = self.permit.take().filter(|_| owes) {
            permit.forget();
        }
    }
}

impl Gate {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(limit)),
            limit: AtomicUsize::new(limit),
            debt: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Waits for a place.
    pub async fn enter(self: &Arc<Self>) -> Place {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let permit = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Place { permit: Some(permit), gate: self.clone() }
    }

    /// How many places there are.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    fn set(&self, limit: usize) {
        let was = self.limit.swap(limit, Ordering::Relaxed);
        if limit > was {
            let mut more = limit - was;
            // What is still owed is forgiven first.
            let _ = self.debt.fetch_update(Ordering::AcqRel, Ordering::Acquire, |debt| {
                let forgiven = debt.min(limit - was);
                more = limit - was - forgiven;
                Some(debt - forgiven)
            });
            self.places.add_permits(more);
        } else {
            let gone = self.places.forget_permits(was - limit);
            self.debt.fetch_add(was - limit - gone, Ordering::AcqRel);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// A person has said the number.
    Fixed,
    /// It doubles as long as that helps.
    Rising,
    /// It is kept until then.
    Steady { until: Duration },
    /// A little more is tried; it was this.
    Trying { before: usize },
}

/// The number of places, and what is known of it.
#[derive(Debug)]
pub struct Level {
    gate: Arc<Gate>,
    phase: Phase,
    best: f64,
    /// When the look began, and what had been done and refused by then.
    since: Duration,
    work: u64,
    ends: u64,
    refused: u64,
    was_full: bool,
    highest: usize,
}

impl Level {
    /// A fixed number of places, or one that is found.
    pub fn new(fixed: Option<u32>, now: Duration) -> Self {
        let limit = fixed.map_or(FIRST, |fixed| fixed.max(1) as usize);
        let phase = if fixed.is_some() { Phase::Fixed } else { Phase::Rising };
        let gate = Gate::new(limit);
        Self { gate, phase, best: 0.0, since: now, work: 0, ends: 0, refused: 0, was_full: false, highest: limit }
    }

    /// Where places are taken.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The most places there have been.
    pub fn highest(&self) -> usize {
        self.highest
    }

    /// Looks at what has been done so far, a few times a second. `work` grows with bytes and requests, `ends` with every
    /// request that has ended, `refused` with every one that the service put off.
    pub fn look(&mut self, now: Duration, work: u64, ends: u64, refused: u64) {
        let limit = self.gate.limit();
        if refused > self.refused {
            self.refused = refused;
            if self.phase != Phase::Fixed {
                self.gate.set((limit / 2).max(1));
                self.best = 0.0;
                self.phase = Phase::Steady { until: now + CARE };
            }
            self.begin(now, work, ends);
            return;
        }
        self.was_full |= self.gate.waiting.load(Ordering::Relaxed) > 0;
        let took = now.saturating_sub(self.since);
        if took < LOOK || (ends - self.ends < limit as u64 && took < LONG_LOOK) {
            return;
        }
        let rate = (work - self.work) as f64 / took.as_secs_f64();
        // Places that nobody waits for teach nothing.
        let was_full = self.was_full;
        self.begin(now, work, ends);
        if !was_full {
            return;
        }
        match self.phase {
            Phase::Fixed => {}
            Phase::Rising if rate > self.best * 1.1 && limit < MOST => {
                self.best = rate;
                self.gate.set((limit * 2).min(MOST));
            }
            Phase::Rising => {
                if rate < self.best * 1.02 {
                    self.gate.set((limit / 2).max(1));
                }
                self.best = self.best.max(rate);
                self.phase = Phase::Steady { until: now + STAY };
            }
            Phase::Steady { until } => {
                self.best = if self.best == 0.0 { rate } else { 0.7 * self.best + 0.3 * rate };
                if now >= until && limit < MOST {
                    self.gate.set((limit + limit.div_ceil(4)).min(MOST));
                    self.phase = Phase::Trying { before: limit };
                }
            }
            Phase::Trying { before } => {
                if rate > self.best * 1.05 {
                    self.best = rate;
                } else {
                    self.gate.set(before);
                }
                self.phase = Phase::Steady { until: now + STAY };
            }
        }
        self.highest = self.highest.max(self.gate.limit());
    }

    fn begin(&mut self, now: Duration, work: u64, ends: u64) {
        (self.since, self.work, self.ends, self.was_full) = (now, work, ends, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that moves more with more places up to so many, seen a hundred times.
    fn settle(useful: usize, refused_above: usize) -> usize {
        let mut level = Level::new(None, Duration::ZERO);
        let (mut now, mut work, mut refused) = (Duration::ZERO, 0, 0);
        for _ in 0..100 {
            let limit = level.gate.limit();
            now += Duration::from_millis(200);
            work += 1_000_000 * limit.min(useful) as u64;
            refused += u64::from(limit > refused_above);
            level.gate.waiting.store(1, Ordering::Relaxed);
            level.look(now, work, work / 1000, refused);
        }
        level.gate.limit()
    }

    #[test]
    fn it_rises_as_long_as_that_moves_more() {
        assert_eq!(settle(1000, 1000), MOST);
        assert!((50..=128).contains(&settle(100, 1000)), "{}", settle(100, 1000));
        assert_eq!(settle(1, 1000), FIRST);
    }

    #[test]
    fn a_service_that_refuses_is_spared() {
        assert!(settle(1000, 20) <= 25, "{}", settle(1000, 20));
    }

    #[tokio::test]
    async fn places_can_be_taken_away_while_they_are_taken() {
        let gate = Gate::new(4);
        let taken = vec![gate.enter().await, gate.enter().await, gate.enter().await];
        gate.set(1);
        assert_eq!(gate.places.available_permits(), 0);
        drop(taken);
        assert_eq!(gate.places.available_permits(), 1);
        gate.set(3);
        assert_eq!(gate.places.available_permits(), 3);
    }
}
