//! Source ports towards one destination: how many are taken, by whom, and how many are
//! left before connect() says EADDRNOTAVAIL.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use serde::{Deserialize, Serialize};

use super::model::{Comm, Family, Inode, State, States, canonical};
use super::owners::owners_of;
use crate::host::ports::PortSet;
use crate::host::{ProcRoot, ReadError, sysctl};
use crate::kernel::sock_diag::{InetRequest, SockDiag};

/// The first port that needs no right to bind.
const FIRST_PORT: u16 = 1024;

/// The ports that a source port can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// ip_local_port_range, both ends included.
    pub range: (u16, u16),
    /// ip_local_reserved_ports.
    pub reserved: PortSet,
}

impl Range {
    /// That of the calling thread's network namespace.
    ///
    /// # Errors
    /// As [`sysctl::local_port_range`].
    pub fn read(root: &ProcRoot) -> Result<Self, ReadError> {
        let reserved = match sysctl::reserved_ports(root) {
            Err(error) if error.is_missing() => PortSet::default(),
            read => read?,
        };
        Ok(Self { range: sysctl::local_port_range(root)?, reserved })
    }

    /// Whether the kernel picks it.
    fn has(&self, port: u16) -> bool {
        (self.range.0..=self.range.1).contains(&port) && !self.reserved.contains(port)
    }

    /// Ports from `low` to `high` that are not reserved.
    fn count(&self, low: u16, high: u16) -> u64 {
        (u64::from(high - low) + 1).saturating_sub(self.reserved.count_within(low, high))
    }

    /// Ports that the kernel picks from.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.count(self.range.0, self.range.1)
    }
}

/// All source ports towards one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// The destination.
    pub to: SocketAddr,
    /// ip_local_port_range.
    pub port_range: (u16, u16),
    /// Ports of it that are not reserved.
    pub port_range_size: u64,
    /// Each source address that has connections there, or would be used; the one with
    /// the fewest ports left first.
    pub sources: Vec<SourceUse>,
    /// Processes whose descriptors could not be read.
    pub unreadable_processes: u64,
}

/// The source ports of one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceUse {
    /// The source address.
    pub from: IpAddr,
    /// Whether it is the one that the kernel picks.
    pub is_default: bool,
    /// Ports taken towards the destination, inside and outside of the range.
    pub in_use: u64,
    /// Of these, in TIME_WAIT.
    pub time_wait: u64,
    /// Ports of the range that are not towards this destination, but bound by other
    /// sockets, so that the kernel passes them over.
    pub bound_by_others: u64,
    /// Ports that the kernel can still pick.
    pub left: u64,
    /// Ports from 1,024 on that a program can still bind by itself (SO_REUSEADDR, bind).
    pub left_bound: u64,
    /// Who has them, the most first.
    pub by: Vec<PortUser>,
}

/// One that has source ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUser {
    /// The process; null for what no process has.
    pub pid: Option<u32>,
    /// Its name; else `TIME-WAIT`, `closed` (the kernel still ends it) or
    /// `not permitted` (a process that may not be read has it).
    pub name: String,
    /// How many.
    pub ports: u64,
}

/// A socket towards the destination.
#[derive(Debug, Clone, Copy)]
struct Taken {
    local: SocketAddr,
    inode: Inode,
    time_wait: bool,
}

