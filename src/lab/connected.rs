//! What the server has of a connection that connect() gave.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use socket2::Socket;

use super::bench::{Bench, Place};
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::relay::{Relay, Shape};
use super::tcp;
use crate::kernel::defer::set_defer_accept;
use crate::kernel::interface::{set_address, set_queue_len, set_up};
use crate::kernel::netns::Netns;
use crate::kernel::private::enter_network_namespace;
use crate::kernel::sock_diag::SockDiag;
use crate::kernel::tun::Tun;
use crate::sockets::connections::{Standing, server_rows};
use crate::sockets::model::Family;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 11,
    id: "connected",
    claim: "connect() has succeeded, so the server has the connection.",
    trial: "300 clients connect at once, over a link with a round trip of 200 ms, to a \
            server with a backlog of 128 that accepts nobody; when connect() has \
            succeeded for all, the server's table is read. And 8 clients connect to a \
            listener that waits for a first byte (TCP_DEFER_ACCEPT).",
    run,
};

const DIALS: usize = 300;
const BACKLOG: i32 = 128;
const SHAPE: Shape = Shape { round_trip: Duration::from_millis(200), loss: 0.0, seed: 1 };
const DEFERRED: usize = 8;
/// Longer than the experiment takes.
const DEFER_S: i32 = 30;
/// For how long the dials of a burst are waited for: several times the round trip.
const PATIENCE: Duration = Duration::from_secs(2);

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const DEVICE: &str = "slow0";

/// connect() of some clients, and what their server had of them then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Held {
    /// connect() that succeeded.
    connected: usize,
    /// Complete at the server: accepted or in the accept queue.
    at_server: usize,
    /// Half open at the server: in SYN_RECV.
    half_open: usize,
}

impl Held {
    /// Connections that the client alone believes in.
    fn phantoms(self) -> usize {
        self.connected.saturating_sub(self.at_server)
    }
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Seen {
    /// Over a slow link, to a queue that is too short; null: not tried.
    slow_link: Option<Held>,
    /// Its backlog and its round trip.
    slow_link_backlog: i32,
    slow_link_round_trip_ms: u64,
    /// At a listener that waits for a first byte.
    deferred: Held,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let mut seen = Seen {
        slow_link_backlog: BACKLOG,
        slow_link_round_trip_ms: u64::try_from(SHAPE.round_trip.as_millis()).unwrap_or(0),
        ..Default::default()
    };
    let (mut moments, mut left_out) = (Vec::new(), Vec::new());
    match Link::make(bench) {
        Ok(link) => {
            let (held, table) = link.burst(bench)?;
            seen.slow_link = Some(held);
            moments.push(table);
        }
        Err(why) => left_out.push(format!("the slow link: {why}")),
    }
    let (held, table) = deferred(bench)?;
    seen.deferred = held;
    moments.push(table);
    Ok(Outcome::of(&seen, judge(&seen)).with(moments).without(left_out))
}

/// This namespace, another one for a server, and a slow link between them.
struct Link {
    server: Netns,
    _relay: Relay,
}

impl Link {
    fn make(bench: &Bench<'_>) -> Result<Self, Unable> {
        if bench.place != Place::Private {
            let why = "it needs network namespaces of its own";
            return Err(Unable::Missing(why.into()));
        }
        let ours = end(CLIENT)?;
        let there = thread::spawn(|| {
            enter_network_namespace().step("making a network namespace")?;
            Ok((Netns::current().step("naming a network namespace")?, end(SERVER)?))
        });
        let (server, theirs) =
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let relay = Relay::start([ours, theirs], SHAPE).step("starting a relay")?;
        Ok(Self { server, _relay: relay })
    }

    /// Dials all at once, and reads the server's table when the last is connected: a
    /// dial that is not answered by then is none that succeeded.
    fn burst(&self, bench: &Bench<'_>) -> Result<(Held, Moment), Unable> {
        let there = |e| Unable::at("entering the server's network namespace")(e);
        let listening = self.server.run(|| {
            let listener = tcp::socket()?;
            listener.bind(&SocketAddr::from((SERVER, 0)).into()).step("binding")?;
            listener.listen(BACKLOG).step("listening")?;
            let at = tcp::address(&listener)?;
            Ok((listener, at, SockDiag::open().step("opening a sock_diag socket")?))
        });
        let (_listener, at, mut diag) = listening.map_err(there)??;
        let dials: Vec<Socket> =
            (0..DIALS).map(|_| tcp::dial(at)).collect::<Result<_, _>>()?;
        let connected = || dials.iter().filter(|dial| dial.peer_addr().is_ok()).count();
        bench.wait(PATIENCE, || Ok((connected() == DIALS).then_some(())))?;
        // The last ACK is half a round trip behind, and the first half-open connection
        // is given up long after.
        bench.wait(SHAPE.round_trip, || Ok(None::<()>))?;
        let held =
            count(&mut diag, at, connected()).step("reading the server's table")?;
        let table = self.server.run(|| {
            moment("at the server: all clients are connected", Tables::TCP, |row| {
                row.local.inet() == Some(at)
            })
        });
        Ok((held, table.map_err(there)?.step("reading the socket table")?))
    }
}

/// One end of the link, in the calling thread's namespace.
fn end(address: Ipv4Addr) -> Result<Tun, Unable> {
    let tun = Tun::create(DEVICE).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::PermissionDenied => "only root may open /dev/net/tun here",
            _ => return Unable::at("making a tun device")(error),
        };
        Unable::Missing(why.into())
    })?;
    set_address(DEVICE, address).step("giving a tun device an address")?;
    // Both ways all packets of the burst can stand in it.
    set_queue_len(DEVICE, 4096).step("giving a tun device a queue")?;
    set_up(DEVICE).step("setting a tun device up")?;
    Ok(tun)
}

