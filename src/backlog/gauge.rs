//! The accept queue of one listener over time: how long it was how deep.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::record::backlog::{QueueStats, Step};

/// Digits that a length is kept to: all of it below 2,048.
const DIGITS: u8 = 3;

/// The numbers of a listener at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Connections in the accept queue.
    pub queue_len: u32,
    /// The effective backlog; the queue admits one more.
    pub backlog: u32,
    /// What it dropped since it listens; wraps.
    pub drops: u32,
}

impl Reading {
    fn is_full(self) -> bool {
        self.queue_len > self.backlog
    }

    /// Above 80 of 100 that the queue admits.
    fn is_high(self) -> bool {
        u64::from(self.queue_len) * 5 > (u64::from(self.backlog) + 1) * 4
    }
}

/// Drops from when the queue ran over until it was no longer high: a burst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burst {
    /// What was dropped; a SYN that was sent again counts again.
    pub drops: u64,
    /// How long it took.
    pub lasted: Duration,
}

/// Takes readings of one listener, each of which holds until the next.
#[derive(Debug)]
pub struct Gauge {
    /// By length, in µs.
    time_at: Histogram<u64>,
    last: Option<(Duration, Reading)>,
    peak: u32,
    busy: Duration,
    full: Duration,
    high: Duration,
    drops: u64,
    left: u64,
    entered: u64,
    burst: Option<Burst>,
    worst: Burst,
}

impl Gauge {
    /// One that has no reading yet.
    ///
    /// # Panics
    /// Never: three digits are what a histogram can have.
    #[must_use]
    pub fn new() -> Self {
        #[allow(clippy::expect_used)] // it grows by itself, and DIGITS is a constant
        let time_at = Histogram::new(DIGITS).expect("0 to 5 digits");
        Self {
            time_at,
            last: None,
            peak: 0,
            busy: Duration::ZERO,
            full: Duration::ZERO,
            high: Duration::ZERO,
            drops: 0,
            left: 0,
            entered: 0,
            burst: None,
            worst: Burst::default(),
        }
    }

    /// Takes a reading; `at` counts from when the watch began.
    pub fn take(&mut self, at: Duration, now: Reading) {
        self.peak = self.peak.max(now.queue_len);
        let Some((since, before)) = self.last.replace((at, now)) else { return };
        let lasted = at.saturating_sub(since);
        // A length of 32 bits always fits: the histogram grows.
        let _ = self.time_at.record_n(before.queue_len.into(), micros(lasted));
        if before.queue_len > 0 {
            self.busy += lasted;
        }
        if before.is_full() {
            self.full += lasted;
        }
        if before.is_high() {
            self.high += lasted;
        }
        let (was, is) = (u64::from(before.queue_len), u64::from(now.queue_len));
        self.left += was.saturating_sub(is);
        self.entered += is.saturating_sub(was);
        let dropped = u64::from(now.drops.wrapping_sub(before.drops));
        self.drops += dropped;
        self.follow_burst(now, dropped, lasted);
    }

    fn follow_burst(&mut self, now: Reading, dropped: u64, lasted: Duration) {
        if dropped == 0 && self.burst.is_none() {
            return;
        }
        let mut burst = self.burst.take().unwrap_or_default();
        burst.drops += dropped;
        burst.lasted += lasted;
        if burst.drops > self.worst.drops {
            self.worst = burst;
        }
        self.burst = now.is_high().then_some(burst);
    }

    /// The last reading.
    #[must_use]
    pub fn last(&self) -> Option<Reading> {
        self.last.map(|(_, reading)| reading)
    }

    /// The longest queue that a reading saw: it may have been longer in between.
    #[must_use]
    pub fn peak(&self) -> u32 {
        self.peak
    }

    /// What was dropped while it was watched.
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// How long it was full.
    #[must_use]
    pub fn full_for(&self) -> Duration {
        self.full
    }

