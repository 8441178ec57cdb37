//! What was held, and how fast it came.

use std::fmt::Write as _;

use super::Chart;
use super::draw::{Plot, Series, YAxis, count_label, draw, time_label};
use crate::record::{Level, Run, Sample};
use crate::render::{count, rate as rate_text, seconds};

const NO_SAMPLES: &str = "the timeline has no two samples";

/// A chart of lines over time; `drawn` fails with `why` where there is no line.
pub(super) fn lines(
    series: Vec<Series>,
    limit: Option<(f64, String)>,
    y: YAxis,
    y_label: fn(f64) -> String,
    why: &str,
) -> Result<String, String> {
    let series: Vec<Series> =
        series.into_iter().filter(|series| series.points.len() > 1).collect();
    if series.is_empty() {
        return Err(why.to_owned());
    }
    draw(&Plot { series, limit, x_name: "", x_label: time_label, y_label, y })
}

/// The points of what `value` gives, where it gives something.
pub(super) fn points(
    samples: &[Sample],
    value: impl Fn(&Sample) -> Option<u64>,
) -> Vec<(f64, f64)> {
    samples.iter().filter_map(|s| Some((s.t_s, value(s)? as f64))).collect()
}

/// Held, established, those only the client has, and failures.
pub(super) fn held(run: Option<&Run>, samples: &[Sample]) -> Chart {
    let mut series = vec![
        Series::line("held", points(samples, |s| Some(s.held))),
        Series::line("established", points(samples, |s| Some(s.established))),
    ];
    let mut add = |name: &str, value: &dyn Fn(&Sample) -> Option<u64>| {
        let points = points(samples, value);
        if points.iter().any(|point| point.1 > 0.0) {
            series.push(Series::line(name, points));
        }
    };
    add("in the accept queue", &|s| s.queued);
    // Where the accept queue is seen, held is what is established and not in it.
    let unheld = match run.map(|run| run.result.level) {
        Some(Level::Confirmed) => "not confirmed",
        Some(Level::Served) => "not answered",
        _ => "established, not held",
    };
    let seen = samples.iter().any(|s| s.queued.is_some() && s.served.is_none());
    if !seen {
        add(unheld, &|s| Some(s.established.saturating_sub(s.held)));
    }
    add("phantoms, in total", &|s| s.phantoms);
    add("failed, in total", &|s| Some(s.failed));
    add("ended by the server, in total", &|s| Some(s.closed));
    let description = match (samples.first(), samples.last()) {
        (Some(first), Some(last)) => {
            let most = samples.iter().map(|s| s.held).max().unwrap_or(0);
            format!(
                "Held: {} at {}, {} at the most, {} at {}, with {} established, \
                 {} failed and {} ended by the server.{}",
                count(first.held),
                seconds(first.t_s),
                count(most),
                count(last.held),
                seconds(last.t_s),
                count(last.established),
                count(last.failed),
                count(last.closed),
                phantoms(run)
            )
        }
        _ => String::new(),
    };
    Chart {
        id: "held".into(),
        title: "Connections over time".into(),
        description,
        caption: None,
        drawn: lines(series, None, YAxis::FromZero, count_label, NO_SAMPLES),
    }
}

/// Lines of a chart that are told apart by their colours.
const RUNS: usize = 6;
/// Characters of a run's name that there is room for.
const NAME: usize = 44;

/// What several runs held, each from its own beginning.
#[must_use]
pub fn held_of_all(runs: &[(&str, &[Sample])]) -> Chart {
    let drawn = runs.iter().take(RUNS);
    let lines_of = drawn.map(|(name, samples)| {
        Series::line(&shortened(name), points(samples, |s| Some(s.held)))
    });
    let most = runs.iter().map(|(name, samples)| {
        match samples.iter().map(|sample| sample.held).max() {
            Some(most) => format!("{name}: {} at the most", count(most)),
            None => format!("{name}: no samples"),
        }
    });
    let mut description = format!(
        "Held: {}. Phantoms are counted at the peak, and not taken from these.",
        most.collect::<Vec<_>>().join("; ")
    );
    if runs.len() > RUNS {
        let _ = write!(description, " Drawn: the first {RUNS} runs.");
    }
    Chart {
        id: "held".into(),
        title: "Connections held over time".into(),
        description,
        caption: None,
        drawn: lines(
            lines_of.collect(),
            None,
            YAxis::FromZero,
            count_label,
            "no timeline has two samples",
        ),
    }
}

