//! A run on a terminal: one screen.

use std::collections::BTreeMap;

use super::blocks;
use crate::record::{Confidence, Endpoint, Fact, Level, PairRow, Record, Run};
use crate::render::{bytes, count, micros, plural, rate, seconds};
use crate::verdict::Code;

/// Whether and how words stand out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Whether escapes for bold may be written.
    pub color: bool,
}

impl Style {
    fn strong(self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The summary of a probe; `example` is one of the connections that it held.
#[must_use]
pub fn summary(run: &Run, example: Option<&PairRow>, style: Style) -> Vec<String> {
    let mut lines = headline(run, style);
    lines.extend(verdict(run, style));
    lines.extend(numbers(run));
    lines.extend(example.map(pair_line));
    lines
}

/// What a record that was cut off still tells.
#[must_use]
pub fn cut_off(record: &Record, style: Style) -> Vec<String> {
    let samples = &record.timeline.samples;
    let mut lines = vec![
        field("target", &record.target()),
        field("record", &format!("{}: no run.json", style.strong("cut off"))),
        format!(
            "  The run was cut off, or still goes on; {} can be read.",
            plural(samples.len() as u64, "sample")
        ),
    ];
    if let (Some(last), Some(held)) =
        (samples.last(), samples.iter().map(|s| s.held).max())
    {
        lines.push(field(
            "held",
            &format!(
                "{} at the most, {} at {} (their level is not recorded)",
                count(held),
                count(last.held),
                seconds(last.t_s)
            ),
        ));
        lines.push(field(
            "counted",
            &format!(
                "{} dialed, {} in flight, {} failed, {} ended by the other side",
                count(last.dialed),
                count(last.in_flight),
                count(last.failed),
                count(last.closed)
            ),
        ));
    }
    if record.timeline.torn {
        lines.push("  The last line of its timeline is torn and left out.".into());
    }
    if let Some(damaged) = record.timeline.damaged {
        lines.push(format!(
            "  {} of its timeline cannot be read and are left out, the first is line {}.",
            plural(damaged.lines, "line"),
            count(damaged.first)
        ));
    }
    lines
}

/// What was held over time, drawn in characters; empty where there are no two samples.
#[must_use]
pub fn held_over_time(record: &Record, columns: usize) -> Vec<String> {
    let points: Vec<(f64, u64)> =
        record.timeline.samples.iter().map(|s| (s.t_s, s.held)).collect();
    let drawn = blocks::chart(&points, columns);
    if drawn.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["held over time".to_owned()];
    lines.extend(drawn);
    lines
}

/// A line of a summary.
#[must_use]
pub fn field(name: &str, value: &str) -> String {
    format!("{name:<9}  {value}")
}

/// What the practical maximum counts, how that is known, and how long it was held.
#[must_use]
pub(super) fn meaning(run: &Run) -> String {
    let r = &run.result;
    let how = match r.level {
        _ if r.counts.established == 0 => "no dial succeeded",
        Level::Accepted => "accepted: by the server's own table",
        Level::Established => {
            "established: connect() succeeded; the server's side unseen"
        }
        Level::Confirmed => "confirmed from this side: each answered a keepalive",
        Level::Served => "served: answered",
        Level::Queued => "queued: in the accept queue",
    };
    let held = match r.practical_max {
        0 => String::new(),
        _ if run.verdict.code == Code::Interrupted.as_str() => String::new(),
        _ => format!("; held {}", seconds(run.plan.hold_s)),
    };
    format!("{how}{held}")
}

fn headline(run: &Run, style: Style) -> Vec<String> {
    let target = if run.target.given == run.target.address || run.target.embedded {
        run.target.address.clone()
    } else {
        format!("{} ({})", run.target.address, run.target.given)
    };
    let embedded =
        if run.target.embedded { ", a reference server of this probe" } else { "" };
    vec![
        format!("target             {target}{embedded}"),
        format!(
            "practical maximum  {}  ({})",
            style.strong(&plural(run.result.practical_max, "connection")),
            meaning(run)
        ),
    ]
}

fn verdict(run: &Run, style: Style) -> Vec<String> {
    let v = &run.verdict;
    let mut lines = vec![
        format!("stopped by         {}, {}", style.strong(&v.code), v.confidence.name()),
        format!("  {}", v.summary),
    ];
    let wide = |of: fn(&Fact) -> &str| {
        v.evidence.iter().map(|f| of(f).chars().count()).max().unwrap_or(0)
    };
    let (names, values) = (wide(|f| &f.fact), wide(|f| &f.value));
    for fact in &v.evidence {
        lines.push(format!(
            "  {:<names$}  {:<values$}  {}",
            fact.fact, fact.value, fact.source
        ));
    }
    if v.confidence != Confidence::Certain {
        for other in &v.alternatives {
            lines.push(format!("  or {}: {}", other.code, other.decides));
        }
    }
    for (i, remedy) in v.remedy.iter().enumerate() {
        lines.push(field(if i == 0 { "raise it" } else { "" }, remedy));
    }
    if run.target.embedded && !v.remedy.is_empty() {
        let limit = run
            .result
            .fds
            .server_limit
            .map_or(String::new(), |limit| format!(" --fd-limit {limit}"));
        let how = format!("that server has ended; to try it: sockscope serve{limit}");
        lines.push(field("", &how));
    }
    // Where not one dial succeeded, the next ceiling is of no interest yet.
    let next = v.next.as_ref().filter(|_| run.result.counts.established > 0);
    lines.extend(next.map(|next| field("then", &next.text)));
    lines
}

fn numbers(run: &Run) -> Vec<String> {
    let r = &run.result;
    let mut lines = vec![field("counted", &counted(run))];
    let tables = match r.fds.server_tables {
        Some(n) if n > 1 => format!(" in the fullest of {}", plural(n.into(), "table")),
        _ => String::new(),
    };
    let server = match (r.fds.server_open, r.fds.server_limit) {
        (Some(open), Some(limit)) => {
            format!("server {} of {}{tables}; ", count(open), count(limit))
        }
        (Some(open), None) => format!("server {}; ", count(open)),
        _ => String::new(),
    };
    lines.push(field(
        "fds",
        &format!(
            "{server}client {} in {} of {} each",
            count(r.fds.client_open),
            plural(r.fds.client_tables.into(), "table"),
            count(r.fds.client_limit)
        ),
    ));
    if let Some(l) = &r.connect_latency_us {
        lines.push(field(
            "connect",
            &format!(
                "p50 {}, p99 {}, p99.9 {}; {}",
                micros(l.p50),
                micros(l.p99),
                micros(l.p999),
                rate(r.rate_per_s)
            ),
        ));
    }
    if let Some(l) = &r.reply_latency_us {
        lines.push(field(
            "replies",
            &format!(
                "p50 {}, p99 {}, p99.9 {}, max {}",
                micros(l.p50),
                micros(l.p99),
                micros(l.p999),
                micros(l.max)
            ),
        ));
    }
    let client = bytes(r.memory.client_rss_bytes);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let kernel = r
        .memory
        .kernel_bytes_per_socket
        .map(|n| format!("; the kernel took {} a socket", bytes(n.round() as u64)));
    let memory = format!("client {client}{}", kernel.unwrap_or_default());
    lines.push(field("memory", &memory));
    lines
}

/// What became of every dial; the parts add up.
#[must_use]
pub(super) fn counted(run: &Run) -> String {
    let (c, r) = (&run.result.counts, &run.result);
    let failed: u64 = r.errors.values().sum();
    let open = c.dialed.saturating_sub(failed);
    let mut parts = Vec::new();
    match c.accepted {
        Some(accepted) => {
            let queued = c.queued.unwrap_or(0);
            let deferred = c.deferred.unwrap_or(0);
            let phantoms = r.phantoms.total.unwrap_or(0);
            let rest = open.saturating_sub(accepted + queued + deferred + phantoms);
            parts.push(format!("{} accepted", count(accepted)));
            for (n, word) in [
                (queued, "queued"),
                (deferred, "deferred"),
                (phantoms, "phantoms"),
                (rest, "closing"),
            ] {
                if n > 0 {
                    let word = if n == 1 { word.trim_end_matches('s') } else { word };
                    parts.push(format!("{} {word}", count(n)));
                }
            }
        }
        None if c.served.is_some() => {
            parts.push(format!("{} answered", count(c.served.unwrap_or(0))));
            for (name, n) in &r.unserved {
                parts.push(format!("{} {name}", count(*n)));
            }
        }
        None => {
            let confirmed = c.confirmed.unwrap_or(open);
            let half = r.phantoms.request_socket.unwrap_or(0);
            let deferred = c.deferred.unwrap_or(0);
            let rest = open.saturating_sub(confirmed + half + deferred);
            let word = if c.confirmed.is_some() { "confirmed" } else { "established" };
            parts.push(format!("{} {word}", count(confirmed)));
            for (n, word) in [
                (half, "half-open phantoms"),
                (deferred, "deferred"),
                (rest, "undecided"),
            ] {
                if n > 0 {
                    let word = if n == 1 { word.trim_end_matches('s') } else { word };
                    parts.push(format!("{} {word}", count(n)));
                }
            }
        }
    }
    for (name, n) in &r.errors {
        parts.push(format!("{} {name}", count(*n)));
    }
    let phantoms = match r.phantoms.total {
        Some(0) => "; 0 phantoms",
        _ => "",
    };
    let answered = match (c.served, c.accepted) {
        (Some(served), Some(_)) => {
            format!("; {} answered{}", count(served), unanswered(&r.unserved))
        }
        _ => String::new(),
    };
    format!("{} dialed = {}{answered}{phantoms}", count(c.dialed), parts.join(" + "))
}

/// `, 3 no_reply`.
fn unanswered(by_why: &BTreeMap<String, u64>) -> String {
    by_why.iter().map(|(why, n)| format!(", {} {why}", count(*n))).collect()
}

fn pair_line(pair: &PairRow) -> String {
    let show = |end: &Endpoint| match end {
        Endpoint::Inet(address) => address.to_string(),
        Endpoint::Unix(name) if name.is_empty() => "(unnamed)".into(),
        Endpoint::Unix(name) => name.clone(),
    };
    let client = match pair.tid {
        Some(tid) => format!("fd {} of thread {tid}", pair.fd),
        None => format!("fd {}", pair.fd),
    };
    let server = pair.server.and_then(|s| Some((s.pid?, s.tid?, s.fd?)));
    let ends = match server {
        Some((pid, tid, fd)) if pid == tid => format!("{client} ↔ fd {fd} of pid {pid}"),
        Some((_, tid, fd)) => format!("{client} ↔ fd {fd} of thread {tid}"),
        None => client,
    };
    let (local, remote) = (show(&pair.local), show(&pair.remote));
    field("pair", &format!("{local} → {remote}  ({ends})"))
}
