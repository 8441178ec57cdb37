//! `-s`: how many sockets there are of each kind.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use super::args::{Args, Format, Letters};
use super::closed_pipe_is_fine;
use super::metrics;
use super::visit::Visit;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::host::ProcRoot;
use crate::host::socket_counts::{ByVersion, SocketCounts};
use crate::kernel::sock_diag::{Family, InetRequest, SockDiag};
use crate::render::document::csv_error;
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::render::{bytes, count};
use crate::sockets::model::States;
use crate::sockets::namespaces::Places;

/// What the document says that it is.
const SCHEMA: &str = "sockscope.summary/1";

/// Counts the sockets of a namespace and prints how many there are.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    let letters = &args.letters;
    let harmless =
        Letters { numeric: false, no_header: false, oneline: false, ..letters.clone() };
    if harmless.any() {
        return Err(Failure::usage(
            "-s counts every kind and state at once: of ss's letters it takes -n, -H and \
             -O alone",
        ));
    }
    let format = if args.json { Format::Json } else { args.format };
    if format == Format::Openmetrics {
        return Err(Failure::usage(metrics::FORM));
    }
    let root = ProcRoot::new(&args.proc_root);
    let visit = match &args.netns {
        Some(spec) => {
            let places = Places { proc: root.clone(), ..Places::default() };
            Visit::named(&places, spec)?
        }
        None => Visit::Here,
    };
    let is_this_host = args.proc_root == Path::new("/proc");
    closed_pipe_is_fine(visit.each(&output, &mut |_| {
        let counts = SocketCounts::read(&root).map_err(io::Error::other)?;
        // The sockets of another tree are not those of this kernel.
        let listening = if is_this_host { listening().ok() } else { None };
        let summary = Summary { counts, listening };
        let out = BufWriter::new(io::stdout().lock());
        match format {
            Format::Table => summary.table(out, !letters.no_header),
            Format::Csv => summary.csv(out, !letters.no_header),
            Format::Json | Format::Ndjson => summary.json(out),
            Format::Openmetrics => Err(metrics::none_of_rows()),
        }
    }))
}

/// TCP sockets that listen: a dump of these alone walks no connections.
fn listening() -> io::Result<u64> {
    let mut diag = SockDiag::open()?;
    let mut n = 0;
    for family in [Family::V4, Family::V6] {
        diag.inet(&InetRequest::tcp(family, States::LISTEN), |_| n += 1)?;
    }
    Ok(n)
}

struct Summary {
    counts: SocketCounts,
    /// TCP; None where it cannot be asked.
    listening: Option<u64>,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    sockets: u64,
    tcp: TcpDoc,
    #[serde(skip_serializing_if = "Option::is_none")]
    mptcp: Option<VersionsDoc>,
    udp: VersionsDoc,
    udplite: VersionsDoc,
    #[serde(skip_serializing_if = "Option::is_none")]
    sctp: Option<VersionsDoc>,
    raw: VersionsDoc,
    #[serde(skip_serializing_if = "Option::is_none")]
    ping: Option<VersionsDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<UnixDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netlink: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<u64>,
    fragments: FragmentsDoc,
    machine: MachineDoc,
}

#[derive(Serialize)]
struct VersionsDoc {
    total: u64,
    ipv4: u64,
    ipv6: u64,
}

#[derive(Serialize)]
struct TcpDoc {
    #[serde(flatten)]
    versions: VersionsDoc,
    established: u64,
    listening: Option<u64>,
    other: Option<u64>,
    time_wait: u64,
}

#[derive(Serialize)]
struct UnixDoc {
    total: u64,
    stream: u64,
    datagram_or_seqpacket: u64,
}

#[derive(Serialize)]
struct FragmentsDoc {
    #[serde(flatten)]
    versions: VersionsDoc,
    memory_bytes: u64,
}

/// What the kernel counts for the whole machine, whatever the namespace.
#[derive(Serialize)]
struct MachineDoc {
    tcp_orphaned: u64,
    tcp_allocated: u64,
    tcp_memory_bytes: u64,
    udp_memory_bytes: u64,
}

impl From<ByVersion> for VersionsDoc {
    fn from(of: ByVersion) -> Self {
        Self { total: of.total(), ipv4: of.v4, ipv6: of.v6 }
    }
}

/// A line of the table and of CSV.
struct Line {
    kind: &'static str,
    total: u64,
    versions: Option<ByVersion>,
    note: String,
}

impl Summary {
    /// TCP sockets that neither listen nor are established: dialing or closing.
    fn tcp_other(&self) -> Option<u64> {
        let known = self.counts.tcp_established.saturating_add(self.listening?);
        Some(self.counts.tcp.total().saturating_sub(known))
    }

    fn json(&self, mut out: impl Write) -> io::Result<()> {
        let SocketCounts { tcp, others, machine, .. } = self.counts;
        let document = Document {
            schema: SCHEMA,
            sockets: self.counts.all,
            tcp: TcpDoc {
                versions: tcp.into(),
                established: self.counts.tcp_established,
                listening: self.listening,
                other: self.tcp_other(),
                time_wait: self.counts.tcp_time_wait,
            },
            mptcp: others.map(|others| others.mptcp.into()),
            udp: self.counts.udp.into(),
            udplite: self.counts.udplite.into(),
            sctp: others.map(|others| others.sctp.into()),
            raw: self.counts.raw.into(),
            ping: others.map(|others| others.ping.into()),
            unix: others.map(|others| UnixDoc {
                total: others.unix_stream.saturating_add(others.unix_other),
                stream: others.unix_stream,
                datagram_or_seqpacket: others.unix_other,
            }),
            packet: others.map(|others| others.packet),
            netlink: others.map(|others| others.netlink),
            other: others.map(|_| self.counts.rest()),
            fragments: FragmentsDoc {
                versions: self.counts.fragments.into(),
                memory_bytes: self.counts.fragments_bytes,
            },
            machine: MachineDoc {
                tcp_orphaned: machine.tcp_orphans,
                tcp_allocated: machine.tcp_allocated,
                tcp_memory_bytes: machine.tcp_memory_bytes,
                udp_memory_bytes: machine.udp_memory_bytes,
            },
        };
        serde_json::to_writer(&mut out, &document)?;
        writeln!(out)?;
        out.flush()
    }

