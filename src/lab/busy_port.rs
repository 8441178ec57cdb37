//! How many connections a port has at a time.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::tools::{SoftNofile, connect, connect_from, listen, local, says};
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 4,
    id: "busy-port",
    claim: "At any moment a port can have only one connection.",
    trial: "Clients connect to one port of a server and stay; one more port, of a client, \
            is used for connections to three servers. When all are open, each carries a \
            word of its own.",
    run,
};

/// How many clients connect to one port.
const CLIENTS: u16 = 100;
/// How many servers one client's port has connections to.
const SERVERS: u8 = 3;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Connections of one port of a server that were open together and each carried its
    /// word.
    at_a_servers_port: usize,
    /// The same of one port of a client.
    at_a_clients_port: usize,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let _limit = SoftNofile::at_least(3 * u64::from(CLIENTS)).step("setrlimit()")?;
    let mut pairs = Vec::new();
    let (server, at) =
        listen((Ipv4Addr::LOCALHOST, 0).into(), CLIENTS.into()).step("listening")?;
    for _ in 0..CLIENTS {
        bench.go_on()?;
        let client = connect(at).step("connecting")?;
        pairs.push((client, server.accept().step("accepting")?.0));
    }
    let mut from = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut fan = Vec::new();
    for host in 0..SERVERS {
        let to = (Ipv4Addr::new(127, 0, 0, 10 + host), 0).into();
        let (server, to) = listen(to, 1).step("listening")?;
        let client = connect_from(from, to).step("connecting from a chosen port")?;
        from = local(&client).step("getsockname()")?;
        fan.push((client, server.accept().step("accepting")?.0));
    }
    let (mut remotes, mut targets) = (HashSet::new(), HashSet::new());
    for (word, (client, end)) in (0..).zip(&pairs) {
        let carries = says(client, end, word).step("saying a word")?;
        if carries && local(end).step("getsockname()")? == at {
            remotes.insert(local(client).step("getsockname()")?);
        }
    }
    for (word, (client, end)) in (0..).zip(&fan) {
        let carries = says(client, end, word).step("saying a word")?;
        if carries && local(client).step("getsockname()")? == from {
            targets.insert(local(end).step("getsockname()")?);
        }
    }
    let seen =
        Seen { at_a_servers_port: remotes.len(), at_a_clients_port: targets.len() };
    let table = |when, address| {
        moment(when, Tables::TCP, |row| row.local.inet() == Some(address))
            .step("reading the socket table")
    };
    let moments = [table("the server's port", at)?, table("the client's port", from)?];
    Ok(Outcome::of(&seen, judge(&seen)).with(moments))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { at_a_servers_port: server, at_a_clients_port: client } = *seen;
    if server <= 1 && client <= 1 {
        let why = format!(
            "The server's port had {server} connection that carried its word, and the \
             client's {client}: of those tried, no port had two."
        );
        return (Finding::Holds, why);
    }
    let why = format!(
        "One port of the server had {server} connections at a time and one port of the \
         client {client}, and each carried the word meant for it. A port is not a plug: \
         the kernel finds the socket of a segment by both addresses and both ports. One \
         connection only is what a pair of ip:port and ip:port can have."
    );
    (Finding::DoesNotHold, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen { at_a_servers_port: 100, at_a_clients_port: 3 };
        assert_eq!(judge(&seen).0, Finding::DoesNotHold);
        let one = Seen { at_a_servers_port: 1, at_a_clients_port: 1 };
        assert_eq!(judge(&one).0, Finding::Holds);
        let fan = Seen { at_a_clients_port: 2, ..one };
        assert_eq!(judge(&fan).0, Finding::DoesNotHold);
    }
}
