//! The document on stdout: a table, JSON, NDJSON, CSV, metrics.

use std::io::{self, BufWriter, IsTerminal, Write};

use super::args::Format;
use super::document::{Document, MeasuredDoc, RowDoc, RowKind};
use crate::cli::output::Output;
use crate::host::ceilings::{Bounds, Side, Unit};
use crate::host::need::Need;
use crate::host::remedy::Place;
use crate::render::document::{csv_error, ndjson};
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::render::{bytes, count, escaped, plural};
use crate::sockets::egress::Egress;

/// Cells of a bar.
const BAR: u64 = 10;

/// Prints the document; `subject` is whose limits they are.
pub(super) fn print(
    document: &Document,
    subject: &str,
    format: Format,
    output: Output,
) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, document)?;
            writeln!(out)?;
        }
        Format::Ndjson => {
            document.ceilings.iter().try_for_each(|row| ndjson(&mut out, row))?;
        }
        Format::Csv => csv(&mut out, &document.ceilings)?,
        Format::Openmetrics => super::metrics::write(&mut out, document)?,
        Format::Table => {
            let shape =
                Shape { bars: io::stdout().is_terminal(), sources: output.verbose };
            text(&mut out, document, subject, shape)?;
        }
    }
    out.flush()
}

fn csv(out: &mut impl Write, rows: &[RowDoc]) -> io::Result<()> {
    const KEYS: [&str; 15] = [
        "name",
        "kind",
        "value",
        "in_use",
        "room",
        "unit",
        "bounds",
        "side",
        "fits",
        "source",
        "now",
        "persistent",
        "needs_root",
        "text",
        "note",
    ];
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(KEYS).map_err(csv_error)?;
    for row in rows {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let remedy = row.remedy.as_ref();
        let of_remedy = |pick: fn(&crate::host::remedy::Remedy) -> String| {
            remedy.map(pick).unwrap_or_default()
        };
        csv.write_record([
            row.name.clone(),
            word(&row.kind),
            number(row.value),
            number(row.in_use),
            number(row.room),
            word(&row.unit),
            word(&row.bounds),
            word(&row.side),
            row.fits.map(|fits| fits.to_string()).unwrap_or_default(),
            row.source.clone(),
            of_remedy(|remedy| remedy.now.clone()),
            of_remedy(|remedy| remedy.persistent.clone()),
            of_remedy(|remedy| remedy.needs_root.to_string()),
            text(&row.text),
            text(&row.note),
        ])
        .map_err(csv_error)?;
    }
    csv.flush()
}

/// The word that a value is in JSON; empty for null.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// How a table is laid out.
#[derive(Debug, Clone, Copy)]
struct Shape {
    bars: bool,
    sources: bool,
}

fn text(
    out: &mut impl Write,
    document: &Document,
    subject: &str,
    shape: Shape,
) -> io::Result<()> {
    writeln!(out, "{}", headline(document, subject))?;
    table(out, &document.ceilings, shape)?;
    settings(out, &document.ceilings)?;
    unread(out, &document.ceilings)?;
    for to in document.egress.iter().flatten() {
        egress(out, to)?;
    }
    if let Some(measured) = &document.measured {
        measurements(out, measured)?;
    }
    document.need.as_ref().map_or(Ok(()), |need| needed(out, need))
}

/// `room for 1,020 connections from this shell; the first to bind: RLIMIT_NOFILE soft`
fn headline(document: &Document, subject: &str) -> String {
    let hidden = |row: &RowDoc| row.kind == RowKind::Unread;
    let unknown = document.ceilings.iter().filter(|row| hidden(row)).count() as u64;
    let (most, more) = match unknown {
        0 => ("", String::new()),
        n => ("at most ", format!(" ({} could not be read)", plural(n, "ceiling"))),
    };
    match (&document.binding, document.room) {
        (Some(name), Some(room)) => format!(
            "room for {most}{} {subject}; the first to bind: {}{more}",
            plural(room, "connection"),
            escaped(name)
        ),
        _ => format!("no ceiling on connections {subject} could be read"),
    }
}

/// What the rows behind the first ones bound.
fn title(bounds: Bounds) -> &'static str {
    match bounds {
        Bounds::Connections => "connections held",
        Bounds::Threads => "where each connection has a thread or a process",
        Bounds::Traffic => "connections with data under way",
        Bounds::AcceptQueue => "connections that nobody has accepted yet",
        Bounds::Closed => "connections that are over",
        Bounds::NextStart => "what systemd starts",
    }
}

