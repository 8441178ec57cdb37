//! Reading and writing at each step of a TCP socket's life.

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send, sendto};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::tcp;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 22,
    id: "unconnected",
    claim: "Only after accept() or connect() can a socket be read and written.",
    trial: "At each step of the life of a TCP socket one byte is written to it and one \
            read, without waiting: new, bound, listening, connecting, connected, shut \
            down, its peer gone. Then the ways round it: TCP Fast Open, datagrams, \
            socketpair().",
    run,
};

const TEXT: &[u8; 5] = b"early";

/// What a step of its life allows.
#[derive(Debug, Clone, Serialize)]
struct Tried {
    at: &'static str,
    /// What a read gave: a byte, the end, or an errno.
    read: String,
    /// What a write gave.
    write: String,
}

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    /// Each step, in order.
    steps: Vec<Tried>,
    /// Reads and writes that worked before connect() and accept().
    worked_unconnected: usize,
    /// Those that worked between the two ends of a connection, of four.
    worked_connected: usize,
    /// Bytes that a client had sent before accept(), and the server read after it.
    waited_for_accept_bytes: usize,
    /// Bytes that one sendto(MSG_FASTOPEN) sent, without connect(), and the server read.
    fast_open_bytes: usize,
    /// What that gave: 0 or the errno.
    fast_open_errno: i32,
    /// Bytes of a datagram between two UDP sockets that never connected.
    datagram_bytes: usize,
    /// Bytes between the two sockets of socketpair().
    pair_bytes: usize,
}

impl Seen {
    /// Reads and writes once, and says how many of the two worked.
    fn attempt(&mut self, step: &'static str, socket: &Socket) -> usize {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let written = send(socket, b"x", flags);
        let mut byte = [0; 1];
        let got = recv(socket, &mut byte, RecvFlags::DONTWAIT);
        let worked = usize::from(written.is_ok()) + usize::from(got.is_ok());
        let read = match got {
            Ok((0, _)) => "the end".to_owned(),
            Ok((_, bytes)) => format!("{bytes} byte"),
            Err(errno) => super::errno_name(errno.raw_os_error()),
        };
        let write = match written {
            Ok(bytes) => format!("{bytes} byte"),
            Err(errno) => super::errno_name(errno.raw_os_error()),
        };
        self.steps.push(Tried { at: step, read, write });
        worked
    }
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let mut seen = Seen::default();
    let connecting = before(&mut seen)?;
    during(bench, &mut seen)?;
    around(bench, &mut seen)?;
    Ok(Outcome::of(&seen, judge(&seen)).with([connecting]))
}

/// Sockets that are not connected yet.
fn before(seen: &mut Seen) -> Result<Moment, Unable> {
    let socket = tcp::socket()?;
    seen.worked_unconnected += seen.attempt("new", &socket);
    socket.bind(&tcp::loopback(0).into()).step("binding")?;
    seen.worked_unconnected += seen.attempt("bound", &socket);
    socket.listen(0).step("listening")?;
    seen.worked_unconnected += seen.attempt("listening", &socket);
    let at = tcp::address(&socket)?;
    // One connection fills a queue of backlog 0: the next dial stays unanswered.
    let _queued = tcp::connect(at)?;
    let waiting = tcp::dial(at)?;
    seen.worked_unconnected += seen.attempt("connecting", &waiting);
    moment("connecting to a full queue", Tables::TCP, |row| {
        [row.local.inet(), row.remote.inet()].contains(&Some(at))
    })
    .step("reading the socket table")
}

/// A connection from its first byte to its end, and one that is reset.
fn during(bench: &Bench<'_>, seen: &mut Seen) -> Result<(), Unable> {
    let (listener, at) = tcp::listen(4)?;
    let mut client = tcp::connect(at)?;
    client.write_all(TEXT).step("writing")?;
    let mut server = tcp::accept(bench, &listener)?;
    server.set_nonblocking(false).step("setting a socket blocking")?;
    server.set_read_timeout(Some(tcp::SOON)).step("setting a timeout")?;
    let mut early = [0; TEXT.len()];
    server.read_exact(&mut early).step("reading")?;
    seen.waited_for_accept_bytes = early.len();
    // Each end writes before the other reads.
    send(&server, b"y", SendFlags::NOSIGNAL).step("writing")?;
    arrives(bench, &client)?;
    seen.worked_connected += seen.attempt("connected (client)", &client);
    arrives(bench, &server)?;
    seen.worked_connected += seen.attempt("connected (server)", &server);
    arrives(bench, &client)?;
    client.shutdown(Shutdown::Write).step("shutdown()")?;
    seen.attempt("own sending side shut down", &client);
    drop(client);
    arrives(bench, &server)?;
    seen.attempt("closed by its peer", &server);
    // The write reached a socket that is gone, which answers by a reset.
    bench.wait(tcp::SOON, || Ok(server.peer_addr().is_err().then_some(())))?;
    seen.attempt("closed by its peer, and written to", &server);
    let client = tcp::connect(at)?;
    let server = tcp::accept(bench, &listener)?;
    client.set_linger(Some(Duration::ZERO)).step("setting SO_LINGER")?;
    drop(client);
    bench.wait(tcp::SOON, || Ok(server.peer_addr().is_err().then_some(())))?;
    let refused = recv(&server, &mut [0; 1], RecvFlags::DONTWAIT);
    let read = super::errno_name(tcp::errno(refused));
    let written = send(&server, b"x", SendFlags::NOSIGNAL);
    let write = super::errno_name(tcp::errno(written));
    seen.steps.push(Tried { at: "reset by its peer", read, write });
    Ok(())
}

