//! How long to wait before the next attempt: a pure function of the policy, the count and a seed.

use std::time::Duration;

use super::definition::{Backoff, Retry};

/// The wait after the `failures`-th failure in a row (counted from 1). The same seed gives the same wait, so that a replay asks for what
/// the live run asked for; different steps and runs get different ones, so that they do not come back all at once.
pub fn wait(retry: &Retry, failures: u32, seed: &[&str]) -> Duration {
    let steps = failures.max(1);
    let full = match retry.backoff {
        Backoff::Constant => retry.initial,
        Backoff::Linear => retry.initial.saturating_mul(steps),
        Backoff::Exponential => retry.initial.saturating_mul(1_u32.checked_shl(steps - 1).unwrap_or(u32::MAX)),
    }
    .min(retry.max.max(retry.initial));
    if retry.jitter { full.mul_f64(0.5 + 0.5 * fraction(seed, failures)) } else { full }
}

/// A number in [0, 1) from a text: FNV-1a, then the finaliser of splitmix64 to spread it over all bits.
fn fraction(seed: &[&str], salt: u32) -> f64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for part in seed {
        part.bytes().for_each(&mut eat);
        eat(0);
    }
    salt.to_le_bytes().into_iter().for_each(&mut eat);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_as_the_policy_says_and_stop_at_the_longest() {
        let retry = |backoff| Retry { backoff, jitter: false, max: Duration::from_secs(10), ..Retry::default() };
        let waits = |backoff| (1..=6).map(|n| wait(&retry(backoff), n, &[]).as_secs()).collect::<Vec<_>>();
        assert_eq!(waits(Backoff::Constant), [1, 1, 1, 1, 1, 1]);
        assert_eq!(waits(Backoff::Linear), [1, 2, 3, 4, 5, 6]);
        assert_eq!(waits(Backoff::Exponential), [1, 2, 4, 8, 10, 10]);
        assert_eq!(wait(&retry(Backoff::Exponential), u32::MAX, &[]).as_secs(), 10);
    }

    #[test]
    fn jitter_is_between_half_and_whole_and_the_same_on_replay() {
        let retry = Retry::default();
        let waits: Vec<_> = (0..200).map(|n| wait(&retry, 1, &["run", &n.to_string()])).collect();
        assert!(waits.iter().all(|w| (500..=1000).contains(&w.as_millis())));
        assert!(waits.iter().collect::<std::collections::BTreeSet<_>>().len() > 150, "different steps wait differently");
        assert_eq!(waits[7], wait(&retry, 1, &["run", "7"]));
    }
}
