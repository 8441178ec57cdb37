//! What listens on this host, how full its queue is, and what would answer a client.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::model::{Cookie, Family, Inode, States, UnixName, canonical};
use crate::kernel::sock_diag::{
    Extensions, InetRequest, InetRow, Show, SockDiag, SocketFile, SocketId, UnixRequest,
    UnixRow,
};

/// The index of `lo` in every namespace (LOOPBACK_IFINDEX, net/core/dev.h).
const LOOPBACK_INTERFACE: u32 = 1;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAt {
    /// TCP, as the socket was bound: v4-mapped and unspecified addresses stay such.
    Inet(SocketAddr),
    /// A unix stream or seqpacket socket: its name as bound, and the file, where it is a
    /// path.
    Unix(UnixName<'static>, Option<SocketFile>),
}

/// `127.0.0.1:7000`, `[::]:443`, `unix:/path`, `unix:@name`.
impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(name, _) => write!(f, "unix:{name}"),
        }
    }
}

/// A socket in LISTEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub at: ListenAt,
    /// The effective backlog, min(listen()'s, somaxconn); the queue admits one more.
    pub backlog: u32,
    /// Connections in the accept queue.
    pub queue_len: u32,
    /// SYNs and last ACKs that this listener dropped, since it listens (SK_MEMINFO_DROPS,
    /// wraps). Unix sockets drop nothing: 0.
    pub drops: u32,
    /// Its inode.
    pub inode: Inode,
    /// Its identity.
    pub cookie: Cookie,
    /// Who made it.
    pub uid: u32,
    /// IPV6_V6ONLY: it does not take IPv4.
    pub v6_only: bool,
    /// The interface that it is bound to, 0 for none.
    pub interface: u32,
}

impl Listener {
    /// Whether the next connection would be turned away: the queue has one more than
    /// the backlog.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue_len > self.backlog
    }

    /// The table that its connections are in: V6 for a v6 socket, its IPv4 ones too.
    /// None for a unix socket.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        match self.at {
            ListenAt::Inet(address) => Some(Family::of(address)),
            ListenAt::Unix(..) => None,
        }
    }

    /// Its port; none for a unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.at {
            ListenAt::Inet(address) => Some(address.port()),
            ListenAt::Unix(..) => None,
        }
    }

    fn from_inet(row: &InetRow<'_>) -> Self {
        Self {
            at: ListenAt::Inet(row.local),
            backlog: row.send_q,
            queue_len: row.recv_q,
            drops: row.sk_mem.map_or(0, |mem| mem.drops),
            inode: row.inode,
            cookie: row.cookie,
            uid: row.uid,
            v6_only: row.v6_only.unwrap_or(false),
            interface: row.interface,
        }
    }

    fn from_unix(row: &UnixRow<'_>) -> Option<Self> {
        Some(Self {
            at: ListenAt::Unix(row.name.clone()?.into_owned(), row.vfs),
            backlog: row.send_q,
            queue_len: row.recv_q,
            drops: 0,
            inode: row.inode,
            cookie: row.cookie,
            uid: row.uid.unwrap_or(0),
            v6_only: false,
            interface: 0,
        })
    }

    /// Takes the numbers that change from a newer look at the same socket.
    fn update(&mut self, queue_len: u32, backlog: u32, drops: u32) {
        (self.queue_len, self.backlog, self.drops) = (queue_len, backlog, drops);
    }
}

/// Every TCP listener of the namespace, IPv4 before IPv6.
///
/// # Errors
/// As [`SockDiag::inet`].
pub fn inet(diag: &mut SockDiag) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for family in [Family::V4, Family::V6] {
        diag.inet(&listening(family), |row| found.push(Listener::from_inet(row)))?;
    }
    Ok(found)
}

