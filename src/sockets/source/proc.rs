//! Rows from the files of /proc/net alone: for a kernel or container without
//! sock_diag(7), for the tables that a kernel has no diag module of (raw, ping), and for
//! fixture trees.
//!
//! Tables are read a line at a time by our own parsers: the procfs crate keeps a whole
//! table in memory, ends a unix path at a blank, and reads neither packet nor netlink.
//!
//! # Rows that come twice
//! The kernel fills one page for each read(2) and resumes by counting: in the bucket of
//! the hash table where it stopped, or from the beginning of the table. Where sockets
//! were made meanwhile, rows already given come again.
//! - After the last page one more read, for the end of file, counts from the beginning;
//!   if the table has grown by then, its last rows are given again, all of a small table
//!   in a burst. A page that is not full is the last one, so it is not read on.
//! - Between pages the last rows of a bucket come again. A row that was given within
//!   about the last thousand is left out.
//!
//! In the same way a row is passed over when one before it goes meanwhile; nothing tells
//! of that, so a stable socket can be missing while others close. sock_diag(7) has
//! neither fault.

mod fields;
mod folder;
mod inet;
mod lines;
mod links;
mod pass;
mod protocols;
mod recent;
mod unix;

use std::fs::File;
use std::io;
use std::ops::ControlFlow;

use self::folder::NetFolder;
use self::lines::Lines;
use self::pass::{Out, Pass};
use self::recent::Recent;
use super::{Passed, Source};
use crate::host::ProcRoot;
use crate::sockets::row::{Kind, Row};
use crate::sockets::select::{Selection, Tables};

/// Room for what one read gives: a page from the kernel, more from a fixture.
const BUFFER: usize = 64 << 10;

/// The columns of a file.
#[derive(Debug, Clone, Copy)]
enum Columns {
    Inet(inet::Table),
    Unix,
    Packet,
    Netlink,
}

/// A file of /proc/net.
#[derive(Debug, Clone, Copy)]
struct Table {
    file: &'static str,
    tables: Tables,
    columns: Columns,
    /// Whether the file is absent where its protocol is.
    is_optional: bool,
}

const fn inet(
    file: &'static str,
    tables: Tables,
    kind: Kind,
    is_v6: bool,
    is_optional: bool,
) -> Table {
    let columns = Columns::Inet(inet::Table { kind, is_v6 });
    Table { file, tables, columns, is_optional }
}

const fn other(file: &'static str, tables: Tables, columns: Columns) -> Table {
    // Packet sockets can be a module.
    Table { file, tables, columns, is_optional: matches!(columns, Columns::Packet) }
}

const TABLES: [Table; 13] = [
    inet("tcp", Tables::TCP, Kind::Tcp, false, false),
    inet("tcp6", Tables::TCP, Kind::Tcp, true, true),
    inet("udp", Tables::UDP, Kind::Udp, false, false),
    inet("udp6", Tables::UDP, Kind::Udp, true, true),
    inet("udplite", Tables::UDP, Kind::UdpLite, false, true),
    inet("udplite6", Tables::UDP, Kind::UdpLite, true, true),
    inet("raw", Tables::RAW, Kind::Raw, false, false),
    inet("raw6", Tables::RAW, Kind::Raw, true, true),
    inet("icmp", Tables::RAW, Kind::Icmp, false, true),
    inet("icmp6", Tables::RAW, Kind::Icmp, true, true),
    other("unix", Tables::UNIX, Columns::Unix),
    other("packet", Tables::PACKET, Columns::Packet),
    other("netlink", Tables::NETLINK, Columns::Netlink),
];

impl Table {
    fn is_wanted(&self, selection: &Selection) -> bool {
        let version = match self.columns {
            Columns::Inet(inet::Table { is_v6: true, .. }) => selection.versions.v6,
            Columns::Inet(_) => selection.versions.v4,
            _ => true,
        };
        version && selection.tables.has(self.tables)
    }
}

/// The tables of /proc/net, of the network namespace that the calling thread is in.
///
/// Under a root that is a fixture tree, or the procfs of another pid namespace in which
/// the calling thread is not, they are those of `net/`, else of process 1 there.
#[derive(Debug)]
pub struct ProcSource {
    root: ProcRoot,
    buffer: Vec<u8>,
    recent: Recent,
}

impl ProcSource {
    /// A source under `root`.
    #[must_use]
    pub fn new(root: ProcRoot) -> Self {
        Self { root, buffer: vec![0; BUFFER], recent: Recent::new() }
    }

    /// Reads one table.
    fn table(
        &mut self,
        table: &Table,
        file: File,
        full_read: usize,
        out: &mut Out<'_>,
    ) -> io::Result<ControlFlow<()>> {
        self.recent.clear();
        let mut pass = Pass::new(&mut self.recent, out, table);
        let mut lines = Lines::new(file, &mut self.buffer, full_read);
        match table.columns {
            Columns::Inet(inet) => pass.lines(&mut lines, |line| {
                inet::parse(line, inet).map(|(row, key)| (row, Some(key)))
            }),
            Columns::Packet => pass.lines(&mut lines, |line| {
                links::parse_packet(line).map(|(row, key)| (row, Some(key)))
            }),
            Columns::Netlink => pass.lines(&mut lines, |line| {
                links::parse_netlink(line).map(|(row, key)| (row, Some(key)))
            }),
            Columns::Unix => pass.unix(&mut lines),
        }
    }
}

impl Source for ProcSource {
    fn rows(
        &mut self,
        selection: &Selection,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        let net = NetFolder::open(&self.root)?;
        let mut out = Out::new(selection, each);
        let (mut wanted, mut was_read) = (false, false);
        let mut first_error = None;
        for table in TABLES.iter().filter(|table| table.is_wanted(selection)) {
            wanted = true;
            let opened = net.file(table.file);
            let read = match opened {
                Ok(file) => {
                    was_read = true;
                    self.table(table, file, net.full_read, &mut out)
                }
                Err(error) if net.is_absent(table, &error) => {
                    was_read = true;
                    continue;
                }
                Err(error) => Err(error),
            };
            out.name_damaged(table);
            match read {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(out.passed()),
                Err(error) => {
                    out.lack(format!("sockets of {}", net.name(table.file)), &error);
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if wanted && !was_read => {
                Err(io::Error::new(error.kind(), format!("{}: {error}", net.path)))
            }
            _ => {
                out.name_missing(net.whole("protocols").ok().as_deref());
                Ok(out.passed())
            }
        }
    }
}

#[cfg(test)]
mod tests;
