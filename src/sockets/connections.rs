//! The connections that a server of this host has, by the kernel's own tables.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;

use super::listeners::{ListenAt, Listener};
use super::model::{Cookie, Family, Inode, State, States, canonical};
use crate::kernel::sock_diag::{
    DumpEnd, InetRequest, Show, SockDiag, UnixKind, UnixRequest, UnixRow,
};

/// How a connection stands at its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// SYN_RECV: the handshake is not over for the server, or it waits for a byte
    /// (TCP_DEFER_ACCEPT), or it was dropped as the queue was full: a phantom.
    Deferred,
    /// In the accept queue; perhaps closed by the client since.
    Queued,
    /// The application took it and has it open, and so has the client.
    Accepted,
    /// The application took it, and one end or both have closed it.
    Closing,
}

impl Standing {
    /// Of the server's end in a state with an inode. An ESTABLISHED or CLOSE_WAIT socket
    /// without an inode was never accepted: when an application closes one that it has,
    /// its state changes (to FIN_WAIT1 or LAST_ACK) before the inode goes.
    #[must_use]
    pub fn of(state: State, inode: Inode) -> Self {
        match state {
            State::SynRecv => Self::Deferred,
            State::Established | State::CloseWait if !inode.exists() => Self::Queued,
            State::Established => Self::Accepted,
            _ => Self::Closing,
        }
    }
}

/// The connections of one server, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerSide {
    /// Ours, that the application has.
    pub accepted: u64,
    /// Ours, in the accept queue.
    pub queued: u64,
    /// Ours, in SYN_RECV.
    pub deferred: u64,
    /// Ours, closed by one end at least; TIME_WAIT is not counted.
    pub closing: u64,
    /// Of other clients, in any of the first three.
    pub others: u64,
}

impl ServerSide {
    /// Counts one more.
    pub fn count(&mut self, standing: Standing, is_ours: bool) {
        let counter = match standing {
            Standing::Closing if !is_ours => return,
            _ if !is_ours => &mut self.others,
            Standing::Deferred => &mut self.deferred,
            Standing::Queued => &mut self.queued,
            Standing::Accepted => &mut self.accepted,
            Standing::Closing => &mut self.closing,
        };
        *counter += 1;
    }
}

/// The server's end of one TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerRow {
    /// The server's address, never v4-mapped.
    pub local: SocketAddr,
    /// The client's, never v4-mapped.
    pub remote: SocketAddr,
    /// The inode of the server's socket; 0 unless accepted.
    pub inode: Inode,
    /// Its identity.
    pub cookie: Cookie,
    /// Its state.
    pub state: State,
    /// What that means.
    pub standing: Standing,
}

/// Hands out the server's end of every connection to `target`, whoever its client is.
/// `listener` is the family of the listening socket, not of the target: a v6 socket
/// keeps its IPv4 connections in the v6 table.
///
/// # Errors
/// As [`SockDiag::inet`].
pub fn server_rows(
    diag: &mut SockDiag,
    target: SocketAddr,
    listener: Family,
    mut each: impl FnMut(&ServerRow),
) -> io::Result<DumpEnd> {
    let target = canonical(target);
    let family = if target.is_ipv6() { Family::V6 } else { listener };
    port_rows(diag, target.port(), family, |row| {
        if row.local.ip() == target.ip() {
            each(row);
        }
    })
}

/// Hands out the server's end of every connection to a port, in the table of one family.
/// (Ends of dials that were made from this port are among them.)
///
/// # Errors
/// As [`SockDiag::inet`].
pub fn port_rows(
    diag: &mut SockDiag,
    port: u16,
    family: Family,
    mut each: impl FnMut(&ServerRow),
) -> io::Result<DumpEnd> {
    let states = States::CONNECTED - State::SynSent.into();
    let request =
        InetRequest { local_port: Some(port), ..InetRequest::tcp(family, states) };
    diag.inet(&request, |row| {
        each(&ServerRow {
            local: canonical(row.local),
            remote: canonical(row.remote),
            inode: row.inode,
            cookie: row.cookie,
            state: row.state,
            standing: Standing::of(row.state, row.inode),
        });
    })
}

/// Counts the connections that the server at `target` has, in one dump.
///
/// # Errors
/// As [`SockDiag::inet`].
pub fn server_side(
    diag: &mut SockDiag,
    target: SocketAddr,
    listener: Family,
    mut is_ours: impl FnMut(SocketAddr) -> bool,
) -> io::Result<ServerSide> {
    let mut counted = ServerSide::default();
    server_rows(diag, target, listener, |row| {
        counted.count(row.standing, is_ours(row.remote));
    })?;
    Ok(counted)
}

/// Counts the connections that a unix listener has, given the inodes of our own ends,
/// and hands out (client, server) inodes of those accepted.
///
/// A client's row tells by itself: its peer has an inode once accepted; without one it
/// waits in the queue, or, where both directions are shut down, was closed by the
/// server. (UNIX_DIAG_ICONS would say who waits, but ends the dump without a word where a
/// queue is deeper than about 8,000.)
///
/// # Errors
/// As [`SockDiag::unix`].
pub fn server_side_unix(
    diag: &mut SockDiag,
    listener: &Listener,
    clients: &HashSet<Inode>,
    mut each_pair: impl FnMut(Inode, Inode),
) -> io::Result<ServerSide> {
    let request =
        UnixRequest { states: States::ESTABLISHED, show: Show::PEER | Show::NAME };
    let mut counted = ServerSide::default();
    diag.unix(&request, |row| {
        let Some(peer) = row.peer else { return };
        if row.kind == UnixKind::Datagram {
            return;
        }
        if clients.contains(&row.inode) {
            let standing = unix_standing(peer, row.shutdown);
            counted.count(standing, true);
            if standing == Standing::Accepted {
                each_pair(row.inode, peer);
            }
        } else if peer.exists() && !clients.contains(&peer) && is_end_of(row, listener) {
            counted.count(Standing::Accepted, false);
        }
    })?;
    Ok(counted)
}

/// From a client's own row: its peer, and which of its ends are shut down.
fn unix_standing(peer: Inode, shutdown: u8) -> Standing {
    const BOTH: u8 = 3;
    match shutdown {
        _ if peer.exists() => Standing::Accepted,
        BOTH => Standing::Closing,
        _ => Standing::Queued,
    }
}

/// Whether a row is a server's end: it has the name of its listener.
fn is_end_of(row: &UnixRow<'_>, listener: &Listener) -> bool {
    match &listener.at {
        ListenAt::Unix(name, _) => row.name.as_ref() == Some(name),
        ListenAt::Inet(_) => false,
    }
}

#[cfg(test)]
mod tests;
