//! How much is done at once: found by trying, as long as nobody says a number.
//!
//! The number of places grows by a quarter, then by half, while that moves much more; then it stays, and is tried a little
//! higher and a little lower in turns: more places than move more only cost memory, and with it CPU time. A service that
//! asks for fewer requests (429, 503) halves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where it begins. A link of 20 ms that carries 50 MB/s per connection is full with so many objects of 1 MiB, and half as
/// many would cost a tenth of the time of a thousand of them before they were found to be too few.
const FIRST: usize = 64;
/// Fewer are not tried unless a service asks for it.
const LEAST: usize = 32;
/// Every place holds a connection to either side; many systems allow 1,024 open files.
const MOST: usize = 256;
/// No decision is made on less than this.
const LOOK: Duration = Duration::from_millis(150);
/// Without as many ends as there are places, one is made after this.
const LONG_LOOK: Duration = Duration::from_secs(1);
/// How long nothing is tried after a service asked for fewer requests.
const CARE: Duration = Duration::from_secs(5);
/// How long a level is kept before another one is tried.
const STAY: Duration = Duration::from_secs(3);
/// A quarter more places have to move so much more for half as many again to be tried.
const WORTH_RISING: f64 = 1.12;
/// And those so much more for the next half.
const WORTH_MORE: f64 = 1.2;
/// And so much more to be kept at all; a quarter more of them, too.
const WORTH_KEEPING: f64 = 1.1;
/// A quarter less of them is kept if so much is still moved.
const AS_GOOD: f64 = 0.97;

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
    /// It grows as long as that helps; it was this before.
    Rising { before: usize },
    /// It is kept until then.
    Steady { until: Duration },
    /// A little more or less is tried; it was this.
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
    ends: u64,
    refused: u64,
    /// From when on it counts what is moved, and what had been by then: not before half as many requests have ended as there
    /// are places. New places make connections first and send requests, and that moves nothing.
    counts: Option<(Duration, u64)>,
    /// Whether a higher number is tried next.
    is_up_next: bool,
    was_full: bool,
    highest: usize,
}

