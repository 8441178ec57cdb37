//! The charts of a report, as SVG.

mod bars;
mod draw;
mod latency;
mod over_time;
mod points;
mod sides;
mod svg;

use std::borrow::Cow;

pub use over_time::held_of_all;
pub use points::{Measure, of_points};
pub use svg::STYLE;

use super::capacity::Beside;
use crate::record::Record;

/// A chart, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chart {
    /// One word, for links and files.
    pub id: Cow<'static, str>,
    /// What it shows.
    pub title: String,
    /// What can be seen in it, for those who cannot see it.
    pub description: String,
    /// The same for those who can, where the chart does not say it all.
    pub caption: Option<String>,
    /// What was drawn; the content of an SVG element. Or why nothing was.
    pub drawn: Result<String, String>,
}

impl Chart {
    /// The chart as an element of a page, styled by [`STYLE`]; None where there is none.
    #[must_use]
    pub fn inline_svg(&self) -> Option<String> {
        let content = self.drawn.as_ref().ok()?;
        Some(svg::element(&self.id, &self.title, &self.description, content))
    }

    /// The chart as a file of its own, light or dark as its reader is.
    #[must_use]
    pub fn svg_file(&self) -> Option<String> {
        let content = self.drawn.as_ref().ok()?;
        Some(svg::file(&self.id, &self.title, &self.description, content))
    }
}

/// Every chart that a report of `record` has a place for.
#[must_use]
pub fn charts(record: &Record, beside: &Beside) -> Vec<Chart> {
    let samples = &record.timeline.samples;
    let run = record.run.as_ref();
    let watched = run.and_then(|run| run.backlog.as_ref());
    let mut all = Vec::new();
    if watched.is_none() {
        all.push(over_time::held(run, samples));
        all.push(over_time::rate(samples));
        all.push(latency::over_time(samples));
        all.push(latency::against_held(samples));
        all.extend(latency::replies(samples));
        all.push(latency::distribution(run));
    }
    all.push(sides::accept_queue(run, samples));
    all.extend(watched.map(sides::queue_lengths));
    all.push(sides::descriptors(run, samples));
    all.push(sides::counters(run, samples));
    if watched.is_none() {
        all.push(sides::memory(samples));
        all.extend(run.map(|run| bars::ceilings(run, beside.limits.as_ref())));
    }
    all
}
