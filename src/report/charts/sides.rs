//! Both sides while it went on: the queue, descriptors, memory, counters.

use super::Chart;
use super::bars::{Bar, bars};
use super::draw::{Series, YAxis, count_label};
use super::over_time::{lines, points};
use crate::record::backlog::BacklogDoc;
use crate::record::{Run, Sample};
use crate::render::{bytes, count};

/// Bars of the lengths that a queue had.
const LENGTHS: usize = 12;

/// The server's accept queue against what it admits.
pub(super) fn accept_queue(run: Option<&Run>, samples: &[Sample]) -> Chart {
    let line = points(samples, |s| s.queued);
    let admits = run.and_then(admits);
    let most = line.iter().map(|point| point.1).fold(0.0, f64::max);
    let limit = admits.map_or_else(String::new, |n| format!(" It admits {}.", count(n)));
    let name = |n: u64| format!("admits {} (backlog + 1)", count(n));
    Chart {
        id: "accept-queue",
        title: "The server's accept queue".into(),
        description: format!("At the most {} in it.{limit}", count_label(most)),
        caption: None,
        drawn: lines(
            vec![Series::line("in the accept queue", line)],
            admits.map(|n| (n as f64, name(n))),
            YAxis::FromZero,
            count_label,
            "the server's accept queue could not be seen",
        ),
    }
}

/// How many connections the queues had room for: backlog + 1 of each.
fn admits(run: &Run) -> Option<u64> {
    match &run.backlog {
        Some(watched) => {
            Some(watched.listeners.iter().map(|one| one.effective_backlog + 1).sum())
        }
        None => run.plan.predicted.as_ref().and_then(|predicted| predicted.accept_queue),
    }
    .filter(|admits| *admits > 0)
}

/// How long the queue of the first listener had which length.
pub(super) fn queue_lengths(watched: &BacklogDoc) -> Chart {
    let queue = watched.listeners.first().and_then(|one| one.queue.as_ref());
    let steps = queue.map_or(&[][..], |queue| &queue.histogram);
    let per_bar = steps.len().div_ceil(LENGTHS).max(1);
    let all: Vec<Bar> = steps
        .chunks(per_bar)
        .filter_map(|part| {
            let (first, last) = (part.first()?.queue_len, part.last()?.queue_len);
            let seconds: f64 = part.iter().map(|step| step.seconds).sum();
            let name = match first == last {
                true => format!("{} in the queue", count(first)),
                false => format!("{} to {}", count(first), count(last)),
            };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let micros = (seconds.max(0.0) * 1e6) as u64;
            let label = crate::render::micros(micros);
            Some(Bar { name, label, value: micros, ink: 0, marked: false })
        })
        .collect();
    let said: Vec<String> =
        all.iter().map(|bar| format!("{} for {}", bar.name, bar.label)).collect();
    Chart {
        id: "queue-lengths",
        title: "How long the queue was how long".into(),
        description: format!("{}. The scale is logarithmic.", said.join(", ")),
        caption: Some("The scale is logarithmic.".into()),
        drawn: match all.is_empty() {
            true => Err("it was not watched".into()),
            false => Ok(bars(&all)),
        },
    }
}

/// Descriptors at the server.
pub(super) fn descriptors(run: Option<&Run>, samples: &[Sample]) -> Chart {
    let line = points(samples, |s| s.server_open_fds);
    let limit = run.and_then(|run| run.result.fds.server_limit).filter(|n| *n > 0);
    let most = line.iter().map(|point| point.1).fold(0.0, f64::max);
    let of = limit.map_or_else(String::new, |n| format!(" of {}", count(n)));
    Chart {
        id: "descriptors",
        title: "The server's descriptors".into(),
        description: format!(
            "At the most {}{of}, in the fullest table that holds the listener.",
            count_label(most)
        ),
        caption: None,
        drawn: lines(
            vec![Series::line("open at the server", line)],
            limit.map(|n| (n as f64, format!("RLIMIT_NOFILE {}", count(n)))),
            YAxis::FromZero,
            count_label,
            "the server's descriptors could not be seen",
        ),
    }
}

/// Memory of the probe's host.
pub(super) fn memory(samples: &[Sample]) -> Chart {
    const UNIT: f64 = (1_u64 << 20) as f64;
    let line: Vec<(f64, f64)> = points(samples, |s| s.mem_available_bytes)
        .into_iter()
        .map(|(t, n)| (t, n / UNIT))
        .collect();
    let all = samples.iter().filter_map(|s| s.mem_available_bytes);
    let description = match (all.clone().min(), all.max()) {
        (Some(low), Some(high)) => {
            format!("Between {} and {}, all programs together.", bytes(low), bytes(high))
        }
        _ => String::new(),
    };
    Chart {
        id: "memory",
        title: "Memory available on the probe's host".into(),
        description,
        caption: None,
        drawn: lines(
            vec![Series::line("MemAvailable", line)],
            None,
            YAxis::Around,
            |mib| format!("{} MiB", count_label(mib)),
            "no memory is in the timeline",
        ),
    }
}

/// What the listener dropped, and what failed at the client.
pub(super) fn counters(run: Option<&Run>, samples: &[Sample]) -> Chart {
    let watched = run.is_some_and(|run| run.backlog.is_some());
    let since = if watched { "since it listens" } else { "since the start" };
    let drops = points(samples, |s| s.listen_drops);
    let last = drops.last().map_or(0.0, |point| point.1);
    Chart {
        id: "drops",
        title: "Dropped at the listener".into(),
        description: format!("{} {since}, in total.", count_label(last)),
        caption: None,
        drawn: match drops.iter().any(|point| point.1 > 0.0) || drops.is_empty() {
            true => lines(
                vec![Series::line(&format!("dropped {since}"), drops)],
                None,
                YAxis::FromZero,
                count_label,
                "the listener's drops could not be seen",
            ),
            false => Err("the listener dropped nothing".into()),
        },
    }
}
