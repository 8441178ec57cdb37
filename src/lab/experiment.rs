//! What an experiment is, and what comes of it.

use std::io;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::bench::Bench;
use super::moment::Moment;

/// A claim that people repeat about sockets, and how it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Experiment {
    /// Its place in the list, from 1.
    pub number: u8,
    /// Its name on the command line and in documents.
    pub id: &'static str,
    /// What is said, in one or two sentences.
    pub claim: &'static str,
    /// How it is tried, in one or two sentences.
    pub trial: &'static str,
    /// Tries it.
    pub(super) run: fn(&Bench) -> Result<Outcome, Unable>,
}

/// What a trial says of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It is so.
    Holds,
    /// It is so, but not always: `why` says where it ends.
    HoldsWithinLimits,
    /// It was so on older systems and is no longer.
    WasTrueOnce,
    /// It is not so.
    DoesNotHold,
}

impl Finding {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::HoldsWithinLimits => "holds within limits",
            Self::WasTrueOnce => "was true once",
            Self::DoesNotHold => "does not hold",
        }
    }
}

/// What was seen, and what follows.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the trial says of the claim.
    pub finding: Finding,
    /// One paragraph: why.
    pub why: String,
    /// What was measured, by name; a name ends with its unit.
    pub numbers: Map<String, Value>,
    /// The socket table at the decisive moments.
    pub moments: Vec<Moment>,
    /// What is better seen than read.
    pub charts: Vec<Chart>,
    /// What could not be tried here, and why.
    pub left_out: Vec<String>,
}

impl Outcome {
    /// Of the numbers that were seen, and what a pure function made of them.
    ///
    /// # Panics
    /// Where `seen` is no struct, which is a fault of the experiment.
    #[must_use]
    #[allow(clippy::panic)]
    pub(super) fn of(seen: &impl Serialize, (finding, why): (Finding, String)) -> Self {
        let Ok(Value::Object(numbers)) = serde_json::to_value(seen) else {
            panic!("what was seen is a struct of numbers");
        };
        Self {
            finding,
            why,
            numbers,
            moments: Vec::new(),
            charts: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// With the socket table as it stood then.
    #[must_use]
    pub(super) fn with(mut self, moments: impl IntoIterator<Item = Moment>) -> Self {
        self.moments.extend(moments);
        self
    }

    /// With a chart.
    #[must_use]
    pub(super) fn chart(mut self, chart: Chart) -> Self {
        self.charts.push(chart);
        self
    }

    /// With what could not be tried, and why.
    #[must_use]
    pub(super) fn without(mut self, what: impl IntoIterator<Item = String>) -> Self {
        self.left_out.extend(what);
        self
    }
}

/// Numbers against numbers.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What the horizontal axis counts.
    pub x: &'static str,
    /// What the vertical axis counts, and its unit.
    pub y: Quantity,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// What a vertical axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Microseconds.
    MicrosUs,
    /// A plain number, or so many a second.
    Count,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Points, in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// Why an experiment could not be made: a right or a resource that is missing, or what
/// the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum Unable {
    /// This host does not let this user; in words, with what would help.
    #[error("{0}")]
    Missing(String),
    /// The kernel refused a step.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// It has been interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl Unable {
    /// As a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let text = self.to_string();
        let mut letters = text.chars();
        let first = letters.next().map(char::to_uppercase);
        first.into_iter().flatten().chain(letters).chain(['.']).collect()
    }

    /// For `map_err`: the kernel refused what was being done.
    pub(super) fn at(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// A step of an experiment, named where it fails.
pub(super) trait Step<T> {
    /// What was being done.
    fn step(self, what: &'static str) -> Result<T, Unable>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: &'static str) -> Result<T, Unable> {
        self.map_err(|error| Unable::at(what)(error.into()))
    }
}