    fn lines(&self) -> Vec<Line> {
        let counts = &self.counts;
        let by = |kind, versions: ByVersion, note| Line {
            kind,
            total: versions.total(),
            versions: Some(versions),
            note,
        };
        let alone = |kind, total, note| Line { kind, total, versions: None, note };
        let mut lines = vec![by("tcp", counts.tcp, self.tcp_note())];
        lines.extend(counts.others.map(|o| by("mptcp", o.mptcp, String::new())));
        lines.push(by("udp", counts.udp, String::new()));
        lines.push(by("udplite", counts.udplite, String::new()));
        lines.extend(counts.others.map(|o| by("sctp", o.sctp, String::new())));
        lines.push(by("raw", counts.raw, String::new()));
        if let Some(others) = counts.others {
            lines.push(by("ping", others.ping, String::new()));
            let total = others.unix_stream.saturating_add(others.unix_other);
            let note = format!(
                "{} stream, {} datagram or seqpacket",
                count(others.unix_stream),
                count(others.unix_other)
            );
            lines.push(alone("unix", total, note));
            lines.push(alone("packet", others.packet, String::new()));
            lines.push(alone("netlink", others.netlink, String::new()));
            let note = "made, and neither bound nor connected; or of another kind";
            lines.push(alone("other", counts.rest(), note.into()));
        }
        lines.push(alone("all", counts.all, String::new()));
        let note = match counts.fragments_bytes {
            0 => String::new(),
            n => format!("packets that wait for the rest, {}", bytes(n)),
        };
        lines.push(by("fragments", counts.fragments, note));
        lines
    }

    fn tcp_note(&self) -> String {
        let counts = &self.counts;
        let mut note = format!("{} established", count(counts.tcp_established));
        if let (Some(listening), Some(other)) = (self.listening, self.tcp_other()) {
            note += &format!(
                ", {} listening, {} dialing or closing",
                count(listening),
                count(other)
            );
        }
        note += &format!("; and {} in TIME-WAIT", count(counts.tcp_time_wait));
        if counts.others.is_some_and(|others| others.mptcp.total() > 0) {
            note += "; subflows of MPTCP among them";
        }
        note
    }

    fn table(&self, out: impl Write, shows_header: bool) -> io::Result<()> {
        let heading = |title: &str, align| Heading { title: title.to_owned(), align };
        let headings = vec![
            heading("Kind", Align::Left),
            heading("Total", Align::Right),
            heading("IPv4", Align::Right),
            heading("IPv6", Align::Right),
            heading("", Align::Left),
        ];
        let mut table = StreamTable::new(out, headings, shows_header);
        let mut cells = Cells::default();
        for line in self.lines() {
            cells.clear();
            cells.push(|to| to.push_str(line.kind));
            cells.push(|to| to.push_str(&count(line.total)));
            for version in [line.versions.map(|of| of.v4), line.versions.map(|of| of.v6)]
            {
                cells.push(|to| to.push_str(&version.map(count).unwrap_or_default()));
            }
            cells.push(|to| {
                if !line.note.is_empty() {
                    to.push_str("  ");
                    to.push_str(&line.note);
                }
            });
            table.row(&cells, "")?;
        }
        let mut out = table.finish()?;
        let machine = &self.counts.machine;
        writeln!(
            out,
            "whole machine: {} orphaned of {} TCP sockets; buffers: TCP {}, UDP {}",
            count(machine.tcp_orphans),
            count(machine.tcp_allocated),
            bytes(machine.tcp_memory_bytes),
            bytes(machine.udp_memory_bytes)
        )?;
        out.flush()
    }

    fn csv(&self, out: impl Write, shows_header: bool) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        if shows_header {
            csv.write_record(["kind", "total", "ipv4", "ipv6"]).map_err(csv_error)?;
        }
        let mut write = |kind: &str, total: u64, versions: Option<ByVersion>| {
            let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
            let (v4, v6) = (versions.map(|of| of.v4), versions.map(|of| of.v6));
            let cells = [kind, &total.to_string(), &number(v4), &number(v6)];
            csv.write_record(cells).map_err(csv_error)
        };
        let states = [
            ("tcp_established", Some(self.counts.tcp_established)),
            ("tcp_listening", self.listening),
            ("tcp_other", self.tcp_other()),
            ("tcp_time_wait", Some(self.counts.tcp_time_wait)),
        ];
        let machine = &self.counts.machine;
        let of_machine = [
            ("machine_tcp_orphaned", machine.tcp_orphans),
            ("machine_tcp_allocated", machine.tcp_allocated),
            ("machine_tcp_memory_bytes", machine.tcp_memory_bytes),
            ("machine_udp_memory_bytes", machine.udp_memory_bytes),
        ];
        for line in self.lines() {
            write(line.kind, line.total, line.versions)?;
        }
        for (kind, total) in states {
            if let Some(total) = total {
                write(kind, total, None)?;
            }
        }
        write("fragments_memory_bytes", self.counts.fragments_bytes, None)?;
        of_machine.into_iter().try_for_each(|(kind, n)| write(kind, n, None))?;
        csv.flush()
    }
}
