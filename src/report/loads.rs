//! What became of a burst, of a search for the deepest, and of a freeze, as tables.

use super::page::{Block, Section, Table};
use crate::record::backlog::{
    BacklogDoc, BurstDoc, FindDoc, FreezeDoc, ProcessDoc, TryDoc,
};
use crate::render::{count, rate, seconds};

/// The section; None of a watch, which has no load.
pub(super) fn section(document: &BacklogDoc) -> Option<Section> {
    if let Some(freeze) = &document.freeze {
        let table = of_freeze(freeze);
        return Some(Section { id: "freeze", title: "The freeze", blocks: vec![table] });
    }
    if let Some(find) = &document.find {
        let blocks = vec![tries(find), Block::Text(why_it_ended(find))];
        return Some(Section { id: "tries", title: "The bursts", blocks });
    }
    let burst = document.burst.as_ref()?;
    let blocks = vec![became(burst), queue(burst)];
    Some(Section { id: "burst", title: "The burst", blocks })
}

/// Each dial once, by what it came to.
fn became(burst: &BurstDoc) -> Block {
    let mut rows = vec![("established at once".to_owned(), burst.at_once)];
    rows.extend(
        burst
            .delayed_in_order()
            .into_iter()
            .map(|(after, n)| (format!("established after {after} s"), n)),
    );
    let ends = [
        ("refused", burst.refused),
        ("never answered", burst.never),
        ("reset after it was established", burst.reset),
        ("closed by the server", burst.closed),
    ];
    rows.extend(ends.into_iter().filter(|end| end.1 > 0).map(|(e, n)| (e.to_owned(), n)));
    rows.extend(burst.errors.iter().map(|(name, n)| (format!("error {name}"), *n)));
    let rows = rows.into_iter().map(|(what, n)| vec![what, count(n)]).collect();
    Block::Table(Table {
        caption: format!(
            "What became of {} dials in {:.1} ms",
            count(burst.dialed),
            burst.dialed_in_ms
        ),
        headings: vec!["outcome".into(), "dials".into()],
        numeric: vec![false, true],
        rows,
    })
}

/// Where the established ones are, and what the queue does with them.
fn queue(burst: &BurstDoc) -> Block {
    let drains = burst.drains_per_s.map(|per_s| match per_s {
        none if none <= 0.0 => "not at all: nothing was accepted".to_owned(),
        per_s if burst.drains_at_least => format!("at least {}", rate(per_s)),
        per_s => rate(per_s),
    });
    let least = if burst.depth_at_least { "at least " } else { "" };
    let by = match burst.confirmed_by.as_str() {
        "server_table" => "confirmed, by the server's own table",
        _ => "confirmed, by this side alone",
    };
    pairs(
        "Where they are",
        vec![
            (by, count(burst.confirmed)),
            ("of these accepted", seen(burst.accepted)),
            ("of these in the accept queue", seen(burst.queued)),
            ("of these waiting for a first byte", count(burst.deferred)),
            ("phantoms", count(burst.phantoms)),
            ("of these by SYN cookies", count(burst.phantoms_cookie)),
            ("of these with a request socket", count(burst.phantoms_request_socket)),
            ("in the queue before the first dial", seen(burst.queued_before)),
            ("dropped at the listeners", seen(burst.drops)),
            ("depth without loss", format!("{least}{}", count(burst.depth))),
            ("the queue drains", drains.unwrap_or_else(|| "not seen".into())),
        ],
    )
}

fn tries(find: &FindDoc) -> Block {
    let row = |one: &TryDoc| {
        let drained = one.drained_in_ms.map_or_else(
            || "not seen".to_owned(),
            |took| match took {
                short if short < 1e3 => format!("{short:.1} ms"),
                long => seconds(long / 1e3),
            },
        );
        vec![count(one.dialed), count(one.lost), drained]
    };
    Block::Table(Table {
        caption: "Bursts, in the order in which they were made".into(),
        headings: ["dials at once", "lost", "drained in"].map(Into::into).into(),
        numeric: vec![true; 3],
        rows: find.tries.iter().map(row).collect(),
    })
}

