//! The numbers of runs, a row each.

use super::{Cell, Difference, Named, Noise, Row};
use crate::record::{Estimate, Run};
use crate::report::measure::Measure;
use crate::report::unit::Unit;

/// What has to be the same for two numbers to mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// The kind of target.
    Kind,
    /// The kind, and the level.
    Level,
    /// The kind, and `--rate`.
    Pace,
}

/// Which of two numbers is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
    Neither,
}

/// Where a number comes from.
enum Source {
    /// Measured each time a probe is repeated.
    Repeated(Measure),
    Once(fn(&Run) -> Option<f64>),
}

struct Line {
    key: &'static str,
    label: &'static str,
    unit: Unit,
    needs: Needs,
    better: Better,
    source: Source,
}

const fn line(
    (key, label, unit): (&'static str, &'static str, Unit),
    needs: Needs,
    better: Better,
    source: Source,
) -> Line {
    Line { key, label, unit, needs, better, source }
}

#[allow(clippy::cast_precision_loss)]
fn whole(n: u64) -> f64 {
    n as f64
}

/// The rows of numbers, the most asked for first.
fn lines() -> Vec<Line> {
    let mut lines = findings();
    lines.extend(costs());
    lines
}

/// What was found of the server.
fn findings() -> Vec<Line> {
    use Better::{Less, More};
    use Needs::{Kind, Level, Pace};
    use Source::{Once, Repeated};
    use Unit::{Count, Micros};
    let measured = |measure: Measure, label, needs| {
        let better = if measure.more_is_better() { More } else { Less };
        let named = (measure.key(), label, measure.unit());
        line(named, needs, better, Repeated(measure))
    };
    vec![
        measured(Measure::PracticalMax, "practical maximum", Level),
        line(
            ("held_peak", "held at the peak", Count),
            Level,
            More,
            Once(|run| Some(whole(run.result.held_peak))),
        ),
        measured(Measure::Rate, "rate", Pace),
        line(
            ("connect_latency_us.p50", "connect p50", Micros),
            Pace,
            Less,
            Once(|run| run.result.connect_latency_us.as_ref().map(|l| whole(l.p50))),
        ),
        measured(Measure::ConnectP99, "connect p99", Pace),
        line(
            ("reply_latency_us.p50", "reply p50", Micros),
            Pace,
            Less,
            Once(|run| run.result.reply_latency_us.as_ref().map(|l| whole(l.p50))),
        ),
        measured(Measure::ReplyP99, "reply p99", Pace),
        line(
            ("phantoms.total", "phantoms", Count),
            Kind,
            Less,
            Once(|run| run.result.phantoms.total.map(whole)),
        ),
        line(
            ("errors", "failed dials", Count),
            Kind,
            Less,
            Once(|run| Some(whole(run.result.errors.values().sum()))),
        ),
    ]
}

/// What it took.
fn costs() -> Vec<Line> {
    use Better::{Less, Neither};
    use Needs::Kind;
    use Source::Once;
    use Unit::{Bytes, Count, Seconds};
    vec![
        line(
            ("memory.kernel_bytes_per_socket", "kernel memory a socket", Bytes),
            Kind,
            Less,
            Once(|run| run.result.memory.kernel_bytes_per_socket),
        ),
        line(
            ("memory.client_rss_bytes", "client memory", Bytes),
            Kind,
            Less,
            Once(|run| Some(whole(run.result.memory.client_rss_bytes))),
        ),
        line(
            ("fds.client_open", "client fds", Count),
            Kind,
            Neither,
            Once(|run| Some(whole(run.result.fds.client_open))),
        ),
        line(
            ("fds.server_open", "server fds", Count),
            Kind,
            Neither,
            Once(|run| run.result.fds.server_open.map(whole)),
        ),
        line(
            ("fds.server_limit", "server fd limit", Count),
            Kind,
            Neither,
            Once(|run| run.result.fds.server_limit.map(whole)),
        ),
        line(
            ("duration_s", "duration", Seconds),
            Kind,
            Neither,
            Once(|run| Some(run.result.duration_s)),
        ),
    ]
}

