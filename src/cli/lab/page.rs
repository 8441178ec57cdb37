//! Experiments as a page.

use std::path::Path;

use super::print::{in_sum, number, points, then};
use crate::cli::exit::Failure;
use crate::lab::Done;
use crate::lab::bench::Place;
use crate::lab::document::here;
use crate::lab::experiment::{Chart, Experiment, Outcome, Quantity};
use crate::lab::moment::{COLUMNS, Moment};
use crate::record::{Timestamp, write_whole};
use crate::render::{escaped, plural};
use crate::report::charts::{Measure, of_points};
use crate::report::page::{Answer, Block, Page, Section, Table};
use crate::report::{html, markdown};

/// What is written for `--report`.
const NAME: &str = "lab";

/// Writes it into a folder, or as the one file that `to` names by its ending.
///
/// # Errors
/// What writing gives.
pub(super) fn write(
    to: &Path,
    place: Place,
    all: &[Done],
) -> Result<Vec<String>, Failure> {
    let page = page(place, all);
    let ending = to.extension().and_then(|e| e.to_str());
    let (as_html, as_markdown) = match ending {
        Some("html" | "htm") => (Some(to.to_owned()), None),
        Some("md") => (None, Some(to.to_owned())),
        _ => (
            Some(to.join(NAME).with_extension("html")),
            Some(to.join(NAME).with_extension("md")),
        ),
    };
    let mut written = Vec::new();
    if let Some(path) = as_html {
        put(&path, &html::render(&page), &mut written)?;
    }
    if let Some(path) = as_markdown {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let made = markdown::render(&page, Some(&format!("{stem}-charts")));
        for (name, svg) in &made.files {
            let beside = path.parent().unwrap_or(Path::new("")).join(name);
            put(&beside, svg, &mut Vec::new())?;
        }
        put(&path, &made.text, &mut written)?;
    }
    Ok(written)
}

/// Whether `to` says what is to be written.
pub(super) fn fits(to: &Path) -> Result<(), Failure> {
    match to.extension().and_then(|e| e.to_str()) {
        None | Some("html" | "htm" | "md") => Ok(()),
        Some(_) if to.is_dir() => Ok(()),
        Some(other) => Err(Failure::usage(format!(
            "--report: nothing is written as .{other}; name a file that ends with .html \
             or .md, or a folder"
        ))),
    }
}

fn put(path: &Path, text: &str, written: &mut Vec<String>) -> Result<(), Failure> {
    write_whole(path, text.as_bytes()).map_err(|error| {
        let error = anyhow::Error::new(error);
        Failure::lacking(error.context(format!("cannot write {}", path.display())))
    })?;
    written.push(path.display().to_string());
    Ok(())
}

fn page(place: Place, all: &[Done]) -> Page {
    let here = here();
    let overview = Table {
        caption: "Findings".into(),
        headings: ["", "claim", "finding"].map(Into::into).to_vec(),
        numeric: vec![true, false, false],
        rows: all.iter().map(overview).collect(),
    };
    let mut sections = vec![Section {
        id: "findings",
        title: "Findings",
        blocks: vec![Block::Table(overview)],
    }];
    sections.extend(all.iter().map(section));
    Page {
        title: "What is said of sockets, checked against this kernel".into(),
        byline: format!(
            "{}, sockscope {}, Linux {} ({}, {}), in {}",
            Timestamp::now(),
            here.sockscope,
            here.kernel,
            here.machine,
            plural(u64::from(here.cores), "core"),
            place.words()
        ),
        answer: Answer {
            label: "claims tried".into(),
            number: plural(all.len() as u64, "claim"),
            meaning: in_sum(all),
            ..Answer::default()
        },
        sections,
    }
}

fn finding(done: &Done) -> &'static str {
    done.outcome.as_ref().map_or("not tried", |outcome| outcome.finding.words())
}

fn overview(done: &Done) -> Vec<String> {
    let Experiment { number, claim, .. } = done.experiment;
    vec![number.to_string(), (*claim).to_owned(), finding(done).to_owned()]
}

fn section(done: &Done) -> Section {
    let Experiment { number, id, claim, trial, .. } = done.experiment;
    let mut blocks = vec![
        Block::Text(format!("Claim {number}: {claim}")),
        Block::Text(format!("Trial: {trial}")),
    ];
    match &done.outcome {
        Ok(outcome) => {
            blocks.push(Block::Text(format!(
                "Finding: {}. {}",
                finding(done),
                outcome.why
            )));
            blocks.extend(seen(id, outcome));
        }
        Err(why) => blocks.push(Block::Text(format!("Not tried: {}", why.sentence()))),
    }
    Section { id, title: id, blocks }
}

fn seen(id: &'static str, outcome: &Outcome) -> Vec<Block> {
    let mut blocks = Vec::new();
    let numbers = outcome.numbers.iter();
    let rows = numbers
        .map(|(name, value)| vec![name.replace('_', " "), number(name, value)])
        .collect();
    blocks.push(Block::Table(Table {
        caption: "What was seen".into(),
        headings: vec![String::new(), String::new()],
        numeric: vec![false, false],
        rows,
    }));
    blocks.extend(outcome.moments.iter().map(moment));
    if !outcome.charts.is_empty() {
        let drawn = outcome.charts.iter().enumerate();
        blocks.push(Block::Charts(drawn.map(|(n, one)| chart(id, n, one)).collect()));
        blocks.extend(outcome.charts.iter().map(|chart| {
            let (headings, rows) = points(chart);
            let numeric = vec![true; headings.len()];
            Block::Table(Table { caption: chart.title.clone(), headings, numeric, rows })
        }));
    }
    if !outcome.left_out.is_empty() {
        blocks.push(Block::Text("Left out:".into()));
        blocks.push(Block::List(outcome.left_out.clone()));
    }
    blocks
}

fn moment(moment: &Moment) -> Block {
    let caption = format!("The socket table: {}", then(moment));
    if moment.cells.is_empty() {
        return Block::Text(format!("{caption}: no such socket."));
    }
    Block::Table(Table {
        caption,
        headings: COLUMNS.iter().map(|column| column.heading().title).collect(),
        numeric: vec![false; COLUMNS.len()],
        rows: moment
            .cells
            .iter()
            .map(|row| row.iter().map(|cell| escaped(cell)).collect())
            .collect(),
    })
}

fn chart(id: &'static str, n: usize, chart: &Chart) -> crate::report::charts::Chart {
    let measure = match chart.y {
        Quantity::MicrosUs => Measure::Micros,
        Quantity::Count => Measure::Count,
    };
    let lines: Vec<(&str, &[(f64, f64)])> =
        chart.lines.iter().map(|line| (line.name.as_str(), &line.points[..])).collect();
    of_points(format!("{id}-{}", n + 1), &chart.title, chart.x, measure, &lines)
}
