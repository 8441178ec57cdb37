//! A socket as a pair of addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use super::tools::{connect_from, errno, listen, local};
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 2,
    id: "address-pair",
    claim: "A socket is a pair of addresses, the local ip:port and the remote ip:port; \
            the descriptor is how a process holds it. Two sockets can share three of the \
            four parts, never all four.",
    trial: "Beside one connection four more are made, each with another local address, \
            local port, remote address or remote port and everything else the same; then \
            one with all four the same. The same is tried with connected UDP sockets and \
            with two listeners that set SO_REUSEPORT.",
    run,
};

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// What connect() gave with another local address alone.
    other_local_ip_errno: i32,
    /// With another local port alone.
    other_local_port_errno: i32,
    /// With another remote address alone.
    other_remote_ip_errno: i32,
    /// With another remote port alone.
    other_remote_port_errno: i32,
    /// With all four parts the same.
    all_the_same_errno: i32,
    /// Descriptors of the first socket, after dup().
    descriptors: usize,
    /// Listeners at one address and port, with SO_REUSEPORT.
    listeners_at_one_address: usize,
    /// What a second UDP socket with all four parts the same gave, with SO_REUSEADDR.
    same_udp_errno: i32,
}

fn run(_: &Bench<'_>) -> Result<Outcome, Unable> {
    let (_first, to) = listen(at(8, 0), 16).step("listening")?;
    let (_port, other_port) = listen(at(8, 0), 16).step("listening")?;
    let other_ip = at(9, to.port());
    let (_ip, _) = listen(other_ip, 16).step("listening")?;

    let base = connect_from(at(1, 0), to).step("connecting")?;
    let from = local(&base).step("getsockname()")?;
    let other_local_ip = connect_from(at(2, from.port()), to);
    let other_local_port = connect_from(at(1, 0), to);
    let other_remote_ip = connect_from(from, other_ip);
    let other_remote_port = connect_from(from, other_port);
    let all_the_same = connect_from(from, to);
    let _duplicate = base.try_clone().step("dup()")?;
    let inode = super::inode(&base).step("fstat()")?;

    let clients = moment("the clients, all connected", Tables::TCP, |row| {
        let remote = row.remote.inet();
        [to, other_ip, other_port].map(Some).contains(&remote)
    })
    .step("reading the socket table")?;
    let of_base = clients.sockets.iter().find(|socket| socket["inode"] == inode.0);
    let owners = of_base.and_then(|socket| socket["owners"].as_array());

    let listeners = reuse_port_listeners().step("listening with SO_REUSEPORT")?;
    let shared = listeners.first().map(local).transpose().step("getsockname()")?;
    let beside = moment("listeners with SO_REUSEPORT", Tables::TCP, |row| {
        shared.is_some() && row.local.inet() == shared
    })
    .step("reading the socket table")?;
    let seen = Seen {
        other_local_ip_errno: errno(&other_local_ip),
        other_local_port_errno: errno(&other_local_port),
        other_remote_ip_errno: errno(&other_remote_ip),
        other_remote_port_errno: errno(&other_remote_port),
        all_the_same_errno: errno(&all_the_same),
        descriptors: owners.map_or(0, Vec::len),
        listeners_at_one_address: beside.total,
        same_udp_errno: errno(&same_udp().step("a first UDP socket")?),
    };
    Ok(Outcome::of(&seen, judge(&seen)).with([clients, beside]))
}

fn at(host: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, host), port).into()
}

/// As many listeners at one address as can be, of two.
fn reuse_port_listeners() -> io::Result<Vec<Socket>> {
    let bound = |to: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&to.into())?;
        socket.listen(16)?;
        io::Result::Ok(socket)
    };
    let first = bound(at(1, 0))?;
    let second = bound(local(&first)?);
    Ok(std::iter::once(first).chain(second).collect())
}

/// What a UDP socket gives that is to have both addresses of another.
fn same_udp() -> io::Result<io::Result<Socket>> {
    let server = UdpSocket::bind(at(8, 0))?;
    let to = server.local_addr()?;
    let connected = |from: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect(&to.into())?;
        io::Result::Ok(socket)
    };
    let first = connected(at(1, 0))?;
    Ok(connected(local(&first)?))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let parts = [
        ("local address", seen.other_local_ip_errno),
        ("local port", seen.other_local_port_errno),
        ("remote address", seen.other_remote_ip_errno),
        ("remote port", seen.other_remote_port_errno),
    ];
    if let Some((part, errno)) = parts.iter().find(|(_, errno)| *errno != 0) {
        let why = format!(
            "A connection that differs from another in its {part} alone was refused: {}.",
            super::errno_name(*errno)
        );
        return (Finding::DoesNotHold, why);
    }
    if seen.all_the_same_errno == 0 {
        let why = "Two TCP connections were open at a time with all four parts the same.";
        return (Finding::DoesNotHold, why.into());
    }
    let connections = format!(
        "Five TCP connections were open, any two of them alike in two or three of the \
         four parts; the one with all four the same failed with {}: an arriving segment \
         names just these four, and must find one socket. {} descriptors led to the \
         first socket, which stayed one.",
        super::errno_name(seen.all_the_same_errno),
        seen.descriptors,
    );
    if seen.listeners_at_one_address < 2 && seen.same_udp_errno != 0 {
        return (Finding::Holds, connections);
    }
    let listeners = match seen.listeners_at_one_address {
        0 | 1 => "",
        _ => {
            " Two listeners with SO_REUSEPORT had the same address and port, and the \
             kernel deals new connections out between them."
        }
    };
    let udp = match seen.same_udp_errno {
        0 => " Two UDP sockets with SO_REUSEADDR had all four parts the same.",
        _ => "",
    };
    let why =
        format!("{connections} That is so of TCP connections alone.{listeners}{udp}");
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let seen = Seen {
            other_local_ip_errno: 0,
            other_local_port_errno: 0,
            other_remote_ip_errno: 0,
            other_remote_port_errno: 0,
            all_the_same_errno: libc::EADDRNOTAVAIL,
            descriptors: 2,
            listeners_at_one_address: 2,
            same_udp_errno: libc::EADDRINUSE,
        };
        assert_eq!(judge(&seen).0, Finding::HoldsWithinLimits);
        let alone = Seen { listeners_at_one_address: 1, ..seen.clone() };
        assert_eq!(judge(&alone).0, Finding::Holds);
        let udp = Seen { same_udp_errno: 0, ..alone.clone() };
        let (finding, why) = judge(&udp);
        assert_eq!(finding, Finding::HoldsWithinLimits);
        assert!(why.contains("UDP") && !why.contains("listeners"), "{why}");
        let twins = Seen { all_the_same_errno: 0, ..seen.clone() };
        assert_eq!(judge(&twins).0, Finding::DoesNotHold);
        let port = Seen { other_remote_port_errno: libc::EADDRINUSE, ..seen };
        let (finding, why) = judge(&port);
        assert_eq!(finding, Finding::DoesNotHold);
        assert!(why.contains("remote port") && why.contains("EADDRINUSE"), "{why}");
    }
}
