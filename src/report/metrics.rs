//! A run in OpenMetrics text.

use std::io;

use crate::record::{Latency, Run};
use crate::render::openmetrics::{Exposition, Family, Kind};

/// The samples of one family: labels beside the target, and a value.
type Samples = Vec<(Vec<(&'static str, String)>, f64)>;

const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, unit, help }
}

/// Writes what a run found; what was not measured is left out.
///
/// # Errors
/// What writing gives.
pub fn write(out: impl io::Write, run: &Run) -> io::Result<()> {
    let mut text = Exposition::new(out);
    // Its port is another each time, and would be another series.
    let target = match run.target.embedded {
        true => "reference-server",
        false => &run.target.address,
    };
    let families = [verdict(run), connections(run), times(run), costs(run)];
    for (family, samples) in families.into_iter().flatten() {
        if samples.is_empty() {
            continue;
        }
        text.family(family)?;
        for (labels, value) in samples {
            let labels = labels.iter().map(|(name, label)| (*name, label.as_str()));
            let labels: Vec<_> =
                std::iter::once(("target", target)).chain(labels).collect();
            text.sample(&labels, value)?;
        }
    }
    text.finish().map(drop)
}

fn one(value: impl Into<Option<f64>>) -> Samples {
    value.into().map(|value| (Vec::new(), value)).into_iter().collect()
}

fn each<'a>(
    name: &'static str,
    values: impl IntoIterator<Item = (&'a str, Option<f64>)>,
) -> Samples {
    let values = values.into_iter();
    values.filter_map(|(label, n)| Some((vec![(name, label.to_owned())], n?))).collect()
}

#[allow(clippy::cast_precision_loss)]
fn whole(n: u64) -> f64 {
    n as f64
}

fn verdict(run: &Run) -> Vec<(Family, Samples)> {
    let family = Family {
        name: "sockscope_probe_verdict",
        kind: Kind::Info,
        unit: "",
        help: "What stopped the probe.",
    };
    let labels = vec![
        ("code", run.verdict.code.clone()),
        ("confidence", run.verdict.confidence.name().to_owned()),
    ];
    vec![(family, vec![(labels, 1.0)])]
}

fn connections(run: &Run) -> Vec<(Family, Samples)> {
    let (result, counts) = (&run.result, &run.result.counts);
    let level =
        |n: u64| vec![(vec![("level", result.level.name().to_owned())], whole(n))];
    let states = [
        ("dialed", Some(counts.dialed)),
        ("established", Some(counts.established)),
        ("confirmed", counts.confirmed),
        ("queued", counts.queued),
        ("accepted", counts.accepted),
        ("served", counts.served),
        ("deferred", counts.deferred),
    ];
    let failed = result.errors.iter().map(|(why, n)| (why.as_str(), Some(whole(*n))));
    vec![
        (
            gauge(
                "sockscope_probe_practical_max_connections",
                "connections",
                "The most held at once and still held after the hold.",
            ),
            level(result.practical_max),
        ),
        (
            gauge(
                "sockscope_probe_held_peak_connections",
                "connections",
                "The most held at any moment.",
            ),
            level(result.held_peak),
        ),
        (
            gauge(
                "sockscope_probe_connections",
                "connections",
                "How far connections got; one may count in several states.",
            ),
            each("state", states.map(|(state, n)| (state, n.map(whole)))),
        ),
        (
            gauge(
                "sockscope_probe_phantom_connections",
                "connections",
                "Established at the client and unknown to the server, at the peak.",
            ),
            one(result.phantoms.total.map(whole)),
        ),
        (
            gauge(
                "sockscope_probe_failed_connections",
                "connections",
                "Dials of which nothing is left, by what they met.",
            ),
            each("reason", failed),
        ),
        (
            gauge(
                "sockscope_probe_connections_per_second",
                "",
                "Connections established a second while the count rose.",
            ),
            one(result.rate_per_s),
        ),
    ]
}

fn times(run: &Run) -> Vec<(Family, Samples)> {
    let quantiles = |latency: &Option<Latency>| {
        let Some(l) = latency else { return Samples::new() };
        let all = [
            ("0.5", l.p50),
            ("0.9", l.p90),
            ("0.99", l.p99),
            ("0.999", l.p999),
            ("1", l.max),
        ];
        each("quantile", all.map(|(name, us)| (name, Some(whole(us) / 1e6))))
    };
    let summary =
        |name, help| Family { name, kind: Kind::Summary, unit: "seconds", help };
    let result = &run.result;
    vec![
        (
            summary(
                "sockscope_probe_connect_latency_seconds",
                "From the moment a dial was due until it was established.",
            ),
            quantiles(&result.connect_latency_us),
        ),
        (
            summary(
                "sockscope_probe_reply_latency_seconds",
                "From the request until the answer.",
            ),
            quantiles(&result.reply_latency_us),
        ),
        (
            gauge(
                "sockscope_probe_start_time_seconds",
                "seconds",
                "When the probe began, since 1970 in UTC.",
            ),
            one(run.started.unix_seconds()),
        ),
        (
            gauge(
                "sockscope_probe_duration_seconds",
                "seconds",
                "From the first dial to the last close.",
            ),
            one(result.duration_s),
        ),
    ]
}

fn costs(run: &Run) -> Vec<(Family, Samples)> {
    let (fds, memory) = (&run.result.fds, &run.result.memory);
    vec![
        (
            gauge("sockscope_probe_open_fds", "fds", "Descriptors open at the peak."),
            each(
                "side",
                [
                    ("client", Some(whole(fds.client_open))),
                    ("server", fds.server_open.map(whole)),
                ],
            ),
        ),
        (
            gauge("sockscope_probe_limit_fds", "fds", "RLIMIT_NOFILE of each fd table."),
            each(
                "side",
                [
                    ("client", Some(whole(fds.client_limit))),
                    ("server", fds.server_limit.map(whole)),
                ],
            ),
        ),
        (
            gauge(
                "sockscope_probe_client_memory_bytes",
                "bytes",
                "The most resident memory of the probe.",
            ),
            one(whole(memory.client_rss_bytes)),
        ),
        (
            gauge(
                "sockscope_probe_socket_memory_bytes",
                "bytes",
                "Kernel memory that one socket took.",
            ),
            one(memory.kernel_bytes_per_socket),
        ),
    ]
}
