//! What a socket has after each call.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::time::Duration;

use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::tools::{client, connect, local};
use crate::host::ProcRoot;
use crate::sockets::row::Row;
use crate::sockets::select::{Selection, Tables, Versions};
use crate::sockets::source::Source;
use crate::sockets::source::netlink::NetlinkSource;
use crate::sockets::source::proc::ProcSource;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 3,
    id: "bare-descriptor",
    claim: "After socket() there is only a descriptor; the addresses come with bind(), \
            connect() and accept().",
    trial: "A server and two clients are made call by call. After each call the socket \
            is looked for in /proc/PID/fd, in the table that sock_diag(7) gives and in \
            /proc/net/tcp, and its addresses there are read.",
    run,
};

/// Where a socket is to be found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Place {
    /// In /proc/PID/fd.
    descriptor: bool,
    /// In the table of sock_diag(7).
    diag: bool,
    /// In /proc/net/tcp.
    proc: bool,
    /// It has a local port.
    local: bool,
    /// It has a remote port.
    remote: bool,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// The server's socket after socket().
    created: Place,
    /// After bind().
    bound: Place,
    /// After listen().
    listening: Place,
    /// A client's after connect(), the server having answered.
    connected: Place,
    /// Another client's after connect(), the server not having answered.
    dialing: Place,
    /// The server's end of the first connection before accept().
    queued: Place,
    /// After accept().
    accepted: Place,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Socket::new(Domain::IPV4, Type::STREAM, None).step("socket()")?;
    let table = |when| {
        let inode = super::inode(&server).step("fstat()")?;
        moment(when, Tables::TCP, |row| row.inode == inode).step(READING)
    };
    let (created, first) = (own(&server)?, table("after socket()")?);
    server.bind(&any.into()).step("bind()")?;
    let (bound, second) = (own(&server)?, table("after bind()")?);
    // One connection can wait; the next client is not answered.
    server.listen(0).step("listen()")?;
    let (listening, third) = (own(&server)?, table("after listen()")?);

    let at = local(&server).step("getsockname()")?;
    let one = connect(at).step("connect()")?;
    let connected = own(&one)?;
    let from = local(&one).step("getsockname()")?;
    let is_server_end = |row: &Row<'_>| row.remote.inet() == Some(from);
    bench.wait(Duration::from_secs(2), || {
        Ok(Some(place(is_server_end)?).filter(|place| place.diag))
    })?;
    let other = client(at).step("socket()")?;
    other.set_nonblocking(true).step("fcntl()")?;
    // EINPROGRESS, as it is to be.
    let _ = other.connect(&at.into());
    let dialing = own(&other)?;
    let queued = place(is_server_end).step(READING)?;
    let fourth = moment("after connect() of two clients", Tables::TCP, |row| {
        [row.local.inet(), row.remote.inet()].contains(&Some(at))
    })
    .step(READING)?;
    let (end, _) = server.accept().step("accept()")?;
    let accepted = own(&end)?;
    let fifth = moment("after accept()", Tables::TCP, is_server_end).step(READING)?;
    let seen = Seen { created, bound, listening, connected, dialing, queued, accepted };
    Ok(Outcome::of(&seen, judge(&seen)).with([first, second, third, fourth, fifth]))
}

const READING: &str = "reading the socket table";

/// Where a socket is that this process holds.
fn own(socket: &Socket) -> Result<Place, Unable> {
    let inode = super::inode(socket).step("fstat()")?;
    let link = format!("/proc/thread-self/fd/{}", socket.as_raw_fd());
    let link = std::fs::read_link(link).step("reading /proc/thread-self/fd")?;
    let descriptor = link.as_os_str() == format!("socket:[{}]", inode.0).as_str();
    let place = place(|row| row.inode == inode).step(READING)?;
    Ok(Place { descriptor, ..place })
}

