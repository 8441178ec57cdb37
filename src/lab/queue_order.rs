//! In which order, and at which listener, connections are accepted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use socket2::Socket;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::tcp;
use crate::kernel::sock_diag::SockDiag;
use crate::sockets::model::State;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 21,
    id: "queue-order",
    claim: "Connections wait in a queue, and the server takes them from it by some \
            algorithm.",
    trial: "64 clients connect one after the other, and the order in which they are \
            accepted is compared with that. Then 200 connect to four listeners that share \
            one port (SO_REUSEPORT), twice, each both times from its own port, and it is \
            noted which listener gets which.",
    run,
};

const CLIENTS: u16 = 64;
const LISTENERS: usize = 4;
const GROUP_CLIENTS: usize = 200;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Clients that connected one after the other.
    clients: usize,
    /// Of these, accepted at another place in the order.
    out_of_order: usize,
    /// Listeners that share a port.
    group_listeners: usize,
    /// Clients of the group, each with one four-tuple.
    group_clients: usize,
    /// What each listener got.
    group_shares: Vec<usize>,
    /// Four-tuples that came a second time.
    group_second_times: usize,
    /// Of these, led to another listener than the first time.
    group_led_elsewhere: usize,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let (listener, at) = tcp::listen(CLIENTS.into())?;
    let mut diag = SockDiag::open().step("opening a sock_diag socket")?;
    let mut order = Vec::new();
    let mut clients = Vec::new();
    for n in 1..=u32::from(CLIENTS) {
        let client = tcp::connect(at)?;
        order.push(tcp::address(&client)?);
        clients.push(client);
        // The next one dials when this one is in the queue.
        let queued = || Ok((tcp::queue_len(&mut diag, at)? >= n).then_some(()));
        bench.wait(tcp::SOON, queued)?;
    }
    let full = moment("all wait", Tables::TCP, |row| {
        row.local.inet() == Some(at) && row.state == State::Listen
    })
    .step("reading the socket table")?;
    let mut out_of_order = 0;
    for expected in &order {
        let next = tcp::accept(bench, &listener)?;
        let client = next.peer_addr().step("getpeername()")?.as_socket();
        out_of_order += usize::from(client != Some(*expected));
    }
    let group = Group::listen()?;
    let first = group.dial(bench, (0..GROUP_CLIENTS).map(|_| 0))?;
    let second = group.dial(bench, first.keys().copied())?;
    let mut shares = vec![0; LISTENERS];
    for listener in first.values() {
        shares[*listener] += 1;
    }
    let elsewhere = second.iter().filter(|&(port, to)| first.get(port) != Some(to));
    let seen = Seen {
        clients: order.len(),
        out_of_order,
        group_listeners: LISTENERS,
        group_clients: first.len(),
        group_shares: shares,
        group_second_times: second.len(),
        group_led_elsewhere: elsewhere.count(),
    };
    let shared = moment("four listeners on one port", Tables::TCP, |row| {
        row.local.inet() == Some(group.at) && row.state == State::Listen
    })
    .step("reading the socket table")?;
    Ok(Outcome::of(&seen, judge(&seen)).with([full, shared]))
}

/// Listeners that share a port.
struct Group {
    listeners: Vec<Socket>,
    at: SocketAddr,
}

impl Group {
    fn listen() -> Result<Self, Unable> {
        let (mut listeners, mut at) = (Vec::new(), tcp::loopback(0));
        for _ in 0..LISTENERS {
            let listener = tcp::socket()?;
            listener.set_reuse_port(true).step("setting SO_REUSEPORT")?;
            listener.bind(&at.into()).step("binding a listener")?;
            listener.listen(16).step("listening")?;
            listener.set_nonblocking(true).step("setting a listener non-blocking")?;
            at = tcp::address(&listener)?;
            listeners.push(listener);
        }
        Ok(Self { listeners, at })
    }

    /// Connects from each of these ports (0: the kernel chooses) and sees which listener
    /// it leads to. What others have taken meanwhile is left out.
    fn dial(
        &self,
        bench: &Bench<'_>,
        ports: impl Iterator<Item = u16>,
    ) -> Result<HashMap<u16, usize>, Unable> {
        let mut led_to = HashMap::new();
        for port in ports {
            let client = tcp::socket()?;
            client.set_reuse_address(true).step("setting SO_REUSEADDR")?;
            // Closed by a reset, which leaves the four-tuple free for the next time.
            client.set_linger(Some(Duration::ZERO)).step("setting SO_LINGER")?;
            let bound = match port {
                0 => Ok(()),
                port => client.bind(&tcp::loopback(port).into()),
            };
            if bound.is_err() || client.connect(&self.at.into()).is_err() {
                continue;
            }
            let own = tcp::address(&client)?;
            let found = bench.wait(tcp::SOON, || {
                for (n, listener) in self.listeners.iter().enumerate() {
                    if let Some(socket) = tcp::try_accept(listener)? {
                        let is_its = socket.peer_addr()?.as_socket() == Some(own);
                        return Ok(is_its.then_some(n));
                    }
                }
                Ok(None)
            })?;
            if let Some(listener) = found {
                led_to.insert(own.port(), listener);
            }
        }
        Ok(led_to)
    }
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { clients, out_of_order, .. } = seen;
    if *out_of_order > 0 {
        let why = format!(
            "{out_of_order} of {clients} connections were accepted at another place than \
             they had come in: the order is not a queue's."
        );
        return (Finding::DoesNotHold, why);
    }
    let queue = format!(
        "The algorithm is the simplest there is: accept() gave {clients} connections in \
         the order in which they had come, and a server has no say in it."
    );
    let used = seen.group_shares.iter().filter(|share| **share > 0).count();
    if seen.group_led_elsewhere > 0 || used < 2 {
        let why = format!(
            "{queue} But which of {} listeners that share a port gets a connection \
             follows no rule that was seen: {used} of them got any, and {} of {} \
             four-tuples led elsewhere the second time.",
            seen.group_listeners, seen.group_led_elsewhere, seen.group_second_times,
        );
        return (Finding::HoldsWithinLimits, why);
    }
    let shares: Vec<String> = seen.group_shares.iter().map(usize::to_string).collect();
    let why = format!(
        "{queue} With several listeners on one port the kernel chooses the queue before \
         that, by a hash of the four-tuple: {} clients went to {} listeners as {}, and \
         all {} that came again from the same port came to the same listener. The hash \
         knows nothing of how full or how slow a listener is, so that one of them can \
         overflow while another is idle.",
        seen.group_clients,
        seen.group_listeners,
        shares.join(" + "),
        seen.group_second_times,
    );
    (Finding::Holds, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            clients: 64,
            out_of_order: 0,
            group_listeners: 4,
            group_clients: 200,
            group_shares: vec![50; 4],
            group_second_times: 200,
            group_led_elsewhere: 0,
        };
        assert_eq!(judge(&seen).0, Finding::Holds);
        let last_first = Seen { out_of_order: 64, ..seen.clone() };
        assert_eq!(judge(&last_first).0, Finding::DoesNotHold);
        let random = Seen { group_led_elsewhere: 150, ..seen.clone() };
        assert_eq!(judge(&random).0, Finding::HoldsWithinLimits);
        let one = Seen { group_shares: vec![200, 0, 0, 0], ..seen };
        assert_eq!(judge(&one).0, Finding::HoldsWithinLimits);
    }
}