/// Clients of a listener for which a connection begins with its first byte.
fn deferred(bench: &Bench<'_>) -> Result<(Held, Moment), Unable> {
    let (listener, at) = tcp::listen(16)?;
    set_defer_accept(&listener, DEFER_S).step("setting TCP_DEFER_ACCEPT")?;
    let mut clients = Vec::new();
    for _ in 0..DEFERRED {
        bench.go_on()?;
        clients.push(tcp::connect(at)?);
    }
    let mut diag = SockDiag::open().step("opening a sock_diag socket")?;
    let mut held = count(&mut diag, at, clients.len()).step("reading the table")?;
    if tcp::try_accept(&listener).step("accepting")?.is_some() {
        held.at_server = held.at_server.max(1);
    }
    let table = moment("all clients are connected, none has sent", Tables::TCP, |row| {
        row.local.inet() == Some(at)
    });
    Ok((held, table.step("reading the socket table")?))
}

fn count(diag: &mut SockDiag, at: SocketAddr, connected: usize) -> io::Result<Held> {
    let mut held = Held { connected, ..Default::default() };
    server_rows(diag, at, Family::V4, |row| match row.standing {
        Standing::Deferred => held.half_open += 1,
        Standing::Queued | Standing::Accepted => held.at_server += 1,
        Standing::Closing => {}
    })?;
    Ok(held)
}

fn judge(seen: &Seen) -> (Finding, String) {
    let slow = seen.slow_link.unwrap_or_default();
    if slow.phantoms() + seen.deferred.phantoms() == 0 {
        let why = format!(
            "Of {} connections that connect() gave, the server had every one.",
            slow.connected + seen.deferred.connected
        );
        return (Finding::Holds, why);
    }
    let mut why = "connect() succeeds when the server's kernel has answered the SYN; \
                   whether the server keeps the connection is decided half a round trip \
                   later, when the client's ACK arrives, and nobody tells the client."
        .to_owned();
    if let Some(slow) = seen.slow_link {
        why += &format!(
            " Over a round trip of {} ms connect() succeeded for {} clients; the server, \
             with a backlog of {}, had {} of them: its queue was full when the other ACKs \
             came, and {} clients hold phantoms.",
            seen.slow_link_round_trip_ms,
            slow.connected,
            seen.slow_link_backlog,
            slow.at_server,
            slow.phantoms(),
        );
    }
    let deferred = seen.deferred;
    if deferred.phantoms() > 0 {
        why += &format!(
            " A listener with TCP_DEFER_ACCEPT shows the same without any load: {} \
             clients connected, the server had {} connections and {} half-open ones, \
             until a byte comes.",
            deferred.connected, deferred.at_server, deferred.half_open,
        );
    }
    why += " Only an answer of the server itself tells a client that it is there.";
    (Finding::DoesNotHold, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let all = Held { connected: 8, at_server: 8, half_open: 0 };
        let none = Held { connected: 8, at_server: 0, half_open: 8 };
        let seen = Seen { deferred: all, ..Default::default() };
        assert_eq!(judge(&seen).0, Finding::Holds);
        let both = Seen { slow_link: Some(all), ..seen };
        assert_eq!(judge(&both).0, Finding::Holds);
        let deferred = Seen { deferred: none, ..seen };
        let (finding, why) = judge(&deferred);
        assert_eq!(finding, Finding::DoesNotHold);
        assert!(!why.contains("round trip of"), "{why}");
        let some = Held { connected: 300, at_server: 129, half_open: 40 };
        let (finding, why) = judge(&Seen { slow_link: Some(some), ..seen });
        assert_eq!(finding, Finding::DoesNotHold);
        assert!(why.contains("171 clients hold phantoms"), "{why}");
    }
}
