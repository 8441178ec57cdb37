//! Finding the row of one descriptor, in whichever network namespace it is.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use super::{DescriptorName, SocketFile};
use crate::host::ProcRoot;
use crate::kernel::netns::Netns;
use crate::kernel::pidfd;
use crate::kernel::sock_diag::{
    Family, InetRequest, Protocol, SockDiag, SocketId, canonical,
};
use crate::sockets::model::{Comm, Cookie, Inode, Owner, State, States};
use crate::sockets::owners::{OwnerIndex, is_our_proc, owners_of};
use crate::sockets::place::{NoPlace, of_thread, unless_own, within};
use crate::sockets::row::{Address, Kind, Row};
use crate::sockets::select::{Details, Selection, Tables};
use crate::sockets::source::auto::AutoSource;
use crate::sockets::source::proc::ProcSource;
use crate::sockets::source::{Lack, Source};
use crate::sockets::unbound;

/// INET_DIAG_NOCOOKIE: whichever socket has these addresses.
const ANY: Cookie = Cookie(u64::MAX);

/// A socket that was found by a descriptor.
#[derive(Debug)]
pub struct Found {
    /// Its row; of one that is in no table, with what its descriptor tells.
    pub row: Row<'static>,
    /// Whether a table has it.
    pub in_table: InTable,
    /// Its network namespace; None for the calling thread's own.
    pub netns: Option<Netns>,
    /// The inode of its peer, where that is on this host and in this namespace.
    pub peer: Option<Inode>,
    /// The owners of both.
    pub owners: OwnerIndex,
}

/// Whether a socket is in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InTable {
    /// It is.
    Yes,
    /// It is in none: neither bound, listening nor connected.
    No,
    /// It is in none of its process's network namespace; which one it is of itself could
    /// not be asked.
    NotHere,
    /// Its table could not be read.
    Unknown(Lack),
    /// No table of its protocol is read here.
    NoTable,
}

/// Finds a socket's row, its peer and everyone who has it. Reads the table of its
/// protocol, and every process's descriptors.
///
/// # Errors
/// [`NoPlace`].
pub fn find(
    proc_root: &Path,
    name: DescriptorName,
    file: &SocketFile,
) -> Result<Found, NoPlace> {
    let DescriptorName { pid, tid, fd } = name;
    let mut netns = of_thread(proc_root, pid, tid)?;
    let mut seen = within(netns.as_ref(), pid, || look_up(proc_root, file))??;
    let mut is_its_own = false;
    // A socket stays where it was made, which need not be where its process is now.
    if seen.row.is_none()
        && is_our_proc(proc_root)
        && let Ok(made_in) = netns_of(name, file.inode)
    {
        is_its_own = true;
        if made_in.inode()? != inode_of(netns.as_ref())? {
            netns = unless_own(made_in)?;
            seen = within(netns.as_ref(), pid, || look_up(proc_root, file))??;
        }
    }
    let Seen { row, lack, peer } = seen;
    let in_table = match (&row, lack) {
        (Some(_), _) => InTable::Yes,
        (None, _) if tables(file.kind).is_none() => InTable::NoTable,
        (None, Some(lack)) => InTable::Unknown(lack),
        (None, None) if is_its_own => InTable::No,
        (None, None) => InTable::NotHere,
    };
    let owner = Owner { pid, tid, comm: Comm::default(), fd };
    let row = row
        .or_else(|| unbound::row(&ProcRoot::new(proc_root), file.inode, owner))
        .unwrap_or_else(|| Row {
            inode: file.inode,
            ..Row::new(file.kind, State::Close)
        });
    let both: HashSet<Inode> = std::iter::once(file.inode).chain(peer).collect();
    let owners = owners_of(proc_root, &both)?;
    Ok(Found { row, in_table, netns, peer, owners })
}

fn inode_of(netns: Option<&Netns>) -> io::Result<u64> {
    match netns {
        Some(netns) => netns.inode(),
        None => Netns::current()?.inode(),
    }
}

