//! A report as one HTML file: no script, nothing fetched.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::{Chart, STYLE};
use super::page::{Answer, Block, Page, Section, Table};

const PAGE_STYLE: &str = include_str!("html/page.css");
/// Nothing may be fetched, whatever a target's name or a server's words try.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
/// Tables longer than this have a box of their own height.
const LONG: usize = 30;

/// The file.
#[must_use]
pub fn render(page: &Page) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (page.title) }
                style { (PreEscaped(STYLE)) (PreEscaped(PAGE_STYLE)) }
            }
            body {
                a.skip href="#answer" { "Skip to the answer" }
                header {
                    h1 { (page.title) }
                    p.byline { (page.byline) }
                }
                nav aria-label="Sections" {
                    ul { @for section in &page.sections {
                        li { a href={ "#" (section.id) } { (section.title) } }
                    } }
                }
                main {
                    (answer(&page.answer))
                    @for part in &page.sections { (section(part)) }
                }
                footer { "Written by sockscope " (env!("CARGO_PKG_VERSION")) "." }
            }
        }
    };
    // Control characters are errors in HTML, whoever wrote them.
    document.into_string().replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

fn answer(answer: &Answer) -> Markup {
    html! {
        section #answer aria-labelledby="answer-h" {
            h2 #answer-h { (answer.label) }
            p.number { (answer.number) }
            p.meaning { (answer.meaning) }
            @if let Some((code, confidence)) = &answer.verdict {
                p.verdict {
                    "Verdict: " strong { code { (code) } } ", " (confidence)
                }
            }
            @if !answer.summary.is_empty() { p.summary { (answer.summary) } }
            @if !answer.evidence.is_empty() {
                (table(&evidence(answer)))
            }
            @if !answer.remedy.is_empty() {
                h3 { "Raise it" }
                (commands(&answer.remedy))
            }
            @if let Some(next) = &answer.next {
                p { strong { "Then: " } (next) }
            }
            @if !answer.alternatives.is_empty() {
                h3 { "It could also be" }
                ul { @for other in &answer.alternatives {
                    li { code { (other.code) } ": " (other.decides) }
                } }
            }
            @for caveat in &answer.caveats { p.caveat { (caveat) } }
        }
    }
}

/// The evidence, as a table.
pub(super) fn evidence(answer: &Answer) -> Table {
    Table {
        caption: "Evidence".into(),
        headings: ["what was seen", "how much", "where"].map(Into::into).into(),
        numeric: vec![false; 3],
        rows: answer
            .evidence
            .iter()
            .map(|fact| vec![fact.fact.clone(), fact.value.clone(), fact.source.clone()])
            .collect(),
    }
}

fn section(section: &Section) -> Markup {
    let heading = format!("{}-h", section.id);
    html! {
        section id=(section.id) aria-labelledby=(heading) {
            h2 id=(heading) { (section.title) }
            @for block in &section.blocks { (block_of(block)) }
        }
    }
}

fn block_of(block: &Block) -> Markup {
    match block {
        Block::Text(text) => html! { p { (text) } },
        Block::Commands(lines) => commands(lines),
        Block::List(items) => html! { ul { @for item in items { li { (item) } } } },
        Block::Table(of) => table(of),
        Block::Charts(charts) => html! {
            div.charts { @for chart in charts { (figure(chart)) } }
        },
    }
}

fn commands(lines: &[String]) -> Markup {
    html! { pre { code { (lines.join("\n")) } } }
}

fn figure(chart: &Chart) -> Markup {
    html! {
        figure {
            figcaption { (chart.title) }
            @match (chart.inline_svg(), &chart.drawn) {
                (Some(svg), _) => {
                    (PreEscaped(svg))
                    p.described aria-hidden="true" {
                        (chart.caption.as_deref().unwrap_or(&chart.description))
                    }
                }
                (None, Err(why)) => { p.absent { "No chart: " (why) "." } }
                (None, Ok(_)) => {}
            }
        }
    }
}

fn table(of: &Table) -> Markup {
    let class =
        |column: usize| of.numeric.get(column).copied().unwrap_or(false).then_some("n");
    // What scrolls must be reached by the keyboard, and so have a name.
    let boxed = if of.rows.len() > LONG { "box long" } else { "box" };
    html! {
        div class=(boxed) role="region" tabindex="0" aria-label=(of.caption) {
            table {
                caption { (of.caption) }
                thead { tr { @for (n, heading) in of.headings.iter().enumerate() {
                    th scope="col" class=[class(n)] { (heading) }
                } } }
                tbody { @for row in &of.rows { tr {
                    @for (n, cell) in row.iter().enumerate() {
                        @if n == 0 { th scope="row" class=[class(n)] { (cell) } }
                        @else { td class=[class(n)] { (cell) } }
                    }
                } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, Run, Sample, Samples, Warning};
    use crate::report::{Beside, page};
    use std::path::PathBuf;

    fn record(samples: u32) -> Record {
        let mut run = Run::default();
        run.target.address = "<script>alert(1)</script>".into();
        run.target.given = "http://127.0.0.1/\u{1b}".into();
        run.warnings =
            vec![Warning { code: "a&b".into(), message: "</p><img src=x>".into() }];
        let sample = |n: u32| Sample {
            t_s: f64::from(n),
            held: u64::from(n % 1_013) * 1_000_000,
            established: u64::from(n) * 1_000_001,
            queued: Some(u64::from(n % 100)),
            connect_p50_us: Some(u64::from(n % 1_000)),
            connect_p99_us: Some(u64::from(n) * 7),
            served: Some(3),
            reply_p50_us: Some(u64::from(n % 300)),
            reply_p99_us: Some(u64::from(n % 3_001)),
            server_open_fds: Some(u64::from(n)),
            listen_drops: Some(u64::from(n)),
            mem_available_bytes: Some(1 << 34),
            failed: u64::from(n),
            closed: u64::from(n),
            ..Sample::default()
        };
        Record {
            path: PathBuf::from("run"),
            run: Some(run),
            timeline: Samples {
                samples: (0..samples).map(sample).collect(),
                present: true,
                ..Samples::default()
            },
        }
    }

    #[test]
    fn words_from_elsewhere_stay_words() {
        let text = render(&page(&record(3), &Beside::default()));
        assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
        assert!(text.contains("&lt;script&gt;alert(1)"));
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_run_of_a_day_is_no_larger_than_a_page_may_be() {
        let text = render(&page(&record(86_400), &Beside::default()));
        assert!(text.len() < 300_000, "{}", text.len());
        assert!(text.contains("of 86,400 samples"), "it must say that rows are left out");
    }

    #[test]
    fn a_chart_without_data_is_a_word_why() {
        let mut bare = record(1);
        bare.run = None;
        let text = render(&page(&bare, &Beside::default()));
        assert!(text.contains("No chart: the timeline has no two samples."), "{text}");
        assert!(text.contains("cut off"));
    }
}
