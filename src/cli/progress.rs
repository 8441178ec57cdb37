//! The progress line: one line on stderr where that is a terminal.

use std::cell::Cell;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;
use crate::probe::Progress;
use crate::probe::shared::Phase;
use crate::render::{count, rate};

/// With `-v` and no terminal, a line comes so often.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// One line that is written over and over, or one a second with `-v`.
pub(super) struct LiveLine<'a> {
    bar: ProgressBar,
    output: &'a Output,
    last_line: Cell<Duration>,
}

impl<'a> LiveLine<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(if output.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(10)
        });
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, output, last_line: Cell::new(Duration::ZERO) }
    }

    pub(super) fn show(&self, elapsed: Duration, line: &str) {
        if self.bar.is_hidden() {
            if elapsed >= self.last_line.get() + LINE_EVERY {
                self.last_line.set(elapsed);
                self.output.detail(line);
            }
            return;
        }
        self.bar.set_message(line.to_owned());
        self.bar.tick();
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shows how a probe gets on.
pub(super) struct ProgressLine<'a> {
    line: LiveLine<'a>,
    max: Option<u64>,
}

impl<'a> ProgressLine<'a> {
    pub(super) fn new(output: &'a Output, max: Option<u64>) -> Self {
        Self { line: LiveLine::new(output), max }
    }

    pub(super) fn show(&self, p: &Progress) {
        self.line.show(p.elapsed, &line(p, self.max));
    }

    pub(super) fn clear(&self) {
        self.line.clear();
    }
}

fn line(p: &Progress, max: Option<u64>) -> String {
    let mut parts = vec![match max {
        Some(max) => format!("held {} of {}", count(p.held), count(max)),
        None => format!("held {}", count(p.held)),
    }];
    if let Some(queued) = p.queued.filter(|n| *n > 0) {
        parts.push(format!("queued {}", count(queued)));
    }
    if p.phase == Phase::Fill && p.waits_for.is_none() {
        parts.push(rate(p.rate_per_s));
    }
    for (n, what) in [
        (p.in_flight, "unanswered"),
        (p.failed, "failed"),
        (p.closed, "closed by the server"),
    ] {
        if n > 0 {
            parts.push(format!("{} {what}", count(n)));
        }
    }
    parts.push(format!("{:.1} s", p.elapsed.as_secs_f64()));
    match (p.phase, p.waits_for) {
        (Phase::Fill, Some(what)) => parts.push(format!("waiting for {what}")),
        (Phase::Prove, _) => parts.push("telling true ones from phantoms".into()),
        (Phase::Settle | Phase::Hold | Phase::Recheck, _) => parts.push("holding".into()),
        (Phase::Drain, _) => parts.push("closing".into()),
        (Phase::Fill, None) => {}
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_matters_and_what_is_waited_for() {
        let progress = Progress {
            elapsed: Duration::from_millis(3210),
            phase: Phase::Fill,
            held: 19_993,
            queued: Some(4097),
            rate_per_s: 0.0,
            failed: 0,
            closed: 0,
            in_flight: 512,
            waits_for: Some("more to be held"),
        };
        assert_eq!(
            line(&progress, Some(50_000)),
            "held 19,993 of 50,000  queued 4,097  512 unanswered  3.2 s  waiting for more \
             to be held"
        );
    }
}
