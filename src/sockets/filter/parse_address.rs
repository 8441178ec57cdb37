//! Reads addresses and ports. Each function's error is what is wrong and what would be
//! right, without the place.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::model::Family;
use super::Context;
use super::address::{AddressPattern, PortPattern, PortSpace, Prefix};
use super::error::quoted;
use super::nearest::nearest;
use super::parse_other::{netlink, netlink_port, number, packet, vsock, wide_port};
use super::pattern::Pattern;

/// How an address is read that does not name its family: ss's `-f`, and what its `-4`,
/// `-6`, `-0`, `-x` imply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// IPv4 or IPv6; a unix socket's name where it begins with `/` or `@`.
    #[default]
    Unspecified,
    /// `inet:`
    Inet,
    /// `inet6:`
    Inet6,
    /// `unix:`
    Unix,
    /// `link:`
    Link,
    /// `netlink:`
    Netlink,
    /// `vsock:`
    Vsock,
}

const FAMILIES: [(&str, AddressFamily); 7] = [
    ("inet", AddressFamily::Inet),
    ("inet6", AddressFamily::Inet6),
    ("unix", AddressFamily::Unix),
    ("link", AddressFamily::Link),
    ("packet", AddressFamily::Link),
    ("netlink", AddressFamily::Netlink),
    ("vsock", AddressFamily::Vsock),
];

/// An address without its family, and the family.
fn family_of<'a>(text: &'a str, context: &Context<'_>) -> (AddressFamily, &'a str) {
    let named = text.split_once(':').and_then(|(name, rest)| {
        let known = FAMILIES.iter().find(|(known, _)| *known == name)?;
        Some((known.1, rest))
    });
    named.unwrap_or_else(|| match context.family {
        AddressFamily::Unspecified if text.starts_with(['/', '@']) => {
            (AddressFamily::Unix, text)
        }
        family => (family, text),
    })
}

/// The addresses that a text stands for: several only where a host's name has several.
pub(super) fn addresses(
    text: &str,
    context: &Context<'_>,
) -> Result<Vec<AddressPattern>, String> {
    let (family, rest) = family_of(text, context);
    let one = match family {
        AddressFamily::Unspecified if is_any(rest) => AddressPattern::Any,
        AddressFamily::Unspecified => return inet(rest, None, context),
        AddressFamily::Inet => return inet(rest, Some(Family::V4), context),
        AddressFamily::Inet6 => return inet(rest, Some(Family::V6), context),
        AddressFamily::Unix => AddressPattern::Unix(Pattern::new(rest)),
        AddressFamily::Link => packet(rest, context)?,
        AddressFamily::Netlink => netlink(rest)?,
        AddressFamily::Vsock => vsock(rest)?,
    };
    Ok(vec![one])
}

/// The port that a text stands for.
pub(super) fn port(text: &str, context: &Context<'_>) -> Result<PortPattern, String> {
    let (family, rest) = family_of(text, context);
    let space = match family {
        AddressFamily::Unspecified => PortSpace::Inet,
        AddressFamily::Inet => PortSpace::Family(Family::V4),
        AddressFamily::Inet6 => PortSpace::Family(Family::V6),
        AddressFamily::Vsock => PortSpace::Vsock,
        AddressFamily::Netlink => PortSpace::Netlink,
        AddressFamily::Unix | AddressFamily::Link => {
            return Err(format!(
                "{} has no port: unix and packet sockets have none",
                quoted(text)
            ));
        }
    };
    let digits = rest.strip_prefix(':').unwrap_or(rest);
    let port = match space {
        _ if digits == "*" => None,
        PortSpace::Inet | PortSpace::Family(_) => {
            Some(inet_port(digits, context)?.into())
        }
        PortSpace::Vsock => Some(wide_port(digits)?),
        PortSpace::Netlink => Some(netlink_port(digits)?),
    };
    Ok(PortPattern { space, port })
}

/// Every address, as ss names it.
fn is_any(text: &str) -> bool {
    matches!(text, "*" | "any" | "all" | "default")
}

fn inet(
    text: &str,
    family: Option<Family>,
    context: &Context<'_>,
) -> Result<Vec<AddressPattern>, String> {
    let (host, port) = split_port(text)?;
    let port = match port {
        None | Some("" | "*") => None,
        Some(port) => Some(inet_port(port, context)?),
    };
    if host.is_empty() && port.is_none() && text.is_empty() && family.is_none() {
        return Err("an address is missing, as 10.0.0.0/8, [::1]:80 or :443".into());
    }
    if host.is_empty() || is_any(host) {
        return Ok(vec![AddressPattern::Inet { family, prefix: None, port }]);
    }
    let prefixes = prefixes(host, family, context)?;
    let pattern = |prefix| AddressPattern::Inet { family, prefix: Some(prefix), port };
    Ok(prefixes.into_iter().map(pattern).collect())
}