/// Where a socket of TCP is, by its row. One with an inode has a descriptor.
fn place(is_it: impl Fn(&Row<'_>) -> bool) -> io::Result<Place> {
    // Of IPv4 alone: a walk of the other table takes as long.
    let versions = Versions { v4: true, v6: false };
    let selection =
        Selection { tables: Tables::TCP, versions, ..Selection::everything() };
    let mut place = Place::default();
    NetlinkSource::open()?.rows(&selection, &mut |row| {
        if is_it(&row) {
            let has_port = |address: Option<SocketAddr>| {
                address.is_some_and(|address| address.port() != 0)
            };
            place = Place {
                descriptor: row.inode.exists(),
                diag: true,
                proc: false,
                local: has_port(row.local.inet()),
                remote: has_port(row.remote.inet()),
            };
        }
        ControlFlow::Continue(())
    })?;
    ProcSource::new(ProcRoot::default()).rows(&selection, &mut |row| {
        place.proc |= is_it(&row);
        ControlFlow::Continue(())
    })?;
    Ok(place)
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { created, bound, listening, connected, dialing, queued, accepted } = seen;
    let is_bare = created.descriptor
        && ![created.diag, created.proc, created.local, created.remote].contains(&true);
    if !is_bare {
        let why = "After socket() there was more than a descriptor, or not even that.";
        return (Finding::DoesNotHold, why.into());
    }
    let lacking = [
        ("bind() gave no local address", listening.local && !listening.remote),
        ("connect() did not give both addresses", connected.local && connected.remote),
        (
            "connect() gave no addresses before the answer",
            dialing.local && dialing.remote,
        ),
        ("accept() did not give both addresses", accepted.local && accepted.remote),
    ];
    if let Some((what, _)) = lacking.iter().find(|(_, is_so)| !is_so) {
        return (Finding::DoesNotHold, format!("In the socket table, {what}."));
    }
    let waiting = match (bound.diag, bound.proc) {
        (true, false) => {
            "bind() put it into the table of sock_diag, but not into /proc/net/tcp, \
             where ports that are only bound do not show; listen() put it there too."
        }
        (false, false) => "bind() put it into no table, listen() into both.",
        (_, true) => "bind() put it into /proc/net/tcp too.",
    };
    let why = format!(
        "After socket() /proc/PID/fd was the only place that knew of it. {waiting} \
         connect() gave a client both addresses at once, before any answer (SYN-SENT)."
    );
    if !queued.local || !queued.remote {
        return (Finding::Holds, format!("{why} accept() gave the server's end both."));
    }
    let without = if queued.descriptor { "" } else { " and only lacked a descriptor" };
    let why = format!(
        "{why} But the server's end was in the table with both its addresses before \
         accept(){without}: accept() hands out a connection that the kernel has already \
         made."
    );
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        let has = |letter| text.contains(letter);
        Place {
            descriptor: has('f'),
            diag: has('d'),
            proc: has('p'),
            local: has('l'),
            remote: has('r'),
        }
    }

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            created: place("f"),
            bound: place("fdl"),
            listening: place("fdpl"),
            connected: place("fdplr"),
            dialing: place("fdplr"),
            queued: place("dplr"),
            accepted: place("fdplr"),
        };
        let (finding, why) = judge(&seen);
        assert_eq!(finding, Finding::HoldsWithinLimits);
        assert!(why.contains("but not into /proc/net/tcp"), "{why}");
        let later = Seen { queued: place(""), ..seen.clone() };
        assert_eq!(judge(&later).0, Finding::Holds);
        let old = Seen { bound: place("f"), ..seen.clone() };
        assert!(judge(&old).1.contains("bind() put it into no table"));
        let early = Seen { bound: place("fdpl"), ..seen.clone() };
        assert!(judge(&early).1.contains("into /proc/net/tcp too"));
        let full = Seen { created: place("fd"), ..seen.clone() };
        assert_eq!(judge(&full).0, Finding::DoesNotHold);
        for (wrong, word) in [
            (Seen { listening: place("fdp"), ..seen.clone() }, "bind()"),
            (Seen { connected: place("fdpl"), ..seen.clone() }, "connect() did"),
            (Seen { dialing: place("f"), ..seen.clone() }, "before the answer"),
            (Seen { accepted: place("f"), ..seen }, "accept()"),
        ] {
            let (finding, why) = judge(&wrong);
            assert_eq!(finding, Finding::DoesNotHold);
            assert!(why.contains(word), "{why}");
        }
    }
}
