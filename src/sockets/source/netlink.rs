//! Rows from sock_diag(7), with /proc for the tables that this kernel's sock_diag lacks.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;

use super::{Again, Lack, Passed, Source};
use crate::kernel::sock_diag::{
    DumpEnd, Extensions, Family, InetRequest, InetRow, NetlinkRequest, NetlinkRow,
    PacketRequest, PacketRow, Protocol, Show, SockDiag, SocketId, UnixKind, UnixRequest,
    UnixRow,
};
use crate::sockets::model::{Cookie, Inode, State, States, UnixName};
use crate::sockets::row::{Address, Extra, Kind, Row};
use crate::sockets::select::{Details, Selection, Tables, Versions};

mod again;

pub use self::again::ended;

/// The inet protocols that have tables of their own, and the table each is in. What is
/// in [`Tables::OTHER_INET`] is asked for by number; most kernels have none of it.
const PROTOCOLS: [(Tables, Protocol); 6] = [
    (Tables::MPTCP, Protocol::MPTCP),
    (Tables::TCP, Protocol::TCP),
    (Tables::UDP, Protocol::UDP),
    (Tables::UDP, Protocol::UDPLITE),
    (Tables::SCTP, Protocol::SCTP),
    (Tables::RAW, Protocol::RAW),
];

/// sock_diag of one network namespace.
#[derive(Debug)]
pub struct NetlinkSource {
    diag: SockDiag,
    /// Subflows of MPTCP that the last pass left out.
    left_out: HashSet<Cookie>,
}

impl NetlinkSource {
    /// Opens it in the calling thread's network namespace; it may be used by another.
    ///
    /// # Errors
    /// As [`SockDiag::open`].
    pub fn open() -> io::Result<Self> {
        Ok(Self { diag: SockDiag::open()?, left_out: HashSet::new() })
    }

    /// The same namespace's sock_diag, to look a single socket up or to close it.
    pub fn diag(&mut self) -> &mut SockDiag {
        &mut self.diag
    }
}

type Each<'a> = &'a mut dyn FnMut(Row<'_>) -> ControlFlow<()>;

impl Source for NetlinkSource {
    fn rows(&mut self, selection: &Selection, each: Each<'_>) -> io::Result<Passed> {
        self.left_out.clear();
        let mut pass = Pass {
            diag: &mut self.diag,
            left_out: &mut self.left_out,
            selection,
            passed: Passed::default(),
            stopped: false,
            subflows: HashSet::new(),
            has_unaccepted: false,
            bound: HashSet::new(),
        };
        pass.inet(each)?;
        pass.unix(each)?;
        pass.packet(each)?;
        pass.netlink(each)?;
        Ok(pass.passed)
    }

    fn again(&mut self, row: &Row<'_>, selection: &Selection) -> Again {
        again::look(&mut self.diag, row, selection)
    }

    fn left_out(&self, cookie: Cookie) -> bool {
        self.left_out.contains(&cookie)
    }

    fn still_has(&mut self, row: &Row<'_>) -> Option<bool> {
        let cookie = row.cookie?;
        if let Some((family, protocol, id)) = identity(row) {
            let request =
                InetRequest { protocol, ..InetRequest::tcp(family, States::ALL) };
            if protocol == Protocol::TCP && id.remote.is_some() {
                return self.diag.inet_one(&request, &id, |_| {}).ok();
            }
            // Others are not found by what they are: of several that share an address
            // (SO_REUSEPORT) the kernel chooses one, it looks for MPTCP by a token, and
            // it takes the ends of UDP the other way round.
            let states = match row.state {
                State::Listen => States::LISTEN,
                State::Close if protocol == Protocol::TCP => States::BOUND,
                _ => States::ALL,
            };
            let local_port = Some(id.local.port());
            let request = InetRequest { states, local_port, ..request };
            let mut found = false;
            let done = self.diag.inet(&request, |row| found |= row.cookie == cookie);
            return done.ok().map(|_| found);
        }
        if !row.kind.is_unix() {
            return None;
        }
        let request = UnixRequest { states: States::ALL, show: Show::NAME };
        self.diag.unix_one(&request, row.inode, cookie, |_| {}).ok()
    }
}

/// What names a TCP, MPTCP or UDP socket to the kernel: to look at it again or to close
/// it. None for others, and for rows that did not come from sock_diag.
#[must_use]
pub fn identity(row: &Row<'_>) -> Option<(Family, Protocol, SocketId)> {
    let protocol = match row.kind {
        Kind::Tcp => Protocol::TCP,
        Kind::Mptcp => Protocol::MPTCP,
        Kind::Udp => Protocol::UDP,
        Kind::UdpLite => Protocol::UDPLITE,
        _ => return None,
    };
    let family = if row.is_v6 { Family::V6 } else { Family::V4 };
    let remote = row.remote.inet().filter(|remote| remote.port() != 0);
    let id = SocketId {
        local: row.local.inet()?,
        remote,
        interface: row.interface,
        cookie: row.cookie?,
    };
    Some((family, protocol, id))
}

/// One pass over the tables.
struct Pass<'a> {
    diag: &'a mut SockDiag,
    left_out: &'a mut HashSet<Cookie>,
    selection: &'a Selection,
    passed: Passed,
    stopped: bool,
    /// The inodes of MPTCP connections: what is in the TCP table under one of them is
    /// a subflow, and the same socket to its owner.
    subflows: HashSet<Inode>,
    /// Whether there are MPTCP connections without an inode, whose subflows can be told
    /// by their upper layer protocol alone.
    has_unaccepted: bool,
    /// TCP sockets that were bound and not connected when they were read. The kernel
    /// walks them before those that are connected: one that connects meanwhile is there
    /// again.
    bound: HashSet<Cookie>,
}

