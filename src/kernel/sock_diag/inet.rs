//! Rows of inet sockets: linux/inet_diag.h, as net/ipv4/inet_diag.c fills them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::BitOr;

use super::super::netlink::frame::{self, Attributes, u32_at};
use super::{Cookie, Inode, SkMem, State, States};

/// sizeof(struct inet_diag_msg), sizeof(struct inet_diag_req_v2), sizeof(struct
/// inet_diag_req).
const ROW: usize = 72;
const REQUEST: usize = 56;
const REQUEST_OF_BOTH: usize = 60;

/// TCPDIAG_GETSOCK (linux/inet_diag.h).
const TCP_OF_BOTH: u16 = 18;

/// INET_DIAG_REQ_PROTOCOL: a protocol that has no room in a byte.
const REQUEST_PROTOCOL: u16 = 3;

const ATTRIBUTE_INFO: u16 = 2;
const ATTRIBUTE_CONG: u16 = 4;
const ATTRIBUTE_TOS: u16 = 5;
const ATTRIBUTE_TCLASS: u16 = 6;
const ATTRIBUTE_SKMEMINFO: u16 = 7;
const ATTRIBUTE_SHUTDOWN: u16 = 8;
const ATTRIBUTE_PROTOCOL: u16 = 10;
const ATTRIBUTE_SKV6ONLY: u16 = 11;
const ATTRIBUTE_MARK: u16 = 15;
const ATTRIBUTE_CLASS_ID: u16 = 17;
const ATTRIBUTE_ULP_INFO: u16 = 19;
const ATTRIBUTE_CGROUP_ID: u16 = 21;
const ATTRIBUTE_SOCKOPT: u16 = 22;
/// INET_ULP_INFO_NAME, in INET_DIAG_ULP_INFO.
const ULP_NAME: u16 = 1;

/// An address family. A v6 socket that also takes IPv4 is in V6's table, with its
/// IPv4 connections as v4-mapped addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

impl Family {
    /// The family of a socket that has this address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn raw(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// A protocol whose sockets can be dumped, by its IPPROTO_ number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u16);

impl Protocol {
    /// IPPROTO_ICMP: the sockets of ping.
    pub const ICMP: Self = Self(1);
    /// IPPROTO_TCP.
    pub const TCP: Self = Self(6);
    /// IPPROTO_UDP.
    pub const UDP: Self = Self(17);
    /// IPPROTO_SCTP.
    pub const SCTP: Self = Self(132);
    /// IPPROTO_UDPLITE.
    pub const UDPLITE: Self = Self(136);
    /// IPPROTO_RAW.
    pub const RAW: Self = Self(255);
    /// IPPROTO_MPTCP: connections; their TCP subflows are rows of [`Self::TCP`].
    pub const MPTCP: Self = Self(262);

    /// The kernel module that dumps its sockets.
    #[must_use]
    pub fn module(self) -> &'static str {
        match self {
            Self::TCP => "tcp_diag",
            Self::UDP | Self::UDPLITE => "udp_diag",
            Self::RAW => "raw_diag",
            Self::SCTP => "sctp_diag",
            Self::MPTCP => "mptcp_diag",
            _ => "sock_diag module for this protocol",
        }
    }
}

/// What is wanted in a row beyond what every row has: a mask of INET_DIAG_* numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions(u8);

impl Extensions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// INET_DIAG_INFO: TCP_INFO of each connection.
    pub const INFO: Self = Self(1 << (ATTRIBUTE_INFO - 1));
    /// INET_DIAG_CONG: the congestion control's name.
    pub const CONGESTION: Self = Self(1 << (ATTRIBUTE_CONG - 1));
    /// INET_DIAG_TOS.
    pub const TOS: Self = Self(1 << (ATTRIBUTE_TOS - 1));
    /// INET_DIAG_TCLASS; gives INET_DIAG_CLASS_ID too.
    pub const TCLASS: Self = Self(1 << (ATTRIBUTE_TCLASS - 1));
    /// INET_DIAG_SKMEMINFO: memory, and drops.
    pub const SK_MEMINFO: Self = Self(1 << (ATTRIBUTE_SKMEMINFO - 1));
}

