//! What is left of a socket and its address when its connection has ended.

use std::io::{Read, Write};
use std::net::SocketAddr;

use rustix::net::connect_unspec;
use serde::Serialize;
use socket2::Socket;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::tcp;
use crate::sockets::model::State;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 14,
    id: "ended",
    claim: "After the connection has ended, the socket and its address are unrelated; to \
            use the socket again it must be bound again.",
    trial: "Two clients, one bound to a port and one not, connect; the server ends both \
            connections; each is disconnected by connect() with AF_UNSPEC, asked for its \
            address, and connected again without bind(). A third closes its \
            connection first, and its address is asked for by others.",
    run,
};

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    /// The port that a client was bound to.
    bound_port: u16,
    /// What getsockname() says when its connection has ended.
    bound_ended_port: u16,
    /// And after connect() with AF_UNSPEC.
    bound_disconnected_port: u16,
    /// Its port when it is connected again; 0: it is not.
    bound_again_port: u16,
    /// The port that the kernel chose for a client that was not bound.
    chosen_port: u16,
    /// What getsockname() says after connect() with AF_UNSPEC.
    chosen_disconnected_port: u16,
    /// Whether another socket can be bound to that port then.
    chosen_is_given_back: bool,
    /// Its port when it is connected again; 0: it is not.
    chosen_again_port: u16,
    /// What connect() gives without AF_UNSPEC before.
    again_at_once_errno: i32,
    /// Bytes that went through the second connections.
    carried_bytes: usize,
    /// What bind() gives for the address of a client that has closed its socket, where
    /// neither had SO_REUSEADDR, the new one alone, and both.
    closed_bind_errno: i32,
    closed_bind_reuse_errno: i32,
    closed_bind_both_reuse_errno: i32,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let (listener, at) = tcp::listen(8)?;
    let mut seen = Seen::default();
    let bound = bound_socket(false)?;
    seen.bound_port = tcp::address(&bound)?.port();
    bound.connect(&at.into()).step("connecting")?;
    let chosen = tcp::connect(at)?;
    seen.chosen_port = tcp::address(&chosen)?.port();
    for client in [&bound, &chosen] {
        drop(tcp::accept(bench, &listener)?);
        client.set_read_timeout(Some(tcp::SOON)).step("setting a timeout")?;
        let mut reader = client;
        reader.read(&mut [0; 1]).step("reading the end")?;
    }
    seen.bound_ended_port = tcp::address(&bound)?.port();
    seen.again_at_once_errno = tcp::errno(bound.connect(&at.into()));
    for client in [&bound, &chosen] {
        connect_unspec(client).step("connect() with AF_UNSPEC")?;
    }
    seen.bound_disconnected_port = tcp::address(&bound)?.port();
    seen.chosen_disconnected_port = tcp::address(&chosen)?.port();
    let own = [seen.bound_port, seen.chosen_port];
    let idle = moment("disconnected, and still there", Tables::TCP, |row| {
        row.local.inet().is_some_and(|local| own.contains(&local.port()))
            && row.state == State::Close
    })
    .step("reading the socket table")?;
    seen.chosen_is_given_back =
        tcp::socket()?.bind(&tcp::loopback(seen.chosen_port).into()).is_ok();
    (seen.bound_again_port, seen.carried_bytes) = again(bench, &bound, &listener, at)?;
    let (port, bytes) = again(bench, &chosen, &listener, at)?;
    seen.chosen_again_port = port;
    seen.carried_bytes += bytes;
    let own = closed_first(bench, false, &listener, at)?;
    seen.closed_bind_errno = bind_to(own, false)?;
    seen.closed_bind_reuse_errno = bind_to(own, true)?;
    let kept = moment("closed by both ends, the client first", Tables::TCP, |row| {
        row.local.inet() == Some(own)
    })
    .step("reading the socket table")?;
    let own = closed_first(bench, true, &listener, at)?;
    seen.closed_bind_both_reuse_errno = bind_to(own, true)?;
    Ok(Outcome::of(&seen, judge(&seen)).with([idle, kept]))
}

/// A socket that is bound to a port by number: one that bind() chose itself would be
/// free to go.
fn bound_socket(reuse: bool) -> Result<Socket, Unable> {
    for _ in 0..100 {
        let any = tcp::socket()?;
        any.bind(&tcp::loopback(0).into()).step("binding")?;
        let port = tcp::address(&any)?.port();
        drop(any);
        let socket = tcp::socket()?;
        socket.set_reuse_address(reuse).step("setting SO_REUSEADDR")?;
        // Somebody else may have been quicker.
        if socket.bind(&tcp::loopback(port).into()).is_ok() {
            return Ok(socket);
        }
    }
    Err(Unable::Missing("no port of 127.0.0.1 stayed free".into()))
}

