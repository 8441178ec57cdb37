//! What the tests of this module share: real sockets, and waiting for a condition.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::model::Inode;
use crate::kernel::netns::Netns;

/// Calls `look` until it gives Some, for 10 s at the most.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A loopback address that no other test has, nor anything else that takes all the
/// ports of 127.0.0.1.
pub(crate) fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A TCP listener with this backlog on a free port, and its address.
pub(crate) fn listen(at: impl Into<IpAddr>, backlog: i32) -> (Socket, SocketAddr) {
    listen_as(Protocol::TCP, at.into(), backlog).unwrap()
}

/// A listener of TCP or MPTCP, dual-stack where it is v6.
pub(crate) fn listen_as(
    protocol: Protocol,
    at: IpAddr,
    backlog: i32,
) -> io::Result<(Socket, SocketAddr)> {
    let domain = Domain::for_address((at, 0).into());
    let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A host that holds very many connections may have no port left for the wildcard in
    // the range that port 0 stands for.
    let pid = std::process::id();
    let below =
        (0..200).filter_map(|n| u16::try_from(10_000 + (pid + n * 97) % 20_000).ok());
    let bound = std::iter::once(0)
        .chain(below)
        .map(|port| socket.bind(&SocketAddr::from((at, port)).into()))
        .find(|done| {
            done.as_ref().err().map(io::Error::kind) != Some(io::ErrorKind::AddrInUse)
        });
    bound.unwrap_or(Err(io::ErrorKind::AddrInUse.into()))?;
    socket.listen(backlog)?;
    let address = socket.local_addr()?.as_socket().unwrap();
    Ok((socket, address))
}

/// A dial that does not wait.
pub(crate) fn dial(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&to.into());
    socket
}

/// Connections, complete.
pub(crate) fn connect(n: usize, to: SocketAddr) -> Vec<TcpStream> {
    (0..n).map(|_| TcpStream::connect(to).unwrap()).collect()
}

/// The inode of an open socket.
pub(crate) fn inode(socket: impl AsFd) -> Inode {
    Inode(rustix::fs::fstat(socket).unwrap().st_ino)
}

/// Says that a test is skipped; with CI=true it fails instead.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot run: {why}");
    eprintln!("skipped: {why}");
}

/// A network namespace with nothing in it. An ordinary user gets none: then this runs
/// `test`, a test of this binary by its full name, in a user namespace where it does.
pub(crate) fn new_netns_or_rerun(test: &str) -> Option<Netns> {
    match crate::kernel::testing::new_netns() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            let output = std::process::Command::new("unshare")
                .arg("--user")
                .args(["--map-root-user", "--net"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env("CI", "true")
                .output();
            match output {
                Ok(output) if output.status.success() => {}
                other => skip(&format!("no network namespace: {error}; {other:?}")),
            }
            None
        }
    }
}
