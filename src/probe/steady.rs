//! How evenly dials succeed: by chance, or as something on the way lets them.

use crate::verdict::Steadiness;

/// Counted are spans of a second, or what a busy machine makes of it.
const SPAN_US: u64 = 1_000_000;

/// Keeps what succeeded in each second.
#[derive(Debug, Default)]
pub(super) struct Steady {
    /// When the span began, and what had succeeded by then.
    began: Option<(u64, u64)>,
    spans: u64,
    mean: f64,
    /// The sum of the squared distances from the mean (Welford's method).
    squares: f64,
}

impl Steady {
    /// So many had succeeded at `at_us`. The first second is not counted: bursts are let
    /// through there.
    pub(super) fn feed(&mut self, at_us: u64, established: u64) {
        let Some((since_us, before)) = self.began else {
            if at_us >= SPAN_US {
                self.began = Some((at_us, established));
            }
            return;
        };
        let span_us = at_us.saturating_sub(since_us);
        if span_us < SPAN_US {
            return;
        }
        self.began = Some((at_us, established));
        let per_s = established.saturating_sub(before) as f64 * 1e6 / span_us as f64;
        self.spans += 1;
        let from_mean = per_s - self.mean;
        self.mean += from_mean / self.spans as f64;
        self.squares += from_mean * (per_s - self.mean);
    }

    /// What was seen; None where it was too short.
    #[must_use]
    pub(super) fn seen(&self) -> Option<Steadiness> {
        (self.spans > 1).then(|| Steadiness {
            seconds: self.spans,
            per_s: self.mean,
            variance: self.squares / (self.spans - 1) as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(at: impl IntoIterator<Item = (u64, u64)>) -> Option<Steadiness> {
        let mut steady = Steady::default();
        at.into_iter().for_each(|(at_us, n)| steady.feed(at_us, n));
        steady.seen()
    }

    #[test]
    fn what_succeeds_evenly_has_no_variance_however_late_it_is_looked_at() {
        // 20 a second, looked at after 1.0 to 1.4 s.
        let mut at_us = 1_000_000;
        let looks = (0..12).map(|n| {
            at_us += 1_000_000 + 100_000 * (n % 5);
            (at_us, at_us / 50_000)
        });
        let seen = fed(looks).unwrap();
        assert_eq!(seen.seconds, 11);
        assert!((seen.per_s - 20.0).abs() < 0.1 && seen.variance < 0.01, "{seen:?}");
    }

    #[test]
    fn the_variance_is_that_of_the_seconds() {
        let counts = [0, 10, 30, 40, 60];
        let looks = (1_u64..).map(|s| s * 1_000_000).zip(counts);
        let seen = fed(looks).unwrap();
        // 10, 20, 10, 20 a second.
        assert_eq!((seen.seconds, seen.per_s), (4, 15.0));
        assert!((seen.variance - 100.0 / 3.0).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn the_first_second_and_one_alone_say_nothing() {
        assert_eq!(fed([(20_000, 5), (980_000, 30)]), None);
        assert_eq!(fed([(20_000, 5), (1_010_000, 30), (2_020_000, 50)]), None);
    }
}