fn table(out: &mut impl Write, rows: &[RowDoc], shape: Shape) -> io::Result<()> {
    let mut columns = vec![
        ("CEILING", Align::Left),
        ("VALUE", Align::Right),
        ("IN USE", Align::Right),
        ("ROOM", Align::Right),
        ("SIDE", Align::Left),
        ("RAISE", Align::Left),
    ];
    if shape.bars {
        columns.insert(4, ("USED", Align::Left));
    }
    if shape.sources {
        columns.insert(columns.len() - 1, ("SOURCE", Align::Left));
    }
    let headings = columns
        .into_iter()
        .map(|(title, align)| Heading { title: title.to_owned(), align })
        .collect();
    let mut table = StreamTable::new(out, headings, true);
    let rows: Vec<&RowDoc> =
        rows.iter().filter(|row| row.kind == RowKind::Ceiling).collect();
    for (i, row) in rows.iter().enumerate() {
        let next = rows.get(i + 1).filter(|next| next.bounds != row.bounds);
        let below = next.and_then(|next| next.bounds).map(title);
        let below = below.map(|title| format!("{title}:\n")).unwrap_or_default();
        table.row(&cells(row, shape), &below)?;
    }
    table.finish().map(drop)
}

fn cells(row: &RowDoc, shape: Shape) -> Cells {
    let is_bytes = row.unit == Some(Unit::Bytes);
    let number = |n: Option<u64>| match n {
        Some(n) if is_bytes => bytes(n),
        Some(n) => count(n),
        None => "?".to_owned(),
    };
    let unlimited = row.text.is_some();
    let fits = row.fits != Some(false);
    let mut cells = Cells::default();
    let mut cell = |text: &str| cells.push(|to| to.push_str(text));
    cell(&escaped(&row.name));
    cell(&if unlimited { "unlimited".to_owned() } else { number(row.value) });
    cell(&number(row.in_use));
    let room = row.room.map_or("unlimited".to_owned(), count);
    cell(&if fits { room } else { format!("{room} !") });
    if shape.bars {
        cell(&bar(row.value, row.in_use));
    }
    cell(match row.side {
        Some(Side::Client) => "client",
        Some(Side::Server) => "server",
        Some(Side::Both) => "both",
        _ => "either",
    });
    if shape.sources {
        cell(&escaped(&row.source));
    }
    let remedy = row.remedy.clone().unwrap_or_default();
    // What fits needs no remedy.
    cell(&match row.fits {
        Some(true) => String::new(),
        _ => escaped(&remedy.typed()),
    });
    cells
}

/// How much of a ceiling is used: `███·······`.
fn bar(value: Option<u64>, in_use: Option<u64>) -> String {
    let Some((value, in_use)) = value.zip(in_use) else { return String::new() };
    let share = u128::from(in_use.min(value)) * u128::from(BAR);
    let full = share.div_ceil(u128::from(value.max(1)));
    let full = usize::try_from(full).unwrap_or(0);
    let all = usize::try_from(BAR).unwrap_or(0);
    format!("{}{}", "█".repeat(full), "·".repeat(all.saturating_sub(full)))
}

fn lines_of(
    out: &mut impl Write,
    title: &str,
    rows: impl Iterator<Item = [String; 3]>,
) -> io::Result<()> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "\n{title}:")?;
    let column = || Heading { title: String::new(), align: Align::Left };
    let mut table = StreamTable::new(out, vec![column(), column(), column()], false);
    for row in rows {
        let mut cells = Cells::default();
        row.iter().for_each(|text| cells.push(|to| to.push_str(text)));
        table.row(&cells, "")?;
    }
    table.finish().map(drop)
}

fn settings(out: &mut impl Write, rows: &[RowDoc]) -> io::Result<()> {
    let rows = rows.iter().filter(|row| row.kind == RowKind::Setting).map(|row| {
        let text = |text: &Option<String>| escaped(text.as_deref().unwrap_or_default());
        [escaped(&row.name), text(&row.text), text(&row.note)]
    });
    lines_of(out, "settings", rows)
}

fn unread(out: &mut impl Write, rows: &[RowDoc]) -> io::Result<()> {
    let of = |kind: RowKind| {
        rows.iter().filter(move |row| row.kind == kind).map(|row| {
            let why = escaped(row.note.as_deref().unwrap_or_default());
            [escaped(&row.name), why, escaped(&row.source)]
        })
    };
    lines_of(out, "not read", of(RowKind::Unread))?;
    lines_of(out, "not here", of(RowKind::Absent))
}

