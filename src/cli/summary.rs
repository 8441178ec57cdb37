//! The end of a probe as a person reads it: one screen.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use super::output::Output;
use crate::probe::run::Outcome;
use crate::record::{Confidence, Endpoint, Level, PairRow, Run};
use crate::render::{bytes, count, micros, plural, rate, seconds};
use crate::verdict::Code;

/// Prints the summary; `folder` is where the record is.
pub(super) fn print(
    outcome: &Outcome,
    folder: Option<&Path>,
    output: &Output,
) -> io::Result<()> {
    let style = Style { color: output.colors_stdout() };
    let mut text = headline(&outcome.run, style);
    text.extend(verdict(&outcome.run, style));
    text.extend(numbers(&outcome.run));
    text.extend(outcome.example.as_ref().map(pair_line));
    text.extend(folder.map(|path| record_line(&outcome.run, path)));
    let width = width();
    let mut out = io::stdout().lock();
    for line in &text {
        match width {
            // A remedy is there to be pasted.
            Some(width)
                if !outcome.run.verdict.remedy.iter().any(|r| line.ends_with(r)) =>
            {
                writeln!(out, "{}", wrapped(line, width))?;
            }
            _ => writeln!(out, "{line}")?,
        }
    }
    out.flush()
}

/// Where the record is, or that it is not.
fn record_line(run: &Run, folder: &Path) -> String {
    let written = |code: &str| run.warnings.iter().all(|warning| warning.code != code);
    let folder = folder.display();
    match (written("run_json"), written("sockets_csv")) {
        (true, true) => field("record", &format!("{folder}/run.json and sockets.csv")),
        (true, false) => field("record", &format!("{folder}/run.json")),
        (false, _) => field("record", "not written"),
    }
}

/// The columns that lines may take on a terminal; elsewhere a fact is a line.
fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col).max(60))
}

/// `line` broken at spaces, so that it fits; what goes on begins where its value does.
fn wrapped(line: &str, width: usize) -> String {
    let indent = match line.find("  ") {
        Some(0) => 4,
        Some(_) => 11,
        None => 2,
    };
    let mut text = String::with_capacity(line.len() + 16);
    let mut column = 0;
    for part in line.split_inclusive(' ') {
        let long = part.trim_end().chars().count();
        if column + long > width && column > indent {
            text.truncate(text.trim_end().len());
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        }
        text.push_str(part);
        column += part.chars().count();
    }
    text
}

/// Whether and how words stand out.
#[derive(Clone, Copy)]
struct Style {
    color: bool,
}

impl Style {
    fn strong(self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn field(name: &str, value: &str) -> String {
    format!("{name:<9}  {value}")
}

fn headline(run: &Run, style: Style) -> Vec<String> {
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
    let target = if run.target.given == run.target.address || run.target.embedded {
        run.target.address.clone()
    } else {
        format!("{} ({})", run.target.address, run.target.given)
    };
    let held = match r.practical_max {
        0 => String::new(),
        _ if run.verdict.code == Code::Interrupted.as_str() => String::new(),
        _ => format!("; held {}", seconds(run.plan.hold_s)),
    };
    let embedded =
        if run.target.embedded { ", a reference server of this probe" } else { "" };
    vec![
        format!("target             {target}{embedded}"),
        format!(
            "practical maximum  {}  ({how}{held})",
            style.strong(&plural(r.practical_max, "connection"))
        ),
    ]
}

fn verdict(run: &Run, style: Style) -> Vec<String> {
    let v = &run.verdict;
    let mut lines = vec![
        format!("stopped by         {}, {}", style.strong(&v.code), v.confidence.name()),
        format!("  {}", v.summary),
    ];
    let wide = |of: fn(&crate::record::Fact) -> &str| {
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
fn counted(run: &Run) -> String {
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

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn what_does_not_fit_goes_on_below_its_value() {
        let line = "counted    24,600 dialed = 19,989 accepted + 4,097 queued";
        assert_eq!(wrapped(line, 80), line);
        let broken =
            "counted    24,600 dialed = 19,989\n           accepted + 4,097 queued";
        assert_eq!(wrapped(line, 35), broken);
        assert_eq!(wrapped("  It has no spare one.", 14), "  It has no\n    spare one.");
    }
}
