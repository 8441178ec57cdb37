//! What is probed: the text that names it, and the endpoints that it resolves to.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;

use rustix::net::netdevice::{index_to_name, name_to_index};
use socket2::{Domain, SockAddr, Socket, Type};

use super::model::UnixName;

/// A unix socket's address has room for this many bytes of path (`sun_path` of
/// unix(7) is 108, of which one is the terminating zero or the abstract mark).
const UNIX_NAME_MAX: usize = 107;

/// A target as the user named it, understood but not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP port of a host given by name or address.
    Tcp {
        /// A host name, or an address without brackets, with its zone if it has one.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// The same, and what is to be asked there by HTTP/1.1.
    Http {
        /// As in [`Target::Tcp`].
        host: String,
        /// 1 to 65535.
        port: u16,
        /// The path and query of the request, from its first `/` on.
        path: String,
    },
    /// A stream socket in the file system or in the abstract namespace (unix(7)).
    Unix(UnixName<'static>),
}

/// One address that a dial can be aimed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An IPv4 or IPv6 address and port.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(UnixName<'static>),
}

/// Why a target cannot be used. Each says what would be right.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TargetError {
    #[error("https is not spoken here; to probe the port alone write tcp://{0}")]
    Https(String),
    #[error(
        "the path '{0}' has a space or a character that is not ASCII: write %20 and the like"
    )]
    Path(String),
    #[error(
        "unknown scheme '{0}'; a target is host:port, PORT, tcp://host:port, \
         http://host:port/path or unix:/path"
    )]
    Scheme(String),
    #[error("'{0}' has no port; write {0}:PORT")]
    NoPort(String),
    #[error("'{0}' is not a port; ports are 1 to 65535")]
    Port(String),
    #[error("an IPv6 address is written in brackets: [{address}]:{port}")]
    Brackets { address: String, port: String },
    #[error("'{0}' is not an IPv6 address")]
    Ipv6(String),
    #[error("'{0}' is not a host name or address")]
    Host(String),
    #[error("no interface is called '{0}' here")]
    Zone(String),
    #[error(
        "{0} is a link-local address, which needs its interface: [{0}%INTERFACE]:{1}"
    )]
    NoZone(Ipv6Addr, u16),
    #[error("a unix target needs a name: unix:/path or unix:@name")]
    UnixEmpty,
    #[error("the unix name is {0} bytes long; the kernel takes at most {UNIX_NAME_MAX}")]
    UnixLong(usize),
    #[error("no such host '{host}': {why}")]
    NoSuchHost { host: String, why: String },
}

impl Target {
    /// Reads a target: `host:port`, `[::1]:port`, `port`, `:port`, `tcp://host:port`,
    /// `http://host:port/path`, `unix:/path` or `unix:@name`.
    ///
    /// # Errors
    /// A [`TargetError`] that says what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(name) = text.strip_prefix("unix:") {
            return unix_name(name).map(Self::Unix);
        }
        let authority = match text.split_once("://") {
            Some(("tcp", rest)) => rest.trim_end_matches('/'),
            Some(("https", rest)) => {
                return Err(TargetError::Https(with_port(rest, "443")));
            }
            Some(("http", rest)) => return http(rest),
            Some((scheme, _)) => return Err(TargetError::Scheme(scheme.to_owned())),
            None => text,
        };
        tcp(authority)
    }

    /// The endpoints of this target, in the order in which they are to be tried.
    /// `localhost` and a bare port are 127.0.0.1 and then `[::1]`.
    ///
    /// # Errors
    /// [`TargetError::NoSuchHost`] with the resolver's words, or an unknown zone.
    pub fn resolve(&self) -> Result<Vec<Endpoint>, TargetError> {
        let (host, port) = match self {
            Self::Unix(name) => return Ok(vec![Endpoint::Unix(name.clone())]),
            Self::Tcp { host, port } | Self::Http { host, port, .. } => {
                (host.as_str(), *port)
            }
        };
        if let Some((address, zone)) = host.split_once('%') {
            let address: Ipv6Addr =
                address.parse().map_err(|_| TargetError::Ipv6(address.to_owned()))?;
            let at = SocketAddrV6::new(address, port, 0, scope_id(zone)?);
            return Ok(vec![Endpoint::Tcp(at.into())]);
        }
        if let Ok(IpAddr::V6(address)) = host.parse()
            && address.is_unicast_link_local()
        {
            return Err(TargetError::NoZone(address, port));
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = SocketAddr::new(address.to_canonical(), port);
            return Ok(vec![Endpoint::Tcp(address)]);
        }
        if host.eq_ignore_ascii_case("localhost") {
            let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(both
                .map(|ip: IpAddr| Endpoint::Tcp(SocketAddr::new(ip, port)))
                .to_vec());
        }
        let no_such =
            |why: String| TargetError::NoSuchHost { host: host.to_owned(), why };
        let mut found: Vec<Endpoint> = Vec::new();
        let addresses = (host, port).to_socket_addrs();
        for address in addresses.map_err(|e| no_such(resolver_words(&e)))? {
            let endpoint = Endpoint::Tcp(address);
            if !found.contains(&endpoint) {
                found.push(endpoint);
            }
        }
        if found.is_empty() {
            Err(no_such("it has no address".into()))
        } else {
            Ok(found)
        }
    }
}

