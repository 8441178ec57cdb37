//! Which sockets are wanted of a source, and what of each.

use std::ops::{BitOr, BitOrAssign};

use super::model::States;
use crate::kernel::sock_diag::Bytecode;

/// A set of socket tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tables(u16);

impl Tables {
    /// No table.
    pub const NONE: Self = Self(0);
    /// TCP.
    pub const TCP: Self = Self(1);
    /// UDP and UDP-Lite.
    pub const UDP: Self = Self(1 << 1);
    /// raw(7) and ping sockets.
    pub const RAW: Self = Self(1 << 2);
    /// SCTP.
    pub const SCTP: Self = Self(1 << 3);
    /// MPTCP.
    pub const MPTCP: Self = Self(1 << 4);
    /// unix(7), stream.
    pub const UNIX_STREAM: Self = Self(1 << 5);
    /// unix(7), datagram.
    pub const UNIX_DATAGRAM: Self = Self(1 << 6);
    /// unix(7), seqpacket.
    pub const UNIX_SEQPACKET: Self = Self(1 << 7);
    /// packet(7).
    pub const PACKET: Self = Self(1 << 8);
    /// netlink(7).
    pub const NETLINK: Self = Self(1 << 9);
    /// vsock(7).
    pub const VSOCK: Self = Self(1 << 10);
    /// AF_XDP.
    pub const XDP: Self = Self(1 << 11);
    /// Every other inet protocol that the kernel has a table of.
    pub const OTHER_INET: Self = Self(1 << 12);
    /// Every table of IPv4 and IPv6.
    pub const INET: Self = Self(0b1_0000_0001_1111);
    /// Every table of unix(7).
    pub const UNIX: Self = Self(0b1110_0000);
    /// All of them.
    pub const ALL: Self = Self(0x1fff);

    /// Whether any table of `other` is in the set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether every socket in them is of one kind.
    #[must_use]
    pub fn is_one(self) -> bool {
        self.0.is_power_of_two() && !self.has(Self::RAW | Self::PACKET | Self::OTHER_INET)
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Tables {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Tables {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Which of the two IP versions' tables; other tables are not concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// AF_INET.
    pub v4: bool,
    /// AF_INET6, with the v4-mapped connections of its sockets.
    pub v6: bool,
}

impl Versions {
    /// Both.
    pub const BOTH: Self = Self { v4: true, v6: true };
}

/// What is wanted of a row beyond what every row has; each costs time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Details {
    /// TCP_INFO and the congestion control.
    pub tcp_info: bool,
    /// SO_MEMINFO.
    pub memory: bool,
    /// TOS, class, socket options, upper layer protocol.
    pub options: bool,
    /// The names of unix peers (a second pass over the unix table).
    pub unix_peers: bool,
}

/// What a source is asked for.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The tables.
    pub tables: Tables,
    /// The IP versions.
    pub versions: Versions,
    /// The states, and no others.
    pub states: States,
    /// What of each row.
    pub details: Details,
    /// What inet rows the kernel itself may leave out; a source may ignore it.
    pub program: Option<Bytecode>,
}

impl Selection {
    /// Every socket in every table, and no details.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            tables: Tables::ALL,
            versions: Versions::BOTH,
            states: States::ALL,
            details: Details::default(),
            program: None,
        }
    }
}