impl BitOr for Extensions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which sockets to dump. The kernel itself drops those of other ports, which spares
/// the copy of a row but not the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InetRequest {
    /// The table to dump.
    pub family: Family,
    /// The protocol.
    pub protocol: Protocol,
    /// The states wanted, and no others.
    pub states: States,
    /// What is wanted beyond the row.
    pub extensions: Extensions,
    /// Only sockets of this local port.
    pub local_port: Option<u16>,
    /// Only sockets of this remote port; then no listeners.
    pub remote_port: Option<u16>,
    /// Of TCP: the sockets of the other family too, in one walk of the table that both
    /// share. A host with 262,144 buckets takes 45 ms for a walk that finds nothing.
    pub both_families: bool,
}

impl InetRequest {
    /// A request for TCP sockets in some states, with nothing beyond the row.
    #[must_use]
    pub fn tcp(family: Family, states: States) -> Self {
        Self {
            family,
            protocol: Protocol::TCP,
            states,
            extensions: Extensions::NONE,
            local_port: None,
            remote_port: None,
            both_families: false,
        }
    }

    /// The type of its message.
    pub(super) fn message_type(&self) -> u16 {
        if self.is_of_both() { TCP_OF_BOTH } else { super::BY_FAMILY }
    }

    fn is_of_both(&self) -> bool {
        self.both_families && self.protocol == Protocol::TCP
    }

    /// struct inet_diag_req, which names no family (`inet_diag_dump_compat` in
    /// net/ipv4/inet_diag.c).
    fn to_bytes_of_both(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(REQUEST_OF_BOTH);
        bytes.extend([0, 0, 0, self.extensions.0]);
        bytes.extend(self.ports());
        bytes.extend([0; 44]);
        bytes.extend(self.states.0.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    fn ports(self) -> [u8; 4] {
        let [a, b] = self.local_port.unwrap_or(0).to_be_bytes();
        let [c, d] = self.remote_port.unwrap_or(0).to_be_bytes();
        [a, b, c, d]
    }

    /// struct inet_diag_req_v2, then a protocol beyond 255 as an attribute.
    pub(super) fn to_bytes(self, id: Option<&SocketId>) -> Vec<u8> {
        if self.is_of_both() && id.is_none() {
            return self.to_bytes_of_both();
        }
        let mut bytes = Vec::with_capacity(REQUEST + 8);
        let protocol = u8::try_from(self.protocol.0).unwrap_or(u8::MAX);
        bytes.extend([self.family.raw(), protocol, self.extensions.0, 0]);
        bytes.extend(self.states.0.to_ne_bytes());
        match id {
            Some(id) => bytes.extend(id.to_bytes()),
            None => {
                bytes.extend(self.ports());
                bytes.extend([0; 44]);
            }
        }
        if self.protocol.0 > u8::MAX.into() {
            frame::push_u32(&mut bytes, REQUEST_PROTOCOL, self.protocol.0.into());
        }
        bytes
    }
}

/// The identity of one socket (struct inet_diag_sockid).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketId {
    /// Its own address, of the family that its table has.
    pub local: SocketAddr,
    /// Its peer's; None for a listener.
    pub remote: Option<SocketAddr>,
    /// The interface that it is bound to, 0 for none.
    pub interface: u32,
    /// The socket itself, in case that another has taken its addresses.
    pub cookie: Cookie,
}

impl SocketId {
    /// The address that stands for no peer, of the family that the look-up needs.
    #[must_use]
    pub fn nobody(&self) -> IpAddr {
        // The look-up of a v4-mapped listener is one of IPv4 only where both are mapped.
        match self.local.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into()
            }
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    fn to_bytes(self) -> [u8; 48] {
        let remote = self.remote.unwrap_or_else(|| SocketAddr::new(self.nobody(), 0));
        let mut bytes = [0; 48];
        bytes[0..2].copy_from_slice(&self.local.port().to_be_bytes());
        bytes[2..4].copy_from_slice(&remote.port().to_be_bytes());
        bytes[4..20].copy_from_slice(&octets(self.local.ip()));
        bytes[20..36].copy_from_slice(&octets(remote.ip()));
        bytes[36..40].copy_from_slice(&self.interface.to_ne_bytes());
        bytes[40..48].copy_from_slice(&self.cookie.to_bytes());
        bytes
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What a connection's timer waits for (idiag_timer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// To send something again.
    Retransmit,
    /// To probe an idle peer.
    Keepalive,
    /// For TIME_WAIT (or FIN_WAIT2) to be over.
    TimeWait,
    /// To probe a window of 0.
    WindowProbe,
    /// A number that this program does not know.
    Unknown(u8),
}

impl TimerKind {
    /// The kind of a number that the kernel gives; None for 0, where no timer runs.
    #[must_use]
    pub fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => return None,
            1 => Self::Retransmit,
            2 => Self::Keepalive,
            3 => Self::TimeWait,
            4 => Self::WindowProbe,
            other => Self::Unknown(other),
        })
    }
}