/// The resolver's message without the standard library's preamble.
fn resolver_words(error: &io::Error) -> String {
    let words = error.to_string();
    words
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(&words)
        .to_owned()
}

fn with_port(rest: &str, port: &str) -> String {
    let authority = rest.split('/').next().unwrap_or(rest);
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, p)| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    if has_port { authority.to_owned() } else { format!("{authority}:{port}") }
}

fn http(rest: &str) -> Result<Target, TargetError> {
    let rest = rest.split('#').next().unwrap_or(rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if authority.is_empty() {
        return Err(TargetError::Host(String::new()));
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(TargetError::Path(path));
    }
    match tcp(&with_port(authority, "80"))? {
        Target::Tcp { host, port } => Ok(Target::Http { host, port, path }),
        other => Ok(other),
    }
}

fn tcp(authority: &str) -> Result<Target, TargetError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest
            .split_once(']')
            .ok_or_else(|| TargetError::Ipv6(authority.to_owned()))?;
        let plain = address.split('%').next().unwrap_or(address);
        if plain.parse::<Ipv6Addr>().is_err() {
            return Err(TargetError::Ipv6(address.to_owned()));
        }
        let port = after
            .strip_prefix(':')
            .ok_or_else(|| TargetError::NoPort(format!("[{address}]")))?;
        return Ok(Target::Tcp { host: address.to_owned(), port: parse_port(port)? });
    }
    if !authority.is_empty() && authority.bytes().all(|b| b.is_ascii_digit()) {
        let port = parse_port(authority)?;
        return Ok(Target::Tcp { host: "localhost".into(), port });
    }
    let Some((host, port)) = authority.rsplit_once(':') else {
        return Err(if is_host(authority) {
            TargetError::NoPort(authority.to_owned())
        } else {
            TargetError::Host(authority.to_owned())
        });
    };
    if host.contains(':') {
        // fe80::1 is an address without a port, ::1:8080 may be meant as both.
        if host.parse::<Ipv6Addr>().is_err() && authority.parse::<Ipv6Addr>().is_ok() {
            return Err(TargetError::NoPort(format!("[{authority}]")));
        }
        return Err(TargetError::Brackets { address: host.into(), port: port.into() });
    }
    let host = if host.is_empty() { "localhost" } else { host };
    if !is_host(host) {
        return Err(TargetError::Host(host.to_owned()));
    }
    Ok(Target::Tcp { host: host.to_owned(), port: parse_port(port)? })
}

/// Whether a text can be a host name or an IPv4 address at all; the resolver decides.
fn is_host(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.len() <= 253 && text.chars().all(allowed)
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(TargetError::Port(text.to_owned())),
    }
}

fn unix_name(name: &str) -> Result<UnixName<'static>, TargetError> {
    let name = name.strip_prefix("//").unwrap_or(name);
    let abstract_name = name.strip_prefix('@');
    let bytes = abstract_name.unwrap_or(name).as_bytes();
    match bytes.len() {
        0 => Err(TargetError::UnixEmpty),
        long if long > UNIX_NAME_MAX => Err(TargetError::UnixLong(long)),
        _ if abstract_name.is_some() => Ok(UnixName::Abstract(bytes.to_owned().into())),
        _ => Ok(UnixName::Path(bytes.to_owned().into())),
    }
}

fn scope_id(zone: &str) -> Result<u32, TargetError> {
    let unknown = || TargetError::Zone(zone.to_owned());
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).map_err(|_| unknown())?;
    let index = match zone.parse() {
        Ok(index) => index_to_name(&socket, index).map(|_| index),
        Err(_) => name_to_index(&socket, zone),
    };
    index.map_err(|_| unknown())
}