fn egress(out: &mut impl Write, to: &Egress) -> io::Result<()> {
    let size = count(to.port_range_size);
    writeln!(out, "\nsource ports to {}:", to.to)?;
    if to.sources.is_empty() {
        writeln!(out, "  no route there from this host")?;
    }
    for source in &to.sources {
        let default = if source.is_default { " (default)" } else { "" };
        writeln!(
            out,
            "  from {}{default}: {} in use, {} of them in TIME-WAIT; {} of {size} left; \
             {} when bound by the program",
            source.from,
            count(source.in_use),
            count(source.time_wait),
            count(source.left),
            count(source.left_bound),
        )?;
        for user in &source.by {
            let name = escaped(&user.name);
            let who = user.pid.map_or(name.clone(), |pid| format!("{name}[{pid}]"));
            writeln!(out, "  {:>9}  {who}", count(user.ports))?;
        }
    }
    if to.unreadable_processes > 0 {
        let processes = count(to.unreadable_processes);
        writeln!(out, "  the descriptors of {processes} processes could not be read")?;
    }
    Ok(())
}

fn measurements(out: &mut impl Write, measured: &MeasuredDoc) -> io::Result<()> {
    writeln!(out)?;
    if let Some(memory) = &measured.memory {
        let [least, most] = memory.spread_bytes;
        writeln!(
            out,
            "an idle connection takes {} bytes of kernel memory at both ends together \
             (median; {} to {}; {} pairs; {})",
            count(memory.pair_bytes),
            count(least),
            count(most),
            count(memory.pairs),
            memory.source
        )?;
    }
    let Some(fds) = &measured.fds else { return Ok(()) };
    let tables = fds.tables.len() as u64;
    let errno = fds.errno.as_deref().map(|errno| format!(", {errno}"));
    writeln!(
        out,
        "{} opened in {}; stopped by {}{}",
        plural(fds.opened, "descriptor"),
        plural(tables, "fd table"),
        fds.stopped_by,
        errno.unwrap_or_default()
    )?;
    if let Some(each) = fds.kernel_bytes_each {
        writeln!(out, "each takes {each:.0} bytes of kernel memory (a TCP socket)")?;
    }
    for (i, table) in fds.tables.iter().enumerate().take(8) {
        let highest = table.highest.map_or("none".to_owned(), |n| n.to_string());
        let errno = table.errno.as_deref().unwrap_or("not refused");
        let opened = count(table.opened);
        writeln!(
            out,
            "  table {}: {opened}, the highest number {highest}; {errno}",
            i + 1
        )?;
    }
    if tables > 8 {
        writeln!(out, "  and {} more", count(tables - 8))?;
    }
    Ok(())
}

fn needed(out: &mut impl Write, need: &Need) -> io::Result<()> {
    let n = plural(need.n, "connection");
    let verdict = if need.fits { "fits" } else { "does not fit" };
    writeln!(out, "\n{n} more: {verdict}")?;
    for short in &need.short {
        writeln!(out, "  {}: room for {}", escaped(&short.name), count(short.room))?;
    }
    for name in &need.unknown {
        writeln!(out, "  {}: not known", escaped(name))?;
    }
    let memory = &need.memory_bytes;
    let how = if memory.measured { "measured" } else { "documented" };
    writeln!(
        out,
        "  memory: {} at the client, {} at the server (kernel, idle; {} bytes an end, {how})",
        bytes(memory.client),
        bytes(memory.server),
        count(memory.end)
    )?;
    if let Some(hosts) = need.hosts {
        writeln!(out, "  hosts with this one's memory: {}", count(hosts))?;
    }
    if let Some((sources, ports)) = need.source_addresses.zip(need.destination_ports) {
        let (sources, ports) = (count(sources), count(ports));
        writeln!(out, "  source addresses: {sources}, or destination ports: {ports}")?;
    }
    for place in Place::ALL {
        let mut lines = need.lines.iter().filter(|line| line.place == place).peekable();
        if lines.peek().is_some() {
            writeln!(out, "# {}", place.title())?;
        }
        lines.try_for_each(|line| writeln!(out, "{}", escaped(&line.text)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_the_least_use_and_never_more_than_all() {
        assert_eq!(bar(Some(1_024), Some(4)), "█·········");
        assert_eq!(bar(Some(10), Some(0)), "··········");
        assert_eq!(bar(Some(10), Some(99)), "██████████");
        assert_eq!(bar(Some(10), None), "");
        assert_eq!(bar(Some(u64::MAX), Some(u64::MAX)), "██████████");
    }
}
