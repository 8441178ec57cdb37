//! Rows of listeners, in every format.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

use super::args::Format;
use crate::record::backlog::{ListenerDoc, OwnerDoc, SCHEMA};
use crate::render::count;
use crate::render::document::{JsonDocument, csv_error, ndjson};
use crate::render::openmetrics::{Exposition, Family, Kind};
use crate::render::table::{Align, Cells, Heading, StreamTable};

/// Prints rows on stdout.
pub(super) fn rows(
    rows: &[ListenerDoc],
    format: Format,
    shows_netns: bool,
) -> io::Result<()> {
    let out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Table => table(out, rows, shows_netns),
        Format::Json => {
            let mut document = JsonDocument::begin(out, SCHEMA, "listeners")?;
            rows.iter().try_for_each(|row| document.row(row))?;
            document.finish().map(drop)
        }
        Format::Ndjson => {
            let mut out = out;
            rows.iter().try_for_each(|row| ndjson(&mut out, row))?;
            out.flush()
        }
        Format::Csv => csv(out, rows),
        Format::Openmetrics => openmetrics(out, rows),
    }
}

fn table(out: impl Write, rows: &[ListenerDoc], shows_netns: bool) -> io::Result<()> {
    let heading = |title: &str, align| Heading { title: title.to_owned(), align };
    let mut headings = Vec::new();
    if shows_netns {
        headings.push(heading("Netns", Align::Left));
    }
    for title in ["Queue", "Peak", "Backlog", "Drops"] {
        headings.push(heading(title, Align::Right));
    }
    for title in ["Listener", "Process", ""] {
        headings.push(heading(title, Align::Left));
    }
    let mut table = StreamTable::new(out, headings, true);
    let mut cells = Cells::default();
    for row in rows {
        cells.clear();
        if shows_netns {
            cells.push(|to| to.push_str(row.netns.as_deref().unwrap_or_default()));
        }
        for number in [row.queue_len, row.queue_peak, row.effective_backlog] {
            cells.push(|to| to.push_str(&count(number)));
        }
        cells.push(|to| to.push_str(&row.drops.map_or_else(|| "-".to_owned(), count)));
        cells.push(|to| to.push_str(&row.address));
        cells.push(|to| to.push_str(&owner(row)));
        cells.push(|to| to.push_str(&note(row)));
        table.row(&cells, "")?;
    }
    table.finish().map(drop)
}

/// `node[4711] fd 18, 3 more`; without an owner, why.
pub(super) fn owner(row: &ListenerDoc) -> String {
    let Some(first) = row.owners.first() else {
        let why = row.no_owner.as_deref().unwrap_or_default();
        return match why {
            "not permitted" => format!("{why} (uid {})", row.uid),
            _ => why.to_owned(),
        };
    };
    let mut text = one_owner(first);
    if row.owners.len() > 1 {
        let _ = write!(text, ", {} more", row.owners.len() - 1);
    }
    text
}

fn one_owner(owner: &OwnerDoc) -> String {
    let OwnerDoc { pid, tid, comm, fd } = owner;
    match pid == tid {
        true => format!("{comm}[{pid}] fd {fd}"),
        false => format!("{comm}[{pid}] thread {tid} fd {fd}"),
    }
}

/// `FULL, +38 drops`: what asks to be looked at.
fn note(row: &ListenerDoc) -> String {
    let mut parts = Vec::new();
    if row.full {
        parts.push("FULL".to_owned());
    } else if row.queue_peak > row.effective_backlog {
        parts.push("was full".to_owned());
    }
    if let Some(drops) = row.drops_watched.filter(|n| *n > 0) {
        parts.push(format!("+{} drops", count(drops)));
    }
    parts.join(", ")
}

fn csv(out: impl Write, rows: &[ListenerDoc]) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record([
        "protocol",
        "address",
        "netns",
        "effective_backlog",
        "queue_len",
        "queue_peak",
        "drops",
        "drops_watched",
        "uid",
        "inode",
        "cookie",
        "owners",
        "no_owner",
    ])
    .map_err(csv_error)?;
    for row in rows {
        let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
        let owners: Vec<String> = row.owners.iter().map(one_owner).collect();
        csv.write_record([
            row.protocol.clone(),
            row.address.clone(),
            row.netns.clone().unwrap_or_default(),
            row.effective_backlog.to_string(),
            row.queue_len.to_string(),
            row.queue_peak.to_string(),
            number(row.drops),
            number(row.drops_watched),
            row.uid.to_string(),
            row.inode.to_string(),
            row.cookie.to_string(),
            owners.join(", "),
            row.no_owner.clone().unwrap_or_default(),
        ])
        .map_err(csv_error)?;
    }
    csv.flush()
}

/// Queue, backlog and drops of each listener. Those that share an address are told apart
/// by `member`, in the order in which they were made.
fn openmetrics(out: impl Write, rows: &[ListenerDoc]) -> io::Result<()> {
    let mut ordered: Vec<&ListenerDoc> = rows.iter().collect();
    ordered.sort_by_key(|row| (&row.netns, &row.protocol, &row.address, row.inode));
    let mut members: HashMap<_, u64> = HashMap::new();
    let labelled: Vec<(Vec<(&str, String)>, &ListenerDoc)> = ordered
        .into_iter()
        .map(|row| {
            let member = members.entry((&row.netns, &row.address)).or_insert(0);
            let mut labels = vec![
                ("address", row.address.clone()),
                ("protocol", row.protocol.clone()),
                ("member", member.to_string()),
            ];
            *member += 1;
            labels.extend(row.netns.clone().map(|netns| ("netns", netns)));
            let process = row.owners.first().map(|owner| owner.comm.clone());
            labels.extend(process.map(|comm| ("process", comm)));
            (labels, row)
        })
        .collect();
    let mut text = Exposition::new(out);
    type Value = fn(&ListenerDoc) -> Option<u64>;
    let families: [(Family, Value); 3] = [
        (
            Family {
                name: "sockscope_listener_queue_connections",
                kind: Kind::Gauge,
                unit: "connections",
                help: "Connections in the accept queue.",
            },
            |row| Some(row.queue_len),
        ),
        (
            Family {
                name: "sockscope_listener_backlog_connections",
                kind: Kind::Gauge,
                unit: "connections",
                help: "The effective backlog; the queue admits one more.",
            },
            |row| Some(row.effective_backlog),
        ),
        (
            Family {
                name: "sockscope_listener_dropped_packets",
                kind: Kind::Counter,
                unit: "packets",
                help: "SYNs and last ACKs of handshakes that the listener dropped.",
            },
            |row| row.drops,
        ),
    ];
    for (family, value) in families {
        text.family(family)?;
        for (labels, row) in &labelled {
            let Some(value) = value(row) else { continue };
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, label)| (*name, label.as_str())).collect();
            text.sample(&labels, value)?;
        }
    }
    text.finish().map(drop)
}