/// Every unix listener of the namespace (stream and seqpacket).
///
/// # Errors
/// As [`SockDiag::unix`].
pub fn unix(diag: &mut SockDiag) -> io::Result<Vec<Listener>> {
    let show = Show::NAME | Show::VFS | Show::RQLEN | Show::UID;
    let mut found = Vec::new();
    diag.unix(&UnixRequest { states: States::LISTEN, show }, |row| {
        found.extend(Listener::from_unix(row));
    })?;
    Ok(found)
}

pub(super) fn listening(family: Family) -> InetRequest {
    InetRequest {
        extensions: Extensions::SK_MEMINFO,
        ..InetRequest::tcp(family, States::LISTEN)
    }
}

/// Which of `all` would answer a SYN to `target`, as `inet_lhash2_lookup` and
/// `compute_score` (net/ipv4/inet_hashtables.c, net/ipv6/inet6_hashtables.c) choose: the
/// exact address before the wildcard; among equals one bound to the interface first,
/// then an IPv4 socket for IPv4. Several are an SO_REUSEPORT group, or bound to
/// different interfaces where `target` does not say which (by a scope id, or by being a
/// loopback address).
#[must_use]
pub fn answering(all: &[Listener], target: SocketAddr) -> Vec<&Listener> {
    let target = canonical(target);
    let arrives_at = arriving_interface(target);
    let scored = || {
        all.iter().filter_map(move |listener| {
            score(listener, target, arrives_at).map(|score| (score, listener))
        })
    };
    let best = scored().map(|(score, _)| score).max();
    scored().filter(|(score, _)| Some(*score) == best).map(|(_, found)| found).collect()
}

/// The interface that a SYN to `target` arrives at, where the address alone tells.
fn arriving_interface(target: SocketAddr) -> Option<u32> {
    match target {
        _ if target.ip().is_loopback() => Some(LOOPBACK_INTERFACE),
        SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
        _ => None,
    }
}

/// How well a listener fits: (exact address, bound to the interface, of IPv4).
fn score(
    listener: &Listener,
    target: SocketAddr,
    arrives_at: Option<u32>,
) -> Option<(bool, bool, bool)> {
    let ListenAt::Inet(bound) = listener.at else { return None };
    if bound.port() != target.port() {
        return None;
    }
    let exact = match (canonical(bound).ip(), target.ip()) {
        (IpAddr::V4(bound), IpAddr::V4(_)) if bound.is_unspecified() => false,
        (IpAddr::V6(bound), IpAddr::V4(_)) if bound.is_unspecified() => {
            if listener.v6_only {
                return None;
            }
            false
        }
        (IpAddr::V6(bound), IpAddr::V6(_)) if bound.is_unspecified() => false,
        (bound, wanted) if bound == wanted => true,
        _ => return None,
    };
    let on_interface = match arrives_at {
        Some(_) if listener.interface == 0 => false,
        Some(arrives_at) if listener.interface == arrives_at => true,
        Some(_) => return None,
        None => false,
    };
    Some((exact, on_interface, bound.is_ipv4()))
}

/// A unix socket as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixTarget {
    /// The file at a path, and the last part of that path.
    Path(SocketFile, Vec<u8>),
    /// A name in the abstract namespace, without the zero byte that leads it.
    Abstract(Vec<u8>),
}

impl UnixTarget {
    /// The socket file at a path.
    ///
    /// # Errors
    /// What stat(2) gives.
    pub fn path(path: &Path) -> io::Result<Self> {
        let last = path.file_name().map(|name| name.as_bytes().to_vec());
        Ok(Self::Path(SocketFile::at(path)?, last.unwrap_or_default()))
    }
}

