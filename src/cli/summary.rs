//! The end of a probe as a person reads it: one screen.

use std::io::{self, Write};
use std::path::Path;

use super::output::Output;
use crate::probe::run::Outcome;
use crate::record::Run;
use crate::report::text::{self, Style, field};

/// Prints the summary; `folder` is where the record is, `reported` whether its report is
/// there too.
pub(super) fn print(
    outcome: &Outcome,
    folder: Option<&Path>,
    reported: bool,
    output: &Output,
) -> io::Result<()> {
    let style = Style { color: output.colors_stdout() };
    let mut text = text::summary(&outcome.run, outcome.example.as_ref(), style);
    text.extend(folder.map(|path| record_line(&outcome.run, path, reported)));
    let mut out = io::stdout().lock();
    write_lines(&mut out, &text, &outcome.run.verdict.remedy, width())?;
    out.flush()
}

/// Writes lines, broken at `width` where there is one; but a remedy is there to be
/// pasted.
pub(super) fn write_lines(
    out: &mut impl Write,
    lines: &[String],
    remedy: &[String],
    width: Option<usize>,
) -> io::Result<()> {
    for line in lines {
        match width {
            Some(width) if !remedy.iter().any(|remedy| line.ends_with(remedy)) => {
                writeln!(out, "{}", wrapped(line, width))?;
            }
            _ => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

/// Where the record is, or that it is not.
fn record_line(run: &Run, folder: &Path, reported: bool) -> String {
    let written = |code: &str| run.warnings.iter().all(|warning| warning.code != code);
    let folder = folder.display();
    let sockets = if written("sockets_csv") { " and sockets.csv" } else { "" };
    match (written("run_json"), reported) {
        (true, true) => field(
            "record",
            &format!("{folder}/report.html; report.md, run.json{sockets} beside it"),
        ),
        (true, false) => field("record", &format!("{folder}/run.json{sockets}")),
        (false, _) => field("record", "not written"),
    }
}

/// The columns that lines may take on a terminal; elsewhere a fact is a line.
pub(super) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col).max(60))
}

/// `line` broken at spaces, so that it fits; what goes on begins where its value does.
fn wrapped(line: &str, width: usize) -> String {
    let indent = match line.find("  ") {
        Some(0) => 4,
        Some(_) => 11,
        None => 2,
    };
    let mut text = String::with_capacity(line.len() + 16);
    let mut column = 0;
    for part in line.split_inclusive(' ') {
        let long = part.trim_end().chars().count();
        if column + long > width && column > indent {
            text.truncate(text.trim_end().len());
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        }
        text.push_str(part);
        column += part.chars().count();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn what_does_not_fit_goes_on_below_its_value() {
        let line = "counted    24,600 dialed = 19,989 accepted + 4,097 queued";
        assert_eq!(wrapped(line, 80), line);
        let broken =
            "counted    24,600 dialed = 19,989\n           accepted + 4,097 queued";
        assert_eq!(wrapped(line, 35), broken);
        assert_eq!(wrapped("  It has no spare one.", 14), "  It has no\n    spare one.");
    }
}
