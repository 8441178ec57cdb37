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
    let room = run.and_then(room).filter(|(n, _)| *n > 0);
    let most = line.iter().map(|point| point.1).fold(0.0, f64::max);
    let limit =
        room.map_or_else(String::new, |(n, how)| format!(" It {how} {}.", count(n)));
    Chart {
        id: "accept-queue".into(),
        title: "The server's accept queue".into(),
        description: format!("At the most {} in it.{limit}", count_label(most)),
        caption: None,
        drawn: lines(
            vec![Series::line("in the accept queue", line)],
            room.map(|(n, how)| (n as f64, format!("{how} {}", count(n)))),
            YAxis::FromZero,
            count_label,
            "the server's accept queue could not be seen",
        ),
    }
}

/// How many connections the queues take, backlog + 1 of each, and in which words. A probe
/// records what was left of that before its first dial.
fn room(run: &Run) -> Option<(u64, &'static str)> {
    if let Some(watched) = &run.backlog {
        let all = watched.listeners.iter().map(|one| one.effective_backlog + 1);
        return Some((all.sum(), "admits"));
    }
    let predicted = run.plan.predicted.as_ref()?;
    Some((predicted.accept_queue?, "had room for"))
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
        id: "queue-lengths".into(),
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
        id: "descriptors".into(),
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
        id: "memory".into(),
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
        id: "drops".into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::backlog::ListenerDoc;
    use crate::record::{Plan, Predicted};

    fn samples(set: fn(&mut Sample, u64)) -> Vec<Sample> {
        let sample = |n: u64| {
            let mut sample = Sample { t_s: n as f64, ..Sample::default() };
            set(&mut sample, n);
            sample
        };
        (0..5).map(sample).collect()
    }

    #[test]
    fn the_queue_is_drawn_against_what_it_takes() {
        let samples = samples(|s, n| s.queued = Some(n * 30));
        let predicted = Predicted { accept_queue: Some(129), ..Predicted::default() };
        let plan = Plan { predicted: Some(predicted), ..Plan::default() };
        let probe = Run { plan, ..Run::default() };
        let chart = accept_queue(Some(&probe), &samples);
        assert_eq!(chart.description, "At the most 120 in it. It had room for 129.");
        let drawn = chart.drawn.unwrap();
        assert!(drawn.contains("had room for 129") && drawn.contains("class=\"l\""));
        let listener = ListenerDoc { effective_backlog: 128, ..ListenerDoc::default() };
        let listeners = vec![listener.clone(), listener];
        let backlog = Some(BacklogDoc { listeners, ..BacklogDoc::default() });
        let watch = Run { backlog, ..Run::default() };
        assert!(
            accept_queue(Some(&watch), &samples).description.ends_with("admits 258.")
        );
        // What was not read is no line at 0.
        let bare = accept_queue(None, &samples).drawn.unwrap();
        assert!(!bare.contains("class=\"l\""), "{bare}");
    }

    #[test]
    fn what_was_not_seen_is_not_drawn() {
        let blind = samples(|_, _| {});
        for chart in [
            accept_queue(None, &blind),
            descriptors(None, &blind),
            memory(&blind),
            counters(None, &blind),
        ] {
            let why = chart.drawn.unwrap_err();
            assert!(why.contains("not be seen") || why.contains("no memory"), "{why}");
        }
        let none = counters(None, &samples(|s, _| s.listen_drops = Some(0)));
        assert_eq!(none.drawn.unwrap_err(), "the listener dropped nothing");
    }
}
