//! Addresses as ss(8) writes them, but for what it leaves unclear.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::Context;
use crate::sockets::row::{Address, Kind, Row};

/// Which end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its own.
    Local,
    /// Its peer's.
    Remote,
}

impl End {
    /// The address at this end.
    #[must_use]
    pub fn of<'a, 'b>(self, row: &'a Row<'b>) -> &'a Address<'b> {
        match self {
            Self::Local => &row.local,
            Self::Remote => &row.remote,
        }
    }
}

/// Appends the address and port of one end: `127.0.0.1:80`, `[fe80::1]%eth0:22`,
/// `0.0.0.0:*` for no peer, `/run/a.sock 1234` (with the inode) of a unix socket,
/// `ip:lo` of a packet socket, `route:1234` of a netlink socket, `*` for none.
pub fn write(to: &mut String, row: &Row<'_>, end: End, context: &Context<'_>) {
    match end.of(row) {
        Address::None => to.push('*'),
        Address::Inet(address) => inet(to, row, *address, end, context),
        Address::Unix { name, inode } => {
            match name {
                // A `String` takes all that is written to it.
                Some(name) => drop(write!(to, "{name}")),
                None => to.push('*'),
            }
            let _ = write!(to, " {inode}");
        }
        Address::Packet { protocol, .. } => {
            ethernet(to, *protocol);
            to.push(':');
            to.push_str(context.interface(row).as_deref().unwrap_or("*"));
        }
        Address::Netlink { family, port } => {
            netlink_family(to, *family);
            to.push(':');
            match port {
                0 => to.push_str("kernel"),
                _ => drop(write!(to, "{port}")),
            }
        }
        Address::Vsock { cid, port } => {
            number_or_any(to, *cid);
            to.push(':');
            number_or_any(to, *port);
        }
    }
}

fn inet(
    to: &mut String,
    row: &Row<'_>,
    address: SocketAddr,
    end: End,
    context: &Context<'_>,
) {
    ip(to, address.ip());
    if end == End::Local
        && let Some(name) = context.interface(row)
    {
        to.push('%');
        to.push_str(&name);
    }
    to.push(':');
    match (address.port(), row.kind, end) {
        (protocol, Kind::Raw, End::Local) => ip_protocol(to, protocol),
        (0, _, _) => to.push('*'),
        (port, _, _) => decimal(to, port.into()),
    }
}

/// An IP address, in brackets where it is IPv6.
pub fn ip(to: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    to.push('.');
                }
                decimal(to, octet.into());
            }
        }
        IpAddr::V6(v6) => drop(write!(to, "[{v6}]")),
    }
}

/// Appends a number; several times as fast as by way of [`std::fmt`].
pub fn decimal(to: &mut String, number: u32) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    to.extend(digits[at..].iter().copied().map(char::from));
}

fn number_or_any(to: &mut String, number: u32) {
    match number {
        u32::MAX => to.push('*'),
        _ => decimal(to, number),
    }
}

/// The protocol of a raw socket, by its name in the registry of IANA where it is one
/// that raw sockets are usually made for.
fn ip_protocol(to: &mut String, protocol: u16) {
    to.push_str(match protocol {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        255 => "raw",
        other => return decimal(to, other.into()),
    });
}

/// What a packet socket receives (linux/if_ether.h).
fn ethernet(to: &mut String, protocol: u16) {
    to.push_str(match protocol {
        0x0003 => "*",
        0x0800 => "ip",
        0x0806 => "arp",
        0x86dd => "ipv6",
        0x888e => "eapol",
        0x88cc => "lldp",
        other => {
            let _ = write!(to, "0x{other:04x}");
            return;
        }
    });
}

/// The name of a netlink family, else its number.
#[must_use]
pub fn netlink_name(family: u8) -> String {
    let mut name = String::new();
    netlink_family(&mut name, family);
    name
}

