//! The source addresses and ports that dials may come from.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::kernel::ifaddrs;

/// At most this many source addresses are used: times 64,511 ports they are more
/// connections than any host holds.
pub const SOURCES_MAX: usize = 4096;

/// The lowest port that a dial is bound to; those below are the system's.
const FIRST_PORT: u16 = 1024;

/// A run of addresses, as a user names it: one address or a CIDR block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRange {
    first: IpAddr,
    count: u128,
}

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SourceError {
    #[error("'{0}' is not an address or CIDR block, as 127.0.0.2 or 10.0.0.0/24")]
    Syntax(String),
    #[error("'/{prefix}' is not a prefix length of {family}; it takes 0 to {most}")]
    Prefix { prefix: String, family: &'static str, most: u32 },
    #[error(
        "the source {source_address} and the target {target} are of different families"
    )]
    Family { source_address: IpAddr, target: IpAddr },
    #[error("this host has no address {0}; `ip address` lists those it has")]
    NotHere(String),
    #[error("no source address leads to {target}: {why}")]
    NoRoute { target: SocketAddr, why: io::Error },
}

impl SourceRange {
    /// Reads an address, or a block as `10.0.0.0/24`, whose network and broadcast
    /// addresses are left out where it has them.
    ///
    /// # Errors
    /// [`SourceError::Syntax`] or [`SourceError::Prefix`].
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let syntax = || SourceError::Syntax(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let Some(prefix) = prefix else { return Ok(Self { first: address, count: 1 }) };
        let (family, most) = match address {
            IpAddr::V4(_) => ("IPv4", 32),
            IpAddr::V6(_) => ("IPv6", 128),
        };
        let length =
            prefix.parse::<u32>().ok().filter(|n| *n <= most).ok_or_else(|| {
                SourceError::Prefix { prefix: prefix.to_owned(), family, most }
            })?;
        let host_bits = most - length;
        let size = 1_u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let network = number(address) & !(size - 1);
        let edges = address.is_ipv4() && host_bits >= 2;
        let first = like(address, network + u128::from(edges));
        Ok(Self { first, count: if edges { size - 2 } else { size } })
    }

    fn contains(self, address: IpAddr) -> bool {
        let offset = number(address).checked_sub(number(self.first));
        address.is_ipv4() == self.first.is_ipv4()
            && offset.is_some_and(|n| n < self.count)
    }

    fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (0..self.count).map(move |i| like(self.first, number(self.first) + i))
    }
}

impl fmt::Display for SourceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => self.first.fmt(f),
            n => write!(
                f,
                "{}-{}",
                self.first,
                like(self.first, number(self.first) + n - 1)
            ),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address with this number, of the same family as `of`.
fn like(of: IpAddr, number: u128) -> IpAddr {
    match of {
        IpAddr::V4(_) => {
            Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into()
        }
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// Every source address and port that dials may be bound to, in order of preference.
#[derive(Debug)]
pub struct Sources {
    addresses: Vec<SocketAddr>,
    index: HashMap<IpAddr, u32>,
    ports: Ports,
    are_given: bool,
}

/// One port in so many of ip_local_port_range is left to others while it can be.
///
/// The kernel gives a connect(2) without bind(2) no port that any socket of the network
/// namespace is bound to, whatever the addresses (net/ipv4/inet_hashtables.c,
/// __inet_hash_connect: `tb->fastreuse >= 0`). A probe that is bound to every port of the
/// range keeps all other programs of this host from connecting anywhere.
const SPARED_OF: u16 = 8;

/// What kind of ports; in the order in which they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Tier {
    /// Of ip_local_port_range.
    #[default]
    InRange,
    /// Outside of it: a daemon may want one.
    Others,
    /// Of ip_local_port_range, and the last that are left to other programs.
    Spared,
}

impl Tier {
    /// The one that is used next.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::InRange => Some(Self::Others),
            Self::Others => Some(Self::Spared),
            Self::Spared => None,
        }
    }
}

/// The ports of one source address, less the reserved ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    in_range: Vec<u16>,
    others: Vec<u16>,
    spared: Vec<u16>,
}

impl Ports {
    /// Sorts the ports of `range` (ip_local_port_range, both ends included) from the
    /// others; `reserved` says of a port whether ip_local_reserved_ports names it.
    pub fn new(range: (u16, u16), reserved: impl Fn(u16) -> bool) -> Self {
        let free = (FIRST_PORT..=u16::MAX).filter(|port| !reserved(*port));
        let (in_range, others): (Vec<u16>, Vec<u16>) =
            free.partition(|port| (range.0..=range.1).contains(port));
        // Spread, and of the parity that the kernel tries first: it finds one soon.
        let is_spared = |port: &u16| (port - range.0).is_multiple_of(SPARED_OF);
        let (spared, in_range) = in_range.into_iter().partition(is_spared);
        Self { in_range, others, spared }
    }

