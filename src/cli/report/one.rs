//! One run.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::write::{Rendered, parent, put};
use super::{Form, Format, RUNS};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::{backlog, summary};
use crate::record::Record;
use crate::report::cut_off::CutOff;
use crate::report::list::Listed;
use crate::report::text::{self, Style};
use crate::report::{Beside, Input, Page, html, markdown, page};

/// Writes `record` as `form` says.
pub(super) fn run(
    form: &Form,
    record: &Record,
    given: Vec<Input>,
    output: Output,
) -> Result<Exit, Failure> {
    fits(form, record)?;
    let rendered = match form.format() {
        Format::Text => Rendered::alone(as_text(form, record, output)?),
        Format::Json => Rendered::alone(as_json(record).map_err(Failure::lacking)?),
        Format::Html => {
            Rendered::alone(html::render(&page(record, &beside(record, given))))
        }
        Format::Md => as_markdown(form, &page(record, &beside(record, given)), output),
    };
    put(&rendered, form.output.as_deref(), output)
}

/// Whether `record` is of what --target asks for.
pub(super) fn fits(form: &Form, record: &Record) -> Result<(), Failure> {
    if let Some(text) = &form.target
        && !Listed::of(record).is_of(text)
    {
        return Err(Failure::usage(format_args!(
            "{} is of {}, which has no {text:?} in it",
            record.path.display(),
            record.target()
        )));
    }
    Ok(())
}

/// The page as Markdown, its charts as files where it is one.
pub(super) fn as_markdown(form: &Form, page: &Page, output: Output) -> Rendered {
    let folder = form.output.as_deref().map(charts_folder);
    if folder.is_none() {
        output.detail("charts are files beside the text: name it by -o FILE");
    }
    let made = markdown::render(page, folder.as_deref());
    Rendered { text: made.text, files: made.files }
}

/// What else is known of the target, in the folder that the run is in.
fn beside(record: &Record, given: Vec<Input>) -> Beside {
    let Some(run) = &record.run else { return Beside::default() };
    let in_folder = record.path.is_dir();
    let runs = if in_folder { parent(&record.path) } else { PathBuf::from(RUNS) };
    Beside::find(run, given, &runs)
}

/// The folder of the charts of a Markdown file, relative to it.
fn charts_folder(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    format!("{stem}-charts")
}

fn as_json(record: &Record) -> io::Result<String> {
    let mut text = match &record.run {
        Some(run) => serde_json::to_string_pretty(run)?,
        None => serde_json::to_string_pretty(&CutOff::of(record))?,
    };
    text.push('\n');
    Ok(text)
}

/// The summary as the command that made the run printed it, and what was held over time.
fn as_text(form: &Form, record: &Record, output: Output) -> Result<String, Failure> {
    let to_file = form.output.is_some();
    let style = Style { color: !to_file && output.colors_stdout() };
    let width = if to_file { None } else { summary::width() };
    let mut text = Vec::new();
    let mut write = || -> io::Result<()> {
        match &record.run {
            Some(run) => match &run.backlog {
                Some(watched) => {
                    return backlog::write_watched(&mut text, watched, style.color);
                }
                None => {
                    let lines = text::summary(run, None, style);
                    summary::write_lines(&mut text, &lines, &run.verdict.remedy, width)?;
                    for warning in &run.warnings {
                        output.note(&warning.message);
                    }
                }
            },
            None => {
                summary::write_lines(
                    &mut text,
                    &text::cut_off(record, style),
                    &[],
                    width,
                )?;
            }
        }
        for line in text::held_over_time(record, width.unwrap_or(80)) {
            writeln!(text, "{line}")?;
        }
        Ok(())
    };
    write().map_err(Failure::lacking)?;
    let record = text::field("record", &record.path.display().to_string());
    Ok(format!("{}{record}\n", String::from_utf8_lossy(&text)))
}
