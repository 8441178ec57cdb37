//! From a target to its listeners.

use std::io;
use std::net::{IpAddr, UdpSocket};

use crate::cli::exit::Failure;
use crate::host::{ProcRoot, sysctl};
use crate::kernel::ifaddrs;
use crate::kernel::netns::Netns;
use crate::sockets::listeners::{self, ListenAt};
use crate::sockets::namespaces::Places;
use crate::sockets::target::{Endpoint, Target};
use crate::sockets::watch::ListenerWatch;

/// A network namespace that was named: its handle, and how it was named.
pub(super) struct Named {
    pub(super) netns: Netns,
    spec: String,
}

impl Named {
    pub(super) fn find(spec: &str, root: &ProcRoot) -> Result<Self, Failure> {
        let places = Places { proc: root.clone(), ..Places::default() };
        let netns = places.resolve(spec).map_err(Failure::usage)?;
        Ok(Self { netns, spec: spec.to_owned() })
    }
}

/// Does it in the namespace that was named, where one was.
pub(super) fn inside<T: Send>(
    netns: Option<&Named>,
    f: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let Some(named) = netns else { return f() };
    named.netns.run(f).unwrap_or_else(|error| {
        let why = format!("the network namespace '{}' cannot be entered", named.spec);
        Err(Failure::lacking(anyhow::Error::new(error).context(why)))
    })
}

/// Finds the listeners of a target: at the first of its addresses that has one. A port
/// of this host means whatever listens on it, if that is one address only.
pub(super) fn attach(
    target: &Target,
    root: &ProcRoot,
    netns: Option<&Named>,
) -> Result<ListenerWatch, Failure> {
    let at = |endpoint: &Endpoint| {
        let spec = netns.map(|named| named.spec.as_str());
        ListenerWatch::attach(endpoint, spec, root.clone()).map_err(Failure::lacking)
    };
    let mut first = None;
    let mut elsewhere = None;
    for endpoint in target.resolve().map_err(Failure::usage)? {
        if let Endpoint::Tcp(address) = endpoint
            && !is_here(address.ip(), root, netns)?
        {
            elsewhere.get_or_insert(address);
            continue;
        }
        let watch = at(&endpoint)?;
        if !watch.listeners().is_empty() {
            return Ok(watch);
        }
        first.get_or_insert(watch);
    }
    let mut first = match (first, elsewhere) {
        (Some(first), _) => first,
        (None, Some(address)) => {
            let port = address.port();
            let here = if netns.is_some() { "in that namespace" } else { "of this host" };
            return Err(Failure::usage(format!(
                "{address} is no address {here}, and a client cannot see a server's accept \
                 queue: neither its length, nor its backlog, nor what it drops; watch it on \
                 its own host (ssh HOST sockscope backlog :{port}), or try from here how \
                 deep a burst it takes (sockscope backlog {address} --burst 200 --authorized)"
            )));
        }
        (None, None) => return Err(Failure::usage("the target has no address")),
    };
    let Target::Tcp { host, port } = target else { return Ok(first) };
    if host != "localhost" {
        return Ok(first);
    }
    let all = listeners::inet(first.diag()).map_err(Failure::lacking)?;
    let mut addresses: Vec<_> = all
        .iter()
        .filter_map(|listener| match listener.at {
            ListenAt::Inet(address) if address.port() == *port => Some(address),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    match addresses[..] {
        [] => Ok(first),
        [one] => at(&Endpoint::Tcp(one)),
        _ => {
            let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            Err(Failure::usage(format!("port {port} has several listeners: {names}")))
        }
    }
}

/// The same, and something must listen.
pub(super) fn attach_listening(
    target: &Target,
    root: &ProcRoot,
    netns: Option<&Named>,
) -> Result<ListenerWatch, Failure> {
    let watch = attach(target, root, netns)?;
    if watch.listeners().is_empty() {
        let why = anyhow::anyhow!("nothing listens on {} here", watch.endpoint());
        return Err(Failure::lacking(why));
    }
    Ok(watch)
}

/// Whether an address is one of this host, or of the namespace that was named: of an
/// interface, or of a local route (ip-route(8)), to which a socket can be bound.
fn is_here(ip: IpAddr, root: &ProcRoot, netns: Option<&Named>) -> Result<bool, Failure> {
    let ip = ip.to_canonical();
    if ip.is_loopback() || ip.is_unspecified() {
        return Ok(true);
    }
    let look = || -> io::Result<bool> {
        if ifaddrs::addresses()?.contains(&ip) {
            return Ok(true);
        }
        let name = match ip {
            IpAddr::V4(_) => "net.ipv4.ip_nonlocal_bind",
            IpAddr::V6(_) => "net.ipv6.ip_nonlocal_bind",
        };
        let tells = sysctl::number(root, name).is_ok_and(|any| any == 0);
        Ok(tells && UdpSocket::bind((ip, 0)).is_ok())
    };
    let looked = match netns {
        None => look(),
        Some(named) => named.netns.run(look).and_then(|looked| looked),
    };
    looked.map_err(Failure::lacking)
}
