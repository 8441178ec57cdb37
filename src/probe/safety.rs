//! Who may be probed.
//!
//! Free are loopback addresses, unix sockets, and an address of this host on which a
//! listener is found, here or in a namespace that the user names. An address alone is
//! not enough: a load balancer may answer on it for other machines. Decided on the
//! resolved address, never on the name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::target::Endpoint;

/// Dials a second where the target needs authorization and no rate was given.
pub const CAREFUL_RATE: f64 = 200.0;

/// The broadcast address of 127.0.0.0/8, which no interface names.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// What is known of a target before the first dial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its address belongs to an interface of this host, or of the namespace named.
    pub own_address: bool,
    /// A LISTEN socket there answers for it.
    pub has_listener: bool,
    /// Its address is the broadcast address of a network of this host.
    pub broadcast: bool,
}

impl Standing {
    /// Whether a listener of this host, or of the namespace named, is what answers. (One
    /// on the wildcard address answers for the addresses of its own host alone.)
    #[must_use]
    pub fn is_served_here(&self) -> bool {
        self.own_address && self.has_listener
    }
}

/// Whether a target may be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Without further ado.
    Free,
    /// With --authorized and --max alone, slowly unless told otherwise.
    Authorized,
}

/// Why a target is refused. Nothing was opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error(
        "{0} is the unspecified address, which no server has; 127.0.0.1 or ::1 is this host"
    )]
    Unspecified(IpAddr),
    #[error("{0} is a multicast address; only one host can be probed")]
    Multicast(IpAddr),
    #[error("{0} is a broadcast address; only one host can be probed")]
    Broadcast(IpAddr),
    #[error(
        "{0} is not this host: probing it needs its owner's consent; if you have it, \
         add --authorized --max N"
    )]
    NotOurs(SocketAddr),
    #[error(
        "{0} is an address of this host, but nothing listens on it here, so another \
         machine may answer; if that may be probed, add --authorized --max N"
    )]
    NoListener(SocketAddr),
    #[error(
        "{endpoint} is each namespace's own: from here it leads to this one; write \
         `ip netns exec {name} sockscope probe {endpoint}`"
    )]
    OwnInside { endpoint: String, name: String },
    #[error("{0} is not this host: --authorized also needs --max N, a bound on the load")]
    NoMax(SocketAddr),
}

/// Decides whether `endpoint` may be probed.
///
/// # Errors
/// The [`Refusal`], with what would be right.
pub fn permit(
    endpoint: &Endpoint,
    standing: Standing,
    authorized: bool,
    max: Option<u64>,
) -> Result<Permission, Refusal> {
    let Endpoint::Tcp(address) = endpoint else { return Ok(Permission::Free) };
    let ip = address.ip().to_canonical();
    match ip {
        _ if ip.is_unspecified() => return Err(Refusal::Unspecified(ip)),
        _ if ip.is_multicast() => return Err(Refusal::Multicast(ip)),
        IpAddr::V4(v4)
            if v4.is_broadcast() || v4 == LOOPBACK_BROADCAST || standing.broadcast =>
        {
            return Err(Refusal::Broadcast(ip));
        }
        _ if ip.is_loopback() => return Ok(Permission::Free),
        _ if standing.is_served_here() => return Ok(Permission::Free),
        _ => {}
    }
    match (authorized, max) {
        (false, _) if standing.own_address => Err(Refusal::NoListener(*address)),
        (false, _) => Err(Refusal::NotOurs(*address)),
        (true, None) => Err(Refusal::NoMax(*address)),
        (true, Some(_)) => Ok(Permission::Authorized),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Endpoint {
        Endpoint::Tcp(text.parse().unwrap())
    }

    const OURS: Standing =
        Standing { own_address: true, has_listener: true, broadcast: false };

    #[test]
    fn loopback_and_own_listeners_are_free() {
        let nothing = Standing::default();
        for free in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"]
        {
            assert_eq!(permit(&at(free), nothing, false, None), Ok(Permission::Free));
        }
        assert_eq!(permit(&at("192.0.2.1:80"), OURS, false, None), Ok(Permission::Free));
    }

    #[test]
    fn an_own_address_without_a_listener_is_not_free() {
        let mute = Standing { has_listener: false, ..OURS };
        let refused = permit(&at("192.0.2.1:80"), mute, false, None).unwrap_err();
        assert!(refused.to_string().contains("nothing listens on it here"), "{refused}");
        let allowed = permit(&at("192.0.2.1:80"), mute, true, Some(9));
        assert_eq!(allowed, Ok(Permission::Authorized));
    }

    #[test]
    fn a_listener_that_answers_for_another_address_frees_nothing() {
        let relayed = Standing { own_address: false, ..OURS };
        assert!(permit(&at("192.0.2.1:80"), relayed, false, None).is_err());
    }

    #[test]
    fn elsewhere_needs_consent_and_a_bound() {
        let far = Standing::default();
        let target = at("198.51.100.7:80");
        assert!(matches!(permit(&target, far, false, Some(5)), Err(Refusal::NotOurs(_))));
        assert!(matches!(permit(&target, far, true, None), Err(Refusal::NoMax(_))));
        assert_eq!(permit(&target, far, true, Some(5)), Ok(Permission::Authorized));
    }

    #[test]
    fn addresses_of_many_are_refused_even_when_authorized() {
        for (text, standing) in [
            ("0.0.0.0:80", OURS),
            ("[::]:80", OURS),
            ("224.0.0.1:80", OURS),
            ("[ff02::1]:80", OURS),
            ("255.255.255.255:80", OURS),
            ("192.0.2.255:80", Standing { broadcast: true, ..OURS }),
        ] {
            assert!(permit(&at(text), standing, true, Some(1)).is_err(), "{text}");
        }
    }
}
