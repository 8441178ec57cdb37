//! What listen()'s argument bounds.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::tools::{SoftNofile, connect, listen, says};
use crate::kernel::tcp_info::TcpInfo;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 6,
    id: "backlog",
    claim: "listen()'s argument is the number of clients that can be connected in \
            parallel.",
    trial: "A server calls listen(5) and accepts whoever comes; clients connect one after \
            another and stay. When all are connected, each says a word that the server \
            reads, and the length of the accept queue is read.",
    run,
};

const BACKLOG: u16 = 5;
/// How many clients connect, where there are descriptors enough: many times the backlog.
const CLIENTS: u64 = 400;
/// Descriptors that are no connections.
const SPARE: u64 = 64;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// The argument of listen().
    backlog: u64,
    /// Clients that were connected together, accepted, and heard.
    in_parallel: u64,
    /// Of these, how many waited to be accepted at the end.
    waiting: u32,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let limit = SoftNofile::at_least(2 * CLIENTS + SPARE).step("setrlimit()")?;
    let clients = (limit.now.saturating_sub(SPARE) / 2).min(CLIENTS);
    let (server, at) =
        listen((Ipv4Addr::LOCALHOST, 0).into(), BACKLOG.into()).step("listening")?;
    server.set_nonblocking(true).step("fcntl()")?;
    let mut pairs = Vec::new();
    for _ in 0..clients {
        let client = connect(at).step("connecting")?;
        let accepted = bench.wait(Duration::from_secs(1), || match server.accept() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            done => done.map(Some),
        })?;
        // Connected and not accepted: it is not served.
        let Some((end, _)) = accepted else { break };
        pairs.push((client, end));
    }
    let mut in_parallel = 0;
    for (word, (client, end)) in (0..).zip(&pairs) {
        in_parallel += u64::from(says(client, end, word).step("saying a word")?);
    }
    let info = TcpInfo::of(&server).step("getsockopt(TCP_INFO)")?;
    let seen = Seen { backlog: BACKLOG.into(), in_parallel, waiting: info.unacked };
    let table =
        moment("all are connected", Tables::TCP, |row| row.local.inet() == Some(at))
            .step("reading the socket table")?;
    Ok(Outcome::of(&seen, judge(&seen)).with([table]))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { backlog, in_parallel, waiting } = *seen;
    // A queue has room for one more than its length.
    if in_parallel <= backlog + 1 {
        let why = format!(
            "With listen({backlog}) no more than {in_parallel} clients were connected \
             and served in parallel."
        );
        return (Finding::Holds, why);
    }
    let why = format!(
        "With listen({backlog}) {in_parallel} clients were connected in parallel and \
         the server heard each of them; {waiting} were waiting then. The argument bounds \
         the accept queue, where finished handshakes wait for accept(): who has been \
         accepted has left it. It is no bound for a server that accepts in time."
    );
    (Finding::DoesNotHold, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen { backlog: 5, in_parallel: 400, waiting: 0 };
        assert_eq!(judge(&seen).0, Finding::DoesNotHold);
        let six = Seen { in_parallel: 6, ..seen.clone() };
        assert_eq!(judge(&six).0, Finding::Holds);
        let seven = Seen { in_parallel: 7, ..seen };
        assert_eq!(judge(&seven).0, Finding::DoesNotHold);
    }
}
