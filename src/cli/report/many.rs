//! Many runs: a table.

use std::path::PathBuf;

use super::write::{Rendered, put};
use super::{Form, Format, is_many};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::record::Record;
use crate::render::escaped;
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::report::list::{HEADINGS, Listed, Runs, SCHEMA, list};

/// Lists the runs in the folders and files that were named.
pub(super) fn run(
    form: &Form,
    named: &[PathBuf],
    output: Output,
) -> Result<Exit, Failure> {
    let target = form.target.as_deref();
    let mut all = Vec::new();
    for path in named {
        if is_many(path) {
            all.extend(list(path, target).map_err(Failure::usage)?);
        } else {
            let listed = Listed::of(&Record::read(path).map_err(Failure::usage)?);
            all.extend(
                Some(listed).filter(|one| target.is_none_or(|text| one.is_of(text))),
            );
        }
    }
    let text = match form.format() {
        Format::Text => table(&all).map_err(Failure::lacking)?,
        Format::Json => {
            let runs = Runs { schema: SCHEMA, runs: &all };
            serde_json::to_string_pretty(&runs).map_err(Failure::lacking)? + "\n"
        }
        Format::Html | Format::Md => {
            return Err(Failure::usage(
                "many runs are listed as text or json; html and md show one run, or compare \
                 probes that are named",
            ));
        }
    };
    if all.is_empty() && form.format() == Format::Text {
        output.note(match target {
            Some(_) => "no run of such a target",
            None => "no runs",
        });
    }
    put(&Rendered::alone(text), form.output.as_deref(), output)
}

fn table(all: &[Listed]) -> std::io::Result<String> {
    let headings = HEADINGS.iter().map(|title| Heading {
        title: (*title).to_owned(),
        align: match *title {
            "MAXIMUM" | "RATE" => Align::Right,
            _ => Align::Left,
        },
    });
    let mut table = StreamTable::new(Vec::new(), headings.collect(), true);
    let mut cells = Cells::default();
    for listed in all {
        cells.clear();
        for cell in listed.cells() {
            cells.push(|text| text.push_str(&escaped(&cell)));
        }
        table.row(&cells, "")?;
    }
    let written = table.finish()?;
    Ok(String::from_utf8_lossy(&written).into_owned())
}
