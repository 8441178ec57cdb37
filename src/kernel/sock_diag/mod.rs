//! sock_diag(7): the kernel's socket tables over netlink. net/ipv4/inet_diag.c and
//! net/unix/diag.c are what answers.

pub(crate) mod bytecode;
mod ends;
mod inet;
mod name;
mod netlink;
mod packet;
mod state;
mod unix;

use std::fmt;
use std::io;
use std::ops::ControlFlow;

use rustix::net::netlink::SOCK_DIAG;

pub use self::bytecode::{Bytecode, Condition, End, Test};
pub use self::ends::{Ends, Heard};
pub use self::inet::{
    Extensions, Family, InetRequest, InetRow, Protocol, SocketId, Timer, TimerKind,
    canonical,
};
pub use self::name::UnixName;
pub(crate) use self::name::escape;
pub use self::netlink::{NetlinkRequest, NetlinkRow};
pub use self::packet::{PacketRequest, PacketRow};
pub use self::state::{State, States};
pub use self::unix::{Icons, Show, SocketFile, UnixKind, UnixRequest, UnixRow};
pub use super::netlink::socket::DumpEnd;
use super::netlink::{frame, socket::Socket};

/// SOCK_DIAG_BY_FAMILY (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// SOCK_DESTROY.
const DESTROY: u16 = 21;

/// The inode of a socket, as `socket:[N]` in /proc/PID/fd shows it. 0: the socket
/// belongs to no file: it waits in an accept queue, was closed, or is in TIME_WAIT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(pub u64);

impl Inode {
    /// Whether a file has this socket.
    #[must_use]
    pub fn exists(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a socket for as long as the host runs (`sock_gen_cookie` in
/// net/core/sock_diag.c); what `ss -e` shows as `sk:`, and SO_COOKIE gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    fn from_halves(low: u32, high: u32) -> Self {
        Self(u64::from(high) << 32 | u64::from(low))
    }

    fn to_bytes(self) -> [u8; 8] {
        let (low, high) = (self.0 & u64::from(u32::MAX), self.0 >> 32);
        let mut bytes = [0; 8];
        for (half, value) in bytes.chunks_exact_mut(4).zip([low, high]) {
            half.copy_from_slice(&u32::try_from(value).unwrap_or(0).to_ne_bytes());
        }
        bytes
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The memory of a socket: SK_MEMINFO_* of linux/sock_diag.h, in bytes but for
/// `drops`. What the kernel is too old to know is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkMem {
    /// Received and not read, with the kernel's overhead.
    pub rmem_alloc: u32,
    /// SO_RCVBUF.
    pub rcvbuf: u32,
    /// Sent and not yet freed, with the kernel's overhead.
    pub wmem_alloc: u32,
    /// SO_SNDBUF.
    pub sndbuf: u32,
    /// Allotted to the socket and unused.
    pub fwd_alloc: u32,
    /// Queued to be sent.
    pub wmem_queued: u32,
    /// Socket options and control messages.
    pub optmem: u32,
    /// Waiting for the socket to be unlocked.
    pub backlog: u32,
    /// SYNs (and last ACKs of handshakes) dropped by a listener, datagrams by others.
    pub drops: u32,
}

impl SkMem {
    fn parse(bytes: &[u8]) -> Self {
        let mut words = [0_u32; 9];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = frame::u32_at(chunk, 0);
        }
        let [rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, rest @ ..] =
            words;
        let [optmem, backlog, drops] = rest;
        Self {
            rmem_alloc,
            rcvbuf,
            wmem_alloc,
            sndbuf,
            fwd_alloc,
            wmem_queued,
            optmem,
            backlog,
            drops,
        }
    }
}

/// A sock_diag socket. It answers for the network namespace that it was opened in,
/// whichever thread uses it later.
#[derive(Debug)]
pub struct SockDiag {
    socket: Socket,
}

impl SockDiag {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel has no sock_diag, forbids it, or has no descriptor left; the
    /// text says which.
    pub fn open() -> io::Result<Self> {
        match Socket::open(SOCK_DIAG) {
            Ok(socket) => Ok(Self { socket }),
            Err(error) => Err(explain(error, "opening a sock_diag socket", "sock_diag")),
        }
    }

