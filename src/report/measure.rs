//! The numbers by which runs are compared.

use super::unit::Unit;
use crate::record::{Estimate, Run};

/// A number of a run that says how good the server was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// `practical_max`.
    PracticalMax,
    /// `rate_per_s`.
    Rate,
    /// `connect_latency_us.p99`.
    ConnectP99,
    /// `reply_latency_us.p99`.
    ReplyP99,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::PracticalMax, Self::Rate, Self::ConnectP99, Self::ReplyP99];

    /// Its key, below `result`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::PracticalMax => "practical_max",
            Self::Rate => "rate_per_s",
            Self::ConnectP99 => "connect_latency_us.p99",
            Self::ReplyP99 => "reply_latency_us.p99",
        }
    }

    /// Its unit.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::PracticalMax => Unit::Count,
            Self::Rate => Unit::PerSecond,
            Self::ConnectP99 | Self::ReplyP99 => Unit::Micros,
        }
    }

    /// Whether a larger number is the better one.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::PracticalMax | Self::Rate)
    }

    /// What this run alone measured.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn of(self, run: &Run) -> Option<f64> {
        let result = &run.result;
        match self {
            Self::PracticalMax => Some(result.practical_max as f64),
            Self::Rate => Some(result.rate_per_s),
            Self::ConnectP99 => result.connect_latency_us.as_ref().map(|l| l.p99 as f64),
            Self::ReplyP99 => result.reply_latency_us.as_ref().map(|l| l.p99 as f64),
        }
    }

    /// What its repeats found together, if it has some.
    #[must_use]
    pub fn estimate(self, run: &Run) -> Option<&Estimate> {
        let repeat = run.repeat.as_ref()?;
        match self {
            Self::PracticalMax => repeat.practical_max.as_ref(),
            Self::Rate => repeat.rate_per_s.as_ref(),
            Self::ConnectP99 => repeat.connect_p99_us.as_ref(),
            Self::ReplyP99 => repeat.reply_p99_us.as_ref(),
        }
    }

    /// The median of its repeats, or else what the run alone measured.
    #[must_use]
    pub fn best(self, run: &Run) -> Option<f64> {
        self.estimate(run).map(|estimate| estimate.median).or_else(|| self.of(run))
    }
}