/// Looks at the source ports towards `to`.
///
/// # Errors
/// As [`SockDiag::inet`].
pub fn egress(
    diag: &mut SockDiag,
    root: &ProcRoot,
    to: SocketAddr,
    range: &Range,
) -> io::Result<Egress> {
    let to = canonical(to);
    let taken = towards(diag, to)?;
    let bound = bound_ports(diag)?;
    let inodes: HashSet<Inode> =
        taken.iter().map(|one| one.inode).filter(|inode| inode.exists()).collect();
    let owners = owners_of(root.as_path(), &inodes)?;
    let first: HashMap<Inode, (u32, Comm)> = {
        let mut first = HashMap::new();
        for (inode, owner) in owners.iter() {
            first.entry(inode).or_insert((owner.pid, owner.comm));
        }
        first
    };
    let mut by_source: BTreeMap<IpAddr, Vec<Taken>> = BTreeMap::new();
    for one in taken {
        by_source.entry(one.local.ip()).or_default().push(one);
    }
    let default = default_source(to);
    if let Some(default) = default {
        by_source.entry(default).or_default();
    }
    let mut sources: Vec<SourceUse> = by_source
        .into_iter()
        .map(|(from, taken)| SourceUse {
            is_default: default == Some(from),
            by: users(&taken, &first),
            ..ports_of(from, to, &taken, &bound, range)
        })
        .collect();
    sources.sort_by_key(|source| source.left);
    Ok(Egress {
        to,
        port_range: range.range,
        port_range_size: range.size(),
        sources,
        unreadable_processes: owners.unreadable() as u64,
    })
}

/// Every socket of this namespace whose peer is `to`.
fn towards(diag: &mut SockDiag, to: SocketAddr) -> io::Result<Vec<Taken>> {
    // An IPv4 peer may be that of an IPv6 socket, by its v4-mapped address.
    let families: &[Family] =
        if to.is_ipv4() { &[Family::V4, Family::V6] } else { &[Family::V6] };
    let mut taken = Vec::new();
    for &family in families {
        let request = InetRequest {
            remote_port: Some(to.port()),
            ..InetRequest::tcp(family, States::CONNECTED | States::TIME_WAIT)
        };
        diag.inet(&request, |row| {
            let remote = canonical(row.remote);
            if (remote.ip(), remote.port()) == (to.ip(), to.port()) {
                taken.push(Taken {
                    local: canonical(row.local),
                    inode: row.inode,
                    // FIN_WAIT2 without an inode may be one that began early; who has it
                    // is the same: nobody.
                    time_wait: row.state == State::TimeWait,
                });
            }
        })?;
    }
    Ok(taken)
}

/// Ports that are bound and not connected: connect() passes them over whatever their
/// address (net/ipv4/inet_hashtables.c, __inet_hash_connect).
fn bound_ports(diag: &mut SockDiag) -> io::Result<HashSet<u16>> {
    let mut bound = HashSet::new();
    for family in [Family::V4, Family::V6] {
        for states in [States::LISTEN, States::BOUND] {
            let request = InetRequest::tcp(family, states);
            diag.inet(&request, |row| {
                bound.insert(row.local.port());
            })?;
        }
    }
    Ok(bound)
}

fn ports_of(
    from: IpAddr,
    to: SocketAddr,
    taken: &[Taken],
    bound: &HashSet<u16>,
    range: &Range,
) -> SourceUse {
    let ports: BTreeSet<u16> = taken.iter().map(|one| one.local.port()).collect();
    let waiting: BTreeSet<u16> =
        taken.iter().filter(|one| one.time_wait).map(|one| one.local.port()).collect();
    let others = bound.iter().filter(|port| !ports.contains(port));
    let others_in_range = others.clone().filter(|&&port| range.has(port)).count() as u64;
    let used_in_range = ports.iter().filter(|&&port| range.has(port)).count() as u64;
    let beyond = |port: &&u16| **port >= FIRST_PORT && !range.reserved.contains(**port);
    let itself = u64::from(to.ip() == from && !ports.contains(&to.port()));
    let left_bound = range
        .count(FIRST_PORT, u16::MAX)
        .saturating_sub(ports.iter().filter(beyond).count() as u64)
        .saturating_sub(others.filter(beyond).count() as u64)
        // From the target's own address and port it would dial itself.
        .saturating_sub(itself.min(u64::from(!bound.contains(&to.port()))));
    SourceUse {
        from,
        is_default: false,
        in_use: ports.len() as u64,
        time_wait: waiting.len() as u64,
        bound_by_others: others_in_range,
        left: range.size().saturating_sub(used_in_range + others_in_range),
        left_bound,
        by: Vec::new(),
    }
}

