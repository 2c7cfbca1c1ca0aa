//! How fast a step moved bytes, over its time at work: from samples to rates, and a line of blocks for a terminal.

use std::time::Duration;

use crate::engine::StepPath;
use crate::executor::{Sample, Samples};
use crate::units::{ByteSize, Rate, Span};

/// How many rates are told at most: more are no news in a picture.
const MOST: usize = 90;

/// The speed of one step over all its attempts. Time between attempts is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// The step.
    pub step: StepPath,
    /// Rates in order of time.
    pub bins: Vec<Bin>,
    /// Where, in seconds, a later attempt begins.
    pub seams: Vec<f64>,
    /// Seconds in all.
    pub seconds: f64,
    /// Bytes moved in this time.
    pub bytes: u64,
}

/// A time with one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// In seconds.
    pub from: f64,
    /// In seconds.
    pub to: f64,
    /// Bytes per second.
    pub rate: f64,
    /// How many requests were under way at most.
    pub at_once: Option<u64>,
}

fn rate(bytes_per_second: f64) -> Rate {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative, and saturates")]
    Rate(bytes_per_second as u64)
}

impl Speed {
    /// Of every step that has moved for long enough to have a speed, in the order of the samples.
    pub fn of_all(samples: &[Samples]) -> Vec<Self> {
        let attempts = samples.chunk_by(|a, b| a.step == b.step);
        attempts.filter_map(Self::of).collect()
    }

    fn of(attempts: &[Samples]) -> Option<Self> {
        let step = attempts.first()?.step.clone();
        let mut speed = Self { step, bins: Vec::new(), seams: Vec::new(), seconds: 0.0, bytes: 0 };
        let length = |attempt: &Samples| {
            let ends = attempt.samples.first().zip(attempt.samples.last());
            ends.map_or(0.0, |(first, last)| last.ms.saturating_sub(first.ms) as f64 / 1000.0)
        };
        let total: f64 = attempts.iter().map(length).sum();
        let width = total / MOST as f64;
        for attempt in attempts.iter().filter(|attempt| attempt.samples.len() > 1) {
            if !speed.bins.is_empty() {
                speed.seams.push(speed.seconds);
            }
            speed.add(&attempt.samples, width);
        }
        (speed.bins.len() >= 3 && speed.bytes > 0).then_some(speed)
    }

    fn add(&mut self, samples: &[Sample], width: f64) {
        let (begin, origin) = (self.seconds, samples[0].ms);
        let mut last = samples[0];
        for (number, sample) in samples.iter().enumerate().skip(1) {
            let took = sample.ms.saturating_sub(last.ms) as f64 / 1000.0;
            // The last one takes what is left, be it short.
            let is_end = number + 1 == samples.len();
            if took <= 0.0 || took < width && !is_end {
                continue;
            }
            let moved = sample.bytes.saturating_sub(last.bytes);
            let to = begin + sample.ms.saturating_sub(origin) as f64 / 1000.0;
            let is_short = is_end && took < width / 2.0;
            match self.bins.last_mut().filter(|bin| is_short && bin.to > begin) {
                Some(bin) => {
                    let bytes = bin.rate * (bin.to - bin.from) + moved as f64;
                    bin.to = to;
                    bin.rate = bytes / (bin.to - bin.from);
                }
                None => self.bins.push(Bin { from: to - took, to, rate: moved as f64 / took, at_once: sample.at_once }),
            }
            self.bytes += moved;
            self.seconds = to;
            last = *sample;
        }
    }

    /// Bytes per second over all its time.
    pub fn average(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 / self.seconds } else { 0.0 }
    }

    /// The highest rate.
    pub fn highest(&self) -> f64 {
        self.bins.iter().map(|bin| bin.rate).fold(0.0, f64::max)
    }

    /// The most requests that were under way at once.
    pub fn most_at_once(&self) -> Option<u64> {
        self.bins.iter().filter_map(|bin| bin.at_once).max()
    }

    /// `190.7 MiB in 13s, 14.2 MiB/s on average, 20.1 MiB/s at most`.
    pub fn words(&self) -> String {
        format!(
            "{} in {}, {} on average, {} at most",
            ByteSize(self.bytes),
            Span(Duration::from_secs_f64((self.seconds * 10.0).round() / 10.0)),
            rate(self.average()),
            rate(self.highest())
        )
    }

    /// A line of blocks, as high as the rates.
    pub fn blocks(&self, columns: usize) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let columns = columns.min(self.bins.len()).max(1);
        let highest = self.highest();
        (0..columns)
            .map(|column| {
                let of = |part: f64| self.seconds * part / columns as f64;
                let share = self.moved_between(of(column as f64), of(column as f64 + 1.0)) / of(1.0) / highest;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
                let level = (share * 7.0).round() as usize;
                BLOCKS[level.min(7)]
            })
            .collect()
    }

    fn moved_between(&self, from: f64, to: f64) -> f64 {
        self.bins.iter().map(|bin| bin.rate * (bin.to.min(to) - bin.from.max(from)).max(0.0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn attempt(number: u32, samples: &[(u64, u64)]) -> Samples {
        let sample = |&(ms, bytes)| Sample { ms, bytes, objects: None, at_once: Some(32) };
        let samples = samples.iter().map(sample).collect();
        Samples { step: StepPath::from("copy"), attempt: number, from: Timestamp::default(), samples }
    }

    #[test]
    fn rates_are_those_of_the_time_at_work() {
        let first = attempt(1, &[(0, 0), (1000, 1 << 20), (2000, 3 << 20)]);
        // It goes on from a checkpoint: what was there counts for no speed.
        let second = attempt(2, &[(500, 3 << 20), (1500, 7 << 20), (2500, 7 << 20)]);
        let found = Speed::of_all(&[first, second]);
        let [speed] = &found[..] else { panic!("{found:?}") };
        assert_eq!((speed.seconds, speed.bytes, speed.seams.as_slice()), (4.0, 7 << 20, &[2.0][..]));
        let rates: Vec<f64> = speed.bins.iter().map(|bin| bin.rate / f64::from(1 << 20)).collect();
        assert_eq!(rates, [1.0, 2.0, 4.0, 0.0]);
        assert_eq!(speed.words(), "7.0 MiB in 4s, 1.8 MiB/s on average, 4.0 MiB/s at most");
        assert_eq!(speed.blocks(4), "▃▅█▁");
        assert_eq!(speed.blocks(80).chars().count(), 4);
    }

    #[test]
    fn many_samples_make_a_picture_and_lose_no_byte() {
        let samples: Vec<(u64, u64)> = (0..240).map(|n| (n * 370, n * n * 1000)).collect();
        let found = Speed::of_all(&[attempt(1, &samples)]);
        assert!(found[0].bins.len() <= MOST + 1, "{}", found[0].bins.len());
        assert_eq!(found[0].bytes, 239 * 239 * 1000);
        let sum: f64 = found[0].bins.iter().map(|bin| bin.rate * (bin.to - bin.from)).sum();
        assert!((sum - found[0].bytes as f64).abs() < 1.0, "{sum}");
        assert!(Speed::of_all(&[attempt(1, &samples[..2])]).is_empty());
    }
}
