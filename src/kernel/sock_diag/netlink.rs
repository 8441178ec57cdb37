//! Rows of netlink(7) sockets: linux/netlink_diag.h, as net/netlink/diag.c fills them.

use super::super::netlink::frame::{Attributes, u32_at};
use super::{Cookie, Inode, SkMem};

/// sizeof(struct netlink_diag_msg).
const ROW: usize = 28;
const AF_NETLINK: u8 = 16;

/// NDIAG_PROTO_ALL, NDIAG_SHOW_MEMINFO.
const EVERY_FAMILY: u8 = u8::MAX;
const SHOW_MEMINFO: u32 = 0x1;

const ATTRIBUTE_MEMINFO: u16 = 0;

/// A request for every netlink socket, with the memory of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetlinkRequest;

impl NetlinkRequest {
    /// struct netlink_diag_req.
    pub(super) fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[0] = AF_NETLINK;
        bytes[1] = EVERY_FAMILY;
        bytes[8..12].copy_from_slice(&SHOW_MEMINFO.to_ne_bytes());
        bytes[12..20].copy_from_slice(&[u8::MAX; 8]);
        bytes
    }
}

/// One netlink socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetlinkRow {
    /// NETLINK_ROUTE, NETLINK_SOCK_DIAG, ….
    pub family: u8,
    /// Whether it is connected to a port of its family.
    pub is_connected: bool,
    /// Its port (nl_pid); 0 is the kernel's own: a program's has none before it is bound,
    /// and is in no table then.
    pub port: u32,
    /// The port that it is connected to; 0 is the kernel.
    pub remote_port: u32,
    /// Its inode.
    pub inode: Inode,
    /// Its identity.
    pub cookie: Cookie,
    /// Memory.
    pub sk_mem: Option<SkMem>,
}

impl NetlinkRow {
    /// Parses struct netlink_diag_msg and its attributes; None where it is cut short or
    /// of another family.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        /// NETLINK_CONNECTED (net/netlink/af_netlink.c).
        const CONNECTED: u8 = 1;
        let (row, attributes) = bytes.split_first_chunk::<ROW>()?;
        if row[0] != AF_NETLINK {
            return None;
        }
        let memory =
            Attributes::of(attributes).find(|(kind, _)| *kind == ATTRIBUTE_MEMINFO);
        Some(Self {
            family: row[2],
            is_connected: row[3] == CONNECTED,
            port: u32_at(row, 4),
            remote_port: u32_at(row, 8),
            inode: Inode(u32_at(row, 16).into()),
            cookie: Cookie::from_halves(u32_at(row, 20), u32_at(row, 24)),
            sk_mem: memory.map(|(_, value)| SkMem::parse(value)),
        })
    }
}
