//! Another host, in small: a network namespace that a link joins with an experiment's
//! own.

use std::net::Ipv4Addr;

use super::bench::Bench;
use super::experiment::{Step, Unable};
use crate::kernel::link::{add_address, add_default_route, join};
use crate::kernel::netns::Netns;
use crate::kernel::private::enter_network_namespace;

/// A host that this one has a link to, and that sends everything over it.
#[derive(Debug)]
pub(super) struct Neighbour {
    /// Its network namespace.
    pub(super) netns: Netns,
    /// This side's address on the link.
    pub(super) here: Ipv4Addr,
    /// Its own.
    pub(super) there: Ipv4Addr,
}

impl Neighbour {
    /// Makes one; `n` tells the links of an experiment apart.
    ///
    /// # Errors
    /// Where the experiment has no network namespace of its own; what the kernel gives.
    pub(super) fn new(bench: &Bench<'_>, n: u8) -> Result<Self, Unable> {
        bench.needs_private("it joins two network namespaces")?;
        let make = || {
            enter_network_namespace()?;
            Netns::current()
        };
        let netns = match std::thread::spawn(make).join() {
            Ok(made) => made.step("making a network namespace")?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // Networks of four addresses within TEST-NET-1 (RFC 5737).
        let [here, there] = [1, 2].map(|at| Ipv4Addr::new(192, 0, 2, 4 * (n % 64) + at));
        let device = format!("link{n}");
        join(&device, &netns, &device).step("joining two network namespaces")?;
        add_address(&device, here, 30).step("giving a link an address")?;
        let inside = || {
            add_address(&device, there, 30)?;
            add_default_route(here)
        };
        netns
            .run(inside)
            .and_then(|done| done)
            .step("giving the other host an address")?;
        Ok(Self { netns, here, there })
    }
}