    /// Those of one kind.
    #[must_use]
    pub fn of(&self, tier: Tier) -> &[u16] {
        match tier {
            Tier::InRange => &self.in_range,
            Tier::Others => &self.others,
            Tier::Spared => &self.spared,
        }
    }

    /// How many the kernel may choose from, those of ip_local_port_range.
    #[must_use]
    pub fn count_in_range(&self) -> usize {
        self.in_range.len() + self.spared.len()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count_in_range() + self.others.len()
    }
}

impl Sources {
    /// The sources for `target`: those `given`, or else the one that the kernel would
    /// choose and, where the target is an IPv4 loopback address, the rest of
    /// 127.0.0.0/8 after it.
    ///
    /// # Errors
    /// A [`SourceError`] for a source that this host lacks or that cannot reach the
    /// target.
    pub fn for_target(
        target: SocketAddr,
        given: &[SourceRange],
        ports: Ports,
    ) -> Result<Self, SourceError> {
        let addresses = if given.is_empty() {
            let first = default_source(target)?;
            let loopback = match (first.ip(), target.ip()) {
                (IpAddr::V4(own), IpAddr::V4(to)) if to.is_loopback() => Some(own),
                _ => None,
            };
            let further = (2..).map(|n| Ipv4Addr::from_bits(0x7f00_0000 + n));
            let further = further.filter(|a| Some(*a) != loopback && a.octets()[3] != 0);
            let further = further.map(|a| SocketAddr::new(a.into(), 0));
            let many = if loopback.is_some() { SOURCES_MAX } else { 1 };
            std::iter::once(first).chain(further).take(many).collect()
        } else {
            given_addresses(target, given)?
        };
        let numbered = (0..).zip(&addresses).map(|(i, at)| (at.ip(), i));
        let index = numbered.collect();
        Ok(Self { addresses, index, ports, are_given: !given.is_empty() })
    }

    /// Whether the user named them.
    #[must_use]
    pub fn are_given(&self) -> bool {
        self.are_given
    }

    /// How many source addresses there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Never: there is at least one source.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The address numbered `index`, with `port`.
    #[must_use]
    pub fn at(&self, index: u32, port: u16) -> SocketAddr {
        let mut address = self.addresses[index as usize];
        address.set_port(port);
        address
    }

    /// The number of a source address.
    #[must_use]
    pub fn index_of(&self, address: IpAddr) -> Option<u32> {
        self.index.get(&address).copied()
    }

    /// The ports that each address has.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// How many four-tuples there are for `target`: all but the one that would connect
    /// to itself.
    #[must_use]
    pub fn capacity(&self, target: SocketAddr) -> u64 {
        let per_source = self.ports.count();
        let itself = self.index_of(target.ip()).is_some() && target.port() >= FIRST_PORT;
        self.addresses.len() as u64 * per_source as u64 - u64::from(itself)
    }
}

/// The address that the kernel would dial `target` from; the unspecified one where no
/// way leads there, which the dials then say. Connecting a datagram socket sends nothing
/// (udp(7)).
fn default_source(target: SocketAddr) -> Result<SocketAddr, SourceError> {
    let no_family = |why| SourceError::NoRoute { target, why };
    let domain = Domain::for_address(target);
    let socket = Socket::new(domain, Type::DGRAM, None).map_err(no_family)?;
    let chosen = socket.connect(&target.into()).and_then(|()| socket.local_addr());
    let Some(mut source) = chosen.ok().and_then(|source| source.as_socket()) else {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        return Ok(SocketAddr::new(any, 0));
    };
    source.set_port(0);
    Ok(source)
}

/// Those of the given addresses that this host has: a socket can be bound to them.
fn given_addresses(
    target: SocketAddr,
    given: &[SourceRange],
) -> Result<Vec<SocketAddr>, SourceError> {
    let mut found: Vec<SocketAddr> = Vec::new();
    // Where they cannot be listed, the first of each block are tried all the same.
    let of_interfaces = ifaddrs::addresses().unwrap_or_default();
    for range in given {
        if range.first.is_ipv4() != target.is_ipv4() {
            let (source_address, target) = (range.first, target.ip());
            return Err(SourceError::Family { source_address, target });
        }
        let before = found.len();
        // A block may be far larger than what can be tried.
        let listed = of_interfaces.iter().copied().filter(|ip| range.contains(*ip));
        for ip in listed.chain(range.addresses().take(SOURCES_MAX)) {
            let mut address = SocketAddr::new(ip, 0);
            if let (SocketAddr::V6(own), SocketAddr::V6(to)) = (&mut address, target) {
                own.set_scope_id(to.scope_id());
            }
            if found.len() < SOURCES_MAX && can_bind(address) && !found.contains(&address)
            {
                found.push(address);
            }
        }
        let named_again = range.count == 1 && found.iter().any(|a| a.ip() == range.first);
        if found.len() == before && !named_again {
            let range = if range.count == 1 {
                range.first.to_string()
            } else {
                format!("of the block at {}", range.first)
            };
            return Err(SourceError::NotHere(range));
        }
    }
    Ok(found)
}

