//! Where a report goes: stdout, a file, or the folder of its run.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::record::{Record, RunFolder, write_whole};
use crate::report::{Beside, html, markdown, page};

/// What was rendered, and the files that belong beside it.
pub(super) struct Rendered {
    pub(super) text: String,
    /// Relative to the text's own folder.
    pub(super) files: Vec<(String, String)>,
}

impl Rendered {
    pub(super) fn alone(text: String) -> Self {
        Self { text, files: Vec::new() }
    }
}

/// Prints it, or writes it to `file`.
pub(super) fn put(
    rendered: &Rendered,
    file: Option<&Path>,
    output: Output,
) -> Result<Exit, Failure> {
    let Some(file) = file else {
        let mut out = io::stdout().lock();
        return match out.write_all(rendered.text.as_bytes()).and_then(|()| out.flush()) {
            // A reader that has seen enough (`| head`) is no error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::lacking(
                    anyhow::Error::new(error).context("the report cannot be printed"),
                ))
            }
            _ => Ok(Exit::Done),
        };
    };
    let folder = parent(file);
    let beside = rendered.files.iter().map(|(name, text)| (folder.join(name), text));
    for (path, text) in beside.chain([(file.to_owned(), &rendered.text)]) {
        write_whole(&path, text.as_bytes()).map_err(|error| {
            let error = anyhow::Error::new(error);
            Failure::lacking(error.context(format!("cannot write {}", path.display())))
        })?;
    }
    output.detail(&format!("written to {}", file.display()));
    Ok(Exit::Done)
}

/// The folder that something is in.
pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The folder, in that of a run, that holds the charts of its Markdown.
const CHARTS: &str = "report-charts";

/// Writes `report.html` and `report.md` into the folder of a run that ended.
///
/// # Errors
/// What reading the record and writing them gives.
pub(in crate::cli) fn write_beside(folder: &RunFolder) -> anyhow::Result<()> {
    let record = Record::read(folder.path())?;
    let runs = parent(folder.path());
    let beside = match &record.run {
        Some(run) => Beside::find(run, Vec::new(), &runs),
        None => Beside::default(),
    };
    let page = page(&record, &beside);
    folder.write_beside("report.html", html::render(&page).as_bytes())?;
    let made = markdown::render(&page, Some(CHARTS));
    for (name, svg) in &made.files {
        folder.write_beside(name, svg.as_bytes())?;
    }
    folder.write_beside("report.md", made.text.as_bytes())?;
    Ok(())
}
