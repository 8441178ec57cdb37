//! Runs side by side: what differs, by how much, whether that exceeds the noise, and what
//! changed around them.
//!
//! The first run is the one that the others are held against. Numbers that mean different
//! things are shown and not subtracted: of different levels, of targets of different
//! kinds, and rates and latencies of different `--rate`s.

mod around;
mod page;
mod print;
mod rows;

use serde::Serialize;

pub use page::page;
pub use print::text;

use super::unit::Unit;
use crate::record::{Level, Run, TargetKind, Timestamp};

/// What a document of a comparison says that it is.
pub const SCHEMA: &str = "sockscope.compare/1";

/// A run, and the name that it goes by.
#[derive(Debug, Clone)]
pub struct Named {
    /// Of its folder, as a rule.
    pub name: String,
    /// The run.
    pub run: Run,
}

/// Runs side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The runs, in the order in which they were given.
    pub runs: Vec<Column>,
    /// A row for each number or text that a run has.
    pub rows: Vec<Row>,
    /// What differs between the hosts, the programs and the plans.
    pub changes: Vec<Change>,
    /// What the reader must know.
    pub notes: Vec<String>,
}

/// One run of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// The name that it was given under.
    pub name: String,
    /// When it started.
    pub started: Timestamp,
    /// What was dialed.
    pub target: String,
    /// What kind of target that is.
    pub kind: TargetKind,
    /// The level at which its connections count.
    pub level: Level,
    /// How many runs its medians are of; null for a single run.
    pub repeats: Option<u64>,
}

/// A number or a text of every run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The key of run.json, below `result` or from its root.
    pub key: &'static str,
    /// What it is, for people.
    pub label: &'static str,
    /// The unit of its numbers; null for text.
    pub unit: Option<Unit>,
    /// One for each run.
    pub cells: Vec<Cell>,
}

/// What one run has in a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cell {
    /// The number; null for text, and where it was not measured.
    pub number: Option<f64>,
    /// As people read it; `-` where it was not measured.
    pub text: String,
    /// How it differs from the first run; null in the first, of text, and where the two
    /// mean different things.
    pub difference: Option<Difference>,
}

/// How a number differs from that of the first run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// This one less the first.
    pub absolute: f64,
    /// The same in per cent of the first; null where that is 0.
    pub percent: Option<f64>,
    /// Whether it is more than chance.
    pub noise: Noise,
    /// Whether this one is better; null where neither is.
    pub better: Option<bool>,
}

/// Whether a difference is more than chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// The 95 % intervals of the two medians do not meet.
    Exceeds,
    /// They do.
    Within,
    /// One of the two was not repeated at least five times.
    Unknown,
}

/// Something that is not the same in all runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The key of run.json.
    pub key: String,
    /// Its value in each run; null where there is none.
    pub values: Vec<Option<String>>,
}

/// Puts runs side by side.
#[must_use]
pub fn compare(runs: &[Named]) -> Comparison {
    let (rows, notes) = rows::rows(runs);
    Comparison {
        schema: SCHEMA,
        runs: runs.iter().map(column).collect(),
        rows,
        changes: around::changes(runs),
        notes,
    }
}

fn column(named: &Named) -> Column {
    let Named { name, run } = named;
    Column {
        name: name.clone(),
        started: run.started,
        target: run.target.address.clone(),
        kind: run.target.kind,
        level: run.result.level,
        repeats: run.repeat.as_ref().map(|repeat| repeat.runs),
    }
}

#[cfg(test)]
mod tests;
