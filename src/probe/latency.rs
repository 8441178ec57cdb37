//! `--stop-at-latency 'p99<50ms'`: the most connections at which latency is still as
//! wanted.
//!
//! Judged in intervals of the ramp. An interval lasts at least 0.2 s, and until
//! it has so many samples that the quantile means something: two beyond it, so 200 for
//! p99 (100 at least, for `max` too). One interval above the limit may be chance; two in
//! a row end the ramp. What counts as the maximum is the most that was held at the end of
//! an interval that still met it. Latency is that of replies where something is asked,
//! and of connects elsewhere. It is the latency of *new* connections and of `--ping`s, at
//! the load that the probe itself makes. Where `--rate` does not say how much that is to
//! be, the load must not be what makes the server slow: the limit is given up only when it
//! is not met at the slowest of a few paces, and the ramp slows down to the next until
//! then.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::shared::histogram;

/// The shortest interval, in µs.
const INTERVAL_US: u64 = 200_000;
/// Intervals in a row above the limit that end the ramp.
const IN_A_ROW: u32 = 2;
/// The fewest samples of an interval.
const SAMPLES_MIN: u64 = 100;
/// The paces to which a ramp without a rate slows down: µs between two dials.
const GAPS_US: [u64; 3] = [200, 1_000, 5_000];

/// A quantile by the name that it has in words and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantile {
    /// The median.
    P50,
    /// Nine of ten.
    P90,
    /// 99 of 100.
    P99,
    /// 999 of 1,000.
    P999,
    /// The slowest.
    Max,
}

impl Quantile {
    const ALL: [Self; 5] = [Self::P50, Self::P90, Self::P99, Self::P999, Self::Max];

    /// `p99`, `max`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
        }
    }

    fn of(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
            Self::Max => 1.0,
        }
    }

    /// How many samples an interval needs.
    fn samples(self) -> u64 {
        match self {
            Self::P50 | Self::P90 | Self::Max => SAMPLES_MIN,
            Self::P99 => 200,
            Self::P999 => 2_000,
        }
    }
}

/// What latency may be at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyLimit {
    /// Of which quantile.
    pub quantile: Quantile,
    /// It is to stay below this.
    pub below: Duration,
}

impl LatencyLimit {
    /// Reads `p99<50ms`.
    ///
    /// # Errors
    /// One line that says how it is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || {
            "a latency is written 'p99<50ms', with p50, p90, p99, p99.9 or max".to_owned()
        };
        let (name, below) = text.split_once('<').ok_or_else(form)?;
        let quantile = Quantile::ALL.into_iter().find(|q| q.name() == name.trim());
        let below = humantime::parse_duration(below.trim()).map_err(|_| form())?;
        if below.is_zero() {
            return Err("no latency is below 0s".into());
        }
        Ok(Self { quantile: quantile.ok_or_else(form)?, below })
    }
}

impl fmt::Display for LatencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = humantime::format_duration(self.below);
        write!(f, "{}<{}", self.quantile.name(), below)
    }
}

/// Watches over a limit while a probe runs.
#[derive(Debug)]
pub struct LatencyGate {
    limit: LatencyLimit,
    interval: Histogram<u64>,
    began_us: u64,
    above: u32,
    /// Those of [`GAPS_US`] that are left to be tried.
    slower: std::slice::Iter<'static, u64>,
    /// What was found, so far.
    pub seen: LatencySeen,
}

/// What a [`LatencyGate`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencySeen {
    /// The most that was held while the limit was met.
    pub met: u64,
    /// The quantile of the last whole interval, in µs.
    pub last_us: u64,
    /// Its samples.
    pub samples: u64,
    /// Whole intervals.
    pub intervals: u64,
    /// The pace to which the ramp had slowed down then: µs between two dials.
    pub gap_us: Option<u64>,
}

impl LatencyGate {
    /// A gate that has seen nothing yet, over dials at a rate or not.
    #[must_use]
    pub fn new(limit: LatencyLimit, has_rate: bool) -> Self {
        let (interval, seen) = (histogram(), LatencySeen::default());
        let slower = if has_rate { [].iter() } else { GAPS_US.iter() };
        Self { limit, interval, began_us: 0, above: 0, slower, seen }
    }

