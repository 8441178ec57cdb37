//! Reads the addresses of other families, interfaces, marks and cgroups. Each function's
//! error is what is wrong and what would be right, without the place.

use super::Context;
use super::address::{AddressPattern, Device};
use super::error::quoted;

/// Netlink families: NETLINK_* of linux/netlink.h, by ss's name for them where it has
/// one, then the header's.
const NETLINK: [(u8, &[&str]); 22] = [
    (0, &["rtnl", "route"]),
    (2, &["usersock"]),
    (3, &["fw", "firewall"]),
    (4, &["tcpdiag", "sock-diag", "inet-diag"]),
    (5, &["nflog"]),
    (6, &["xfrm"]),
    (7, &["selinux"]),
    (8, &["iscsi"]),
    (9, &["audit"]),
    (10, &["fiblookup", "fib-lookup"]),
    (11, &["connector"]),
    (12, &["nft", "netfilter"]),
    (13, &["ip6fw"]),
    (14, &["dec-rt"]),
    (15, &["uevent", "kobject-uevent"]),
    (16, &["genl", "generic"]),
    (18, &["scsi-trans", "scsitransport"]),
    (19, &["ecryptfs"]),
    (20, &["rdma"]),
    (21, &["crypto"]),
    (22, &["smc"]),
    (1, &["unused"]),
];

/// ETH_P_* of linux/if_ether.h that people bind packet sockets to.
const ETHERNET: [(u16, &str); 9] = [
    (0x0003, "all"),
    (0x0800, "ip"),
    (0x0806, "arp"),
    (0x86dd, "ipv6"),
    (0x8100, "802.1q"),
    (0x888e, "802_1x"),
    (0x88cc, "lldp"),
    (0x8863, "ppp_disc"),
    (0x8864, "ppp_ses"),
];

/// The NETLINK_ number of a name or a number.
fn netlink_family(name: &str) -> Option<u8> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let named = NETLINK.iter().find(|(_, names)| names.contains(&name.as_str()));
    named.map(|(number, _)| *number).or_else(|| name.parse().ok())
}

/// The ETH_P_ number of a name or a number.
fn ethernet_protocol(name: &str) -> Option<u16> {
    let named = ETHERNET.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
    named
        .map(|(number, _)| *number)
        .or_else(|| number(name).and_then(|number| number.try_into().ok()))
}

/// A number in decimal, or in hexadecimal after `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = hex.unwrap_or(text);
    // from_str_radix would take a sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, if hex.is_some() { 16 } else { 10 }).ok()
}

pub(super) fn wide_port(text: &str) -> Result<u32, String> {
    number(text).ok_or_else(|| format!("{} is no port: a number", quoted(text)))
}

/// A netlink port. ss shows one above 2^31 as a negative number.
pub(super) fn netlink_port(text: &str) -> Result<u32, String> {
    let negative = || text.parse::<i32>().ok().map(i32::cast_unsigned);
    match text {
        "kernel" => Ok(0),
        _ => number(text).or_else(negative).ok_or_else(|| {
            format!("{} is no netlink port: a number, or kernel", quoted(text))
        }),
    }
}

/// The two parts of `FIRST:SECOND`, each None where it is left out or a star.
fn two_parts(text: &str) -> (Option<&str>, Option<&str>) {
    let (first, second) = text.split_once(':').unwrap_or((text, ""));
    let given = |part| Some(part).filter(|part: &&str| !part.is_empty() && *part != "*");
    (given(first), given(second))
}

pub(super) fn packet(
    text: &str,
    context: &Context<'_>,
) -> Result<AddressPattern, String> {
    let (protocol, device) = two_parts(text);
    let protocol = protocol.map(|name| {
        ethernet_protocol(name).ok_or_else(|| {
            format!("{} is no Ethernet protocol, as all, ip, arp or 0x88cc", quoted(name))
        })
    });
    let device = device.map(|name| self::device(name, context));
    Ok(AddressPattern::Packet {
        protocol: protocol.transpose()?,
        device: device.transpose()?,
    })
}

pub(super) fn netlink(text: &str) -> Result<AddressPattern, String> {
    let (family, port) = two_parts(text);
    let family = family.map(|name| {
        netlink_family(name).ok_or_else(|| {
            format!("{} is no netlink family, as route, genl or audit", quoted(name))
        })
    });
    let port = port.map(netlink_port);
    Ok(AddressPattern::Netlink { family: family.transpose()?, port: port.transpose()? })
}

pub(super) fn vsock(text: &str) -> Result<AddressPattern, String> {
    let (cid, port) = two_parts(text);
    let cid = cid.map(|cid| {
        number(cid)
            .ok_or_else(|| format!("{} is no vsock context: a number", quoted(cid)))
    });
    Ok(AddressPattern::Vsock {
        cid: cid.transpose()?,
        port: port.map(wide_port).transpose()?,
    })
}

/// An interface, by its name or its index.
pub(super) fn device(text: &str, context: &Context<'_>) -> Result<Device, String> {
    if let Some(index) = number(text) {
        return Ok(Device::Index(index));
    }
    let Some(known) = context.devices else { return Ok(Device::Name(text.to_owned())) };
    if known.iter().any(|name| name == text) {
        return Ok(Device::Name(text.to_owned()));
    }
    let there_are = known.join(", ");
    Err(format!("{} is no interface here; there are: {there_are}", quoted(text)))
}

/// A mark and the bits that count: `1`, `0x10/0xff`.
pub(super) fn mark(text: &str) -> Result<(u32, u32), String> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    number(value).zip(number(mask)).ok_or_else(|| {
        format!(
            "{} is no mark: a number and perhaps a mask, as 0x10 or 0x10/0xff",
            quoted(text)
        )
    })
}

/// A cgroup's path below the root of the hierarchy; ss takes it with the mount point.
pub(super) fn cgroup_path(text: &str) -> String {
    let mut path = text;
    let below = |path: &'_ str| {
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let lengths =
            mounts.into_iter().filter(|mount| path.starts_with(mount)).map(str::len);
        let mut rests = lengths.filter_map(|len| path.get(len..).map(|rest| (len, rest)));
        rests
            .find(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
            .map(|(len, _)| len)
    };
    while let Some(len) = below(path) {
        path = path.get(len..).unwrap_or_default();
    }
    format!("/{}", path.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_hexadecimal_and_no_sign() {
        assert_eq!(
            (number("80"), number("0x50"), number("080")),
            (Some(80), Some(80), Some(80))
        );
        for none in ["", "+1", "-1", "0x", "0x-1", "1x", "4294967296", " 1"] {
            assert_eq!(number(none), None, "{none}");
        }
    }

    #[test]
    fn families_have_the_names_of_ss_and_of_the_headers() {
        assert_eq!(netlink_family("rtnl"), Some(0));
        assert_eq!(netlink_family("SOCK_DIAG"), Some(4));
        assert_eq!(netlink_family("16"), Some(16));
        assert_eq!(netlink_family("nosuch"), None);
        assert_eq!(ethernet_protocol("arp"), Some(0x806));
        assert_eq!(ethernet_protocol("0x88cc"), Some(0x88cc));
        assert_eq!(ethernet_protocol("65536"), None);
    }
}