fn users(taken: &[Taken], owners: &HashMap<Inode, (u32, Comm)>) -> Vec<PortUser> {
    let mut counts: HashMap<(Option<u32>, String), u64> = HashMap::new();
    for one in taken {
        let user = match owners.get(&one.inode) {
            Some((pid, comm)) => (Some(*pid), comm.to_string()),
            None if one.time_wait => (None, "TIME-WAIT".to_owned()),
            None if one.inode.exists() => (None, "not permitted".to_owned()),
            None => (None, "closed".to_owned()),
        };
        *counts.entry(user).or_default() += 1;
    }
    let mut users: Vec<PortUser> = counts
        .into_iter()
        .map(|((pid, name), ports)| PortUser { pid, name, ports })
        .collect();
    users.sort_by(|a, b| (b.ports, a.pid, &a.name).cmp(&(a.ports, b.pid, &b.name)));
    users
}

/// The source address that the kernel picks for a destination; None without a route.
/// Connecting a UDP socket sends nothing.
fn default_source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn range(low: u16, high: u16, reserved: &str) -> Range {
        Range { range: (low, high), reserved: PortSet::parse(reserved).unwrap() }
    }

    fn taken(address: &str, time_wait: bool) -> Taken {
        Taken { local: address.parse().unwrap(), inode: Inode(0), time_wait }
    }

    #[test]
    fn ports_are_taken_once_and_only_those_of_the_range_are_the_kernel_s() {
        let range = range(40_000, 40_009, "40009");
        let to = "10.0.0.9:5432".parse().unwrap();
        let from = "10.0.0.1".parse().unwrap();
        let here = [
            taken("10.0.0.1:40000", false),
            taken("10.0.0.1:40001", true),
            taken("10.0.0.1:50000", false),
        ];
        // A listener in the range, one on a port that is taken anyway, one beside it.
        let bound = HashSet::from([40_002, 40_000, 80]);
        let found = ports_of(from, to, &here, &bound, &range);
        assert_eq!((found.in_use, found.time_wait), (3, 1));
        assert_eq!((found.bound_by_others, found.left), (1, 9 - 3));
        // 64,512 from 1,024 on, less one reserved, three taken and one bound.
        assert_eq!(found.left_bound, 64_512 - 1 - 3 - 1);
    }

    #[test]
    fn nobody_dials_itself_from_the_target_s_own_port() {
        let range = range(40_000, 40_009, "");
        let to = "127.0.0.1:5432".parse().unwrap();
        let none = HashSet::new();
        let found = ports_of("127.0.0.1".parse().unwrap(), to, &[], &none, &range);
        assert_eq!((found.left, found.left_bound), (10, 64_511));
        let listening = HashSet::from([5432]);
        let found = ports_of("127.0.0.1".parse().unwrap(), to, &[], &listening, &range);
        assert_eq!(found.left_bound, 64_511);
    }

    #[test]
    fn connections_of_this_process_are_found_and_are_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let clients: Vec<TcpStream> =
            (0..5).map(|_| TcpStream::connect(to).unwrap()).collect();
        let mut diag = SockDiag::open().unwrap();
        let root = ProcRoot::default();
        let range = Range::read(&root).unwrap();
        let found = egress(&mut diag, &root, to, &range).unwrap();
        let source = found.sources.iter().find(|source| source.is_default).unwrap();
        let pid = Some(std::process::id());
        let (ours, others): (Vec<&PortUser>, Vec<&PortUser>) =
            source.by.iter().partition(|user| user.pid == pid);
        assert_eq!(ours.iter().map(|user| user.ports).collect::<Vec<_>>(), [5]);
        // What a test before this one left at the same port.
        assert!(others.iter().all(|user| user.name == "TIME-WAIT"), "{found:?}");
        assert_eq!(source.in_use, 5 + source.time_wait);
        drop(clients);
    }
}
