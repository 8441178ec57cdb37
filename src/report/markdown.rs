//! A report as Markdown, for an issue or a wiki; its charts are files beside it.

use std::fmt::Write as _;

use super::charts::Chart;
use super::html::evidence;
use super::page::{Answer, Block, Page, Section, Table};

/// A report, and the charts that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markdown {
    /// The text.
    pub text: String,
    /// The charts: file names, relative to the text, and their content.
    pub files: Vec<(String, String)>,
}

/// Writes `page` with its charts in the folder `charts`, which is named relative to the
/// text; without one it has no charts.
#[must_use]
pub fn render(page: &Page, charts: Option<&str>) -> Markdown {
    let mut out = Markdown { text: String::new(), files: Vec::new() };
    let text = &mut out.text;
    let _ = writeln!(text, "# {}\n\n{}\n", escaped(&page.title), escaped(&page.byline));
    answer(text, &page.answer);
    for part in &page.sections {
        section(&mut out, part, charts);
    }
    let trimmed = out.text.trim_end().len();
    out.text.truncate(trimmed);
    out.text.push('\n');
    out
}

fn answer(text: &mut String, answer: &Answer) {
    let _ = writeln!(
        text,
        "**{}: {}** ({})\n",
        escaped(&answer.label),
        escaped(&answer.number),
        escaped(&answer.meaning)
    );
    if let Some((code, confidence)) = &answer.verdict {
        let _ = writeln!(text, "Verdict: {}, {confidence}.\n", coded(code));
    }
    if !answer.summary.is_empty() {
        let _ = writeln!(text, "{}\n", escaped(&answer.summary));
    }
    if !answer.evidence.is_empty() {
        table(text, &evidence(answer));
    }
    if !answer.remedy.is_empty() {
        let _ = writeln!(text, "Raise it:\n");
        commands(text, &answer.remedy);
    }
    if let Some(next) = &answer.next {
        let _ = writeln!(text, "Then: {}\n", escaped(next));
    }
    for other in &answer.alternatives {
        let _ =
            writeln!(text, "- or {}: {}", coded(&other.code), escaped(&other.decides));
    }
    if !answer.alternatives.is_empty() {
        text.push('\n');
    }
    for caveat in &answer.caveats {
        let _ = writeln!(text, "> {}\n", escaped(caveat));
    }
}

fn section(out: &mut Markdown, section: &Section, charts: Option<&str>) {
    let _ = writeln!(out.text, "## {}\n", section.title);
    for block in &section.blocks {
        match block {
            Block::Text(words) => {
                let _ = writeln!(out.text, "{}\n", escaped(words));
            }
            Block::Commands(lines) => commands(&mut out.text, lines),
            Block::List(items) => {
                for item in items {
                    let _ = writeln!(out.text, "- {}", escaped(item));
                }
                out.text.push('\n');
            }
            Block::Table(of) => table(&mut out.text, of),
            Block::Charts(all) => drawn(out, all, charts),
        }
    }
}

fn drawn(out: &mut Markdown, all: &[Chart], folder: Option<&str>) {
    for chart in all {
        let _ = writeln!(out.text, "### {}\n", chart.title);
        match (&chart.drawn, folder, chart.svg_file()) {
            (Err(why), ..) => {
                let _ = writeln!(out.text, "No chart: {}.\n", escaped(why));
            }
            (Ok(_), Some(folder), Some(svg)) => {
                let file = format!("{folder}/{}.svg", chart.id);
                let _ = writeln!(
                    out.text,
                    "![{}](<{file}>)\n\n{}\n",
                    escaped(&chart.title),
                    escaped(&chart.description)
                );
                out.files.push((file, svg));
            }
            (Ok(_), ..) => {
                let _ = writeln!(out.text, "{}\n", escaped(&chart.description));
            }
        }
    }
}

fn commands(text: &mut String, lines: &[String]) {
    // A fence longer than any in it cannot be closed by it.
    let longest =
        lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max();
    let fence = "`".repeat(longest.unwrap_or(0).max(2) + 1);
    let lines: Vec<String> =
        lines.iter().map(|line| crate::render::escaped(line)).collect();
    let _ = writeln!(text, "{fence}\n{}\n{fence}\n", lines.join("\n"));
}

fn table(text: &mut String, of: &Table) {
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
        format!("| {} |", cells.join(" | "))
    };
    let marks: Vec<&str> = (0..of.headings.len())
        .map(|n| if of.numeric.get(n) == Some(&true) { "--:" } else { "---" })
        .collect();
    let _ = writeln!(text, "{}:\n\n{}", escaped(&of.caption), row(&of.headings));
    let _ = writeln!(text, "| {} |", marks.join(" | "));
    for cells in &of.rows {
        let _ = writeln!(text, "{}", row(cells));
    }
    text.push('\n');
}

/// Text that means only itself, on one line.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in crate::render::escaped(text).chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' => {
                safe.push('\\');
                safe.push(c);
            }
            '&' => safe.push_str("&amp;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A word as code.
fn coded(word: &str) -> String {
    format!("`{}`", crate::render::escaped(word).replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, Run, Sample, Samples};
    use crate::report::{Beside, page};
    use std::path::PathBuf;

    fn two_samples() -> Record {
        let sample = |t_s: f64| Sample { t_s, held: 7, ..Sample::default() };
        let samples = vec![sample(0.0), sample(1.0)];
        Record {
            path: PathBuf::from("run"),
            run: Some(Run::default()),
            timeline: Samples { samples, present: true, ..Samples::default() },
        }
    }

    #[test]
    fn charts_are_files_that_the_text_names() {
        let page = page(&two_samples(), &Beside::default());
        let made = render(&page, Some("r-charts"));
        assert!(made.files.len() >= 2, "{:?}", made.files.len());
        for (name, svg) in &made.files {
            assert!(made.text.contains(&format!("](<{name}>)")), "{name}");
            assert!(
                svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"),
                "{name}"
            );
        }
        let alone = render(&page, None);
        assert!(alone.files.is_empty() && !alone.text.contains("!["), "{}", alone.text);
    }

    #[test]
    fn every_row_of_a_table_has_its_columns() {
        let table_of = Table {
            caption: "c".into(),
            headings: vec!["a|b".into(), "n".into()],
            numeric: vec![false, true],
            rows: vec![vec!["x|y\n| z".into(), "1".into()]],
        };
        let mut text = String::new();
        table(&mut text, &table_of);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 3, "{text}");
        for row in rows {
            let bars = row.replace("\\|", "").matches('|').count();
            assert_eq!(bars, 3, "{row}");
        }
    }

    #[test]
    fn words_from_elsewhere_do_not_become_markup() {
        assert_eq!(escaped("<b>*a*_x_&[l](u)"), "\\<b\\>\\*a\\*\\_x\\_&amp;\\[l\\](u)");
        let mut text = String::new();
        commands(&mut text, &["echo ```` x".into()]);
        assert!(text.starts_with("`````\n") && text.ends_with("`````\n\n"), "{text}");
    }
}