/// Which of `all` a client of `target` reaches. A path is matched by the file that it
/// leads to, for the server may have bound a relative path or another link, or a file
/// since replaced. Where the device differs from what stat(2) says (btrfs, overlayfs),
/// the inode and the last part of the path must do.
#[must_use]
pub fn answering_unix<'a>(all: &'a [Listener], target: &UnixTarget) -> Vec<&'a Listener> {
    let matching = |fits: &dyn Fn(&UnixName<'_>, Option<SocketFile>) -> bool| {
        let found = all.iter().filter(|listener| match &listener.at {
            ListenAt::Unix(name, file) => fits(name, *file),
            ListenAt::Inet(_) => false,
        });
        found.collect::<Vec<_>>()
    };
    match target {
        UnixTarget::Abstract(wanted) => matching(
            &|name, _| matches!(name, UnixName::Abstract(bytes) if **bytes == **wanted),
        ),
        UnixTarget::Path(wanted, last) => {
            let exact = matching(&|_, file| file == Some(*wanted));
            if !exact.is_empty() {
                return exact;
            }
            matching(&|name, file| {
                file.is_some_and(|file| file.inode == wanted.inode)
                    && name.bytes().rsplit(|&b| b == b'/').next() == Some(last)
            })
        }
    }
}

/// How many listeners are looked up one by one before a dump is cheaper.
const FEW: usize = 4;

/// Looks at known listeners again: their queue, backlog and drops. For 20 to 2,000
/// samples a second: up to four TCP listeners are looked up directly, in a few µs each,
/// unless they are of one SO_REUSEPORT group; more take a dump of all that listen.
/// Returns how many are still there; the others keep their last numbers.
///
/// # Errors
/// As [`SockDiag::inet`].
pub fn sample(diag: &mut SockDiag, known: &mut [Listener]) -> io::Result<usize> {
    let mut there = 0;
    for family in [Family::V4, Family::V6] {
        let mut of_family: Vec<&mut Listener> =
            known.iter_mut().filter(|one| one.family() == Some(family)).collect();
        there += match of_family.len() {
            0 => 0,
            1..=FEW => sample_few(diag, family, &mut of_family)?,
            _ => sample_by_dump(diag, family, &mut of_family)?,
        };
    }
    for listener in known.iter_mut().filter(|one| one.family().is_none()) {
        there += usize::from(sample_unix(diag, listener)?);
    }
    Ok(there)
}

fn sample_few(
    diag: &mut SockDiag,
    family: Family,
    known: &mut [&mut Listener],
) -> io::Result<usize> {
    for listener in &mut *known {
        let ListenAt::Inet(local) = listener.at else { continue };
        let id = SocketId {
            local,
            remote: None,
            interface: listener.interface,
            cookie: listener.cookie,
        };
        let found = sample_one(diag, listener, &id)?;
        if !found {
            // Gone, or another of its group is the kernel's choice.
            return sample_by_dump(diag, family, known);
        }
    }
    Ok(known.len())
}

/// Looks at one listener again by its identity; false where another answers to it.
pub(super) fn sample_one(
    diag: &mut SockDiag,
    listener: &mut Listener,
    id: &SocketId,
) -> io::Result<bool> {
    diag.inet_one(&listening(Family::of(id.local)), id, |row| {
        let newer = Listener::from_inet(row);
        listener.update(newer.queue_len, newer.backlog, newer.drops);
    })
}

fn sample_by_dump(
    diag: &mut SockDiag,
    family: Family,
    known: &mut [&mut Listener],
) -> io::Result<usize> {
    let first = known.first().and_then(|one| one.port());
    let local_port = first.filter(|_| known.iter().all(|one| one.port() == first));
    let mut there = 0;
    diag.inet(&InetRequest { local_port, ..listening(family) }, |row| {
        if let Some(one) = known.iter_mut().find(|one| one.cookie == row.cookie) {
            let newer = Listener::from_inet(row);
            one.update(newer.queue_len, newer.backlog, newer.drops);
            there += 1;
        }
    })?;
    Ok(there)
}

pub(super) fn sample_unix(
    diag: &mut SockDiag,
    listener: &mut Listener,
) -> io::Result<bool> {
    let request = UnixRequest { states: States::LISTEN, show: Show::RQLEN };
    let (inode, cookie) = (listener.inode, listener.cookie);
    diag.unix_one(&request, inode, cookie, |row| {
        listener.update(row.recv_q, row.send_q, 0);
    })
}

#[cfg(test)]
mod tests;
