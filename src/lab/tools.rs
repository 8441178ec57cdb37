//! What several experiments use: sockets with addresses of our choice, and limits that
//! are as before when an experiment ends.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Socket, Type};

use super::experiment::{Step, Unable};

/// How long a connect() or a read() may take that is expected to be done at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A TCP listener with this backlog.
pub(super) fn listen(at: SocketAddr, backlog: i32) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.bind(&at.into())?;
    socket.listen(backlog)?;
    let at = local(&socket)?;
    Ok((socket, at))
}

/// The local address of a socket of IP.
pub(super) fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A TCP socket that waits no longer than [`AT_ONCE`], and is closed by RST: nothing of
/// it stays in TIME_WAIT.
pub(super) fn client(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_write_timeout(Some(AT_ONCE))?;
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

/// Connects from an address and port of the caller's choice, in use or not.
pub(super) fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<Socket> {
    let socket = client(to)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Connects from an address and port of the kernel's choice.
pub(super) fn connect(to: SocketAddr) -> io::Result<Socket> {
    let socket = client(to)?;
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Sends a word and reads as many bytes at the other end: whether it is the same word.
pub(super) fn says(mut one: &Socket, mut other: &Socket, word: u64) -> io::Result<bool> {
    one.write_all(&word.to_ne_bytes())?;
    other.set_read_timeout(Some(AT_ONCE))?;
    let mut heard = [0; 8];
    other.read_exact(&mut heard)?;
    Ok(u64::from_ne_bytes(heard) == word)
}

/// What a call gave: 0 or its errno.
pub(super) fn errno<T>(done: &io::Result<T>) -> i32 {
    done.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

/// Another soft RLIMIT_NOFILE, until this is dropped. The limit is the process's, the
/// thread's fd table notwithstanding.
#[derive(Debug)]
pub(super) struct SoftNofile {
    before: Rlimit,
    /// The soft limit now.
    pub(super) now: u64,
}

impl SoftNofile {
    /// As many as `wanted`, or the hard limit where that is less.
    pub(super) fn set(wanted: u64) -> io::Result<Self> {
        let before = getrlimit(Resource::Nofile);
        let now = wanted.min(before.maximum.unwrap_or(u64::MAX));
        setrlimit(Resource::Nofile, Rlimit { current: Some(now), ..before })?;
        Ok(Self { before, now })
    }

    /// At least `wanted`, or the hard limit where that is less.
    pub(super) fn at_least(wanted: u64) -> io::Result<Self> {
        Self::set(wanted.max(soft_nofile()))
    }
}

impl Drop for SoftNofile {
    fn drop(&mut self) {
        // It was so before, which is never above the hard limit.
        let _ = setrlimit(Resource::Nofile, self.before);
    }
}

/// The soft RLIMIT_NOFILE.
pub(super) fn soft_nofile() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Keeps this thread, and all that it starts from here on, on one CPU: whether the
/// scheduler puts two that talk on one or on two makes a time of µs four times as long.
pub(super) fn on_one_cpu() -> Result<(), Unable> {
    let mut one = CpuSet::new();
    one.set(rustix::thread::sched_getcpu());
    sched_setaffinity(None, &one).step("staying on one CPU")
}