/// Writing without connect() after all.
fn around(bench: &Bench<'_>, seen: &mut Seen) -> Result<(), Unable> {
    let (listener, at) = tcp::listen(4)?;
    let eager = tcp::socket()?;
    eager.set_write_timeout(Some(tcp::SOON)).step("setting a timeout")?;
    let fast_open = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.unsigned_abs());
    let sent = sendto(&eager, TEXT, fast_open | SendFlags::NOSIGNAL, &at);
    seen.fast_open_errno = tcp::errno(sent);
    if sent.is_ok() {
        let mut server = tcp::accept(bench, &listener)?;
        server.set_nonblocking(false).step("setting a socket blocking")?;
        server.set_read_timeout(Some(tcp::SOON)).step("setting a timeout")?;
        seen.fast_open_bytes = server.read(&mut [0; 64]).step("reading")?;
    }
    let to = UdpSocket::bind(tcp::loopback(0)).step("binding a UDP socket")?;
    let from = UdpSocket::bind(tcp::loopback(0)).step("binding a UDP socket")?;
    to.set_read_timeout(Some(tcp::SOON)).step("setting a timeout")?;
    let address = to.local_addr().step("getsockname()")?;
    from.send_to(TEXT, address).step("sendto()")?;
    seen.datagram_bytes = to.recv_from(&mut [0; 64]).step("recvfrom()")?.0;
    let (mut one, mut other) =
        Socket::pair(Domain::UNIX, Type::STREAM, None).step("socketpair()")?;
    one.write_all(TEXT).step("writing")?;
    seen.pair_bytes = other.read(&mut [0; 64]).step("reading")?;
    Ok(())
}

/// Waits until a read would not wait.
fn arrives(bench: &Bench<'_>, socket: &Socket) -> Result<(), Unable> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let come = bench.wait(tcp::SOON, || match recv(socket, &mut [0; 1], flags) {
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        _ => Ok(Some(())),
    })?;
    come.ok_or_else(|| Unable::Missing("what was sent on loopback did not come".into()))
}

fn judge(seen: &Seen) -> (Finding, String) {
    if seen.worked_unconnected > 0 {
        let why = format!(
            "{} reads and writes worked on a TCP socket that was not connected.",
            seen.worked_unconnected
        );
        return (Finding::DoesNotHold, why);
    }
    if seen.worked_connected < 4 {
        let why = format!(
            "Not even a connection can be read and written at both ends: {} of 4 worked.",
            seen.worked_connected
        );
        return (Finding::DoesNotHold, why);
    }
    let said = |step: &str| {
        let tried = seen.steps.iter().find(|tried| tried.at == step);
        tried.map_or_else(
            || "nothing".to_owned(),
            |tried| format!("{} and {}", tried.read, tried.write),
        )
    };
    let tcp = format!(
        "A TCP socket that is not connected refuses both: read() and write() give {} when \
         it is new and {} while its connect() is under way. Bytes that come before \
         accept() are not lost: {} waited for it.",
        said("new"),
        said("connecting"),
        seen.waited_for_accept_bytes,
    );
    if seen.fast_open_bytes + seen.datagram_bytes + seen.pair_bytes == 0 {
        return (Finding::Holds, tcp);
    }
    let fast_open = match seen.fast_open_bytes {
        0 => format!(
            "TCP Fast Open would send with the first packet, and gave {} here",
            super::errno_name(seen.fast_open_errno)
        ),
        bytes => format!(
            "sendto() with MSG_FASTOPEN connects by itself and sent {bytes} bytes in one \
             call"
        ),
    };
    let why = format!(
        "{tcp} But there are ways round connect() and accept(): {fast_open}; a UDP socket \
         that never connected sent and received {} bytes; and socketpair() gives two \
         sockets that are connected from the start ({} bytes).",
        seen.datagram_bytes, seen.pair_bytes,
    );
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen { worked_connected: 4, datagram_bytes: 5, ..Default::default() };
        assert_eq!(judge(&seen).0, Finding::HoldsWithinLimits);
        let strict = Seen { datagram_bytes: 0, ..seen.clone() };
        assert_eq!(judge(&strict).0, Finding::Holds);
        let open = Seen { worked_unconnected: 1, ..seen.clone() };
        assert_eq!(judge(&open).0, Finding::DoesNotHold);
        let mute = Seen { worked_connected: 3, ..seen };
        assert_eq!(judge(&mute).0, Finding::DoesNotHold);
    }

    #[test]
    fn fast_open_is_described_by_what_it_gave() {
        let seen = Seen { worked_connected: 4, pair_bytes: 5, ..Default::default() };
        let refused = Seen { fast_open_errno: libc::EOPNOTSUPP, ..seen.clone() };
        assert!(judge(&refused).1.contains("EOPNOTSUPP"));
        let sent = Seen { fast_open_bytes: 5, ..seen };
        assert!(judge(&sent).1.contains("sent 5 bytes in one call"));
    }
}
