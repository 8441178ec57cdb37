//! Several probes, side by side.

use std::collections::BTreeSet;

use super::one::{as_markdown, fits};
use super::write::{Rendered, put};
use super::{Form, Format};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::record::{Record, Samples};
use crate::report::compare::{self, Named, compare};
use crate::report::html;

/// Holds each of `records` against the first.
pub(super) fn run(
    form: &Form,
    records: &[Record],
    output: Output,
) -> Result<Exit, Failure> {
    records.iter().try_for_each(|record| fits(form, record))?;
    let comparison = compare(&named(records)?);
    let page = || {
        let timelines: Vec<&Samples> = records.iter().map(|one| &one.timeline).collect();
        compare::page(&comparison, &timelines)
    };
    let rendered = match form.format() {
        Format::Text => {
            let mut text = Vec::new();
            compare::text(&mut text, &comparison).map_err(Failure::lacking)?;
            Rendered::alone(String::from_utf8_lossy(&text).into_owned())
        }
        Format::Json => {
            let text = serde_json::to_string_pretty(&comparison);
            Rendered::alone(text.map_err(Failure::lacking)? + "\n")
        }
        Format::Html => Rendered::alone(html::render(&page())),
        Format::Md => as_markdown(form, &page(), output),
    };
    put(&rendered, form.output.as_deref(), output)
}

/// The runs by the names of their folders; by their paths where these are not enough to
/// tell them apart.
fn named(records: &[Record]) -> Result<Vec<Named>, Failure> {
    let of_folder = |record: &Record| record.name();
    let of_path = |record: &Record| record.path.display().to_string();
    let folders: BTreeSet<String> = records.iter().map(of_folder).collect();
    let name = |record: &Record| match folders.len() == records.len() {
        true => of_folder(record),
        false => of_path(record),
    };
    let named = records.iter().map(|record| match record.run.clone() {
        Some(run) => Ok(Named { name: name(record), run }),
        None => Err(Failure::usage(format_args!(
            "{} was cut off: without run.json it has no numbers to compare",
            record.path.display()
        ))),
    });
    named.collect()
}
