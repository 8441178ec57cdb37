//! Plain TCP sockets of 127.0.0.1, as experiments need them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::bench::Bench;
use super::experiment::{Step, Unable};
use super::tools;
use crate::kernel::sock_diag::SockDiag;
use crate::sockets::listeners::{self, ListenAt};

/// How long is waited at most for what loopback carries at once, on a busy host.
pub(super) const SOON: Duration = Duration::from_secs(2);

/// 127.0.0.1 and a port; port 0 leaves the choice to the kernel.
pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A socket that is neither bound nor connected.
pub(super) fn socket() -> Result<Socket, Unable> {
    Socket::new(Domain::IPV4, Type::STREAM, None).step("making a socket")
}

/// A listener with this backlog on a port of the kernel's choice, and its address.
/// Its accept() does not wait.
pub(super) fn listen(backlog: i32) -> Result<(Socket, SocketAddr), Unable> {
    let listener = socket()?;
    listener.bind(&loopback(0).into()).step("binding a listener")?;
    listener.listen(backlog).step("listening")?;
    listener.set_nonblocking(true).step("setting a listener non-blocking")?;
    let at = address(&listener)?;
    Ok((listener, at))
}

/// A dial that does not wait for its answer.
pub(super) fn dial(to: SocketAddr) -> Result<Socket, Unable> {
    let socket = socket()?;
    socket.set_nonblocking(true).step("setting a client non-blocking")?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        done => done.map(|()| socket).step("connecting"),
    }
}

/// A connection: connect() has succeeded.
pub(super) fn connect(to: SocketAddr) -> Result<Socket, Unable> {
    let socket = socket()?;
    socket.connect(&to.into()).step("connecting")?;
    Ok(socket)
}

/// Accepts the next connection; it is soon there.
pub(super) fn accept(bench: &Bench<'_>, listener: &Socket) -> Result<Socket, Unable> {
    let accepted = bench.wait(SOON, || try_accept(listener))?;
    accepted.ok_or_else(|| Unable::Missing("nothing came to be accepted".into()))
}

/// The next connection of a listener that does not wait; None where there is none.
pub(super) fn try_accept(listener: &Socket) -> io::Result<Option<Socket>> {
    match listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        done => done.map(|(socket, _)| Some(socket)),
    }
}

/// getsockname(2) of an IP socket.
pub(super) fn address(socket: &Socket) -> Result<SocketAddr, Unable> {
    let local = socket.local_addr().step("getsockname()")?;
    Ok(local.as_socket().unwrap_or_else(|| loopback(0)))
}

/// Connections in the accept queue of the listener at an address; 0 where none listens.
pub(super) fn queue_len(diag: &mut SockDiag, at: SocketAddr) -> io::Result<u32> {
    let all = listeners::inet(diag)?;
    Ok(all.iter().find(|one| one.at == ListenAt::Inet(at)).map_or(0, |one| one.queue_len))
}

/// What a call gave, of any library: 0 or its errno.
pub(super) fn errno<T>(done: Result<T, impl Into<io::Error>>) -> i32 {
    tools::errno(&done.map_err(Into::into))
}
