//! One socket of any kind, as every source gives it and every output takes it.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::model::{Cookie, Inode, State, UnixName};
use super::protocol::ProtocolName;
use crate::kernel::sock_diag::{SkMem, Timer};

/// The kind of a socket: its protocol, and for unix and packet sockets its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// TCP, subflows of MPTCP among them.
    Tcp,
    /// An MPTCP connection or listener.
    Mptcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// SCTP.
    Sctp,
    /// A raw(7) socket; its port is the protocol that it was made for.
    Raw,
    /// A ping socket (IPPROTO_ICMP, icmp(7)); its port is the echo identifier.
    Icmp,
    /// Another inet protocol, by its IPPROTO_ number.
    Inet(u16),
    /// unix(7), SOCK_STREAM.
    UnixStream,
    /// unix(7), SOCK_DGRAM.
    UnixDatagram,
    /// unix(7), SOCK_SEQPACKET.
    UnixSeqPacket,
    /// packet(7), SOCK_RAW: with the link-level header.
    PacketRaw,
    /// packet(7), SOCK_DGRAM: without it.
    PacketDatagram,
    /// netlink(7).
    Netlink,
    /// vsock(7).
    Vsock,
    /// AF_XDP.
    Xdp,
    /// A protocol that has no table here, by the kernel's name for it: AF_ALG's `alg`.
    Named(ProtocolName),
    /// Another address family, by its AF_ number; or a socket of no table that has no
    /// known protocol (0).
    Family(u8),
}

impl Kind {
    /// Its name in a table and in every format: `tcp`, `u_str`, `p_raw`, `nl` as ss(8)
    /// has them; by its number where this program has no name.
    #[must_use]
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Sctp => "sctp",
            Self::Raw => "raw",
            Self::Icmp => "icmp",
            Self::UnixStream => "u_str",
            Self::UnixDatagram => "u_dgr",
            Self::UnixSeqPacket => "u_seq",
            Self::PacketRaw => "p_raw",
            Self::PacketDatagram => "p_dgr",
            Self::Netlink => "nl",
            Self::Vsock => "v_str",
            Self::Xdp => "xdp",
            Self::Named(name) => name.as_str(),
            Self::Inet(number) => return Cow::Owned(format!("ipproto-{number}")),
            Self::Family(0) => "?",
            Self::Family(number) => return Cow::Owned(format!("family-{number}")),
        })
    }

    /// Whether its addresses are of IPv4 or IPv6.
    #[must_use]
    pub fn is_inet(self) -> bool {
        use Kind::{Icmp, Inet, Mptcp, Raw, Sctp, Tcp, Udp, UdpLite};
        matches!(self, Tcp | Mptcp | Udp | UdpLite | Sctp | Raw | Icmp | Inet(_))
    }

    /// Whether it is of unix(7).
    #[must_use]
    pub fn is_unix(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixDatagram | Self::UnixSeqPacket)
    }

    /// Whether a listener of this kind has an accept queue, so that a socket in a
    /// connected state without an inode waits in one.
    #[must_use]
    pub fn has_accept_queue(self) -> bool {
        matches!(
            self,
            Self::Tcp
                | Self::Mptcp
                | Self::Sctp
                | Self::UnixStream
                | Self::UnixSeqPacket
                | Self::Vsock
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

/// One end of a socket, in the terms of its family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Address<'a> {
    /// None: it is not bound, has no peer, or its family has no such thing.
    #[default]
    None,
    /// IPv4 or IPv6 and a port, as the socket has it: v4-mapped addresses stay such, and
    /// an unspecified address with port 0 is that of a socket without a peer.
    Inet(SocketAddr),
    /// A unix socket: its name, where it has one, and its inode (0: it waits in an accept
    /// queue or was closed).
    Unix {
        /// The name that it is bound to.
        name: Option<UnixName<'a>>,
        /// Its inode.
        inode: Inode,
    },
    /// A packet socket: the protocol that it receives (ETH_P_, 3 for all) and the index
    /// of the interface that it is bound to (0 for every).
    Packet {
        /// An ETH_P_ number, in host order.
        protocol: u16,
        /// An interface index.
        interface: u32,
    },
    /// A netlink socket: its family (NETLINK_ROUTE, …) and its port; 0 is the kernel.
    Netlink {
        /// A NETLINK_ number.
        family: u8,
        /// nl_pid.
        port: u32,
    },
    /// A vsock: the context and the port.
    Vsock {
        /// The context; u32::MAX for any.
        cid: u32,
        /// The port; u32::MAX for any.
        port: u32,
    },
}

impl Address<'_> {
    /// The same, owned.
    #[must_use]
    pub fn into_owned(self) -> Address<'static> {
        match self {
            Self::None => Address::None,
            Self::Inet(address) => Address::Inet(address),
            Self::Unix { name, inode } => {
                Address::Unix { name: name.map(UnixName::into_owned), inode }
            }
            Self::Packet { protocol, interface } => {
                Address::Packet { protocol, interface }
            }
            Self::Netlink { family, port } => Address::Netlink { family, port },
            Self::Vsock { cid, port } => Address::Vsock { cid, port },
        }
    }

    /// The IP address and port of an inet socket.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        match *self {
            Self::Inet(address) => Some(address),
            _ => None,
        }
    }

    /// The IP address of an inet socket, a v4-mapped one as the IPv4 address in it.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.inet().map(|address| address.ip().to_canonical())
    }
}

