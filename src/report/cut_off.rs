//! A record without its `run.json`, as a JSON document.

use serde::Serialize;

use crate::record::{Record, Sample};

/// The schema of [`CutOff`].
pub const SCHEMA: &str = "sockscope.cut_off/1";

/// What is left of a run that was cut off.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CutOff<'a> {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The folder.
    pub path: String,
    /// When it began, by the folder's name.
    pub started: Option<String>,
    /// What was probed, by the folder's name.
    pub target: String,
    /// Samples that could be read.
    pub samples: u64,
    /// Whether the last line of the timeline is torn.
    pub torn: bool,
    /// Lines before it that are no samples.
    pub damaged_lines: u64,
    /// The most that a sample says was held; null where there is none.
    pub held_peak: Option<u64>,
    /// The last sample.
    pub last: Option<&'a Sample>,
}

impl<'a> CutOff<'a> {
    /// What `record` holds.
    #[must_use]
    pub fn of(record: &'a Record) -> Self {
        let timeline = &record.timeline;
        Self {
            schema: SCHEMA,
            path: record.path.display().to_string(),
            started: record.started().map(|at| at.to_string()),
            target: record.target(),
            samples: timeline.samples.len() as u64,
            torn: timeline.torn,
            damaged_lines: timeline.damaged.map_or(0, |damaged| damaged.lines),
            held_peak: timeline.samples.iter().map(|sample| sample.held).max(),
            last: timeline.samples.last(),
        }
    }
}