/// The family of a netlink socket (linux/netlink.h).
fn netlink_family(to: &mut String, family: u8) {
    to.push_str(match family {
        0 => "route",
        2 => "usersock",
        4 => "sock_diag",
        5 => "nflog",
        6 => "xfrm",
        7 => "selinux",
        8 => "iscsi",
        9 => "audit",
        10 => "fiblookup",
        11 => "connector",
        12 => "netfilter",
        15 => "uevent",
        16 => "generic",
        18 => "scsitransport",
        20 => "rdma",
        21 => "crypto",
        other => return decimal(to, other.into()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::model::{Inode, State, UnixName};
    use crate::sockets::names::{Cgroups, Users, Workloads};
    use proptest::prelude::*;
    use std::path::Path;

    fn shown(row: &Row<'_>, end: End) -> String {
        let (users, cgroups) = (Users::default(), Cgroups::default());
        let workloads = Workloads::new(Path::new("/proc"));
        let context = Context {
            users: &users,
            interfaces: None,
            workloads: &workloads,
            cgroups: &cgroups,
            netns: None,
        };
        let mut text = String::new();
        write(&mut text, row, end, &context);
        text
    }

    fn tcp(local: &str, remote: &str) -> Row<'static> {
        Row {
            local: Address::Inet(local.parse().unwrap()),
            remote: Address::Inet(remote.parse().unwrap()),
            ..Row::new(Kind::Tcp, State::Listen)
        }
    }

    #[test]
    fn inet_addresses_are_written_with_port_and_interface() {
        let row = tcp("127.0.0.1:80", "0.0.0.0:0");
        assert_eq!(shown(&row, End::Local), "127.0.0.1:80");
        assert_eq!(shown(&row, End::Remote), "0.0.0.0:*");
        let row = Row { interface: 7, ..tcp("[fe80::1]:22", "[::ffff:10.0.0.1]:5") };
        assert_eq!(shown(&row, End::Local), "[fe80::1]%if7:22");
        assert_eq!(shown(&row, End::Remote), "[::ffff:10.0.0.1]:5");
        let raw = Row { kind: Kind::Raw, ..tcp("0.0.0.0:1", "0.0.0.0:0") };
        assert_eq!(shown(&raw, End::Local), "0.0.0.0:icmp");
    }

    #[test]
    fn other_families_have_their_own_terms() {
        let name = UnixName::Path(b"/run/a\x1b[2J"[..].into());
        let unix = Row {
            local: Address::Unix { name: Some(name), inode: Inode(9) },
            remote: Address::Unix { name: None, inode: Inode(8) },
            ..Row::new(Kind::UnixStream, State::Established)
        };
        assert_eq!(shown(&unix, End::Local), "/run/a\\x1b[2J 9");
        assert_eq!(shown(&unix, End::Remote), "* 8");
        let packet = Row {
            local: Address::Packet { protocol: 3, interface: 0 },
            ..Row::new(Kind::PacketRaw, State::Close)
        };
        assert_eq!(shown(&packet, End::Local), "*:*");
        let netlink = Row {
            local: Address::Netlink { family: 16, port: 0 },
            ..Row::new(Kind::Netlink, State::Close)
        };
        assert_eq!(shown(&netlink, End::Local), "generic:kernel");
        assert_eq!(shown(&netlink, End::Remote), "*");
    }

    proptest! {
        #[test]
        fn addresses_are_as_the_standard_library_writes_them(bits: u32, port in 1_u16..) {
            let address = SocketAddr::from((std::net::Ipv4Addr::from_bits(bits), port));
            let row = tcp(&address.to_string(), "0.0.0.0:0");
            prop_assert_eq!(shown(&row, End::Local), address.to_string());
        }

        #[test]
        fn numbers_are_as_the_standard_library_writes_them(number: u32) {
            let mut text = String::new();
            decimal(&mut text, number);
            prop_assert_eq!(text, number.to_string());
        }
    }
}
