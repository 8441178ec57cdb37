//! Rows of unix(7) sockets: linux/unix_diag.h, as net/unix/diag.c fills them.

use std::io;
use std::ops::BitOr;
use std::path::Path;

use super::super::netlink::frame::{Attributes, u32_at};
use super::{Cookie, Inode, SkMem, State, States, UnixName};

/// sizeof(struct unix_diag_msg).
const ROW: usize = 16;

const ATTRIBUTE_NAME: u16 = 0;
const ATTRIBUTE_VFS: u16 = 1;
const ATTRIBUTE_PEER: u16 = 2;
const ATTRIBUTE_ICONS: u16 = 3;
const ATTRIBUTE_RQLEN: u16 = 4;
const ATTRIBUTE_MEMINFO: u16 = 5;
const ATTRIBUTE_SHUTDOWN: u16 = 6;
const ATTRIBUTE_UID: u16 = 7;

/// What is wanted in a row: a mask of UDIAG_SHOW_*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Show(u32);

impl Show {
    /// The name that it is bound to.
    pub const NAME: Self = Self(0x1);
    /// The inode and device of the file that it is bound to.
    pub const VFS: Self = Self(0x2);
    /// The inode of its peer.
    pub const PEER: Self = Self(0x4);
    /// Who waits in a listener's queue. A row is never longer than about 32 kB: a
    /// listener with more than about 8,000 in its queue **ends the dump without a word**
    /// (`unix_diag_dump`), and later rows are missing. To count, [`Show::RQLEN`] is
    /// enough; to tell who waits, [`Show::PEER`] of the clients.
    pub const ICONS: Self = Self(0x8);
    /// The lengths of its queues.
    pub const RQLEN: Self = Self(0x10);
    /// Memory.
    pub const MEMINFO: Self = Self(0x20);
    /// Who made it (Linux 5.3).
    pub const UID: Self = Self(0x40);
}

impl BitOr for Show {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which unix sockets to dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixRequest {
    /// The states wanted, and no others: LISTEN, ESTABLISHED and CLOSE are all that are.
    pub states: States,
    /// What is wanted in a row.
    pub show: Show,
}

impl UnixRequest {
    /// struct unix_diag_req.
    pub(super) fn to_bytes(self, one: Option<(Inode, Cookie)>) -> Vec<u8> {
        let (inode, cookie) = one.unwrap_or((Inode(0), Cookie(u64::MAX)));
        let mut bytes = Vec::with_capacity(24);
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(self.states.0.to_ne_bytes());
        bytes.extend(u32::try_from(inode.0).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend(self.show.0.to_ne_bytes());
        bytes.extend(cookie.to_bytes());
        bytes
    }
}

/// The type of a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnixKind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
    /// SOCK_SEQPACKET.
    SeqPacket,
    /// A number that this program does not know.
    Unknown(u8),
}

/// The file that a unix socket is bound to, as UNIX_DIAG_VFS has it. It stays the same
/// whatever path leads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketFile {
    /// The low 32 bits of its inode number.
    pub inode: u32,
    /// Its file system's device as the kernel has it: major << 20 | minor.
    pub device: u32,
}

impl SocketFile {
    /// The file at a path, links followed as connect(2) does.
    ///
    /// # Errors
    /// What stat(2) gives.
    pub fn at(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::stat(path)?;
        let inode = u32::try_from(found.st_ino & u64::from(u32::MAX)).unwrap_or(0);
        let (major, minor) =
            (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
        Ok(Self { inode, device: major << 20 | minor })
    }
}

/// The clients that wait in a unix listener's queue, by inode; 0 for one that has
/// closed since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Icons<'a> {
    bytes: &'a [u8],
}

impl<'a> Icons<'a> {
    /// Each in turn.
    pub fn iter(self) -> impl Iterator<Item = Inode> + 'a {
        self.bytes.chunks_exact(4).map(|four| Inode(u32_at(four, 0).into()))
    }
}

/// One unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixRow<'a> {
    /// Its type.
    pub kind: UnixKind,
    /// LISTEN, ESTABLISHED (it has, or had, a peer), or CLOSE.
    pub state: State,
    /// Its inode. A connection that waits in an accept queue has none yet, and no row
    /// (`sk_diag_dump` in net/unix/diag.c): its client is in the listener's `icons`.
    pub inode: Inode,
    /// Its identity.
    pub cookie: Cookie,
    /// With [`Show::NAME`]. A connection that was accepted has its listener's name.
    pub name: Option<UnixName<'a>>,
    /// With [`Show::VFS`]: the file that it is bound to.
    pub vfs: Option<SocketFile>,
    /// With [`Show::PEER`]: None without a peer; inode 0 for a peer that waits in an
    /// accept queue or was closed. Closed peers leave `shutdown` at 3.
    pub peer: Option<Inode>,
    /// With [`Show::ICONS`].
    pub icons: Icons<'a>,
    /// With [`Show::RQLEN`]: bytes received and not read; of a listener, connections in
    /// its accept queue.
    pub recv_q: u32,
    /// With [`Show::RQLEN`]: bytes sent and not read; of a listener, its effective
    /// backlog.
    pub send_q: u32,
    /// With [`Show::UID`]: who made it.
    pub uid: Option<u32>,
    /// With [`Show::MEMINFO`].
    pub sk_mem: Option<SkMem>,
    /// The ends that are shut down: 1 receiving, 2 sending (sk_shutdown).
    pub shutdown: u8,
}

impl<'a> UnixRow<'a> {
    /// Parses struct unix_diag_msg and its attributes; None where it is cut short or of
    /// another family.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (row, attributes) = bytes.split_first_chunk::<ROW>()?;
        if row[0] != 1 {
            return None;
        }
        let mut parsed = Self {
            kind: match row[1] {
                1 => UnixKind::Stream,
                2 => UnixKind::Datagram,
                5 => UnixKind::SeqPacket,
                other => UnixKind::Unknown(other),
            },
            state: State::from_raw(row[2]),
            inode: Inode(u32_at(row, 4).into()),
            cookie: Cookie::from_halves(u32_at(row, 8), u32_at(row, 12)),
            name: None,
            vfs: None,
            peer: None,
            icons: Icons::default(),
            recv_q: 0,
            send_q: 0,
            uid: None,
            sk_mem: None,
            shutdown: 0,
        };
        for (kind, value) in Attributes::of(attributes) {
            parsed.take(kind, value)?;
        }
        Some(parsed)
    }

    fn take(&mut self, kind: u16, value: &'a [u8]) -> Option<()> {
        match kind {
            ATTRIBUTE_NAME => self.name = UnixName::parse(value),
            ATTRIBUTE_VFS => {
                let (inode, device) = pair(value)?;
                self.vfs = Some(SocketFile { inode, device });
            }
            ATTRIBUTE_PEER => self.peer = Some(Inode(word(value)?.into())),
            ATTRIBUTE_ICONS => self.icons = Icons { bytes: value },
            ATTRIBUTE_RQLEN => (self.recv_q, self.send_q) = pair(value)?,
            ATTRIBUTE_MEMINFO => self.sk_mem = Some(SkMem::parse(value)),
            ATTRIBUTE_SHUTDOWN => self.shutdown = *value.first()?,
            ATTRIBUTE_UID => self.uid = Some(word(value)?),
            _ => {}
        }
        Some(())
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|four| u32::from_ne_bytes(*four))
}

fn pair(bytes: &[u8]) -> Option<(u32, u32)> {
    Some((word(bytes)?, word(bytes.get(4..)?)?))
}
