//! How many instances of a `for_each` with `max_parallel: auto` may be at it: one, then one more as long as that is faster.

/// What is known of how fast they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How many may be at it.
    pub limit: u32,
    /// The highest rate that was measured.
    pub best: u64,
    /// Whether one more was not faster: no more is tried.
    pub has_settled: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { limit: 1, best: 0, has_settled: false }
    }
}

impl Pace {
    /// Takes in how fast so many were.
    pub fn measured(&mut self, rate: u64) {
        // Less than a tenth more may be chance.
        if rate > self.best.saturating_add(self.best / 10) {
            self.best = rate;
            self.limit = self.limit.saturating_add(1);
        } else {
            self.has_settled = true;
            self.limit = self.limit.saturating_sub(1).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    #[test]
    fn it_goes_up_while_that_is_faster_and_back_by_one() {
        let mut pace = Pace::default();
        for (rate, limit) in [(100, 2), (180, 3), (220, 4), (230, 3)] {
            assert!(!pace.has_settled);
            pace.measured(rate);
            assert_eq!(pace.limit, limit);
        }
        assert!(pace.has_settled);
    }

    #[test]
    fn what_does_not_move_at_all_goes_one_by_one() {
        let mut pace = Pace::default();
        pace.measured(0);
        assert_eq!(pace, Pace { limit: 1, best: 0, has_settled: true });
    }
}
