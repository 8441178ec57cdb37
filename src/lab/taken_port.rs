//! Who else can have a port on which someone listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use crate::sockets::model::State;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 19,
    id: "taken-port",
    claim: "A port on which someone listens can be bound by no one else.",
    trial: "One socket listens on a port of each of six addresses; a second one tries to \
            bind and to listen on the same port of each of the six: plain, both with \
            SO_REUSEADDR, both with SO_REUSEPORT, the second alone with SO_REUSEPORT.",
    run,
};

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    name: &'static str,
    ip: IpAddr,
    /// IPV6_V6ONLY.
    v6_only: bool,
}

fn addresses() -> [At; 6] {
    let v4 = |name, ip: Ipv4Addr| At { name, ip: ip.into(), v6_only: false };
    let v6 = |name, ip: Ipv6Addr, v6_only| At { name, ip: ip.into(), v6_only };
    [
        v4("127.0.0.1", Ipv4Addr::LOCALHOST),
        v4("127.0.0.2", Ipv4Addr::new(127, 0, 0, 2)),
        v4("0.0.0.0", Ipv4Addr::UNSPECIFIED),
        v6("[::1]", Ipv6Addr::LOCALHOST, true),
        v6("[::] (IPv6 only)", Ipv6Addr::UNSPECIFIED, true),
        v6("[::] (and IPv4)", Ipv6Addr::UNSPECIFIED, false),
    ]
}

/// What both sockets set before bind().
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Options {
    Plain,
    ReuseAddr,
    ReusePort,
}

impl Options {
    fn set(self, socket: &Socket) -> io::Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::ReuseAddr => socket.set_reuse_address(true),
            Self::ReusePort => socket.set_reuse_port(true),
        }
    }
}

/// What came of the pairs with the same options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Pairs {
    /// Pairs that were tried.
    tried: usize,
    /// The second socket could be bound.
    bound: usize,
    /// And could listen.
    listening: usize,
    /// Of these, on the very same address.
    same_address: usize,
}

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    /// Different addresses.
    addresses: usize,
    /// No options.
    plain: Pairs,
    /// SO_REUSEADDR at both.
    reuse_addr: Pairs,
    /// SO_REUSEPORT at both.
    reuse_port: Pairs,
    /// SO_REUSEPORT at the second alone.
    reuse_port_at_second: Pairs,
    /// The pairs of addresses that share a port without options.
    beside_each_other: Vec<String>,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    use Options::{Plain, ReuseAddr, ReusePort};
    let has_v6 = listen(addresses()[3], 0, Plain).is_ok();
    let all: Vec<At> =
        addresses().into_iter().filter(|at| has_v6 || at.ip.is_ipv4()).collect();
    let mut seen = Seen { addresses: all.len(), ..Default::default() };
    let mut beside = Vec::new();
    seen.plain = matrix(bench, &all, [Plain; 2], &mut beside)?;
    seen.reuse_addr = matrix(bench, &all, [ReuseAddr; 2], &mut Vec::new())?;
    seen.reuse_port = matrix(bench, &all, [ReusePort; 2], &mut Vec::new())?;
    seen.reuse_port_at_second = matrix(bench, &all, [Plain, ReusePort], &mut Vec::new())?;
    for (one, other) in beside {
        let is_said = format!("{other} with {one}");
        if !seen.beside_each_other.contains(&is_said) {
            seen.beside_each_other.push(format!("{one} with {other}"));
        }
    }
    let table = crowd(&all)?;
    let lacking = (!has_v6).then(|| "IPv6: this host has no [::1]".to_owned());
    Ok(Outcome::of(&seen, judge(&seen)).with([table]).without(lacking))
}

/// Every address with every one; `beside` gets those that both listen.
fn matrix(
    bench: &Bench<'_>,
    all: &[At],
    [first, second]: [Options; 2],
    beside: &mut Vec<(&'static str, &'static str)>,
) -> Result<Pairs, Unable> {
    let mut pairs = Pairs::default();
    for (one, other) in all.iter().flat_map(|one| all.iter().map(move |at| (one, at))) {
        bench.go_on()?;
        let (_listener, port) = listen(*one, 0, first).step("listening")?;
        pairs.tried += 1;
        let Ok(socket) = bind(*other, port, second) else { continue };
        pairs.bound += 1;
        if socket.listen(1).is_ok() {
            pairs.listening += 1;
            pairs.same_address += usize::from(one == other);
            beside.push((one.name, other.name));
        }
    }
    Ok(pairs)
}

