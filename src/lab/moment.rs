//! The socket table at a moment of an experiment.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use crate::sockets::listing::{Lister, Look};
use crate::sockets::model::State;
use crate::sockets::names::{Cgroups, Interfaces, Users, Workloads};
use crate::sockets::row::Row;
use crate::sockets::select::{Selection, Tables};
use crate::sockets::show::columns::Column;
use crate::sockets::show::document::{Groups, SocketDoc};
use crate::sockets::show::{Context, Shown};
use crate::sockets::source::netlink::NetlinkSource;

/// The most rows that a moment shows.
const ROWS: usize = 8;
/// The most that it is chosen from.
const KEPT: usize = 256;

/// What a moment shows of a socket.
pub const COLUMNS: [Column; 7] = [
    Column::Proto,
    Column::State,
    Column::RecvQ,
    Column::SendQ,
    Column::Local,
    Column::Remote,
    Column::Owners,
];

/// Some rows of the socket table.
#[derive(Debug, Clone)]
pub struct Moment {
    /// When it was read.
    pub when: String,
    /// The cells of each row, as [`COLUMNS`] has them.
    pub cells: Vec<Vec<String>>,
    /// The same rows as socket documents.
    pub sockets: Vec<Value>,
    /// How many sockets there were; more than there are rows where they were too many.
    pub total: usize,
}

/// Reads the table of the calling thread's network namespace: the rows of `tables` that
/// `wanted` picks, with their owners; listeners first, then by their addresses.
///
/// # Errors
/// What sock_diag(7) or reading /proc gives.
pub(super) fn moment(
    when: impl Into<String>,
    tables: Tables,
    mut wanted: impl FnMut(&Row<'_>) -> bool,
) -> io::Result<Moment> {
    let selection = Selection { tables, ..Selection::everything() };
    let proc_root = Path::new("/proc");
    let (users, cgroups) = (Users::default(), Cgroups::default());
    let (workloads, interfaces) = (Workloads::new(proc_root), Interfaces::default());
    let context = Context {
        users: &users,
        interfaces: Some(&interfaces),
        workloads: &workloads,
        cgroups: &cgroups,
        netns: None,
    };
    let (mut rows, mut total) = (Vec::new(), 0);
    let mut source = NetlinkSource::open()?;
    Lister::new(proc_root, Look::All)?.list(&mut source, &selection, &mut |listed| {
        if wanted(listed.row) {
            total += 1;
            if rows.len() < KEPT {
                rows.push(read(&Shown { listed, context: &context }));
            }
        }
        ControlFlow::Continue(())
    })?;
    rows.sort_by_key(|read| read.0);
    rows.truncate(ROWS);
    let (cells, sockets) = rows.into_iter().map(|(_, cells, doc)| (cells, doc)).unzip();
    Ok(Moment { when: when.into(), cells, sockets, total })
}

/// What a row is sorted by, its cells and its document.
type Read = ((bool, Option<SocketAddr>, Option<SocketAddr>), Vec<String>, Value);

fn read(shown: &Shown<'_>) -> Read {
    let row = shown.listed.row;
    let cell = |column: &Column| {
        let mut cell = String::new();
        column.write(&mut cell, shown);
        cell
    };
    let document = serde_json::to_value(SocketDoc::of(shown, Groups::default()));
    (
        (row.state != State::Listen, row.local.inet(), row.remote.inet()),
        COLUMNS.iter().map(cell).collect(),
        document.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::{connect, listen, loopback};

    #[test]
    fn a_moment_shows_the_sockets_that_were_picked_and_whose_they_are() {
        let (_listener, at) = listen(loopback(), 5);
        let clients = connect(2, at);
        let moment = moment("now", Tables::TCP, |row| {
            [row.local.inet(), row.remote.inet()].contains(&Some(at))
        })
        .unwrap();
        // The listener, two clients, and their two ends in its accept queue.
        assert_eq!((moment.total, moment.cells.len(), moment.sockets.len()), (5, 5, 5));
        assert_eq!(moment.cells[0][1], "LISTEN");
        assert_eq!(moment.sockets[0]["recv_q"], 2);
        let mine = moment.sockets.iter().filter(|socket| {
            socket["owners"][0]["pid"] == std::process::id()
                && clients.iter().any(|client| {
                    socket["local_port"] == client.local_addr().unwrap().port()
                })
        });
        assert_eq!(mine.count(), 2);
    }

    #[test]
    fn what_is_too_much_to_show_is_counted() {
        let (_listener, at) = listen(loopback(), 20);
        let _clients = connect(20, at);
        let moment = moment("now", Tables::TCP, |row| row.local.inet() == Some(at));
        let moment = moment.unwrap();
        assert_eq!((moment.total, moment.cells.len()), (21, ROWS));
    }
}
