//! A comparison for a terminal, and as Markdown.

use std::fmt::Write as _;
use std::io;

use super::{Cell, Change, Comparison, Difference, Noise, Row};
use crate::render::escaped;
use crate::render::table::{Align, Cells, Heading, StreamTable};
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

fn differs(difference: &Difference, unit: Unit) -> String {
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

fn name(comparison: &Comparison, n: usize) -> String {
    let run = &comparison.runs[n];
    match run.repeats {
        Some(repeats) if repeats > 1 => format!("{}, {repeats} runs", run.name),
        _ => run.name.clone(),
    }
}

/// What stands in each row: its label, and a text for each run.
fn row(row: &Row) -> Vec<String> {
    let cells = row.cells.iter().map(|cell| shown(cell, row.unit));
    std::iter::once(row.label.to_owned()).chain(cells).collect()
}

fn change(change: &Change) -> Vec<String> {
    let values = change.values.iter().map(|v| v.clone().unwrap_or_else(|| "-".into()));
    std::iter::once(change.key.clone()).chain(values).collect()
}

fn headings(comparison: &Comparison, first: &str) -> Vec<String> {
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
    for note in &comparison.notes {
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

/// The same as Markdown.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let rows = comparison.rows.iter().map(row);
    let mut text = markdown_table(&headings(comparison, ""), rows);
    if comparison.changes.is_empty() {
        text.push_str("\nNothing changed around them.\n");
    } else {
        text.push('\n');
        let changes = comparison.changes.iter().map(change);
        text.push_str(&markdown_table(&headings(comparison, "changed"), changes));
    }
    for note in &comparison.notes {
        let _ = write!(text, "\n{}\n", literal(note));
    }
    text
}

fn markdown_table(titles: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| literal(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(titles);
    let _ = writeln!(text, "|{}", "---|".repeat(titles.len()));
    for row in rows {
        text.push_str(&line(&row));
    }
    text
}

/// Text that Markdown leaves as it is.
fn literal(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escaped(text).chars() {
        if "\\`*_[]<>|#~&".contains(c) {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}