impl Level {
    /// A fixed number of places, or one that is found.
    pub fn new(fixed: Option<u32>, now: Duration) -> Self {
        let limit = fixed.map_or(FIRST, |fixed| fixed.max(1) as usize);
        let phase = if fixed.is_some() { Phase::Fixed } else { Phase::Rising { before: limit } };
        let gate = Gate::new(limit);
        let (since, highest) = (now, limit);
        Self { gate, phase, best: 0.0, since, ends: 0, refused: 0, counts: None, is_up_next: true, was_full: false, highest }
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
            self.begin(now, ends);
            return;
        }
        self.was_full |= self.gate.waiting.load(Ordering::Relaxed) > 0;
        let (took, ended) = (now.saturating_sub(self.since), ends - self.ends);
        let counts = match self.counts {
            Some(counts) => counts,
            None if ended > 0 && (ended >= limit as u64 / 2 || took >= LONG_LOOK / 2) => *self.counts.insert((now, work)),
            None => return,
        };
        if took < LOOK || (ended < limit as u64 && took < LONG_LOOK) {
            return;
        }
        let counted = now.saturating_sub(counts.0);
        if counted < LOOK / 2 {
            return;
        }
        let rate = work.saturating_sub(counts.1) as f64 / counted.as_secs_f64();
        // Places that nobody waits for teach nothing.
        let was_full = self.was_full;
        self.begin(now, ends);
        if !was_full {
            return;
        }
        match self.phase {
            Phase::Fixed => {}
            Phase::Rising { before } => {
                let worth = if limit * 2 >= before * 3 { WORTH_MORE } else { WORTH_RISING };
                if limit < MOST && rate > self.best * worth {
                    // The first step is a small one: whoever is near the right number is soon back.
                    let more = if limit == before { limit / 4 } else { limit / 2 };
                    self.gate.set((limit + more).min(MOST));
                    self.best = rate;
                    self.phase = Phase::Rising { before: limit };
                } else {
                    if rate < self.best * WORTH_KEEPING {
                        self.gate.set(before);
                    }
                    self.best = self.best.max(rate);
                    self.phase = Phase::Steady { until: now + STAY };
                }
            }
            Phase::Steady { until } => {
                self.best = if self.best == 0.0 { rate } else { 0.7 * self.best + 0.3 * rate };
                if now >= until {
                    let quarter = limit.div_ceil(4);
                    let is_up = limit < MOST && (self.is_up_next || limit <= LEAST);
                    self.gate.set(if is_up {
                        (limit + quarter).min(MOST)
                    } else {
                        limit.saturating_sub(quarter).max(LEAST.min(limit))
                    });
                    self.is_up_next = !is_up;
                    self.phase = Phase::Trying { before: limit };
                }
            }
            Phase::Trying { before } => {
                let is_up = limit > before;
                self.phase = Phase::Steady { until: now + STAY };
                if rate <= self.best * if is_up { WORTH_KEEPING } else { AS_GOOD } {
                    self.gate.set(before);
                } else {
                    self.best = rate;
                    if is_up {
                        // What comes now may be of another kind than what came before.
                        self.gate.set((limit * 3 / 2).min(MOST));
                        self.phase = Phase::Rising { before: limit };
                    }
                }
            }
        }
        self.highest = self.highest.max(self.gate.limit());
    }

    fn begin(&mut self, now: Duration, ends: u64) {
        (self.since, self.ends, self.counts, self.was_full) = (now, ends, None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that moves more with more places up to so many, seen so often.
    struct Service {
        level: Level,
        now: Duration,
        work: u64,
        refused: u64,
    }

    impl Service {
        fn new() -> Self {
            Self { level: Level::new(None, Duration::ZERO), now: Duration::ZERO, work: 0, refused: 0 }
        }

        fn look(&mut self, times: usize, useful: usize, refused_above: usize) -> usize {
            for _ in 0..times {
                let limit = self.level.gate.limit();
                self.now += Duration::from_millis(100);
                self.work += 1_000_000 * limit.min(useful) as u64;
                self.refused += u64::from(limit > refused_above);
                self.level.gate.waiting.store(1, Ordering::Relaxed);
                self.level.look(self.now, self.work, self.work / 1000, self.refused);
            }
            self.level.gate.limit()
        }
    }

    fn settle(useful: usize, refused_above: usize) -> usize {
        Service::new().look(100, useful, refused_above)
    }

    #[test]
    fn it_rises_as_long_as_that_moves_more() {
        assert_eq!(Service::new().look(12, 1000, 1000), MOST, "in a second or so");
        assert!(settle(1000, 1000) >= MOST * 3 / 4, "{}", settle(1000, 1000));
        assert!((50..=128).contains(&settle(100, 1000)), "{}", settle(100, 1000));
        assert!((LEAST..=FIRST).contains(&settle(1, 1000)), "{}", settle(1, 1000));
    }

    #[test]
    fn what_moves_no_more_is_given_back() {
        let mut service = Service::new();
        assert!(service.look(100, 1000, 1000) >= MOST * 3 / 4);
        let later = service.look(600, 60, 1000);
        assert!((LEAST..=90).contains(&later), "{later}");
        let again = service.look(100, 1000, 1000);
        assert!(again >= 128, "what comes then is of another kind: {again}");
    }

    #[test]
    fn nothing_counts_before_the_first_request_has_ended() {
        let mut level = Level::new(None, Duration::ZERO);
        let at = Duration::from_millis;
        level.gate.waiting.store(1, Ordering::Relaxed);
        // Two seconds until the first ends, then a hundred a second: no more come with twice the places.
        for (now, ends) in [(1000, 0), (2000, 1), (2400, 41), (2500, 51), (2900, 91), (3500, 151), (4000, 200), (5000, 300)] {
            level.look(at(now), ends * 1_000_000, ends, 0);
        }
        assert_eq!(level.gate.limit(), FIRST);
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
