//! Making the listening sockets.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Error;
use super::address::Address;

/// A socket that listens, nonblocking, and the address that it got.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    pub(super) address: Address,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The longest accept queue that the kernel allows (listen(2)), where it says.
pub(super) fn somaxconn() -> Option<u32> {
    fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// Listens on `asked`.
pub(super) fn listen(asked: &Address, backlog: u32) -> Result<Listener, Error> {
    if let Address::Unix(path) = asked {
        clear_stale(path).map_err(|source| Error::listen(asked, source))?;
    }
    let opened = match (open(asked, backlog), asked) {
        (Err(e), Address::Tcp(any))
            if e.kind() == io::ErrorKind::AddrInUse && any.port() == 0 =>
        {
            open_beside_clients(*any, backlog)
        }
        (opened, _) => opened,
    };
    opened.map_err(|source| Error::listen(asked, source))
}

/// For port 0 the kernel gives only a port that nothing is bound to, so there may be
/// none while a probe dials from all of ip_local_port_range. A port that clients alone
/// have can still be named.
fn open_beside_clients(mut any: SocketAddr, backlog: u32) -> io::Result<Listener> {
    const TRIES: u64 = 100;
    let mut last = io::ErrorKind::AddrInUse.into();
    for n in 0..TRIES {
        let random = RandomState::new().hash_one(n) % 32_768;
        let port = 32_768 + u16::try_from(random).unwrap_or(0);
        any.set_port(port);
        match open(&Address::Tcp(any), backlog) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = e,
            opened => return opened,
        }
    }
    Err(last)
}

fn open(asked: &Address, backlog: u32) -> io::Result<Listener> {
    let (domain, at) = match asked {
        Address::Tcp(address) => (Domain::for_address(*address), (*address).into()),
        Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        Address::Abstract(name) => (Domain::UNIX, abstract_address(name)?),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    if domain != Domain::UNIX {
        // A restart must not wait for the TIME_WAIT of the connections before it.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at)?;
    socket.listen(backlog.try_into().unwrap_or(i32::MAX))?;
    let got = socket.local_addr()?.as_socket();
    Ok(Listener { socket, address: got.map_or_else(|| asked.clone(), Address::Tcp) })
}

/// A name that begins with NUL is abstract; only its length ends it (unix(7)).
fn abstract_address(name: &[u8]) -> io::Result<SockAddr> {
    let mut path = vec![0];
    path.extend_from_slice(name);
    SockAddr::unix(OsStr::from_bytes(&path))
}

/// Removes the socket file of a server that is gone; bind(2) would fail with EADDRINUSE.
///
/// # Errors
/// EADDRINUSE where something listens on it, EEXIST where it is no socket.
fn clear_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is in the way",
        ));
    }
    let dial = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match dial.connect(&SockAddr::unix(path)?) {
        // Nobody has it open for listening.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // EPROTOTYPE is a live socket of another type, EACCES one of another user,
        // EAGAIN a listener whose queue is full.
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "something uses this socket already",
        )),
    }
}

/// The file of a unix listener, removed with this value while it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// The file that `listener` made, if it made one.
    pub(super) fn of(listener: &Listener) -> Option<Self> {
        let Address::Unix(path) = &listener.address else { return None };
        let identity = identity(path)?;
        // Absolute, so that it is found again whatever the working directory.
        Some(Self { path: std::path::absolute(path).ok()?, identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            // Where this fails, the next server finds it stale and removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