fn bind(at: At, port: u16, options: Options) -> io::Result<Socket> {
    let address = SocketAddr::new(at.ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if at.ip.is_ipv6() {
        socket.set_only_v6(at.v6_only)?;
    }
    options.set(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(at: At, port: u16, options: Options) -> io::Result<(Socket, u16)> {
    let socket = bind(at, port, options)?;
    socket.listen(1)?;
    let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
    Ok((socket, port))
}

/// As many listeners as there can be on one port: each address but the wildcards, the
/// first of them twice.
fn crowd(all: &[At]) -> Result<Moment, Unable> {
    let (first, port) = listen(all[0], 0, Options::ReusePort).step("listening")?;
    let mut listeners = vec![first];
    for at in all.iter().filter(|at| !at.ip.is_unspecified()) {
        // One that has no room there is not shown.
        listeners
            .extend(listen(*at, port, Options::ReusePort).ok().map(|(socket, _)| socket));
    }
    moment("SO_REUSEPORT: one port", Tables::TCP, |row| {
        let is_there = row.local.inet().is_some_and(|local| local.port() == port);
        is_there && row.state == State::Listen
    })
    .step("reading the socket table")
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { plain, reuse_addr, reuse_port, reuse_port_at_second, .. } = seen;
    if plain.same_address + reuse_port_at_second.same_address > 0 {
        let why = format!(
            "Without the first one's consent a second socket listened on the very same \
             address and port, at {} of {} addresses.",
            plain.same_address.max(reuse_port_at_second.same_address),
            seen.addresses,
        );
        return (Finding::DoesNotHold, why);
    }
    if plain.listening + reuse_addr.listening + reuse_port.listening == 0 {
        let why = format!(
            "Of {} pairs of addresses and options none could share a port.",
            plain.tried + reuse_addr.tried + reuse_port.tried
        );
        return (Finding::Holds, why);
    }
    let such_as = match seen.beside_each_other.first() {
        Some(pair) => format!(", such as {pair}"),
        None => String::new(),
    };
    let reuse_addr_gives = match reuse_addr.listening.saturating_sub(plain.listening) {
        0 => "does not change that while someone listens".to_owned(),
        more => format!("lets {more} pairs more"),
    };
    let why = format!(
        "On the very same address nobody gets it against the will of the first: 0 of {} \
         without options, and 0 with SO_REUSEPORT at the second alone. But a port is \
         taken on an address: in {} of {} pairs both listened without any option, where \
         neither address covers the other{such_as}. SO_REUSEADDR {reuse_addr_gives}; with \
         SO_REUSEPORT at both (and one user) {} of {} listened, {} of them on the very \
         same address, and the kernel deals the connections out among them.",
        seen.addresses,
        plain.listening,
        plain.tried,
        reuse_port.listening,
        reuse_port.tried,
        reuse_port.same_address,
    );
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let none = Pairs { tried: 36, ..Default::default() };
        let some = Pairs { bound: 16, listening: 16, ..none };
        let seen = Seen {
            addresses: 6,
            plain: none,
            reuse_addr: none,
            reuse_port: none,
            reuse_port_at_second: none,
            ..Default::default()
        };
        assert_eq!(judge(&seen).0, Finding::Holds);
        let beside = Seen { plain: some, ..seen.clone() };
        assert_eq!(judge(&beside).0, Finding::HoldsWithinLimits);
        let shared = Seen { reuse_port: some, ..seen.clone() };
        assert_eq!(judge(&shared).0, Finding::HoldsWithinLimits);
        let same = Pairs { same_address: 1, ..some };
        let taken = Seen { plain: same, ..seen.clone() };
        assert_eq!(judge(&taken).0, Finding::DoesNotHold);
        let stolen = Seen { reuse_port_at_second: same, ..seen };
        assert_eq!(judge(&stolen).0, Finding::DoesNotHold);
    }
}