fn can_bind(address: SocketAddr) -> bool {
    let bound = Socket::new(Domain::for_address(address), Type::DGRAM, None)
        .and_then(|socket| socket.bind(&address.into()));
    // In use is every port for datagrams, and not the address.
    bound.is_ok() || bound.is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ports() -> Ports {
        Ports::new((32768, 60999), |port| port == 40000)
    }

    #[test]
    fn blocks_leave_out_their_edges() {
        for (text, first, count) in [
            ("127.0.0.7", "127.0.0.7", 1),
            ("10.0.0.9/24", "10.0.0.1", 254),
            ("10.0.0.9/31", "10.0.0.8", 2),
            ("10.0.0.9/32", "10.0.0.9", 1),
            ("fd00::5/126", "fd00::4", 4),
        ] {
            let range = SourceRange::parse(text).unwrap();
            assert_eq!((range.first, range.count), (first.parse().unwrap(), count));
        }
    }

    #[test]
    fn a_block_contains_what_lies_in_it() {
        let block = SourceRange::parse("10.0.0.0/8").unwrap();
        for (address, within) in [
            ("10.200.3.4", true),
            ("10.255.255.254", true),
            ("10.0.0.0", false),
            ("11.0.0.1", false),
            ("9.255.255.255", false),
            ("::a01:1", false),
        ] {
            assert_eq!(block.contains(address.parse().unwrap()), within, "{address}");
        }
    }

    #[test]
    fn bad_blocks_say_what_is_right() {
        for (text, says) in [
            ("10.0.0.0/33", "it takes 0 to 32"),
            ("fd00::/129", "it takes 0 to 128"),
            ("10.0.0/8", "as 127.0.0.2 or 10.0.0.0/24"),
            ("10.0.0.0/", "'/' is not a prefix length"),
        ] {
            let error = SourceRange::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_address_that_this_host_lacks_is_refused() {
        let target = "127.0.0.1:1".parse().unwrap();
        let given = [SourceRange::parse("192.0.2.1").unwrap()];
        let error = Sources::for_target(target, &given, ports()).unwrap_err();
        assert!(error.to_string().contains("no address 192.0.2.1"), "{error}");
    }

    #[test]
    fn loopback_begins_with_the_default_and_goes_on() {
        let target = "127.0.0.1:1".parse().unwrap();
        let sources = Sources::for_target(target, &[], ports()).unwrap();
        assert_eq!(sources.len(), SOURCES_MAX);
        assert_eq!(sources.at(0, 5), "127.0.0.1:5".parse().unwrap());
        assert_eq!(sources.at(1, 5), "127.0.0.2:5".parse().unwrap());
        let third = "127.0.0.3".parse().unwrap();
        assert_eq!(sources.index_of(third), Some(2));
    }

    #[test]
    fn ipv6_loopback_has_one_address() {
        let target = "[::1]:8080".parse().unwrap();
        let ports = Ports::new((32768, 60999), |_| false);
        let sources = Sources::for_target(target, &[], ports).unwrap();
        assert_eq!((sources.len(), sources.capacity(target)), (1, 64_511));
    }

    #[test]
    fn reserved_ports_are_in_neither_list() {
        let ports = ports();
        assert_eq!(ports.count_in_range(), 28_231);
        assert_eq!(ports.of(Tier::Others).len(), 64_512 - 28_232);
        for tier in [Tier::InRange, Tier::Others, Tier::Spared] {
            assert!(!ports.of(tier).contains(&40000));
        }
    }

    #[test]
    fn one_port_in_eight_of_the_range_comes_last() {
        let ports = Ports::new((32_768, 60_999), |_| false);
        let spared = ports.of(Tier::Spared);
        assert_eq!(spared.len(), 28_232 / 8);
        assert_eq!(spared[..2], [32_768, 32_776]);
        assert_eq!(ports.of(Tier::InRange)[..2], [32_769, 32_770]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-f:./]{0,50}") {
            let _ = SourceRange::parse(&text);
        }
    }
}
