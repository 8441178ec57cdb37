//! What several runs of one probe found together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The runs of `probe --repeat N`, taken together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Repeat {
    /// Runs that were made, this one included.
    pub runs: u64,
    /// The names of their folders, in the order of the runs; empty where none was kept.
    pub folders: Vec<String>,
    /// Of `result.practical_max`; null where the runs counted at different levels.
    pub practical_max: Option<Estimate>,
    /// Of `result.rate_per_s`.
    pub rate_per_s: Option<Estimate>,
    /// Of `result.connect_latency_us.p99`; null where a run has none.
    pub connect_p99_us: Option<Estimate>,
    /// Of `result.reply_latency_us.p99`; null where a run has none.
    pub reply_p99_us: Option<Estimate>,
}

/// A number that was measured several times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Estimate {
    /// The number in each run.
    pub values: Vec<f64>,
    /// The median of these.
    pub median: f64,
    /// The 95 % bootstrap interval of the median; null with fewer than 5 runs: the noise
    /// is unknown then.
    pub interval: Option<Interval>,
}

/// From one number to another, both included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}
