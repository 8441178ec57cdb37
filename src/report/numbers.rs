//! What was counted, and what it cost.

use super::page::{Block, Section, Table};
use super::text;
use crate::record::{Latency, Run};
use crate::render::{bytes, count, micros, plural, rate, seconds};

/// What stands in the report.
pub(super) fn section(run: &Run) -> Section {
    let blocks = vec![
        Block::Text(format!("{}.", text::counted(run))),
        Block::Table(counts(run)),
        Block::Table(latencies(run)),
        Block::Table(sides(run)),
    ];
    Section { id: "numbers", title: "Numbers", blocks }
}

fn known(n: Option<u64>) -> String {
    n.map_or_else(|| "not checked".to_owned(), count)
}

fn counts(run: &Run) -> Table {
    let (r, c) = (&run.result, &run.result.counts);
    let mut rows = vec![
        ("held at the most".to_owned(), count(r.held_peak)),
        ("dialed".to_owned(), count(c.dialed)),
        ("established".to_owned(), count(c.established)),
        ("confirmed".to_owned(), known(c.confirmed)),
        ("accepted".to_owned(), known(c.accepted)),
        ("served".to_owned(), known(c.served)),
        ("in the accept queue".to_owned(), known(c.queued)),
        ("deferred".to_owned(), known(c.deferred)),
        ("phantoms".to_owned(), known(r.phantoms.total)),
    ];
    let of_kind = [
        ("phantoms: half-open", r.phantoms.request_socket),
        ("phantoms: SYN cookies", r.phantoms.cookie),
    ];
    rows.extend(of_kind.into_iter().filter_map(|(k, n)| Some((k.to_owned(), count(n?)))));
    rows.extend(
        r.unserved.iter().map(|(why, n)| (format!("not served: {why}"), count(*n))),
    );
    rows.extend(r.errors.iter().map(|(why, n)| (format!("failed: {why}"), count(*n))));
    if let Some(ended) = &r.ended {
        rows.push((
            "ended by the server".to_owned(),
            format!(
                "{}; silent for {} ms (median; p10 {}, p90 {})",
                count(ended.connections),
                count(ended.p50_ms),
                count(ended.p10_ms),
                count(ended.p90_ms)
            ),
        ));
    }
    if let Some(sure) = &r.confirmation {
        rows.push((
            "round trips lost".to_owned(),
            format!(
                "{:.2} %; one connection is counted wrongly with probability {:.2e} or less",
                100.0 * sure.round_trip_loss,
                sure.error_probability
            ),
        ));
    }
    rows.push(("rate".to_owned(), rate(r.rate_per_s)));
    rows.push(("took".to_owned(), seconds(r.duration_s)));
    numeric(Table::of_pairs("Counted at the peak", rows))
}

fn latencies(run: &Run) -> Table {
    let row = |name: &str, latency: &Option<Latency>| {
        let l = latency.as_ref()?;
        let cells = [l.p50, l.p90, l.p99, l.p999, l.max].map(micros);
        Some(std::iter::once(name.to_owned()).chain(cells).collect())
    };
    let r = &run.result;
    let rows = [row("connect", &r.connect_latency_us), row("reply", &r.reply_latency_us)];
    Table {
        caption: "Latencies".into(),
        headings: ["of", "p50", "p90", "p99", "p99.9", "max"].map(Into::into).into(),
        numeric: vec![false, true, true, true, true, true],
        rows: rows.into_iter().flatten().collect(),
    }
}

/// Descriptors and memory of both sides, at the peak.
fn sides(run: &Run) -> Table {
    let (fds, memory) = (&run.result.fds, &run.result.memory);
    let unseen = || "not seen".to_owned();
    let server = fds.server_open.map_or_else(unseen, |open| {
        let limit =
            fds.server_limit.map_or_else(String::new, |n| format!(" of {}", count(n)));
        let tables = fds.server_tables.filter(|n| *n > 1).map_or_else(String::new, |n| {
            format!(", in the fullest of {}", plural(n.into(), "table"))
        });
        format!("{}{limit}{tables}", count(open))
    });
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let kernel = memory
        .kernel_bytes_per_socket
        .map_or_else(|| "not measured".to_owned(), |n| bytes(n.round().max(0.0) as u64));
    Table::of_pairs(
        "Both sides at the peak",
        vec![
            ("descriptors of the server".into(), server),
            (
                "descriptors of the client".into(),
                format!(
                    "{} in {} of {} each",
                    count(fds.client_open),
                    plural(fds.client_tables.into(), "table"),
                    count(fds.client_limit)
                ),
            ),
            ("memory of the client's process".into(), bytes(memory.client_rss_bytes)),
            ("kernel memory of a socket".into(), kernel),
        ],
    )
}

fn numeric(table: Table) -> Table {
    Table { numeric: vec![false, true], ..table }
}