/// What a row has only where it was asked for ([`super::select::Details`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extra<'a> {
    /// struct tcp_info, as many bytes as the kernel knows: read by
    /// [`crate::kernel::tcp_info::TcpInfo::parse`].
    pub tcp_info: Option<Cow<'a, [u8]>>,
    /// The congestion control's name.
    pub congestion: Option<Cow<'a, [u8]>>,
    /// SO_MEMINFO.
    pub memory: Option<SkMem>,
    /// IP_TOS.
    pub tos: Option<u8>,
    /// IPV6_TCLASS.
    pub tclass: Option<u8>,
    /// The traffic class that the socket's cgroup has (net_cls), or SO_PRIORITY.
    pub class_id: Option<u32>,
    /// Options of the socket, as struct inet_diag_sockopt has them (Linux 5.10).
    pub options: Option<u16>,
    /// The upper layer protocol on top of TCP: `tls`, `mptcp`, ….
    pub ulp: Option<Cow<'a, [u8]>>,
}

impl Extra<'_> {
    fn into_owned(self) -> Extra<'static> {
        let owned =
            |bytes: Option<Cow<'_, [u8]>>| bytes.map(|b| Cow::Owned(b.into_owned()));
        Extra {
            tcp_info: owned(self.tcp_info),
            congestion: owned(self.congestion),
            memory: self.memory,
            tos: self.tos,
            tclass: self.tclass,
            class_id: self.class_id,
            options: self.options,
            ulp: owned(self.ulp),
        }
    }
}

/// One socket. What a source cannot tell is None, never 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its state. FIN_WAIT2 with inode 0 may be a TIME_WAIT that began early.
    pub state: State,
    /// Whether it is of AF_INET6, which a v4-mapped address alone would not tell.
    pub is_v6: bool,
    /// Its own end.
    pub local: Address<'a>,
    /// Its peer's.
    pub remote: Address<'a>,
    /// Bytes received and not read; of a listener, connections in its accept queue.
    pub recv_q: u32,
    /// Bytes not acknowledged (TCP) or not sent; of a listener, its effective backlog,
    /// None where the source does not know it (/proc).
    pub send_q: Option<u32>,
    /// Connections or datagrams that this socket dropped since it was made
    /// (SK_MEMINFO_DROPS); of every listener, of others where memory was asked for. From
    /// /proc of every datagram, raw and netlink socket, and of no listener.
    pub drops: Option<u32>,
    /// Who made it.
    pub uid: Option<u32>,
    /// Its inode; 0 while no file has it.
    pub inode: Inode,
    /// Its identity; None from /proc.
    pub cookie: Option<Cookie>,
    /// The interface that it is bound to, or 0.
    pub interface: u32,
    /// SO_MARK; None where it may not be seen (CAP_NET_ADMIN).
    pub mark: Option<u32>,
    /// Its timer, where one runs.
    pub timer: Option<Timer>,
    /// The ends that are shut down: 1 receiving, 2 sending.
    pub shutdown: u8,
    /// IPV6_V6ONLY, of a v6 socket in LISTEN or CLOSE.
    pub v6_only: Option<bool>,
    /// The cgroup v2 that made it, by its id (the inode of its folder).
    pub cgroup: Option<u64>,
    /// What was asked for beyond this.
    pub extra: Option<Box<Extra<'a>>>,
}

impl Row<'_> {
    /// A row with nothing known but its kind and state.
    #[must_use]
    pub fn new(kind: Kind, state: State) -> Self {
        Self {
            kind,
            state,
            is_v6: false,
            local: Address::None,
            remote: Address::None,
            recv_q: 0,
            send_q: None,
            drops: None,
            uid: None,
            inode: Inode(0),
            cookie: None,
            interface: 0,
            mark: None,
            timer: None,
            shutdown: 0,
            v6_only: None,
            cgroup: None,
            extra: None,
        }
    }

    /// The same, owned: to be kept when the source goes on.
    #[must_use]
    pub fn into_owned(self) -> Row<'static> {
        let Self { local, remote, extra, .. } = self;
        Row {
            local: local.into_owned(),
            remote: remote.into_owned(),
            extra: extra.map(|extra| Box::new(extra.into_owned())),
            kind: self.kind,
            state: self.state,
            is_v6: self.is_v6,
            recv_q: self.recv_q,
            send_q: self.send_q,
            drops: self.drops,
            uid: self.uid,
            inode: self.inode,
            cookie: self.cookie,
            interface: self.interface,
            mark: self.mark,
            timer: self.timer,
            shutdown: self.shutdown,
            v6_only: self.v6_only,
            cgroup: self.cgroup,
        }
    }

    /// Whether it waits in an accept queue: complete, and no application has it.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        let open = matches!(self.state, State::Established | State::CloseWait);
        self.kind.has_accept_queue() && open && !self.inode.exists()
    }
}