/// The namespace that a socket was made in.
///
/// # Errors
/// As [`pidfd::copy_of`] and [`Netns::of_socket`]; NotFound where the descriptor is not
/// this socket any more.
pub fn netns_of(name: DescriptorName, inode: Inode) -> io::Result<Netns> {
    let copy = pidfd::copy_of(name.pid, name.tid, name.fd)?;
    // The number may have been used again meanwhile.
    if rustix::fs::fstat(&copy)?.st_ino != inode.0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    Netns::of_socket(copy)
}

/// The tables that a socket of a kind may be in; None where none is read.
fn tables(kind: Kind) -> Option<Tables> {
    Some(match kind {
        Kind::Tcp => Tables::TCP,
        Kind::Mptcp => Tables::MPTCP,
        Kind::Udp | Kind::UdpLite => Tables::UDP,
        Kind::Sctp => Tables::SCTP,
        Kind::Raw | Kind::Icmp => Tables::RAW,
        Kind::UnixStream => Tables::UNIX,
        Kind::Netlink => Tables::NETLINK,
        // Of these the protocol's name alone is known so far.
        Kind::Named(name) if name.as_str() == "unix" => Tables::UNIX,
        Kind::Named(name) if name.as_str() == "packet" => Tables::PACKET,
        Kind::Family(0) => Tables::ALL,
        _ => return None,
    })
}

/// What the tables of one namespace have of a socket.
#[derive(Debug, Default)]
struct Seen {
    row: Option<Row<'static>>,
    /// Why it may be missing.
    lack: Option<Lack>,
    peer: Option<Inode>,
}

/// Looks in the calling thread's namespace.
fn look_up(proc_root: &Path, file: &SocketFile) -> io::Result<Seen> {
    let Some(tables) = tables(file.kind) else { return Ok(Seen::default()) };
    let details =
        Details { tcp_info: true, memory: true, options: true, unix_peers: true };
    let selection = Selection { tables, details, ..Selection::everything() };
    let root = ProcRoot::new(proc_root);
    let mut source: Box<dyn Source> = match is_our_proc(proc_root) {
        true => Box::new(AutoSource::open(root)),
        false => Box::new(ProcSource::new(root)),
    };
    let mut row = None;
    let passed = source.rows(&selection, &mut |found| {
        if found.inode != file.inode {
            return ControlFlow::Continue(());
        }
        row = Some(found.into_owned());
        ControlFlow::Break(())
    })?;
    // Where its protocol is not known, tables that this kernel lacks tell nothing.
    let lack = passed.lacking.into_iter().next().filter(|_| file.kind != Kind::Family(0));
    let peer = row.as_ref().and_then(peer);
    Ok(Seen { row, lack, peer })
}

/// The inode of the socket at the other end, where that is in the same namespace.
fn peer(row: &Row<'_>) -> Option<Inode> {
    if let Address::Unix { inode, .. } = row.remote {
        return Some(inode).filter(|inode| inode.exists());
    }
    if row.kind != Kind::Tcp || row.cookie.is_none() {
        return None;
    }
    let mine = canonical(row.local.inet()?);
    let its = canonical(row.remote.inet()?);
    if its.port() == 0 {
        return None;
    }
    let id = SocketId { local: its, remote: Some(mine), interface: 0, cookie: ANY };
    let protocol = Protocol::TCP;
    let request =
        InetRequest { protocol, ..InetRequest::tcp(Family::of(its), States::ALL) };
    let mut found = None;
    let looked = SockDiag::open().ok()?.inet_one(&request, &id, |other| {
        // Without a connection that matches, a listener would do for the kernel.
        if canonical(other.local) == its && canonical(other.remote) == mine {
            found = Some(other.inode);
        }
    });
    looked.ok().and(found).filter(|inode| inode.exists())
}

#[cfg(test)]
mod tests;
