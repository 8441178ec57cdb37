//! Looks that cost something, done from time to time.

use std::time::{Duration, Instant};

/// So many times as long as a costly look took, there is none again.
const REST: u32 = 100;

/// A costly look that is due from time to time.
#[derive(Debug)]
pub(super) struct Due {
    every: Duration,
    at_least_every: Duration,
    next: Option<Instant>,
}

impl Due {
    /// No more often than `every`; where it takes long, less often, but not more seldom
    /// than `at_least_every`. The first is due now.
    pub(super) const fn every(every: Duration, at_least_every: Duration) -> Self {
        Self { every, at_least_every, next: None }
    }

    pub(super) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    /// Notes that it was done just now, and began at `began`.
    pub(super) fn done(&mut self, began: Instant) {
        let rest = (began.elapsed() * REST).clamp(self.every, self.at_least_every);
        self.next = Some(began + rest);
    }

    /// It is due now, whenever it was done.
    pub(super) fn at_once(&mut self) {
        self.next = None;
    }
}