    /// How long any connection waited.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        self.busy
    }

    /// Connections that were seen to leave the queue: at least so many were accepted.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// By how much the queue grew, all growths together: at least so many came.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.entered
    }

    /// The burst with the most drops.
    #[must_use]
    pub fn worst(&self) -> Burst {
        self.worst
    }

    /// What is published of it.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let at = |quantile| self.time_at.value_at_quantile(quantile);
        QueueStats {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            above_80_percent_s: self.high.as_secs_f64(),
            full_s: self.full.as_secs_f64(),
            histogram: self.steps(),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let recorded = self.time_at.iter_recorded();
        recorded
            .map(|step| Step {
                queue_len: step.value_iterated_to(),
                seconds: step.count_since_last_iteration() as f64 / 1e6,
            })
            .collect()
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self::new()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn reading(queue_len: u32, backlog: u32, drops: u32) -> Reading {
        Reading { queue_len, backlog, drops }
    }

    fn gauge(readings: &[(u64, u32, u32)]) -> Gauge {
        let mut gauge = Gauge::new();
        for &(ms, queue_len, drops) in readings {
            gauge.take(MS(ms), reading(queue_len, 9, drops));
        }
        gauge
    }

    #[test]
    fn lengths_count_by_how_long_they_lasted() {
        let gauge = gauge(&[(0, 0, 0), (900, 10, 0), (990, 5, 0), (1000, 0, 0)]);
        let stats = gauge.stats();
        assert_eq!((stats.p50, stats.p90, stats.p99), (0, 0, 10));
        assert_eq!(gauge.peak(), 10);
        assert_eq!(gauge.full_for(), MS(90));
        assert_eq!(gauge.busy_for(), MS(100));
        assert_eq!(stats.above_80_percent_s, 0.09);
        let steps: Vec<_> =
            stats.histogram.iter().map(|step| (step.queue_len, step.seconds)).collect();
        assert_eq!(steps, [(0, 0.9), (5, 0.01), (10, 0.09)]);
        assert_eq!((gauge.entered(), gauge.left()), (10, 10));
    }

    #[test]
    fn full_is_one_above_the_backlog_and_high_is_above_four_fifths() {
        for (len, high, full) in [(8, false, false), (9, true, false), (10, true, true)] {
            let now = reading(len, 9, 0);
            assert_eq!((now.is_high(), now.is_full()), (high, full), "{len}");
        }
        assert!(reading(1, 0, 0).is_full() && !reading(0, 0, 0).is_high());
    }

    #[test]
    fn a_burst_goes_on_until_the_queue_has_room_again() {
        let gauge = gauge(&[
            (0, 0, 7),
            (1, 10, 10), // 3 dropped
            (2, 9, 10),
            (3, 10, 14), // 4 more of the same burst
            (4, 2, 14),
            (500, 10, 19), // 5 of another
            (501, 0, 19),
        ]);
        assert_eq!(gauge.drops(), 12);
        assert_eq!(gauge.worst(), Burst { drops: 7, lasted: MS(3) });
    }

    #[test]
    fn drops_wrap_at_32_bits() {
        let gauge = gauge(&[(0, 0, u32::MAX - 1), (1, 10, 3)]);
        assert_eq!(gauge.drops(), 5);
    }

    proptest! {
        #[test]
        fn times_and_drops_add_up(
            all in proptest::collection::vec((0_u64..50, 0_u32..12, 0_u32..4), 2..40)
        ) {
            let (mut at, mut drops, mut readings) = (0, 0, Vec::new());
            for (step, queue_len, dropped) in all {
                at += step;
                drops += dropped;
                readings.push((at, queue_len, drops));
            }
            let gauge = gauge(&readings);
            let (first, last) = (readings[0], readings[readings.len() - 1]);
            let watched = (last.0 - first.0) as f64 / 1e3;
            let stats = gauge.stats();
            let total: f64 = stats.histogram.iter().map(|step| step.seconds).sum();
            prop_assert!((total - watched).abs() < 1e-6);
            prop_assert!(stats.full_s <= stats.above_80_percent_s);
            prop_assert_eq!(gauge.drops(), u64::from(last.2 - first.2));
            prop_assert!(gauge.worst().drops <= gauge.drops());
            let grew = i64::from(last.1) - i64::from(first.1);
            let flow = gauge.entered().cast_signed() - gauge.left().cast_signed();
            prop_assert_eq!(flow, grew);
        }
    }
}
