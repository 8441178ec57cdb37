//! Closing sockets from outside (SOCK_DESTROY, `sock_diag_destroy` in
//! net/core/sock_diag.c).
//!
//! Each is named by its cookie, so that another that has taken its addresses since is
//! never hit. What the kernel then did is looked at, for it closes less than it says:
//!
//! - A TCP connection ends: its owner gets ECONNABORTED, its peer a RST. A listener stops
//!   to listen. Both stay open descriptors.
//! - A UDP socket that was bound to a port of its owner's choice gets ECONNABORTED once
//!   and goes on receiving (`__udp_disconnect` leaves the port). Others are closed.
//! - Of an SO_REUSEPORT group the kernel finds one by a hash of both addresses: others are
//!   reached by asking for other remote ports.
//! - MPTCP has no such operation. Its subflows have, but a connection that lost them stays
//!   established, without a path, and its owner hears nothing: they are left alone.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use super::model::{Cookie, State, States};
use super::row::{Kind, Row};
use super::select::{Selection, Tables};
use super::source::Source;
use super::source::netlink::{NetlinkSource, identity};
use crate::kernel::sock_diag::SocketId;

/// Remote ports that are tried for one socket of an SO_REUSEPORT group: of 500 it is
/// missed once in 3,000 times.
const TRIES: u16 = 4096;

/// What became of a socket that was to be closed.
#[derive(Debug)]
pub enum Outcome {
    /// It is closed.
    Closed,
    /// It was no longer there.
    Gone,
    /// It is still open.
    Open(Why),
}

/// Why a socket could not be closed.
#[derive(Debug)]
pub enum Why {
    /// UDP, bound to a port.
    StaysBound,
    /// Another is found under its addresses.
    Hidden,
    /// What the kernel said.
    Refused(io::Error),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaysBound => f.write_str(
                "the kernel lets a UDP socket keep the port that it was bound to; its \
                 owner got ECONNABORTED and may go on",
            ),
            Self::Hidden => f.write_str(
                "the kernel finds another socket under its address (SO_REUSEPORT)",
            ),
            Self::Refused(error) => match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => f.write_str(
                    "this kernel cannot close sockets (CONFIG_INET_DIAG_DESTROY is off)",
                ),
                _ => error.fmt(f),
            },
        }
    }
}

/// Whether the kernel can close such a socket: TCP but for subflows of MPTCP and for what
/// is only bound, and UDP. Subflows are told by rows with TCP_INFO alone
/// ([`super::select::Details::tcp_info`]).
#[must_use]
pub fn can_be_closed(row: &Row<'_>) -> bool {
    let open = match row.kind {
        Kind::Tcp => row.state != State::Close && !is_subflow(row),
        Kind::Udp | Kind::UdpLite => true,
        _ => false,
    };
    open && identity(row).is_some()
}

/// Whether a TCP socket carries an MPTCP connection.
#[must_use]
pub fn is_subflow(row: &Row<'_>) -> bool {
    let ulp = row.extra.as_deref().and_then(|extra| extra.ulp.as_deref());
    ulp == Some(b"mptcp")
}

/// Closes sockets that [`can_be_closed`], which `source` gave; gives what became of each,
/// in their order.
///
/// # Errors
/// PermissionDenied without CAP_NET_ADMIN in the user namespace that their network
/// namespace belongs to: then none was closed. What a dump gives, where one is needed to
/// see what was closed.
pub fn close_all(
    source: &mut NetlinkSource,
    rows: &[Row<'_>],
) -> io::Result<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(rows.len());
    let mut any = false;
    for row in rows {
        let done = close(source, row);
        outcomes.push(outcome(done, Outcome::Gone, &mut any)?);
    }
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Gone)) {
        let there = still_there(source, rows)?;
        for (row, one) in rows.iter().zip(&mut outcomes) {
            if matches!(one, Outcome::Gone) && has(&there, row) {
                let done = close_in_group(source, row);
                *one = outcome(done, Outcome::Open(Why::Hidden), &mut any)?;
            }
        }
    }
    let stays = |row: &Row<'_>, outcome: &Outcome| {
        row.kind != Kind::Tcp && matches!(outcome, Outcome::Closed)
    };
    if rows.iter().zip(&outcomes).any(|(row, outcome)| stays(row, outcome)) {
        let there = still_there(source, rows)?;
        for (row, outcome) in rows.iter().zip(&mut outcomes) {
            if stays(row, outcome) && has(&there, row) {
                *outcome = Outcome::Open(Why::StaysBound);
            }
        }
    }
    Ok(outcomes)
}

/// What an attempt came to, `missed` where it found nothing. The right that is missing is
/// an error as long as none was closed.
fn outcome(
    done: io::Result<bool>,
    missed: Outcome,
    any: &mut bool,
) -> io::Result<Outcome> {
    match done {
        Ok(true) => {
            *any = true;
            Ok(Outcome::Closed)
        }
        Ok(false) => Ok(missed),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !*any => {
            Err(error)
        }
        Err(error) => Ok(Outcome::Open(Why::Refused(error))),
    }
}

/// Closes one by its own addresses; false where that found nothing of its cookie.
fn close(source: &mut NetlinkSource, row: &Row<'_>) -> io::Result<bool> {
    match identity(row) {
        Some((family, protocol, id)) => source.diag().destroy(family, protocol, &id),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Closes one that is there and was not found by its addresses; false where other remote
/// ports do not lead to it either.
fn close_in_group(source: &mut NetlinkSource, row: &Row<'_>) -> io::Result<bool> {
    let identity = identity(row).filter(|(_, _, id)| id.remote.is_none());
    let Some((family, protocol, id)) = identity else { return Ok(false) };
    for port in 1..=TRIES {
        let id = SocketId { remote: Some(SocketAddr::new(id.nobody(), port)), ..id };
        if source.diag().destroy(family, protocol, &id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The cookies of all sockets of the tables that `rows` are of, but of TCP sockets that
/// are no more than bound.
fn still_there(
    source: &mut NetlinkSource,
    rows: &[Row<'_>],
) -> io::Result<HashSet<Cookie>> {
    let mut tables = Tables::NONE;
    for row in rows {
        tables |= if row.kind == Kind::Tcp { Tables::TCP } else { Tables::UDP };
    }
    let selection = Selection {
        tables,
        states: States::ALL - States::BOUND,
        ..Selection::everything()
    };
    let mut there = HashSet::new();
    source.rows(&selection, &mut |row| {
        there.extend(row.cookie);
        ControlFlow::Continue(())
    })?;
    Ok(there)
}

fn has(there: &HashSet<Cookie>, row: &Row<'_>) -> bool {
    row.cookie.is_some_and(|cookie| there.contains(&cookie))
}

#[cfg(test)]
mod tests;
