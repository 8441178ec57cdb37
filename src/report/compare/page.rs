//! A comparison as a page: HTML and Markdown are made of it.

use super::print::{change, differs, headings, noise, row};
use super::{Column, Comparison, Row};
use crate::record::Samples;
use crate::render::plural;
use crate::report::charts;
use crate::report::page::{Answer, Block, Page, Section, Table};

/// The comparison, with what each run's timeline says was held; these are in the order
/// of the runs.
#[must_use]
pub fn page(comparison: &Comparison, timelines: &[&Samples]) -> Page {
    let runs = &comparison.runs;
    let named = runs.iter().zip(timelines);
    let held: Vec<_> =
        named.map(|(run, timeline)| (&*run.name, &*timeline.samples)).collect();
    let numbers = Table {
        caption: "Each run, and how it differs from the first".into(),
        headings: headings(comparison, "what"),
        rows: comparison.rows.iter().map(row).collect(),
        ..Table::default()
    };
    let changes = match comparison.changes.is_empty() {
        true => Block::Text(
            "Nothing differs between their hosts, programs, plans and targets.".into(),
        ),
        false => Block::Table(Table {
            caption: "What is not the same in all runs".into(),
            headings: headings(comparison, "key of run.json"),
            rows: comparison.changes.iter().map(change).collect(),
            ..Table::default()
        }),
    };
    let section = |id, title, block| Section { id, title, blocks: vec![block] };
    Page {
        title: title(runs),
        byline: byline(runs),
        answer: answer(comparison),
        sections: vec![
            section("numbers", "Numbers", Block::Table(numbers)),
            section("charts", "Chart", Block::Charts(vec![charts::held_of_all(&held)])),
            section("changes", "What changed around them", changes),
            section("runs", "Runs", Block::Table(listed(runs))),
        ],
    }
}

fn title(runs: &[Column]) -> String {
    let count = plural(runs.len() as u64, "run");
    match runs.split_first() {
        Some((first, others)) if others.iter().all(|run| run.target == first.target) => {
            format!("Connections to {}: {count} side by side", first.target)
        }
        _ => format!("{count} side by side"),
    }
}

fn byline(runs: &[Column]) -> String {
    let first = runs.first().map_or("", |run| &run.name);
    format!("Each is held against the first, {first}.")
}

/// What became of the number that is asked for first.
fn answer(comparison: &Comparison) -> Answer {
    let find = |key: &str| comparison.rows.iter().find(|row| row.key == key);
    let mut caveats = comparison.notes.clone();
    caveats.extend(noise(comparison).map(str::to_owned));
    let mut answer = Answer {
        label: "practical maximum".into(),
        summary: find("verdict.code").map_or_else(String::new, stopped),
        caveats,
        ..Answer::default()
    };
    if let Some(row) = find("practical_max")
        && let Some((first, others)) = row.cells.split_first()
    {
        let others: Vec<&str> = others.iter().map(|cell| &*cell.text).collect();
        answer.number = format!("{} → {}", first.text, others.join(", "));
        answer.meaning = meaning(row, &comparison.runs);
    }
    answer
}

fn meaning(row: &Row, runs: &[Column]) -> String {
    let each = row.cells.iter().zip(runs).skip(1).map(|(cell, run)| {
        let difference = cell.difference.as_ref().zip(row.unit);
        let text = difference.map_or_else(
            || "not compared".to_owned(),
            |(difference, unit)| differs(difference, unit),
        );
        match runs.len() {
            2 => text,
            _ => format!("{}: {text}", run.name),
        }
    });
    each.collect::<Vec<_>>().join(" · ")
}

/// What stopped them, in a sentence.
fn stopped(row: &Row) -> String {
    let codes: Vec<&str> = row.cells.iter().map(|cell| &*cell.text).collect();
    match codes.split_first() {
        Some((first, others)) if others.iter().all(|code| code == first) => {
            format!("All were stopped by {first}.")
        }
        _ => format!("Stopped by: {}.", codes.join(" → ")),
    }
}

fn listed(runs: &[Column]) -> Table {
    let row = |run: &Column| {
        vec![
            run.name.clone(),
            run.started.to_string(),
            run.target.clone(),
            run.level.name().to_owned(),
            run.repeats.unwrap_or(1).to_string(),
        ]
    };
    let headings = ["run", "started", "target", "counted as", "runs of its medians"];
    Table {
        caption: "Runs, in the order in which they were given".into(),
        headings: headings.map(Into::into).into(),
        numeric: vec![false, false, false, false, true],
        rows: runs.iter().map(row).collect(),
    }
}