/// Connects once more, without bind(), and sends a byte: the port (0 where connect()
/// fails) and the bytes that arrived.
fn again(
    bench: &Bench<'_>,
    client: &Socket,
    listener: &Socket,
    at: SocketAddr,
) -> Result<(u16, usize), Unable> {
    if client.connect(&at.into()).is_err() {
        return Ok((0, 0));
    }
    let port = tcp::address(client)?.port();
    let mut server = tcp::accept(bench, listener)?;
    let mut writer = client;
    writer.write_all(b"x").step("writing")?;
    server.set_nonblocking(false).step("setting a socket blocking")?;
    server.set_read_timeout(Some(tcp::SOON)).step("setting a timeout")?;
    Ok((port, server.read(&mut [0; 1]).step("reading")?))
}

/// A client that closes first, and then its server: its address, which goes on without a
/// socket.
fn closed_first(
    bench: &Bench<'_>,
    reuse: bool,
    listener: &Socket,
    at: SocketAddr,
) -> Result<SocketAddr, Unable> {
    let client = bound_socket(reuse)?;
    client.connect(&at.into()).step("connecting")?;
    let own = tcp::address(&client)?;
    let mut server = tcp::accept(bench, listener)?;
    drop(client);
    server.set_nonblocking(false).step("setting a socket blocking")?;
    server.set_read_timeout(Some(tcp::SOON)).step("setting a timeout")?;
    server.read(&mut [0; 1]).step("reading the end")?;
    drop(server);
    Ok(own)
}

/// What bind() gives a new socket.
fn bind_to(address: SocketAddr, reuse: bool) -> Result<i32, Unable> {
    let socket = tcp::socket()?;
    socket.set_reuse_address(reuse).step("setting SO_REUSEADDR")?;
    Ok(tcp::errno(socket.bind(&address.into())))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let is_kept = seen.bound_disconnected_port == seen.bound_port;
    let is_used = seen.bound_again_port != 0 && seen.chosen_again_port != 0;
    let bound = match is_kept {
        true => format!("a client that was bound to port {} keeps it", seen.bound_port),
        false => format!(
            "a client that was bound to port {} has {} after that",
            seen.bound_port, seen.bound_disconnected_port
        ),
    };
    let chosen = match (seen.chosen_is_given_back, seen.chosen_disconnected_port) {
        (true, 0) => "one whose port the kernel chose gives it back".to_owned(),
        (true, port) => format!(
            "one whose port the kernel chose gives it back (another socket could have it, \
             though getsockname() still says {port})"
        ),
        (false, _) => "one whose port the kernel chose keeps it too".to_owned(),
    };
    let address = match seen.closed_bind_errno {
        0 => "An address whose socket is closed was free at once.".to_owned(),
        errno => format!(
            "And an address can outlive its socket: when the end that closed first is \
             gone, its address stays in TIME_WAIT, where bind() gives {}, with \
             SO_REUSEADDR {}, and {} if the old socket had that option too.",
            super::errno_name(errno),
            super::errno_name(seen.closed_bind_reuse_errno),
            super::errno_name(seen.closed_bind_both_reuse_errno),
        ),
    };
    let ended = format!(
        "When the connection has ended, the socket is still bound, and a second connect() \
         gives {}. connect() with AF_UNSPEC makes it new: {bound}, {chosen}.",
        super::errno_name(seen.again_at_once_errno),
    );
    match (is_used, is_kept) {
        (true, _) => {
            let why = format!(
                "{ended} Both connected again without bind() (from ports {} and {}) and \
                 carried data. {address}",
                seen.bound_again_port, seen.chosen_again_port,
            );
            (Finding::DoesNotHold, why)
        }
        (false, true) => {
            let why = format!("{ended} But they did not connect again. {address}");
            (Finding::HoldsWithinLimits, why)
        }
        (false, false) => {
            let why = format!("{ended} And they did not connect again. {address}");
            (Finding::Holds, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            bound_port: 40_001,
            bound_ended_port: 40_001,
            bound_disconnected_port: 40_001,
            bound_again_port: 40_001,
            chosen_port: 40_002,
            chosen_again_port: 40_003,
            closed_bind_errno: libc::EADDRINUSE,
            ..Default::default()
        };
        let (finding, why) = judge(&seen);
        assert_eq!(finding, Finding::DoesNotHold);
        assert!(why.contains("EADDRINUSE"), "{why}");
        let useless = Seen { bound_again_port: 0, ..seen.clone() };
        assert_eq!(judge(&useless).0, Finding::HoldsWithinLimits);
        let unrelated = Seen { bound_disconnected_port: 0, ..useless };
        assert_eq!(judge(&unrelated).0, Finding::Holds);
        let free = Seen { closed_bind_errno: 0, ..seen };
        assert!(judge(&free).1.contains("was free at once"));
    }
}
