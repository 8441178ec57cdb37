//! Tests of filters: what is parsed, what is refused, what matches, and that the kernel
//! and ss(8) agree.

mod against_ss;
mod errors;
mod generate;
mod language;
mod live;

mod matching;
mod properties;
mod scene;

use std::net::IpAddr;

use super::*;

pub(super) const SERVICES: &[u8] = b"http 80/tcp www\nhttps 443/tcp\nhttps 443/udp\n\
    ssh 22/tcp\nodd 1/tcp\nodd 2/udp\n";

/// Hosts that need no resolver.
pub(super) fn hosts(name: &str) -> std::io::Result<Vec<IpAddr>> {
    match name {
        "localhost" => Ok(vec![[127, 0, 0, 1].into(), "::1".parse().unwrap()]),
        "web" => Ok(vec![[10, 0, 0, 7].into()]),
        _ => Err(std::io::Error::other("no such host")),
    }
}

/// Calls `f` with a context that has [`SERVICES`], [`hosts`] and two interfaces.
pub(super) fn with_context<T>(f: impl FnOnce(&Context<'_>) -> T) -> T {
    let services = Services::parse(SERVICES);
    let devices = ["lo".to_owned(), "eth0".to_owned()];
    f(&Context { hosts: &hosts, devices: Some(&devices), ..Context::new(&services) })
}

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    with_context(|context| Filter::parse(text, context))
}

/// A filter that must be right.
pub(super) fn filter(text: &str) -> Filter {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