impl Pass<'_> {
    fn wants(&self, tables: Tables) -> bool {
        !self.stopped && self.selection.tables.has(tables)
    }

    /// Takes in how a dump ended; a table that the kernel does not have is noted.
    fn took(&mut self, what: &str, done: io::Result<DumpEnd>) -> io::Result<()> {
        match done {
            Ok(end) => self.passed.interrupted |= end.interrupted,
            Err(error) if is_missing(&error) => {
                let lack = Lack { what: what.to_owned(), why: error.to_string() };
                if !self.passed.lacking.contains(&lack) {
                    self.passed.lacking.push(lack);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn inet(&mut self, each: Each<'_>) -> io::Result<()> {
        for (table, protocol) in PROTOCOLS {
            if self.wants(table) {
                self.protocol(protocol, each)?;
            }
        }
        Ok(())
    }

    fn protocol(&mut self, protocol: Protocol, each: Each<'_>) -> io::Result<()> {
        let mut states = self.selection.states;
        if protocol == Protocol::TCP {
            // In no table: a TCP socket in CLOSE is unbound, or in that of BOUND.
            states = states - States::CLOSE;
        }
        let mut parts = vec![states];
        if listens(protocol) && states.has(States::LISTEN) {
            // A dump of listeners alone is quick, and only there are drops wanted.
            parts = vec![States::LISTEN, states - States::LISTEN];
        }
        for states in parts.into_iter().filter(|states| !states.is_empty()) {
            self.families(protocol, states, each)?;
        }
        Ok(())
    }

    /// One protocol's sockets in some states, of the IP versions that are wanted: where
    /// they share a table and the kernel can, in one walk.
    fn families(
        &mut self,
        protocol: Protocol,
        states: States,
        each: Each<'_>,
    ) -> io::Result<()> {
        let versions = self.selection.versions;
        if protocol == Protocol::TCP && versions == Versions::BOTH && !self.stopped {
            let request = self.request(protocol, Family::V4, states);
            let both = InetRequest { both_families: true, ..request };
            match self.dump(&both, each) {
                Err(error) if is_missing(&error) => {}
                done => return self.took("tcp sockets", done),
            }
        }
        let families = [(versions.v4, Family::V4), (versions.v6, Family::V6)];
        for (_, family) in families.into_iter().filter(|(wanted, _)| *wanted) {
            if self.stopped {
                break;
            }
            let request = self.request(protocol, family, states);
            let done = self.dump(&request, each);
            self.took(&format!("{protocol} sockets"), done)?;
        }
        Ok(())
    }

    fn request(&self, protocol: Protocol, family: Family, states: States) -> InetRequest {
        let listening = listens(protocol) && states == States::LISTEN;
        let mut extensions = extensions(self.selection.details, listening);
        if protocol == Protocol::TCP && self.has_unaccepted {
            extensions = extensions | Extensions::INFO;
        }
        InetRequest { protocol, extensions, ..InetRequest::tcp(family, states) }
    }

    fn dump(&mut self, request: &InetRequest, each: Each<'_>) -> io::Result<DumpEnd> {
        let protocol = request.protocol;
        let skips = protocol == Protocol::TCP && self.selection.tables.has(Tables::MPTCP);
        let (subflows, stopped) = (&mut self.subflows, &mut self.stopped);
        let (has_unaccepted, left_out) = (&mut self.has_unaccepted, &mut *self.left_out);
        let bound = &mut self.bound;
        let mut each = |row: &InetRow<'_>| {
            if protocol == Protocol::MPTCP {
                match row.inode.exists() {
                    true => _ = subflows.insert(row.inode),
                    false => *has_unaccepted = true,
                }
            }
            if !bound.is_empty() && bound.contains(&row.cookie) {
                return ControlFlow::Continue(());
            }
            if skips && is_subflow(row, subflows) {
                left_out.insert(row.cookie);
                return ControlFlow::Continue(());
            }
            if protocol == Protocol::TCP && row.state == State::Close {
                bound.insert(row.cookie);
            }
            let flow = each(from_inet(row, protocol));
            *stopped |= flow.is_break();
            flow
        };
        // A connection that was left out would not name its subflows.
        let program = self.selection.program.as_ref();
        let program = program.filter(|_| protocol != Protocol::MPTCP);
        let done = self.diag.inet_until(request, program, &mut each);
        let is_refused = |e: &io::Error| e.kind() == io::ErrorKind::InvalidInput;
        if program.is_some() && done.as_ref().is_err_and(is_refused) {
            // An older kernel, which does not know a condition in it.
            return self.diag.inet_until(request, None, &mut each);
        }
        done
    }

    fn unix(&mut self, each: Each<'_>) -> io::Result<()> {
        if !self.wants(Tables::UNIX) {
            return Ok(());
        }
        let mut show = Show::NAME | Show::PEER | Show::RQLEN | Show::UID;
        if self.selection.details.memory {
            show = show | Show::MEMINFO;
        }
        let mut peers = HashMap::new();
        if self.selection.details.unix_peers {
            let names = UnixRequest { states: States::ALL, show: Show::NAME };
            self.diag.unix(&names, |row| {
                if let Some(name) = row.name.clone() {
                    peers.insert(row.inode, name.into_owned());
                }
            })?;
        }
        let request = UnixRequest { states: self.selection.states, show };
        let (tables, stopped) = (self.selection.tables, &mut self.stopped);
        let done = self.diag.unix_until(&request, |row| {
            let (kind, table) = unix_kind(row.kind);
            if !tables.has(table) {
                return ControlFlow::Continue(());
            }
            let flow = each(from_unix(row, kind, &peers));
            *stopped |= flow.is_break();
            flow
        });
        self.took("unix sockets", done)
    }

    fn packet(&mut self, each: Each<'_>) -> io::Result<()> {
        let shows = self.selection.states.contains(State::Close);
        if !self.wants(Tables::PACKET) || !shows {
            return Ok(());
        }
        let memory = self.selection.details.memory;
        let stopped = &mut self.stopped;
        let done = self.diag.packet_until(PacketRequest, |row| {
            let flow = each(from_packet(row, memory));
            *stopped |= flow.is_break();
            flow
        });
        self.took("packet sockets", done)
    }

    fn netlink(&mut self, each: Each<'_>) -> io::Result<()> {
        let shows = self.selection.states.contains(State::Close);
        if !self.wants(Tables::NETLINK) || !shows {
            return Ok(());
        }
        let memory = self.selection.details.memory;
        let stopped = &mut self.stopped;
        let done = self.diag.netlink_until(NetlinkRequest, |row| {
            let flow = each(from_netlink(row, memory));
            *stopped |= flow.is_break();
            flow
        });
        self.took("netlink sockets", done)
    }
}

/// Whether the kernel lacks what was asked for, as [`SockDiag`] says it.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported)
}

fn listens(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::MPTCP | Protocol::SCTP)
}

