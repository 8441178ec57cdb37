//! A comparison for a terminal, and what its cells say.

use std::fmt::Write as _;
use std::io;

use super::{Cell, Change, Column, Comparison, Difference, Noise, Row};
use crate::render::escaped;
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::report::noise::ENOUGH;
use crate::report::unit::Unit;

/// `18,000 (-1,989, -10.0%; beyond the noise)`.
fn shown(cell: &Cell, unit: Option<Unit>) -> String {
    let difference = cell.difference.as_ref().zip(unit);
    let difference = difference.map(|(difference, unit)| differs(difference, unit));
    match difference {
        Some(text) => format!("{} ({text})", cell.text),
        None => cell.text.clone(),
    }
}

pub(super) fn differs(difference: &Difference, unit: Unit) -> String {
    let Difference { absolute, percent, noise, .. } = difference;
    if *absolute == 0.0 {
        return "the same".to_owned();
    }
    let sign = if *absolute < 0.0 { '-' } else { '+' };
    let mut text = format!("{sign}{}", unit.show(absolute.abs()));
    if let Some(percent) = percent {
        let _ = write!(text, ", {percent:+.1}%");
    }
    text.push_str(match noise {
        Noise::Exceeds => "; beyond the noise",
        Noise::Within => "; within the noise",
        Noise::Unknown => "; noise unknown",
    });
    text
}

/// What makes the noise known, where it is not.
pub(super) fn noise(comparison: &Comparison) -> Option<&'static str> {
    let few = |run: &Column| run.repeats.is_none_or(|repeats| repeats < ENOUGH as u64);
    comparison.runs.iter().any(few).then_some(
        "noise unknown: how far a number moves by itself is known from 5 runs on: \
         sockscope probe --repeat 5",
    )
}

fn name(comparison: &Comparison, n: usize) -> String {
    let run = &comparison.runs[n];
    match run.repeats {
        Some(repeats) if repeats > 1 => format!("{}, {repeats} runs", run.name),
        _ => run.name.clone(),
    }
}

/// What stands in each row: its label, and a text for each run.
pub(super) fn row(row: &Row) -> Vec<String> {
    let cells = row.cells.iter().map(|cell| shown(cell, row.unit));
    std::iter::once(row.label.to_owned()).chain(cells).collect()
}

pub(super) fn change(change: &Change) -> Vec<String> {
    let values = change.values.iter().map(|v| v.clone().unwrap_or_else(|| "-".into()));
    std::iter::once(change.key.clone()).chain(values).collect()
}

pub(super) fn headings(comparison: &Comparison, first: &str) -> Vec<String> {
    let names = (0..comparison.runs.len()).map(|n| name(comparison, n));
    std::iter::once(first.to_owned()).chain(names).collect()
}

/// Writes tables for a terminal.
///
/// # Errors
/// What writing gives.
pub fn text(mut out: impl io::Write, comparison: &Comparison) -> io::Result<()> {
    let rows = comparison.rows.iter().map(row);
    table(&mut out, headings(comparison, ""), rows)?;
    if comparison.changes.is_empty() {
        writeln!(out, "\nnothing changed around them")?;
    } else {
        writeln!(out)?;
        let changes = comparison.changes.iter().map(change);
        table(&mut out, headings(comparison, "changed"), changes)?;
    }
    for note in comparison.notes.iter().map(String::as_str).chain(noise(comparison)) {
        writeln!(out, "note: {}", escaped(note))?;
    }
    out.flush()
}

fn table(
    out: &mut impl io::Write,
    titles: Vec<String>,
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let heading = |title: String| Heading { title: escaped(&title), align: Align::Left };
    let headings = titles.into_iter().map(heading).collect();
    let mut table = StreamTable::new(out, headings, true);
    for texts in rows {
        let mut cells = Cells::default();
        texts.iter().for_each(|text| cells.push(|to| to.push_str(&escaped(text))));
        table.row(&cells, "")?;
    }
    table.finish().map(drop)
}
