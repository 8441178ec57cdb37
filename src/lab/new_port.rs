//! Accepted connections and the port of their listener.

use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};

use serde::Serialize;

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 5,
    id: "new-port",
    claim: "The server's listening port stays the same; each accepted connection gets a \
            new socket, not a new port.",
    trial: "Three clients connect to one listener and are accepted; the local port and \
            the inode of each accepted socket are compared with the listener's.",
    run,
};

/// How many clients connect.
const CLIENTS: usize = 3;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Connections accepted.
    accepted: usize,
    /// Different inodes, the listener's among them.
    sockets: usize,
    /// Different local ports, the listener's among them.
    server_ports: usize,
    /// Different ports at the clients.
    client_ports: usize,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let listener = TcpListener::bind("127.0.0.1:0").step("listening")?;
    let at = listener.local_addr().step("getsockname()")?;
    let before = moment("before", Tables::TCP, |row| row.local.inet() == Some(at))
        .step("reading the socket table")?;
    let mut clients = Vec::new();
    let mut accepted = Vec::new();
    for _ in 0..CLIENTS {
        bench.go_on()?;
        clients.push(TcpStream::connect(at).step("connecting")?);
        accepted.push(listener.accept().step("accepting")?.0);
    }
    let mut ports = HashSet::from([at.port()]);
    let mut inodes = HashSet::from([super::inode(&listener).step("fstat()")?]);
    for socket in &accepted {
        ports.insert(socket.local_addr().step("getsockname()")?.port());
        inodes.insert(super::inode(socket).step("fstat()")?);
    }
    let mut client_ports = HashSet::new();
    for client in &clients {
        client_ports.insert(client.local_addr().step("getsockname()")?.port());
    }
    let seen = Seen {
        accepted: accepted.len(),
        sockets: inodes.len(),
        server_ports: ports.len(),
        client_ports: client_ports.len(),
    };
    let after = moment("all accepted", Tables::TCP, |row| row.local.inet() == Some(at))
        .step("reading the socket table")?;
    Ok(Outcome::of(&seen, judge(&seen)).with([before, after]))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { accepted, sockets, server_ports, client_ports } = seen;
    if *sockets != accepted + 1 {
        let why = format!(
            "{accepted} connections and their listener have {sockets} sockets between \
             them, not one each."
        );
        return (Finding::DoesNotHold, why);
    }
    if *server_ports != 1 {
        let why = format!("The server's ends have {server_ports} different ports.");
        return (Finding::DoesNotHold, why);
    }
    let why = format!(
        "{accepted} connections have a socket each, beside the listener's, and all of \
         them the listener's own port; what tells them apart is the client's address and \
         port ({client_ports} different ones). So a server's number of connections is not \
         bounded by its ports."
    );
    (Finding::Holds, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let new_ports =
            Seen { accepted: 3, sockets: 4, server_ports: 4, client_ports: 3 };
        assert_eq!(judge(&new_ports).0, Finding::DoesNotHold);
        let one_socket =
            Seen { accepted: 3, sockets: 1, server_ports: 1, client_ports: 3 };
        assert_eq!(judge(&one_socket).0, Finding::DoesNotHold);
    }
}
