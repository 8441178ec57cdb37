//! What was held, and how fast it came.

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
        id: "held",
        title: "Connections over time".into(),
        description,
        caption: None,
        drawn: lines(series, None, YAxis::FromZero, count_label, NO_SAMPLES),
    }
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
        id: "rate",
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
    fn phantoms_are_said_as_they_were_counted() {
        let mut run = at(Level::Accepted);
        let said =
            |run: &Run| held(Some(run), &samples(|_| Sample::default())).description;
        assert!(said(&run).ends_with("Phantoms were not counted in all."));
        run.result.phantoms.total = Some(171);
        assert!(said(&run).ends_with("counted at the peak: 171."));
    }
}