/// The timer of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// What it waits for.
    pub kind: TimerKind,
    /// Milliseconds until it fires.
    pub expires_ms: u32,
    /// How often it has fired in vain: retransmits, or probes unanswered.
    pub retransmits: u8,
}

/// One inet socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InetRow<'a> {
    /// The table that it is in.
    pub family: Family,
    /// Its protocol; of a raw socket, the one that it was made for.
    pub protocol: Protocol,
    /// Its state. FIN_WAIT2 with inode 0 may be a TIME_WAIT that began early.
    pub state: State,
    /// Its own address, v4-mapped in a v6 socket's IPv4 connection; see [`canonical`].
    pub local: SocketAddr,
    /// Its peer's, unspecified where it has none.
    pub remote: SocketAddr,
    /// Bytes received and not read; of a listener, connections in its accept queue.
    pub recv_q: u32,
    /// Bytes not acknowledged; of a listener, its effective backlog.
    pub send_q: u32,
    /// Who made it.
    pub uid: u32,
    /// Its inode; 0 while no file has it.
    pub inode: Inode,
    /// Its identity.
    pub cookie: Cookie,
    /// The interface that it is bound to (SO_BINDTODEVICE or a link-local address), or 0.
    pub interface: u32,
    /// Its timer, where one runs.
    pub timer: Option<Timer>,
    /// The ends that are shut down: 1 receiving, 2 sending (sk_shutdown).
    pub shutdown: u8,
    /// IPV6_V6ONLY of a v6 socket in LISTEN or CLOSE.
    pub v6_only: Option<bool>,
    /// SO_MARK; with CAP_NET_ADMIN alone.
    pub mark: Option<u32>,
    /// The id of the cgroup v2 that it was made in (Linux 5.9).
    pub cgroup: Option<u64>,
    /// The bits of struct inet_diag_sockopt, the first of its two bytes in the low eight
    /// (Linux 5.10).
    pub options: Option<u16>,
    /// With [`Extensions::TOS`].
    pub tos: Option<u8>,
    /// With [`Extensions::TCLASS`], of IPv6.
    pub tclass: Option<u8>,
    /// With [`Extensions::TCLASS`]: the class that net_cls gave it, else its priority.
    pub class_id: Option<u32>,
    /// With [`Extensions::CONGESTION`]: a name.
    pub congestion: Option<&'a [u8]>,
    /// With [`Extensions::INFO`]: the name of the upper layer protocol (`mptcp`, `tls`).
    pub ulp: Option<&'a [u8]>,
    /// With [`Extensions::SK_MEMINFO`].
    pub sk_mem: Option<SkMem>,
    /// The bytes of struct tcp_info, as many as the kernel knows, with
    /// [`Extensions::INFO`].
    pub tcp_info: Option<&'a [u8]>,
}

