//! How sure the median of a few measurements is.

use crate::record::{Estimate, Interval};

/// With fewer measurements the noise is unknown.
pub const ENOUGH: usize = 5;

/// Samples that the bootstrap draws.
const RESAMPLES: usize = 10_000;
/// The same numbers give the same interval.
const SEED: u64 = 0x0050_434f_4353_4b53;

/// The median; None of nothing.
#[must_use]
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    Some(match sorted.len() % 2 {
        1 => upper,
        _ => f64::midpoint(sorted[half - 1], upper),
    })
}

/// The median of these, and from [`ENOUGH`] on its 95 % interval by the percentile
/// bootstrap; None of nothing.
#[must_use]
pub fn estimate(values: Vec<f64>) -> Option<Estimate> {
    let median = median(&values)?;
    let interval = (values.len() >= ENOUGH).then(|| bootstrap(&values));
    Some(Estimate { values, median, interval })
}

fn bootstrap(values: &[f64]) -> Interval {
    let mut random = SplitMix(SEED);
    let mut sample = values.to_vec();
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            sample.fill_with(|| values[random.below(values.len())]);
            sample.sort_by(f64::total_cmp);
            middle(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    Interval { low: medians[tail], high: medians[RESAMPLES - 1 - tail] }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `n` - 1. For a few `n` the bias of this is nothing.
    fn below(&mut self, n: usize) -> usize {
        let scaled = (u128::from(self.next()) * n as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn numbers_are_those_of_splitmix64() {
        // Of the reference implementation with seed 1234567.
        let mut random = SplitMix(1_234_567);
        let drawn = [random.next(), random.next(), random.next()];
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn noise_is_unknown_with_fewer_than_five() {
        assert_eq!(estimate(vec![]), None);
        assert_eq!(estimate(vec![1.0; 4]).unwrap().interval, None);
        let same = estimate(vec![7.0; 5]).unwrap();
        assert_eq!(same.interval, Some(Interval { low: 7.0, high: 7.0 }));
    }

    #[test]
    fn an_interval_is_that_of_the_exact_bootstrap() {
        // Of five values, the median of a resample is the lowest with probability
        // P(at least 3 of 5 draws are it) = 0.058, above 2.5 %: so it is the low end.
        let five = estimate((1..=5).map(f64::from).collect()).unwrap();
        assert_eq!(five.interval, Some(Interval { low: 1.0, high: 5.0 }));
        let many = estimate((1..=25).map(f64::from).collect()).unwrap();
        let interval = many.interval.unwrap();
        // P(at least 13 of 25 draws are among the lowest k) passes 2.5 % at k = 8.
        assert_eq!((interval.low, interval.high), (8.0, 18.0));
    }

    #[test]
    fn the_true_median_lies_within_about_nineteen_of_twenty_times() {
        let mut random = SplitMix(7);
        let (trials, n) = (400, 15);
        let within = (0..trials).filter(|_| {
            let drawn: Vec<f64> = (0..n).map(|_| random.below(100_000) as f64).collect();
            let interval = bootstrap(&drawn);
            interval.low <= 50_000.0 && 50_000.0 <= interval.high
        });
        let within = within.count();
        assert!(within * 100 >= trials * 90, "{within} of {trials}");
    }
}