    /// Streams the rows of TCP, UDP or another inet protocol. A dump for LISTEN alone
    /// skips the walk of the hash table of connections: 0.1 ms whatever their number.
    ///
    /// # Errors
    /// What is missing (a module, a right) is named; TimedOut after 5 s of silence.
    pub fn inet(
        &mut self,
        request: &InetRequest,
        each: impl FnMut(&InetRow<'_>),
    ) -> io::Result<DumpEnd> {
        self.inet_where(request, None, each)
    }

    /// The same, of the sockets alone that a program in the kernel accepts. It spares the
    /// copy of the others, not the walk. A protocol's module may run no program (SCTP's
    /// does not): then it streams all.
    ///
    /// # Errors
    /// As [`Self::inet`]; and a program with a condition that needs a right, or a newer
    /// kernel, is refused.
    pub fn inet_where(
        &mut self,
        request: &InetRequest,
        program: Option<&Bytecode>,
        mut each: impl FnMut(&InetRow<'_>),
    ) -> io::Result<DumpEnd> {
        self.inet_until(request, program, |row| {
            each(row);
            ControlFlow::Continue(())
        })
    }

    /// The same until `each` breaks. What is left then is read, and left out, by the
    /// next request: drop the socket instead where that is much.
    ///
    /// # Errors
    /// As [`Self::inet_where`].
    pub fn inet_until(
        &mut self,
        request: &InetRequest,
        program: Option<&Bytecode>,
        mut each: impl FnMut(&InetRow<'_>) -> ControlFlow<()>,
    ) -> io::Result<DumpEnd> {
        let module = request.protocol.module();
        let mut asked = request.to_bytes(None);
        if let Some(program) = program {
            program.push_to(&mut asked);
        }
        let asked = (request.message_type(), &asked[..]);
        self.table(asked, "a dump of sockets", module, |bytes| {
            InetRow::parse(bytes, request.protocol).map(|row| each(&row))
        })
    }

    /// Streams a table. `each` gives None for a message that is cut short.
    fn table(
        &mut self,
        (kind, request): (u16, &[u8]),
        doing: &str,
        module: &str,
        mut each: impl FnMut(&[u8]) -> Option<ControlFlow<()>>,
    ) -> io::Result<DumpEnd> {
        let mut cut_short = 0_u64;
        let dumped = self.socket.dump(kind, request, |payload| {
            each(payload).unwrap_or_else(|| {
                cut_short += 1;
                ControlFlow::Continue(())
            })
        });
        finish(dumped, cut_short, doing, module)
    }

    /// Looks up one socket without a dump. False where there is none, or another one
    /// (its cookie differs) answers to this identity. For a listener of an SO_REUSEPORT
    /// group it is the kernel's choice which of them is found.
    ///
    /// # Errors
    /// As [`Self::inet`].
    pub fn inet_one(
        &mut self,
        request: &InetRequest,
        id: &SocketId,
        mut each: impl FnMut(&InetRow<'_>),
    ) -> io::Result<bool> {
        let mut cut_short = 0_u64;
        let found = self.socket.one(BY_FAMILY, &request.to_bytes(Some(id)), |payload| {
            match InetRow::parse(payload, request.protocol) {
                Some(row) => each(&row),
                None => cut_short += 1,
            }
        });
        one(found, cut_short, request.protocol.module())
    }

    /// Streams the rows of unix(7) sockets.
    ///
    /// # Errors
    /// As [`Self::inet`].
    pub fn unix(
        &mut self,
        request: &UnixRequest,
        mut each: impl FnMut(&UnixRow<'_>),
    ) -> io::Result<DumpEnd> {
        self.unix_until(request, |row| {
            each(row);
            ControlFlow::Continue(())
        })
    }

    /// The same until `each` breaks; see [`Self::inet_until`].
    ///
    /// # Errors
    /// As [`Self::inet`].
    pub fn unix_until(
        &mut self,
        request: &UnixRequest,
        mut each: impl FnMut(&UnixRow<'_>) -> ControlFlow<()>,
    ) -> io::Result<DumpEnd> {
        let doing = "a dump of unix sockets";
        self.table((BY_FAMILY, &request.to_bytes(None)), doing, "unix_diag", |bytes| {
            UnixRow::parse(bytes).map(|row| each(&row))
        })
    }

    /// Streams the rows of packet(7) sockets until `each` breaks.
    ///
    /// # Errors
    /// As [`Self::inet`].
    pub fn packet_until(
        &mut self,
        request: PacketRequest,
        mut each: impl FnMut(&PacketRow) -> ControlFlow<()>,
    ) -> io::Result<DumpEnd> {
        let doing = "a dump of packet sockets";
        self.table((BY_FAMILY, &request.to_bytes()), doing, "packet_diag", |bytes| {
            PacketRow::parse(bytes).map(|row| each(&row))
        })
    }

    /// Streams the rows of netlink(7) sockets until `each` breaks.
    ///
    /// # Errors
    /// As [`Self::inet`].
    pub fn netlink_until(
        &mut self,
        request: NetlinkRequest,
        mut each: impl FnMut(&NetlinkRow) -> ControlFlow<()>,
    ) -> io::Result<DumpEnd> {
        let doing = "a dump of netlink sockets";
        self.table((BY_FAMILY, &request.to_bytes()), doing, "netlink_diag", |bytes| {
            NetlinkRow::parse(bytes).map(|row| each(&row))
        })
    }

    /// Closes a TCP or UDP socket from outside (SOCK_DESTROY): its owner gets
    /// ECONNABORTED, its peer a RST. False where it is no longer there.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EOPNOTSUPP for another protocol or a kernel without
    /// CONFIG_INET_DIAG_DESTROY.
    pub fn destroy(
        &mut self,
        family: Family,
        protocol: Protocol,
        id: &SocketId,
    ) -> io::Result<bool> {
        let states = States::ALL;
        let request = InetRequest { protocol, ..InetRequest::tcp(family, states) };
        match self.socket.act(DESTROY, &request.to_bytes(Some(id))) {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks up one unix socket by its inode and cookie without a dump. False where
    /// there is none. The kernel answers with no more than a page: a listener with some
    /// 900 in its queue is too long for [`Show::ICONS`] (EMSGSIZE).
    ///
    /// # Errors
    /// As [`Self::inet`].
    pub fn unix_one(
        &mut self,
        request: &UnixRequest,
        inode: Inode,
        cookie: Cookie,
        mut each: impl FnMut(&UnixRow<'_>),
    ) -> io::Result<bool> {
        let mut cut_short = 0_u64;
        let bytes = request.to_bytes(Some((inode, cookie)));
        let found =
            self.socket.one(BY_FAMILY, &bytes, |payload| match UnixRow::parse(payload) {
                Some(row) => each(&row),
                None => cut_short += 1,
            });
        one(found, cut_short, "unix_diag")
    }
}

fn finish(
    dumped: io::Result<DumpEnd>,
    cut_short: u64,
    doing: &str,
    module: &str,
) -> io::Result<DumpEnd> {
    match dumped {
        Ok(_) if cut_short > 0 => Err(frame::malformed()),
        Ok(end) => Ok(end),
        Err(error) => Err(explain(error, doing, module)),
    }
}

fn one(found: io::Result<DumpEnd>, cut_short: u64, module: &str) -> io::Result<bool> {
    match found {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) =>
        {
            Ok(false)
        }
        other => finish(other, cut_short, "a look-up of a socket", module)
            .map(|end| end.rows > 0),
    }
}

/// Says what is missing where an errno alone would not.
fn explain(error: io::Error, doing: &str, module: &str) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => {
            format!(
                "this kernel offers no {module} (not built, or its module not loaded)"
            )
        }
        Some(libc::EPERM | libc::EACCES) => {
            format!(
                "{doing} is not permitted here (a seccomp filter or security module?)"
            )
        }
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            format!("the kernel had no memory for {doing}")
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            format!("no descriptor left for {doing}: {error}")
        }
        Some(_) => format!("{doing} failed: {error}"),
        None => return error,
    };
    io::Error::new(error.kind(), why)
}

#[cfg(test)]
mod tests;
