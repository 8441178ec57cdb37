//! How often a queue is looked at: as often as was asked for, while that costs little.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What the watch may take of one core, and what it settles at where it takes more.
const CPU_MOST: f64 = 0.045;
const CPU_AIM: f64 = 0.04;
/// How often that is checked.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// CPU time of this process, user and system.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let whole = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(whole, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The moments at which looks are due.
#[derive(Debug)]
pub(super) struct Pace {
    asked: Duration,
    /// None: the interval is kept whatever it costs.
    checked: Option<(Instant, Duration)>,
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// Every `interval`; where `may_stretch`, more seldom if more often would take too
    /// much of a core.
    pub(super) fn new(interval: Duration, may_stretch: bool) -> Self {
        let now = Instant::now();
        let checked = may_stretch.then(|| (now, cpu_time()));
        Self { asked: interval, checked, interval, next: now }
    }

    /// When the next look is due.
    pub(super) fn next(&mut self) -> Instant {
        let now = Instant::now();
        if let Some((at, cpu)) = self.checked
            && now - at >= CHECK_EVERY
        {
            let used = cpu_time();
            let share =
                (used.saturating_sub(cpu)).as_secs_f64() / (now - at).as_secs_f64();
            self.interval = stretched(self.interval, self.asked, share);
            self.checked = Some((now, used));
        }
        // A host too slow for the interval does not owe what it missed.
        self.next = (self.next + self.interval).max(now);
        self.next
    }
}

/// The interval after one that took `share` of a core.
fn stretched(interval: Duration, asked: Duration, share: f64) -> Duration {
    if share > CPU_MOST || interval > asked {
        // At most to its half or its double at once: one busy moment is no measure.
        let factor = (share / CPU_AIM).clamp(0.5, 2.0);
        return interval.mul_f64(factor).max(asked).min(asked * 200);
    }
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_costs_too_much_is_done_more_seldom_and_comes_back() {
        assert_eq!(stretched(MS, MS, 0.044), MS);
        assert_eq!(stretched(MS, MS, 0.06), MS * 3 / 2);
        assert_eq!(stretched(MS, MS, 0.9), MS * 2);
        assert_eq!(stretched(MS * 4, MS, 0.02), MS * 2);
        assert_eq!(stretched(MS * 2, MS, 0.001), MS);
    }

    #[test]
    fn looks_are_due_by_the_clock_and_not_by_how_long_each_took() {
        let mut pace = Pace::new(MS * 500, false);
        let (first, second) = (pace.next(), pace.next());
        assert_eq!(second - first, MS * 500);
    }
}
