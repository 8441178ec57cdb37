//! Addresses, ports and interfaces as a filter names them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::model::Family;
use super::lexer::written;
use super::pattern::Pattern;

/// The first bits of an IP address. Unlike [`super::super::block::AddressBlock`] it keeps
/// a v4-mapped address as it is, for ss(8) and the kernel do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The first `bits` of an address; None for more than it has.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) => {
                let rest = 32_u32.checked_sub(bits.into())?;
                let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let rest = 128_u32.checked_sub(bits.into())?;
                let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Some(Self { address, bits })
    }

    /// The address, with 0 for the bits that do not count.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The family of the address.
    #[must_use]
    pub fn family(self) -> Family {
        Family::of((self.address, 0).into())
    }

    /// Whether an address begins with these bits. A v4-mapped one is also taken as the
    /// IPv4 address in it, as the kernel's own filter does.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let begins = |address| Self::new(address, self.bits) == Some(self);
        match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V6(v6)) => {
                v6.to_ipv4_mapped().is_some_and(|v4| begins(v4.into()))
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => false,
            _ => begins(address),
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// What an address is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressPattern {
    /// Any address of any socket.
    Any,
    /// An address of IPv4 or IPv6; all of what is given holds.
    Inet {
        /// Only sockets of this family.
        family: Option<Family>,
        /// The address.
        prefix: Option<Prefix>,
        /// The port.
        port: Option<u16>,
    },
    /// The name of a unix socket, an abstract one with a leading `@`; upper and lower
    /// case are the same, as ss(8) has it.
    Unix(Pattern),
    /// The protocol and interface of a packet socket.
    Packet {
        /// An ETH_P_ number.
        protocol: Option<u16>,
        /// The interface.
        device: Option<Device>,
    },
    /// A netlink address.
    Netlink {
        /// A NETLINK_ number.
        family: Option<u8>,
        /// The port; 0 is the kernel.
        port: Option<u32>,
    },
    /// A vsock address.
    Vsock {
        /// The context.
        cid: Option<u32>,
        /// The port.
        port: Option<u32>,
    },
}

/// Sockets that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortSpace {
    /// Those of IPv4 and IPv6.
    Inet,
    /// Those of one of the two.
    Family(Family),
    /// vsock(7).
    Vsock,
    /// netlink(7).
    Netlink,
}

/// What a port is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPattern {
    /// Whose port.
    pub space: PortSpace,
    /// The port; None for any.
    pub port: Option<u32>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// By its index; 0 for a socket that is bound to none.
    Index(u32),
    /// By its name.
    Name(String),
}

/// A part of an address that may be left out.
struct OrStar<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrStar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(given) => given.fmt(f),
            None => f.write_str("*"),
        }
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Inet { family, prefix, port } => {
                f.write_str(match family {
                    None => "",
                    Some(Family::V4) => "inet:",
                    Some(Family::V6) => "inet6:",
                })?;
                OrStar(*prefix).fmt(f)?;
                match port {
                    Some(port) => write!(f, ":{port}"),
                    // Alone, a star would stand for every kind of socket.
                    None if prefix.is_none() && family.is_none() => f.write_str(":*"),
                    None => Ok(()),
                }
            }
            Self::Unix(pattern) => write!(f, "unix:{}", written(pattern.as_str())),
            Self::Packet { protocol, device } => {
                let device = device.as_ref().map(ToString::to_string);
                write!(f, "link:{}", OrStar(*protocol))?;
                device.map_or(Ok(()), |device| write!(f, ":{device}"))
            }
            Self::Netlink { family, port } => {
                write!(f, "netlink:{}:{}", OrStar(*family), OrStar(*port))
            }
            Self::Vsock { cid, port } => {
                write!(f, "vsock:{}:{}", OrStar(*cid), OrStar(*port))
            }
        }
    }
}

/// An IPv6 address in brackets, the prefix inside them, as ss(8) takes it.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = *self == Self::from(self.address);
        match self.address {
            IpAddr::V4(v4) if whole => v4.fmt(f),
            IpAddr::V4(v4) => write!(f, "{v4}/{}", self.bits),
            IpAddr::V6(v6) if whole => write!(f, "[{v6}]"),
            IpAddr::V6(v6) => write!(f, "[{v6}/{}]", self.bits),
        }
    }
}

impl fmt::Display for PortPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.space {
            PortSpace::Inet => "",
            PortSpace::Family(Family::V4) => "inet:",
            PortSpace::Family(Family::V6) => "inet6:",
            PortSpace::Vsock => "vsock:",
            PortSpace::Netlink => "netlink:",
        })?;
        write!(f, ":{}", OrStar(self.port))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Name(name) => written(name).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(address: &str, bits: u8) -> Prefix {
        Prefix::new(address.parse().unwrap(), bits).unwrap()
    }

    fn inside(address: &str, bits: u8, other: &str) -> bool {
        prefix(address, bits).contains(other.parse().unwrap())
    }

    #[test]
    fn a_prefix_holds_the_addresses_that_begin_with_it() {
        assert!(inside("10.0.0.0", 8, "10.9.8.7") && !inside("10.0.0.0", 8, "11.0.0.0"));
        assert!(inside("2001:db8::", 32, "2001:db8:1::") && !inside("::1", 128, "::2"));
        assert!(inside("0.0.0.0", 0, "255.0.0.1") && inside("::", 0, "ffff::"));
    }

    #[test]
    fn a_mapped_address_is_both_what_it_is_and_the_one_in_it() {
        assert!(inside("127.0.0.0", 8, "::ffff:127.0.0.1"));
        assert!(inside("::ffff:127.0.0.1", 128, "::ffff:127.0.0.1"));
        assert!(!inside("::ffff:127.0.0.1", 128, "127.0.0.1"));
        assert!(inside("0.0.0.0", 0, "::ffff:1.2.3.4") && !inside("0.0.0.0", 0, "::1"));
    }

    #[test]
    fn more_bits_than_there_are_make_no_prefix() {
        assert_eq!(Prefix::new("1.2.3.4".parse().unwrap(), 33), None);
        assert_eq!(Prefix::new("::".parse().unwrap(), 129), None);
        assert_eq!(prefix("1.2.3.4", 32), Prefix::from(IpAddr::from([1, 2, 3, 4])));
    }

    proptest! {
        #[test]
        fn an_address_is_in_each_of_its_prefixes(bits: u128, len in 0..=128_u8, v4 in 0..=32_u8) {
            let v6 = IpAddr::V6(Ipv6Addr::from_bits(bits));
            prop_assert!(Prefix::new(v6, len).unwrap().contains(v6));
            let low = IpAddr::V4(Ipv4Addr::from_bits((bits & 0xffff_ffff).try_into().unwrap()));
            prop_assert!(Prefix::new(low, v4).unwrap().contains(low));
        }
    }
}
