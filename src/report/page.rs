//! What a report says, in its order, before it is written in a form.

use super::capacity::{self, Beside};
use super::charts::{self, Chart};
use super::{answer, loads, numbers, tables};
use crate::record::{Alternative, Fact, Record};
use crate::render::{count, plural};

/// A report.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What it is about, in one line.
    pub title: String,
    /// When and by what it was measured.
    pub byline: String,
    /// What was found; the reason that anyone reads this.
    pub answer: Answer,
    /// All else.
    pub sections: Vec<Section>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// What the number is: `practical maximum`.
    pub label: String,
    /// The number, with its unit.
    pub number: String,
    /// What the number means: the level, how it is known, how long it was held.
    pub meaning: String,
    /// The verdict's code and how sure it is; None where there is no verdict.
    pub verdict: Option<(String, String)>,
    /// The verdict in a sentence.
    pub summary: String,
    /// What was seen, and where.
    pub evidence: Vec<Fact>,
    /// What raises the limit, ready to paste.
    pub remedy: Vec<String>,
    /// The ceiling that binds afterwards.
    pub next: Option<String>,
    /// What else it could be.
    pub alternatives: Vec<Alternative>,
    /// What a reader must know before the number is believed.
    pub caveats: Vec<String>,
}

/// A part of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// For links: one word.
    pub id: &'static str,
    /// What stands above it.
    pub title: &'static str,
    /// What is in it.
    pub blocks: Vec<Block>,
}

/// What sections are made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Lines to paste.
    Commands(Vec<String>),
    /// A list.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// Charts, those that could not be drawn with a word why.
    Charts(Vec<Chart>),
}

/// Rows under headings. The first cell of a row names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The names of its columns.
    pub headings: Vec<String>,
    /// Which columns hold numbers.
    pub numeric: Vec<bool>,
    /// Its cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of names and what they stand for.
    pub(super) fn of_pairs(caption: &str, rows: Vec<(String, String)>) -> Self {
        Self {
            caption: caption.to_owned(),
            headings: vec!["name".into(), "value".into()],
            numeric: vec![false, false],
            rows: rows.into_iter().map(|(name, value)| vec![name, value]).collect(),
        }
    }
}

/// The report of `record`, with what `beside` it is known of the same target.
#[must_use]
pub fn page(record: &Record, beside: &Beside) -> Page {
    let answer = answer::answer(record);
    let mut sections = vec![Section {
        id: "charts",
        title: "Charts",
        blocks: vec![Block::Charts(charts::charts(record, beside))],
    }];
    if let Some(run) = &record.run {
        sections.insert(0, capacity::section(run, beside));
        if let Some(load) = run.backlog.as_ref().and_then(loads::section) {
            sections.insert(0, load);
        }
        if run.backlog.is_none() {
            sections.push(numbers::section(run));
        }
        sections.push(tables::plan(run));
        sections.push(tables::environment(run));
    }
    sections.push(tables::timeline(record));
    sections.push(warnings(record));
    Page { title: title(record), byline: byline(record), answer, sections }
}

fn title(record: &Record) -> String {
    let target = record.target();
    match &record.run {
        Some(run) if run.backlog.is_some() => format!("Accept queue of {target}"),
        Some(run) if run.target.embedded => {
            format!("Connections to {target}, a reference server of the probe")
        }
        Some(_) => format!("Connections to {target}"),
        None => format!("Connections to {target}: a record that was cut off"),
    }
}

fn byline(record: &Record) -> String {
    let started =
        record.started().map_or_else(|| "at an unknown time".into(), |at| at.to_string());
    match &record.run {
        Some(run) => {
            format!("{started}, sockscope {}", run.environment.sockscope)
        }
        None => format!("{started}, {}", record.name()),
    }
}

/// The caveats of the run, and those of reading it.
fn warnings(record: &Record) -> Section {
    let own = record.run.iter().flat_map(|run| {
        run.warnings
            .iter()
            .map(|warning| format!("{}: {}", warning.code, warning.message))
    });
    let mut all: Vec<String> = own.collect();
    let timeline = &record.timeline;
    if let Some(damaged) = timeline.damaged {
        all.push(format!(
            "timeline: {} of timeline.ndjson could not be read, the first is line {}; left \
             out",
            plural(damaged.lines, "line"),
            count(damaged.first)
        ));
    }
    if timeline.torn {
        all.push("timeline: the last line of timeline.ndjson is torn; left out".into());
    }
    let block = match all.is_empty() {
        true => Block::Text("None.".into()),
        false => Block::List(all),
    };
    Section { id: "warnings", title: "Warnings", blocks: vec![block] }
}