    /// Takes the latencies since the last time, at this µs and with so many held; says
    /// how much slower to dial from now on, in µs between two, where that is to change.
    pub fn feed(
        &mut self,
        lately: &Histogram<u64>,
        at_us: u64,
        held: u64,
    ) -> Option<u64> {
        if self.is_exceeded() {
            return None;
        }
        // The bounds are the same, so that nothing can fail to fit.
        let _ = self.interval.add(lately);
        let samples = self.interval.len();
        let whole = at_us.saturating_sub(self.began_us) >= INTERVAL_US
            && samples >= self.limit.quantile.samples();
        if !whole {
            return None;
        }
        let value = self.interval.value_at_quantile(self.limit.quantile.of());
        let met = u128::from(value) < self.limit.below.as_micros();
        self.above = if met { 0 } else { self.above + 1 };
        let best = if met { held.max(self.seen.met) } else { self.seen.met };
        let (intervals, gap_us) = (self.seen.intervals + 1, self.seen.gap_us);
        self.seen = LatencySeen { met: best, last_us: value, samples, intervals, gap_us };
        self.interval.reset();
        self.began_us = at_us;
        if !self.is_exceeded() {
            return None;
        }
        let gap_us = *self.slower.next()?;
        (self.above, self.seen.gap_us) = (0, Some(gap_us));
        Some(gap_us)
    }

    /// Whether latency is above the limit for good.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.above >= IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value_us: u64, samples: u64) -> Histogram<u64> {
        let mut histogram = histogram();
        histogram.saturating_record_n(value_us, samples);
        histogram
    }

    #[test]
    fn a_limit_is_a_quantile_and_a_duration() {
        let limit = LatencyLimit::parse("p99 < 50ms").unwrap();
        assert_eq!(limit.quantile, Quantile::P99);
        assert_eq!(limit.below, Duration::from_millis(50));
        assert_eq!(limit.to_string(), "p99<50ms");
        assert_eq!(LatencyLimit::parse("p99.9<1s").unwrap().quantile, Quantile::P999);
        for text in ["p99", "p99<", "p99<50", "p98<1s", "<1s", "p99>1s", "", "p99<0s"] {
            let error = LatencyLimit::parse(text).unwrap_err();
            assert!(error.contains("latency"), "{text}: {error}");
        }
    }

    #[test]
    fn two_intervals_in_a_row_end_it_and_one_does_not() {
        let mut gate = LatencyGate::new(LatencyLimit::parse("p50<10ms").unwrap(), true);
        let (fast, slow) = (of(1_000, 200), of(20_000, 200));
        let steps =
            [(&fast, 100), (&slow, 200), (&fast, 300), (&slow, 400), (&slow, 500)];
        for (i, (lately, held)) in (1..).zip(steps) {
            assert!(!gate.is_exceeded());
            assert_eq!(gate.feed(lately, i * INTERVAL_US, held), None);
        }
        assert!(gate.is_exceeded());
        assert_eq!((gate.seen.met, gate.seen.intervals), (300, 5));
    }

    #[test]
    fn without_a_rate_it_slows_down_before_it_gives_up() {
        let mut gate = LatencyGate::new(LatencyLimit::parse("p50<10ms").unwrap(), false);
        let (fast, slow) = (of(1_000, 200), of(20_000, 200));
        let mut told = Vec::new();
        for i in 1..=9 {
            assert!(!gate.is_exceeded());
            // At the second pace it is met once.
            let lately = if i == 5 { &fast } else { &slow };
            told.extend(gate.feed(lately, i * INTERVAL_US, 100 * i).map(|gap| (i, gap)));
        }
        assert_eq!(told, [(2, 200), (4, 1_000), (7, 5_000)]);
        assert!(gate.is_exceeded());
        assert_eq!((gate.seen.met, gate.seen.gap_us), (500, Some(5_000)));
    }

    #[test]
    fn an_interval_waits_for_enough_samples() {
        let mut gate = LatencyGate::new(LatencyLimit::parse("p99<10ms").unwrap(), true);
        for i in 1..=9 {
            gate.feed(&of(20_000, 20), i * INTERVAL_US, 100);
        }
        assert_eq!(gate.seen, LatencySeen::default());
        gate.feed(&of(20_000, 20), 10 * INTERVAL_US, 100);
        assert_eq!((gate.seen.samples, gate.seen.intervals), (200, 1));
    }
}