impl Endpoint {
    /// The address as socket2 takes it.
    ///
    /// # Errors
    /// InvalidInput for a unix name with a zero byte in it.
    pub fn sock_addr(&self) -> io::Result<SockAddr> {
        match self {
            Self::Tcp(address) => Ok((*address).into()),
            Self::Unix(UnixName::Path(path)) => SockAddr::unix(OsStr::from_bytes(path)),
            Self::Unix(UnixName::Abstract(name)) => {
                let mut with_mark = vec![0];
                with_mark.extend_from_slice(name);
                SockAddr::unix(OsStr::from_bytes(&with_mark))
            }
        }
    }

    /// The address family of a socket that can be connected to it.
    #[must_use]
    pub fn domain(&self) -> Domain {
        match self {
            Self::Tcp(SocketAddr::V4(_)) => Domain::IPV4,
            Self::Tcp(SocketAddr::V6(_)) => Domain::IPV6,
            Self::Unix(_) => Domain::UNIX,
        }
    }

    /// Whether dials to it never leave this host: 127.0.0.0/8, ::1, or a unix socket.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// The IP address and port, if it has them.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(name) => write!(f, "unix:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on(host: &str, port: u16) -> Target {
        Target::Tcp { host: host.into(), port }
    }

    #[test]
    fn every_form_of_a_target_is_understood() {
        for (text, target) in [
            ("8080", on("localhost", 8080)),
            (":8080", on("localhost", 8080)),
            ("localhost:8080", on("localhost", 8080)),
            ("tcp://10.0.0.1:80", on("10.0.0.1", 80)),
            ("tcp://db:5432/", on("db", 5432)),
            ("[::1]:443", on("::1", 443)),
            ("[fe80::1%lo]:443", on("fe80::1%lo", 443)),
            ("unix:/run/x", Target::Unix(UnixName::Path(b"/run/x".to_vec().into()))),
            ("unix:///run/x", Target::Unix(UnixName::Path(b"/run/x".to_vec().into()))),
            ("unix:@name", Target::Unix(UnixName::Abstract(b"name".to_vec().into()))),
        ] {
            assert_eq!(Target::parse(text).unwrap(), target, "{text}");
        }
    }

    #[test]
    fn an_http_target_has_a_path_and_a_default_port() {
        for (text, at, port, asks) in [
            ("http://x.test", "x.test", 80, "/"),
            ("http://x.test:8080/a/b?c=d#e", "x.test", 8080, "/a/b?c=d"),
            ("http://x.test?c", "x.test", 80, "/?c"),
            ("http://[::1]:81/", "::1", 81, "/"),
            ("http://[::1]", "::1", 80, "/"),
            ("http://:8080/", "localhost", 8080, "/"),
        ] {
            let target = Target::Http { host: at.into(), port, path: asks.into() };
            assert_eq!(Target::parse(text).unwrap(), target, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (text, says) in [
            ("https://x.test/a", "write tcp://x.test:443"),
            ("https://x.test:8443", "write tcp://x.test:8443"),
            ("http://a b/", "not a host name"),
            ("http://user@x.test/", "not a host name"),
            ("http://x.test:0/", "ports are 1 to 65535"),
            ("http://x.test/a b", "write %20"),
            ("http:///a", "not a host name"),
            ("http://::1/", "[::1]"),
            ("udp://x:1", "unknown scheme 'udp'"),
            ("x.test", "write x.test:PORT"),
            ("x:0", "ports are 1 to 65535"),
            ("x:65536", "ports are 1 to 65535"),
            ("x:", "ports are 1 to 65535"),
            ("0", "ports are 1 to 65535"),
            ("::1:80", "[::1]:80"),
            ("fe80::1", "write [fe80::1]:PORT"),
            ("[::1]", "has no port"),
            ("[nonsense]:1", "not an IPv6 address"),
            ("a b:80", "not a host name"),
            ("", "not a host name"),
            ("unix:", "needs a name"),
            ("unix:@", "needs a name"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        let error = Target::parse(&long).unwrap_err().to_string();
        assert!(error.contains("108 bytes long"), "{error}");
    }

    #[test]
    fn a_bare_port_is_tried_on_both_loopback_addresses() {
        let all = Target::parse("8080").unwrap().resolve().unwrap();
        let words: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["127.0.0.1:8080", "[::1]:8080"]);
    }

    #[test]
    fn a_zone_is_an_interface() {
        let zone = Target::parse("[fe80::1%lo]:1").unwrap().resolve().unwrap();
        let Endpoint::Tcp(SocketAddr::V6(at)) = &zone[0] else { panic!("{zone:?}") };
        assert_eq!(at.scope_id(), 1);
        let none = Target::parse("[fe80::1%nope]:1").unwrap().resolve().unwrap_err();
        assert_eq!(none.to_string(), "no interface is called 'nope' here");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = Target::parse(&text);
        }
    }
}
