//! Connections that no server has accepted.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use socket2::Socket;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::tcp;
use crate::kernel::sock_diag::{InetRequest, SockDiag};
use crate::sockets::model::{Family, State, States};
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 23,
    id: "unaccepted",
    claim: "A connection comes into existence when the server accepts it.",
    trial: "Four clients connect to a listener that accepts nobody. The first sends five \
            bytes and stays; the second sends as many and shuts its sending side down; \
            the third sends and closes; the fourth resets. Then the server accepts, and \
            reads what there is.",
    run,
};

const TEXT: &[u8; 5] = b"early";

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    /// connect() that succeeded while nobody accepted.
    connected_before_accept: usize,
    /// Connections in the accept queue then, by the listener's own count.
    queue_len: u32,
    /// Server's ends in the table then that no file has: their inode is 0.
    ends_without_inode: usize,
    /// Their states.
    states_before_accept: Vec<&'static str>,
    /// Bytes that the kernel had received for the server when three had sent.
    bytes_before_accept: u32,
    /// What the table shows as received at the last look; the end of a stream counts as
    /// one there.
    #[serde(skip)]
    bytes_now: u32,
    /// Connections that accept() gave afterwards.
    accepted: usize,
    /// Of these, those that their client had ended before.
    accepted_after_their_end: usize,
    /// What the server read of them.
    read_bytes: usize,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let (listener, at) = tcp::listen(16)?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(tcp::connect(at)?);
    }
    let mut seen = Seen { connected_before_accept: clients.len(), ..Default::default() };
    for mut client in clients.iter().take(3) {
        client.write_all(TEXT).step("writing")?;
    }
    // What clients send travels by itself: until it has come, or as it is in the end.
    let mut diag = SockDiag::open().step("opening a sock_diag socket")?;
    bench.wait(tcp::SOON, || {
        let come: u32 = server_ends(&mut diag, at)?.iter().map(|end| end.1).sum();
        Ok((come == 3 * bytes(TEXT)).then_some(()))
    })?;
    let written = look("three have sent, nobody has accepted", &mut seen, at)?;
    seen.bytes_before_accept = seen.bytes_now;
    clients[1].shutdown(Shutdown::Write).step("shutdown()")?;
    clients[3].set_linger(Some(Duration::ZERO)).step("setting SO_LINGER")?;
    clients.truncate(2);
    bench.wait(tcp::SOON, || {
        let ends = server_ends(&mut diag, at)?;
        // Two that their clients closed, and one that is gone from the table.
        let closed = ends.iter().filter(|end| end.0 == State::CloseWait).count();
        Ok((closed == 2 && ends.len() == 3).then_some(()))
    })?;
    let ended = look("two have closed, one has reset", &mut seen, at)?;
    while let Some(socket) = tcp::try_accept(&listener).step("accepting")? {
        seen.accepted += 1;
        let (bytes, has_ended) = read_all(&socket)?;
        seen.read_bytes += bytes;
        seen.accepted_after_their_end += usize::from(has_ended);
    }
    Ok(Outcome::of(&seen, judge(&seen)).with([written, ended]))
}

/// State and received bytes of each of the server's ends, without a look at who has it.
fn server_ends(diag: &mut SockDiag, at: SocketAddr) -> io::Result<Vec<(State, u32)>> {
    let states = States::CONNECTED - State::SynSent.into();
    let request = InetRequest {
        local_port: Some(at.port()),
        ..InetRequest::tcp(Family::V4, states)
    };
    let mut ends = Vec::new();
    diag.inet(&request, |row| ends.push((row.state, row.recv_q)))?;
    Ok(ends)
}

fn bytes(text: &[u8]) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// The listener and the server's ends, counted too.
fn look(when: &str, seen: &mut Seen, at: SocketAddr) -> Result<Moment, Unable> {
    seen.states_before_accept.clear();
    (seen.ends_without_inode, seen.bytes_now) = (0, 0);
    moment(when, Tables::TCP, |row| {
        if row.local.inet() != Some(at) {
            return false;
        }
        if row.state == State::Listen {
            seen.queue_len = row.recv_q;
        } else {
            seen.states_before_accept.push(row.state.name());
            seen.ends_without_inode += usize::from(!row.inode.exists());
            seen.bytes_now += row.recv_q;
        }
        true
    })
    .step("reading the socket table")
}

/// Bytes that wait, and whether the end of the connection comes after them.
fn read_all(mut socket: &Socket) -> Result<(usize, bool), Unable> {
    socket.set_nonblocking(true).step("setting a socket non-blocking")?;
    let (mut bytes, mut buffer) = (0, [0; 64]);
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok((bytes, true)),
            Ok(read) => bytes += read,
            Err(error) => {
                return Ok((bytes, error.kind() != io::ErrorKind::WouldBlock));
            }
        }
    }
}

fn judge(seen: &Seen) -> (Finding, String) {
    if seen.connected_before_accept == 0 {
        let why = "While nobody accepted, connect() succeeded for none.";
        return (Finding::Holds, why.into());
    }
    let connected = seen.connected_before_accept;
    if seen.bytes_before_accept == 0 {
        let why = format!(
            "connect() succeeded for {connected} before anybody accepted, but no byte \
             reached the server's side before that: what exists is only half of a \
             connection."
        );
        return (Finding::HoldsWithinLimits, why);
    }
    let why = format!(
        "The kernel alone makes the handshake: connect() succeeded for {connected} while \
         nobody accepted, and {} bytes were received and acknowledged for a server that \
         knew nothing of them. Such a connection waits in the accept queue ({} in it) \
         with all that belongs to one: addresses, buffers, a state that follows what the \
         client does. What it lacks is a descriptor: its inode is 0 and no process owns \
         it until accept() makes one. The server then got {} connections, {} of which \
         their clients had ended before, and read {} bytes of them.",
        seen.bytes_before_accept,
        seen.queue_len,
        seen.accepted,
        seen.accepted_after_their_end,
        seen.read_bytes,
    );
    (Finding::DoesNotHold, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            connected_before_accept: 4,
            queue_len: 4,
            bytes_before_accept: 15,
            ..Default::default()
        };
        assert_eq!(judge(&seen).0, Finding::DoesNotHold);
        let mute = Seen { bytes_before_accept: 0, ..seen.clone() };
        assert_eq!(judge(&mute).0, Finding::HoldsWithinLimits);
        let none = Seen { connected_before_accept: 0, ..seen };
        assert_eq!(judge(&none).0, Finding::Holds);
    }
}