fn why_it_ended(find: &FindDoc) -> String {
    let why = match find.ended.as_str() {
        "found" => "the deepest burst without loss was found",
        "bound" => "no burst up to the bound lost anything",
        "not_draining" => "the queue did not drain between bursts",
        "interrupted" => "it was interrupted",
        other => other,
    };
    match find.queued_before.filter(|n| *n > 0) {
        Some(n) => format!(
            "It ended because {why}. {} stood in the queue before the first.",
            count(n)
        ),
        None => format!("It ended because {why}."),
    }
}

fn of_freeze(freeze: &FreezeDoc) -> Block {
    let ended = match freeze.ended.as_str() {
        "full" => "the queue was full",
        "deferred" => "the server waits for a first byte (TCP_DEFER_ACCEPT)",
        "unanswered" => "dials were not answered before the queue was full",
        "time_over" => "the time was over",
        "continued" => "another process continued the server",
        "interrupted" => "it was interrupted",
        other => other,
    };
    let names = |of: &[ProcessDoc]| {
        let names = of.iter().map(|one| format!("{}[{}]", one.comm, one.pid));
        names.collect::<Vec<_>>().join(", ")
    };
    let mut rows = vec![
        ("admitted", seen(freeze.admitted)),
        ("min(backlog, somaxconn) + 1", count(freeze.expected)),
        ("ended", ended.to_owned()),
        ("in the queue when it was stopped", count(freeze.queued_before)),
        ("in the queue at the end", count(freeze.queued)),
        ("dials", count(freeze.dialed)),
        ("of these established", count(freeze.established)),
        ("stopped for", format!("{} ms", count(freeze.stopped_ms))),
        ("stopped and continued", names(&freeze.stopped)),
    ];
    if !freeze.stopped_before.is_empty() {
        rows.push(("stopped already, left so", names(&freeze.stopped_before)));
    }
    pairs("The server stopped, and its queue filled", rows)
}

fn pairs(caption: &str, rows: Vec<(&str, String)>) -> Block {
    let rows = rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Block::Table(Table::of_pairs(caption, rows))
}

fn seen(n: Option<u64>) -> String {
    n.map_or_else(|| "out of sight".to_owned(), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(block: &Block) -> Vec<String> {
        let Block::Table(table) = block else { panic!("no table: {block:?}") };
        table.rows.iter().map(|row| row.join(" | ")).collect()
    }

    #[test]
    fn each_dial_of_a_burst_is_in_one_row_in_the_order_of_time() {
        let burst = BurstDoc {
            dialed: 300,
            at_once: 130,
            delayed: [("10s".to_owned(), 5), ("2s".to_owned(), 165)].into(),
            drains_per_s: Some(0.0),
            queued: None,
            ..BurstDoc::default()
        };
        let document = BacklogDoc { burst: Some(burst), ..BacklogDoc::default() };
        let section = section(&document).unwrap();
        assert_eq!(
            rows(&section.blocks[0]),
            [
                "established at once | 130",
                "established after 2 s | 165",
                "established after 10 s | 5",
            ]
        );
        let queue = rows(&section.blocks[1]).join("\n");
        assert!(queue.contains("accept queue | out of sight"), "{queue}");
        assert!(queue.contains("drains | not at all"), "{queue}");
    }

    #[test]
    fn tries_and_freezes_have_tables_and_a_watch_has_none() {
        let tries = vec![
            TryDoc { dialed: 128, lost: 0, drained_in_ms: Some(0.5) },
            TryDoc { dialed: 256, lost: 127, drained_in_ms: None },
        ];
        let find = FindDoc { tries, ended: "bound".into(), ..FindDoc::default() };
        let found =
            section(&BacklogDoc { find: Some(find), ..BacklogDoc::default() }).unwrap();
        assert_eq!(rows(&found.blocks[0]), ["128 | 0 | 0.5 ms", "256 | 127 | not seen"]);
        let freeze = FreezeDoc {
            admitted: None,
            ended: "deferred".into(),
            stopped: vec![ProcessDoc { pid: 7, comm: "nginx".into() }],
            ..FreezeDoc::default()
        };
        let document = BacklogDoc { freeze: Some(freeze), ..BacklogDoc::default() };
        let frozen = rows(&section(&document).unwrap().blocks[0]).join("\n");
        for part in ["admitted | out of sight", "TCP_DEFER_ACCEPT", "nginx[7]"] {
            assert!(frozen.contains(part), "{part}: {frozen}");
        }
        assert_eq!(section(&BacklogDoc::default()), None);
    }
}