fn is_subflow(row: &InetRow<'_>, subflows: &HashSet<Inode>) -> bool {
    row.ulp == Some(b"mptcp") || (row.inode.exists() && subflows.contains(&row.inode))
}

fn extensions(details: Details, listening: bool) -> Extensions {
    let mut wanted = Extensions::NONE;
    if details.memory || listening {
        wanted = wanted | Extensions::SK_MEMINFO;
    }
    if details.tcp_info {
        wanted = wanted | Extensions::INFO | Extensions::CONGESTION;
    }
    if details.options {
        wanted = wanted | Extensions::TOS | Extensions::TCLASS;
    }
    wanted
}

fn kind_of(protocol: Protocol) -> Kind {
    match protocol {
        Protocol::TCP => Kind::Tcp,
        Protocol::MPTCP => Kind::Mptcp,
        Protocol::UDP => Kind::Udp,
        Protocol::UDPLITE => Kind::UdpLite,
        Protocol::SCTP => Kind::Sctp,
        Protocol::RAW => Kind::Raw,
        Protocol::ICMP => Kind::Icmp,
        Protocol(other) => Kind::Inet(other),
    }
}

fn from_inet<'a>(row: &InetRow<'a>, protocol: Protocol) -> Row<'a> {
    let extra = Extra {
        tcp_info: row.tcp_info.map(Cow::Borrowed),
        congestion: row.congestion.map(Cow::Borrowed),
        memory: row.sk_mem,
        tos: row.tos,
        tclass: row.tclass,
        class_id: row.class_id,
        options: row.options,
        ulp: row.ulp.map(Cow::Borrowed),
    };
    let has_extra = extra.tcp_info.is_some()
        || extra.congestion.is_some()
        || extra.memory.is_some()
        || extra.tos.is_some()
        || extra.tclass.is_some();
    Row {
        is_v6: row.family == Family::V6,
        local: Address::Inet(row.local),
        remote: Address::Inet(row.remote),
        recv_q: row.recv_q,
        send_q: Some(row.send_q),
        drops: row.sk_mem.map(|memory| memory.drops),
        uid: Some(row.uid),
        inode: row.inode,
        cookie: Some(row.cookie),
        interface: row.interface,
        mark: row.mark,
        timer: row.timer,
        shutdown: row.shutdown,
        v6_only: row.v6_only,
        cgroup: row.cgroup,
        extra: has_extra.then(|| Box::new(extra)),
        ..Row::new(kind_of(protocol), row.state)
    }
}