/// All rows that some run has something in, and why some numbers are not subtracted.
pub(super) fn rows(runs: &[Named]) -> (Vec<Row>, Vec<String>) {
    let mut rows = vec![
        words("level", "counted as", runs, |run| run.result.level.name().to_owned()),
        words("verdict.code", "stopped by", runs, |run| run.verdict.code.clone()),
        words("verdict.confidence", "confidence", runs, |run| {
            run.verdict.confidence.name().to_owned()
        }),
    ];
    let numbers = lines().into_iter().map(|line| numbers(&line, runs));
    rows.extend(numbers.filter(|row| row.cells.iter().any(|c| c.number.is_some())));
    (rows, notes(runs))
}

fn words(
    key: &'static str,
    label: &'static str,
    runs: &[Named],
    of: fn(&Run) -> String,
) -> Row {
    let cell = |named: &Named| Cell { text: of(&named.run), ..Cell::default() };
    Row { key, label, unit: None, cells: runs.iter().map(cell).collect() }
}

fn numbers(line: &Line, runs: &[Named]) -> Row {
    let first = runs.first().map(|named| &named.run);
    let cells = runs.iter().enumerate().map(|(n, Named { run, .. })| {
        let number = line.of(run);
        let text = number.map_or_else(|| "-".to_owned(), |it| line.unit.show(it));
        let base = first.filter(|_| n > 0);
        let difference = base.and_then(|base| line.difference(base, run));
        Cell { number, text, difference }
    });
    let Line { key, label, unit, .. } = *line;
    Row { key, label, unit: Some(unit), cells: cells.collect() }
}

impl Line {
    fn of(&self, run: &Run) -> Option<f64> {
        match self.source {
            Source::Repeated(measure) => measure.best(run),
            Source::Once(of) => of(run),
        }
    }

    fn estimate<'a>(&self, run: &'a Run) -> Option<&'a Estimate> {
        match self.source {
            Source::Repeated(measure) => measure.estimate(run),
            Source::Once(_) => None,
        }
    }

    fn difference(&self, base: &Run, run: &Run) -> Option<Difference> {
        let same = same_kind(base, run)
            && match self.needs {
                Needs::Kind => true,
                Needs::Level => same_level(base, run),
                Needs::Pace => same_pace(base, run),
            };
        let (then, now) = self.of(base).zip(self.of(run)).filter(|_| same)?;
        let absolute = now - then;
        let better = match self.better {
            _ if absolute == 0.0 => None,
            Better::More => Some(absolute > 0.0),
            Better::Less => Some(absolute < 0.0),
            Better::Neither => None,
        };
        Some(Difference {
            absolute,
            percent: (then != 0.0).then(|| absolute / then * 100.0),
            noise: noise(self.estimate(base), self.estimate(run)),
            better,
        })
    }
}

/// Whether the intervals of two medians meet.
fn noise(then: Option<&Estimate>, now: Option<&Estimate>) -> Noise {
    let interval = |estimate: Option<&Estimate>| estimate?.interval;
    match interval(then).zip(interval(now)) {
        None => Noise::Unknown,
        Some((then, now)) if now.low > then.high || now.high < then.low => Noise::Exceeds,
        Some(_) => Noise::Within,
    }
}

fn same_kind(one: &Run, other: &Run) -> bool {
    one.target.kind == other.target.kind
}

fn same_level(one: &Run, other: &Run) -> bool {
    one.result.level == other.result.level
}

fn same_pace(one: &Run, other: &Run) -> bool {
    one.plan.rate_per_s == other.plan.rate_per_s
}

/// Why numbers are not subtracted.
fn notes(runs: &[Named]) -> Vec<String> {
    let Some((first, others)) = runs.split_first() else { return Vec::new() };
    let mut notes = Vec::new();
    for other in others {
        let (base, run) = (&first.run, &other.run);
        let (a, b) = (&first.name, &other.name);
        if !same_kind(base, run) {
            notes.push(format!(
                "{a} and {b} are of targets of different kinds: no number of the one is \
                 compared with the other's"
            ));
            continue;
        }
        if !same_level(base, run) {
            let (then, now) = (base.result.level.name(), run.result.level.name());
            notes.push(format!(
                "{a} counts what is {then}, {b} what is {now}: these maxima are not \
                 compared"
            ));
        }
        if !same_pace(base, run) {
            notes.push(format!(
                "{a} and {b} dialed at different --rate: rates and latencies are not \
                 compared"
            ));
        }
    }
    notes
}
