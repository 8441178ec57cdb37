//! `--stop-at-latency 'p99<50ms'`: the most connections at which latency is still as
//! wanted.
//!
//! Judged in intervals of the ramp. An interval lasts at least 0.2 s, and until
//! it has so many samples that the quantile means something: two beyond it, so 200 for
//! p99 (100 at least, for `max` too). One interval above the limit may be chance; two in
//! a row end the ramp. What counts as the maximum is the most that was held at the end of
//! an interval that still met it. Latency is that of replies where something is asked,
//! and of connects elsewhere. It is the latency of *new* connections and of `--ping`s, at
//! the load that the probe itself makes: `--rate` keeps that load the same throughout.

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
}

impl LatencyGate {
    /// A gate that has seen nothing yet.
    #[must_use]
    pub fn new(limit: LatencyLimit) -> Self {
        let (interval, seen) = (histogram(), LatencySeen::default());
        Self { limit, interval, began_us: 0, above: 0, seen }
    }

    /// Takes the latencies since the last time, at this µs and with so many held.
    pub fn feed(&mut self, lately: &Histogram<u64>, at_us: u64, held: u64) {
        if self.is_exceeded() {
            return;
        }
        // The bounds are the same, so that nothing can fail to fit.
        let _ = self.interval.add(lately);
        let samples = self.interval.len();
        let whole = at_us.saturating_sub(self.began_us) >= INTERVAL_US
            && samples >= self.limit.quantile.samples();
        if !whole {
            return;
        }
        let value = self.interval.value_at_quantile(self.limit.quantile.of());
        let met = u128::from(value) < self.limit.below.as_micros();
        self.above = if met { 0 } else { self.above + 1 };
        let best = if met { held.max(self.seen.met) } else { self.seen.met };
        let intervals = self.seen.intervals + 1;
        self.seen = LatencySeen { met: best, last_us: value, samples, intervals };
        self.interval.reset();
        self.began_us = at_us;
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
        let mut gate = LatencyGate::new(LatencyLimit::parse("p50<10ms").unwrap());
        let (fast, slow) = (of(1_000, 200), of(20_000, 200));
        let steps =
            [(&fast, 100), (&slow, 200), (&fast, 300), (&slow, 400), (&slow, 500)];
        for (i, (lately, held)) in (1..).zip(steps) {
            assert!(!gate.is_exceeded());
            gate.feed(lately, i * INTERVAL_US, held);
        }
        assert!(gate.is_exceeded());
        assert_eq!((gate.seen.met, gate.seen.intervals), (300, 5));
    }

    #[test]
    fn an_interval_waits_for_enough_samples() {
        let mut gate = LatencyGate::new(LatencyLimit::parse("p99<10ms").unwrap());
        for i in 1..=9 {
            gate.feed(&of(20_000, 20), i * INTERVAL_US, 100);
        }
        assert_eq!(gate.seen, LatencySeen::default());
        gate.feed(&of(20_000, 20), 10 * INTERVAL_US, 100);
        assert_eq!((gate.seen.samples, gate.seen.intervals), (200, 1));
    }
}