fn unix_kind(kind: UnixKind) -> (Kind, Tables) {
    match kind {
        UnixKind::Stream => (Kind::UnixStream, Tables::UNIX_STREAM),
        UnixKind::Datagram => (Kind::UnixDatagram, Tables::UNIX_DATAGRAM),
        UnixKind::SeqPacket => (Kind::UnixSeqPacket, Tables::UNIX_SEQPACKET),
        // AF_UNIX has these three types alone (net/unix/af_unix.c, unix_create).
        UnixKind::Unknown(_) => (Kind::Family(1), Tables::UNIX),
    }
}

fn from_unix<'a>(
    row: &UnixRow<'a>,
    kind: Kind,
    peers: &'a HashMap<Inode, UnixName<'static>>,
) -> Row<'a> {
    let remote = match row.peer {
        Some(inode) => Address::Unix { name: peers.get(&inode).cloned(), inode },
        None => Address::None,
    };
    Row {
        local: Address::Unix { name: row.name.clone(), inode: row.inode },
        remote,
        recv_q: row.recv_q,
        send_q: Some(row.send_q),
        uid: row.uid,
        inode: row.inode,
        cookie: Some(row.cookie),
        shutdown: row.shutdown,
        extra: row
            .sk_mem
            .map(|memory| Box::new(Extra { memory: Some(memory), ..Extra::default() })),
        ..Row::new(kind, row.state)
    }
}

fn from_packet(row: &PacketRow, memory: bool) -> Row<'static> {
    let kind = if row.is_datagram { Kind::PacketDatagram } else { Kind::PacketRaw };
    let sk_mem = row.sk_mem.unwrap_or_default();
    Row {
        local: Address::Packet { protocol: row.protocol, interface: row.interface },
        recv_q: sk_mem.rmem_alloc,
        send_q: row.sk_mem.map(|memory| memory.wmem_alloc),
        drops: row.sk_mem.map(|memory| memory.drops),
        uid: row.uid,
        inode: row.inode,
        cookie: Some(row.cookie),
        interface: row.interface,
        extra: extra_memory(row.sk_mem, memory),
        ..Row::new(kind, State::Close)
    }
}

/// Their state is UNCONN as that of packet sockets, and as ss(8) and /proc have it, even
/// with a peer: it is where they send by default, and others may still send to them.
fn from_netlink(row: &NetlinkRow, memory: bool) -> Row<'static> {
    let (family, sk_mem) = (row.family, row.sk_mem.unwrap_or_default());
    Row {
        local: Address::Netlink { family, port: row.port },
        remote: match row.is_connected {
            true => Address::Netlink { family, port: row.remote_port },
            false => Address::None,
        },
        recv_q: sk_mem.rmem_alloc,
        send_q: row.sk_mem.map(|memory| memory.wmem_alloc),
        drops: row.sk_mem.map(|memory| memory.drops),
        inode: row.inode,
        cookie: Some(row.cookie),
        extra: extra_memory(row.sk_mem, memory),
        ..Row::new(Kind::Netlink, State::Close)
    }
}

fn extra_memory<'a>(
    sk_mem: Option<crate::kernel::sock_diag::SkMem>,
    wanted: bool,
) -> Option<Box<Extra<'a>>> {
    let memory = sk_mem.filter(|_| wanted)?;
    Some(Box::new(Extra { memory: Some(memory), ..Extra::default() }))
}

#[cfg(test)]
mod tests;
