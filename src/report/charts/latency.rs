//! How long connecting took, and replies.

use super::Chart;
use super::bars::{Bar, bars};
use super::draw::{Plot, Series, YAxis, count_label, draw, micros_label};
use super::over_time::{lines, points};
use crate::record::{Latency, Run, Sample};
use crate::render::micros;

const NO_LATENCIES: &str = "no two samples have a latency: nothing was established, or too \
                            quickly to be sampled twice";

/// Of each stretch of time, those that were established in it.
pub(super) fn over_time(samples: &[Sample]) -> Chart {
    let (p50, p99) =
        (points(samples, |s| s.connect_p50_us), points(samples, |s| s.connect_p99_us));
    let description =
        described(&p50, &p99, "connections established since the sample before");
    let series = vec![Series::line("p50", p50), Series::line("p99", p99)];
    Chart {
        id: "connect-latency".into(),
        title: "Connect latency over time".into(),
        description,
        caption: None,
        drawn: lines(series, None, YAxis::Logarithmic, micros_label, NO_LATENCIES),
    }
}

/// The same by how many were held then.
pub(super) fn against_held(samples: &[Sample]) -> Chart {
    let by_held = |name: &str, value: fn(&Sample) -> Option<u64>| {
        let points = samples
            .iter()
            .filter_map(|s| Some((s.held as f64, value(s)? as f64)))
            .collect();
        Series { name: name.to_owned(), points, dots: true }
    };
    let series =
        vec![by_held("p50", |s| s.connect_p50_us), by_held("p99", |s| s.connect_p99_us)];
    let description = described(
        &series[0].points,
        &series[1].points,
        "connections established since the sample before, by how many were held then",
    );
    let drawn = match series[0].points.len() {
        0 | 1 => Err(NO_LATENCIES.to_owned()),
        _ => draw(&Plot {
            series,
            limit: None,
            x_name: "held",
            x_label: count_label,
            y_label: micros_label,
            y: YAxis::Logarithmic,
        }),
    };
    Chart {
        id: "latency-by-held".into(),
        title: "Connect latency by connections held".into(),
        description,
        caption: None,
        drawn,
    }
}

/// Of replies; None where nothing was asked.
pub(super) fn replies(samples: &[Sample]) -> Option<Chart> {
    samples.iter().find(|sample| sample.served.is_some())?;
    let (p50, p99) =
        (points(samples, |s| s.reply_p50_us), points(samples, |s| s.reply_p99_us));
    let description = described(&p50, &p99, "replies since the sample before");
    let series = vec![Series::line("p50", p50), Series::line("p99", p99)];
    Some(Chart {
        id: "reply-latency".into(),
        title: "Reply latency over time".into(),
        description,
        caption: None,
        drawn: lines(
            series,
            None,
            YAxis::Logarithmic,
            micros_label,
            "no two samples have a reply",
        ),
    })
}

fn described(p50: &[(f64, f64)], p99: &[(f64, f64)], of: &str) -> String {
    let most = |points: &[(f64, f64)]| points.iter().map(|p| p.1).fold(0.0, f64::max);
    format!(
        "Of {of}: the highest median is {}, the highest 99th percentile {}. The scale is \
         logarithmic.",
        micros_label(most(p50)),
        micros_label(most(p99))
    )
}

/// The percentiles of the whole run.
pub(super) fn distribution(run: Option<&Run>) -> Chart {
    let connect = run.and_then(|run| run.result.connect_latency_us.as_ref());
    let reply = run.and_then(|run| run.result.reply_latency_us.as_ref());
    let mut all = of("connect", 0, connect);
    all.extend(of("reply", 2, reply));
    let description = all
        .iter()
        .map(|bar| format!("{} {}", bar.name, bar.label))
        .collect::<Vec<_>>()
        .join(", ");
    let why = match run {
        Some(_) => "nothing was established",
        None => "it is in run.json alone, which is missing",
    };
    Chart {
        id: "latency-distribution".into(),
        title: "Latency distribution of the whole run".into(),
        description: format!("{description}. The scale is logarithmic."),
        caption: Some("The scale is logarithmic.".into()),
        drawn: if all.is_empty() { Err(why.into()) } else { Ok(bars(&all)) },
    }
}

fn of(what: &str, ink: usize, latency: Option<&Latency>) -> Vec<Bar> {
    let Some(l) = latency else { return Vec::new() };
    [("p50", l.p50), ("p90", l.p90), ("p99", l.p99), ("p99.9", l.p999), ("max", l.max)]
        .into_iter()
        .map(|(name, us)| Bar {
            name: format!("{what} {name}"),
            label: micros(us),
            value: us,
            ink,
            marked: false,
        })
        .collect()
}