impl<'a> InetRow<'a> {
    /// Parses struct inet_diag_msg and its attributes; None where it is cut short or of
    /// another family.
    #[must_use]
    pub fn parse(bytes: &'a [u8], protocol: Protocol) -> Option<Self> {
        let (row, attributes) = bytes.split_first_chunk::<ROW>()?;
        let family = match row[0] {
            2 => Family::V4,
            10 => Family::V6,
            _ => return None,
        };
        let mut parsed = Self {
            family,
            protocol,
            state: State::from_raw(row[1]),
            local: address(family, row, 8, 4),
            remote: address(family, row, 24, 6),
            recv_q: u32_at(row, 56),
            send_q: u32_at(row, 60),
            uid: u32_at(row, 64),
            inode: Inode(u32_at(row, 68).into()),
            cookie: Cookie::from_halves(u32_at(row, 44), u32_at(row, 48)),
            interface: u32_at(row, 40),
            timer: timer(row),
            shutdown: 0,
            v6_only: None,
            mark: None,
            cgroup: None,
            options: None,
            tos: None,
            tclass: None,
            class_id: None,
            congestion: None,
            ulp: None,
            sk_mem: None,
            tcp_info: None,
        };
        for (kind, value) in Attributes::of(attributes) {
            parsed.take(kind, value)?;
        }
        Some(parsed)
    }

    fn take(&mut self, kind: u16, value: &'a [u8]) -> Option<()> {
        let word = || value.first_chunk().map(|four| u32::from_ne_bytes(*four));
        match kind {
            // No struct tcp_info: a listener's, or a protocol that has none.
            ATTRIBUTE_INFO if value.is_empty() => {}
            ATTRIBUTE_INFO => self.tcp_info = Some(value),
            ATTRIBUTE_CONG => self.congestion = Some(until_nul(value)),
            ATTRIBUTE_TOS => self.tos = Some(*value.first()?),
            ATTRIBUTE_TCLASS => self.tclass = Some(*value.first()?),
            ATTRIBUTE_SKMEMINFO => self.sk_mem = Some(SkMem::parse(value)),
            ATTRIBUTE_SHUTDOWN => self.shutdown = *value.first()?,
            ATTRIBUTE_PROTOCOL => self.protocol = Protocol((*value.first()?).into()),
            ATTRIBUTE_SKV6ONLY => self.v6_only = Some(*value.first()? != 0),
            ATTRIBUTE_MARK => self.mark = Some(word()?),
            ATTRIBUTE_CLASS_ID => self.class_id = Some(word()?),
            ATTRIBUTE_ULP_INFO => {
                let name = Attributes::of(value).find(|(kind, _)| *kind == ULP_NAME);
                self.ulp = name.map(|(_, name)| until_nul(name));
            }
            ATTRIBUTE_CGROUP_ID => {
                self.cgroup = Some(u64::from_ne_bytes(*value.first_chunk()?));
            }
            ATTRIBUTE_SOCKOPT => {
                self.options = Some(u16::from_le_bytes(*value.first_chunk()?));
            }
            _ => {}
        }
        Some(())
    }
}

/// The text before the byte 0 that ends a name.
fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn address(family: Family, row: &[u8; ROW], ip: usize, port: usize) -> SocketAddr {
    let mut octets = [0_u8; 16];
    octets.copy_from_slice(&row[ip..ip + 16]);
    let [a, b, c, d, ..] = octets;
    let ip = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        Family::V6 => IpAddr::V6(octets.into()),
    };
    SocketAddr::new(ip, u16::from_be_bytes([row[port], row[port + 1]]))
}

fn timer(row: &[u8; ROW]) -> Option<Timer> {
    let kind = TimerKind::from_raw(row[2])?;
    Some(Timer { kind, expires_ms: u32_at(row, 52), retransmits: row[3] })
}

/// An address with v4-mapped IPv6 (::ffff:a.b.c.d) turned into IPv4. Rows have it as
/// the kernel gives it, for that tells a v6 socket.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.pad("icmp"),
            Self::TCP => f.pad("tcp"),
            Self::UDP => f.pad("udp"),
            Self::SCTP => f.pad("sctp"),
            Self::UDPLITE => f.pad("udplite"),
            Self::RAW => f.pad("raw"),
            Self::MPTCP => f.pad("mptcp"),
            Self(number) => write!(f, "ipproto-{number}"),
        }
    }
}
