//! One pass over one table: its lines as rows, and what is to be said of them.

use std::fmt::Display;
use std::io::{self, Read};
use std::ops::ControlFlow;

use super::lines::Lines;
use super::recent::{Key, Recent};
use super::{Columns, Table, protocols, unix};
use crate::sockets::model::{State, States};
use crate::sockets::row::{Kind, Row};
use crate::sockets::select::{Selection, Tables};
use crate::sockets::source::{Lack, Passed};

/// What the lines of one unix row may come to: a path may hold newlines.
const LONGEST_UNIX: usize = 512;

/// Where rows go, and what is to be said of them.
pub(super) struct Out<'a> {
    selection: &'a Selection,
    each: &'a mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    /// Lines of the table at hand that are no rows.
    damaged: u64,
    lacking: Vec<Lack>,
}

impl<'a> Out<'a> {
    pub(super) fn new(
        selection: &'a Selection,
        each: &'a mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Self {
        Self { selection, each, damaged: 0, lacking: Vec::new() }
    }

    #[inline]
    fn row(&mut self, row: Row<'_>) -> ControlFlow<()> {
        if self.selection.states.contains(row.state) && self.is_wanted(row.kind) {
            (self.each)(row)
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Whether the type of a unix socket is wanted; other files have one kind each.
    fn is_wanted(&self, kind: Kind) -> bool {
        let table = match kind {
            Kind::UnixStream => Tables::UNIX_STREAM,
            Kind::UnixDatagram => Tables::UNIX_DATAGRAM,
            Kind::UnixSeqPacket => Tables::UNIX_SEQPACKET,
            _ => return true,
        };
        self.selection.tables.has(table)
    }

    pub(super) fn name_damaged(&mut self, table: &Table) {
        match std::mem::take(&mut self.damaged) {
            0 => {}
            n => self.lack(
                format!("{n} line{} of net/{}", plural(n), table.file),
                "not of the known form",
            ),
        }
    }

    /// Names what is in no file of /proc/net, of what was selected.
    pub(super) fn name_missing(&mut self, protocols: Option<&[u8]>) {
        let Selection { tables, states, details, .. } = self.selection;
        let tcp = tables.has(Tables::TCP);
        let inet = Tables::TCP | Tables::UDP | Tables::RAW;
        let bound = *states - States::BOUND != *states;
        let no_column = "/proc/net has no column of them";
        let columns = [
            (tcp && states.contains(State::Listen), "backlogs and drops of listeners"),
            (tables.has(Tables::UNIX), "peers, queues and users of unix sockets"),
            (tables.has(Tables::NETLINK), "peers and users of netlink sockets"),
            (tables.has(inet), "interfaces of inet sockets"),
            (!tables.is_empty(), "cookies, marks and cgroups"),
            (tcp && details.tcp_info, "tcp_info and congestion control"),
            (details.memory && !tables.is_empty(), "memory"),
            (details.options && tables.has(inet), "socket options"),
        ];
        for (_, what) in columns.into_iter().filter(|(is_lacking, _)| *is_lacking) {
            self.lack(what.to_owned(), no_column);
        }
        if tcp && bound {
            self.lack(
                "TCP sockets that are bound and neither listen nor are connected".into(),
                "/proc/net/tcp leaves them out",
            );
        }
        self.lacking.extend(protocols::without_table(protocols, self.selection));
    }

    pub(super) fn lack(&mut self, what: String, why: impl Display) {
        self.lacking.push(Lack { what, why: why.to_string() });
    }

    pub(super) fn passed(self) -> Passed {
        Passed { interrupted: false, lacking: self.lacking }
    }
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// One pass over one table.
pub(super) struct Pass<'p, 'o> {
    recent: &'p mut Recent,
    out: &'p mut Out<'o>,
    table: &'p Table,
}

impl<'p, 'o> Pass<'p, 'o> {
    pub(super) fn new(
        recent: &'p mut Recent,
        out: &'p mut Out<'o>,
        table: &'p Table,
    ) -> Self {
        Self { recent, out, table }
    }

    pub(super) fn lines<R: Read>(
        &mut self,
        lines: &mut Lines<'_, R>,
        parse: impl for<'l> Fn(&'l [u8]) -> Option<(Row<'l>, Option<Key>)>,
    ) -> io::Result<ControlFlow<()>> {
        let mut is_first = true;
        while let Some(line) = lines.next()? {
            let parsed = parse(line);
            let is_header = std::mem::take(&mut is_first) && self.is_header(line);
            match parsed {
                Some((row, key)) => {
                    if self.row(row, key).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                None if is_header || line.trim_ascii().is_empty() => {}
                None => self.out.damaged += 1,
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A path may hold newlines, which the kernel prints as they are. So a line that is
    /// no row continues the name of the row before it. (A name made to look like a row
    /// cannot be told from one; sock_diag is not deceived.)
    pub(super) fn unix<R: Read>(
        &mut self,
        lines: &mut Lines<'_, R>,
    ) -> io::Result<ControlFlow<()>> {
        let mut pending: Vec<u8> = Vec::with_capacity(LONGEST_UNIX);
        let mut is_first = true;
        loop {
            let line = lines.next()?;
            let starts = line.is_none_or(|line| unix::parse(line).is_some());
            let is_first = std::mem::take(&mut is_first);
            if starts {
                if let Some((row, key)) = unix::parse(&pending)
                    && self.row(row, key).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                pending.clear();
            }
            let Some(line) = line else { return Ok(ControlFlow::Continue(())) };
            let continues =
                unix::may_go_on(&pending) && pending.len() + line.len() < LONGEST_UNIX;
            if starts || continues {
                if continues {
                    pending.push(b'\n');
                }
                pending.extend_from_slice(line);
            } else if !(line.is_empty() || is_first && self.is_header(line)) {
                self.out.damaged += 1;
            }
        }
    }

    #[inline]
    fn row(&mut self, row: Row<'_>, key: Option<Key>) -> ControlFlow<()> {
        match key {
            Some(key) if !self.recent.is_new(key) => ControlFlow::Continue(()),
            _ => self.out.row(row),
        }
    }

    /// Whether a line that is no row names the columns.
    fn is_header(&self, line: &[u8]) -> bool {
        let first: &[u8] = match self.table.columns {
            Columns::Inet(_) => b"sl",
            Columns::Unix => b"Num",
            Columns::Packet | Columns::Netlink => b"sk",
        };
        line.trim_ascii_start().starts_with(first)
    }
}