/// A name without its middle, where it is too long for a legend.
fn shortened(name: &str) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= NAME {
        return name.to_owned();
    }
    let (start, end) = (&all[..NAME / 2], &all[all.len() - (NAME / 2 - 1)..]);
    start.iter().chain(&['…']).chain(end).collect()
}

/// Phantoms are counted once, at the peak.
fn phantoms(run: Option<&Run>) -> String {
    let Some(run) = run else { return String::new() };
    match run.result.phantoms.total {
        Some(0) => " Phantoms, counted at the peak: none.".into(),
        Some(n) => format!(" Phantoms, counted at the peak: {}.", count(n)),
        None => " Phantoms were not counted in all.".into(),
    }
}

/// Connections established a second.
pub(super) fn rate(samples: &[Sample]) -> Chart {
    let points: Vec<(f64, f64)> =
        samples.iter().map(|s| (s.t_s, s.rate_per_s.max(0.0))).collect();
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let series = vec![Series::line("established a second", points)];
    Chart {
        id: "rate".into(),
        title: "Rate over time".into(),
        description: format!("At the most {} between two samples.", rate_text(most)),
        caption: None,
        drawn: lines(series, None, YAxis::FromZero, count_label, NO_SAMPLES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: fn(u64) -> Sample) -> Vec<Sample> {
        (0..4).map(|n| Sample { t_s: n as f64, established: 10 * n, ..of(n) }).collect()
    }

    fn at(level: Level) -> Run {
        let mut run = Run::default();
        run.result.level = level;
        run
    }

    #[test]
    fn those_that_only_the_client_has_are_a_line_by_what_is_known_of_them() {
        let unseen = samples(|n| Sample { held: 7 * n, ..Sample::default() });
        for (level, name) in
            [(Level::Confirmed, "not confirmed"), (Level::Served, "not answered")]
        {
            let drawn = held(Some(&at(level)), &unseen).drawn.unwrap();
            assert!(drawn.contains(name) && !drawn.contains("accept queue"), "{level:?}");
        }
        let seen =
            samples(|n| Sample { held: 7 * n, queued: Some(3 * n), ..Sample::default() });
        let drawn = held(Some(&at(Level::Accepted)), &seen).drawn.unwrap();
        assert!(drawn.contains("in the accept queue") && !drawn.contains("not held"));
    }

    #[test]
    fn failures_are_drawn_where_there_are_any() {
        let drawn =
            |failed: fn(u64) -> Sample| held(None, &samples(failed)).drawn.unwrap();
        let some = drawn(|n| Sample {
            failed: n,
            closed: n,
            phantoms: Some(n),
            ..Sample::default()
        });
        for name in ["failed, in total", "ended by the server", "phantoms, in total"] {
            assert!(some.contains(name), "{some}");
        }
        let none = drawn(|_| Sample::default());
        assert!(!none.contains("failed") && !none.contains("ended by"), "{none}");
    }

    #[test]
    fn runs_are_drawn_together_as_far_as_colours_tell_them_apart() {
        let some = samples(|n| Sample { held: 7 * n, ..Sample::default() });
        let long = "x".repeat(30) + "MIDST" + &"y".repeat(30);
        let chart =
            held_of_all(&[("first", &some), (&long, &some[..2]), ("bare", &some[..1])]);
        let drawn = chart.drawn.unwrap();
        assert!(drawn.contains("first") && !drawn.contains("MIDST"), "{drawn}");
        assert!(!drawn.contains("bare"), "a moment is no line");
        assert!(chart.description.starts_with("Held: first: 21 at the most; xxx"));
        let seven: Vec<(&str, &[Sample])> = ["a", "b", "c", "d", "e", "f", "the seventh"]
            .map(|name| (name, &some[..]))
            .into();
        let chart = held_of_all(&seven);
        assert!(!chart.drawn.unwrap().contains("the seventh"));
        assert!(chart.description.ends_with("Drawn: the first 6 runs."));
        assert!(held_of_all(&[("bare", &[])]).drawn.is_err());
    }

    #[test]
    fn phantoms_are_said_as_they_were_counted() {
        let mut run = at(Level::Accepted);
        let said =
            |run: &Run| held(Some(run), &samples(|_| Sample::default())).description;
        assert!(said(&run).ends_with("Phantoms were not counted in all."));
        run.result.phantoms.total = Some(171);
        assert!(said(&run).ends_with("counted at the peak: 171."));
    }
}
