//! Rows of packet(7) sockets: linux/packet_diag.h, as net/packet/diag.c fills them.

use super::super::netlink::frame::{Attributes, u16_at, u32_at};
use super::{Cookie, Inode, SkMem};

/// sizeof(struct packet_diag_msg).
const ROW: usize = 16;
const AF_PACKET: u8 = 17;

/// PACKET_SHOW_INFO, PACKET_SHOW_MEMINFO.
const SHOW_INFO: u32 = 0x1;
const SHOW_MEMINFO: u32 = 0x10;

const ATTRIBUTE_INFO: u16 = 0;
const ATTRIBUTE_UID: u16 = 5;
const ATTRIBUTE_MEMINFO: u16 = 6;

/// A request for every packet socket, with the interface, user and memory of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacketRequest;

impl PacketRequest {
    /// struct packet_diag_req.
    pub(super) fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[0] = AF_PACKET;
        bytes[8..12].copy_from_slice(&(SHOW_INFO | SHOW_MEMINFO).to_ne_bytes());
        bytes[12..20].copy_from_slice(&[u8::MAX; 8]);
        bytes
    }
}

/// One packet socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRow {
    /// Whether it is SOCK_DGRAM: without the link-level header.
    pub is_datagram: bool,
    /// What it receives, an ETH_P_ number in host order; 0 for nothing.
    pub protocol: u16,
    /// Its inode.
    pub inode: Inode,
    /// Its identity.
    pub cookie: Cookie,
    /// The index of the interface that it is bound to, 0 for every.
    pub interface: u32,
    /// Who made it.
    pub uid: Option<u32>,
    /// Memory.
    pub sk_mem: Option<SkMem>,
}

impl PacketRow {
    /// Parses struct packet_diag_msg and its attributes; None where it is cut short or
    /// of another family.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        const SOCK_DGRAM: u8 = 2;
        let (row, attributes) = bytes.split_first_chunk::<ROW>()?;
        if row[0] != AF_PACKET {
            return None;
        }
        let mut parsed = Self {
            is_datagram: row[1] == SOCK_DGRAM,
            protocol: u16_at(row, 2),
            inode: Inode(u32_at(row, 4).into()),
            cookie: Cookie::from_halves(u32_at(row, 8), u32_at(row, 12)),
            interface: 0,
            uid: None,
            sk_mem: None,
        };
        for (kind, value) in Attributes::of(attributes) {
            let word = || value.first_chunk().map(|four| u32::from_ne_bytes(*four));
            match kind {
                ATTRIBUTE_INFO => parsed.interface = word()?,
                ATTRIBUTE_UID => parsed.uid = Some(word()?),
                ATTRIBUTE_MEMINFO => parsed.sk_mem = Some(SkMem::parse(value)),
                _ => {}
            }
        }
        Some(parsed)
    }
}