/// The host and the port of `10.0.0.0/8:80`, `[::1]:80`, `[fe80::/10]`, `fe80::/10`, `*:80`,
/// `:80`.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inside) = text.strip_prefix('[') {
        let Some((host, rest)) = inside.split_once(']') else {
            return Err(format!("{} lacks the bracket ']' of its address", quoted(text)));
        };
        // ss wants the prefix inside the brackets, people write it behind them.
        if let Some(bits) = rest.strip_prefix('/') {
            let bits = bits.split_once(':').map_or(bits, |(bits, _)| bits);
            let end = text.len() - rest.len() + 1 + bits.len();
            let port = text.get(end..).and_then(|rest| rest.strip_prefix(':'));
            return Ok((text.get(..end).unwrap_or_default(), port));
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => {
                Err(format!("after {} there can be a port alone, as :80", quoted(host)))
            }
        };
    }
    let before = text.split_once('/').map_or(text, |(address, _)| address);
    if let Ok(v6) = before.parse::<Ipv6Addr>() {
        let bits = text.get(before.len()..).unwrap_or_default();
        if let Some((_, port)) = bits.split_once(':') {
            let end = text.len() - port.len() - 1;
            return Ok((text.get(..end).unwrap_or_default(), Some(port)));
        }
        return if bits.is_empty() { unambiguous(text, v6) } else { Ok((text, None)) };
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Err(format!(
            "{} is no address; an IPv6 address with a port is written [::1]:80",
            quoted(text)
        )),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// An IPv6 address without brackets, which ss takes for an address and a port wherever
/// its last part could be one.
fn unambiguous(text: &str, v6: Ipv6Addr) -> Result<(&str, Option<&str>), String> {
    let as_port = text.rsplit_once(':').filter(|(host, port)| {
        host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok()
    });
    match as_port {
        Some((host, port)) => Err(format!(
            "{} can be read in two ways: write [{v6}] for the address, [{host}]:{port} for \
             the address and the port",
            quoted(text)
        )),
        None => Ok((text, None)),
    }
}

fn prefixes(
    host: &str,
    family: Option<Family>,
    context: &Context<'_>,
) -> Result<Vec<Prefix>, String> {
    let (name, bits) = match host.split_once('/') {
        Some((name, bits)) => (name, Some(bits)),
        None => (host, None),
    };
    let name = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let address = name.parse::<IpAddr>().ok().or_else(|| {
        // 193.233.7/24 of ss's own examples: what is left out is 0.
        bits.and_then(|_| abbreviated(name)).map(IpAddr::V4)
    });
    let Some(address) = address else {
        return match bits {
            Some(_) => Err(format!(
                "{} is no address with a prefix, as 10.0.0.0/8",
                quoted(host)
            )),
            None => resolved(name, family, context),
        };
    };
    if family.is_some_and(|family| family != Family::of((address, 0).into())) {
        let wanted = if address.is_ipv4() { "IPv4, inet:" } else { "IPv6, inet6:" };
        return Err(format!("{} is an address of {wanted}", quoted(name)));
    }
    let Some(bits) = bits else { return Ok(vec![address.into()]) };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let prefix =
        bits.parse().ok().filter(|_| digits).and_then(|b| Prefix::new(address, b));
    prefix
        .map(|prefix| vec![prefix])
        .ok_or_else(|| format!("{} is no length of a prefix: 0 to {most}", quoted(bits)))
}

/// One to three of the four parts of an IPv4 address.
fn abbreviated(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for (octet, part) in octets.iter_mut().zip(&mut parts) {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        *octet = part.parse().ok().filter(|_| digits)?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn resolved(
    name: &str,
    family: Option<Family>,
    context: &Context<'_>,
) -> Result<Vec<Prefix>, String> {
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is no address; a port is written :{name}", quoted(name)));
    }
    if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!(
            "{} is no IPv4 address, as 127.0.0.1 or 10.0.0.0/8",
            quoted(name)
        ));
    }
    if name.contains('%') {
        let message = "an address has no interface here; for that add dev, as dev eth0";
        return Err(format!("{}: {message}", quoted(name)));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(is_name) {
        return Err(format!(
            "{} is no address, as 127.0.0.1, 10.0.0.0/8, [::1]:80 or :443",
            quoted(name)
        ));
    }
    let found = (context.hosts)(name).map_err(|why: io::Error| {
        format!("no address found for the host {}: {why}", quoted(name))
    })?;
    let mut prefixes: Vec<Prefix> = Vec::new();
    for prefix in found.into_iter().map(Prefix::from) {
        let wanted = family.is_none_or(|family| family == prefix.family());
        if wanted && !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    if prefixes.is_empty() {
        return Err(format!("the host {} has no such address", quoted(name)));
    }
    Ok(prefixes)
}

/// A port of IPv4 or IPv6: a number or a service's name.
fn inet_port(text: &str, context: &Context<'_>) -> Result<u16, String> {
    const FORM: &str = "a port is 0 to 65535 or a service's name, as :80 or :http";
    if let Some(port) = number(text) {
        let port = u16::try_from(port);
        return port.map_err(|_| format!("{} is no port: {FORM}", quoted(text)));
    }
    match context.services.ports(text) {
        [port] => Ok(*port),
        [] if text.contains(['.', '[', ':']) => Err(format!(
            "{} is no port alone; an address is asked for by src or dst",
            quoted(text)
        )),
        [] => Err(match nearest(text, context.services.names()) {
            Some(name) => {
                format!("{} is no service; did you mean {name}? {FORM}", quoted(text))
            }
            None => format!("{} is no port: {FORM}", quoted(text)),
        }),
        several => {
            let ports: Vec<String> = several.iter().map(ToString::to_string).collect();
            let ports = ports.join(" or ");
            Err(format!("the service {} has several ports: write {ports}", quoted(text)))
        }
    }
}
