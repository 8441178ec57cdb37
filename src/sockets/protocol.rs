//! Protocols by the names that the kernel has for them (`struct proto`), which
//! /proc/net/protocols lists and each open socket tells.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::row::Kind;

/// Names that are kept at the most. A kernel has about a hundred protocols, so more come
/// from no kernel.
const MOST: usize = 1024;
/// sizeof(proto.name) in include/net/sock.h.
const LONGEST: usize = 32;

/// The name of a protocol that this program has no kind of its own for: `alg`, `can_raw`.
/// In lower case, printable ASCII, without blanks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolName(&'static str);

impl ProtocolName {
    /// The name with these bytes; None for none, or beyond the thousandth.
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let name: String = name
            .iter()
            .take(LONGEST)
            .map(|&byte| if byte.is_ascii_graphic() { byte } else { b'?' })
            .map(|byte| char::from(byte.to_ascii_lowercase()))
            .collect();
        if name.is_empty() {
            return None;
        }
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(name.as_str()) {
            return Some(Self(name));
        }
        if known.len() >= MOST {
            return None;
        }
        let name: &'static str = name.leak();
        known.insert(name);
        Some(Self(name))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// The kind of socket that has this name of a protocol, and whether it is of AF_INET6.
/// A name that stands for several kinds (`PACKET`; `UNIX`, of datagram and seqpacket)
/// stays a name.
#[must_use]
pub fn kind_of(name: &[u8]) -> (Kind, bool) {
    let kind = match name {
        b"TCP" | b"TCPv6" => Kind::Tcp,
        b"MPTCP" | b"MPTCPv6" => Kind::Mptcp,
        b"UDP" | b"UDPv6" => Kind::Udp,
        b"UDP-Lite" | b"UDPLITEv6" => Kind::UdpLite,
        b"SCTP" | b"SCTPv6" => Kind::Sctp,
        b"RAW" | b"RAWv6" => Kind::Raw,
        b"PING" | b"PINGv6" => Kind::Icmp,
        b"UNIX-STREAM" => Kind::UnixStream,
        b"NETLINK" => Kind::Netlink,
        b"AF_VSOCK" => Kind::Vsock,
        b"XDP" => Kind::Xdp,
        _ => ProtocolName::new(name).map_or(Kind::Family(0), Kind::Named),
    };
    (kind, kind.is_inet() && name.ends_with(b"v6"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_name_is_a_kind_and_another_stays_a_name() {
        assert_eq!(kind_of(b"TCP"), (Kind::Tcp, false));
        assert_eq!(kind_of(b"PINGv6"), (Kind::Icmp, true));
        assert_eq!(kind_of(b""), (Kind::Family(0), false));
        let (kind, is_v6) = kind_of(b"ALG");
        assert_eq!((kind.name().as_ref(), is_v6), ("alg", false));
        assert_eq!(kind_of(b"ALG").0, kind, "one name, one kind");
        assert_ne!(kind_of(b"CAN_RAW").0, kind);
    }

    #[test]
    fn every_protocol_of_this_kernel_has_a_name() {
        let text = std::fs::read_to_string("/proc/net/protocols").unwrap();
        for line in text.lines().skip(1) {
            let name = line.split_ascii_whitespace().next().unwrap();
            assert_ne!(kind_of(name.as_bytes()).0, Kind::Family(0), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_shown(name in prop::collection::vec(any::<u8>(), 0..3)) {
            let shown = kind_of(&name).0.to_string();
            prop_assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
