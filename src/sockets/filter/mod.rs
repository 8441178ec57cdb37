//! Filters of sockets, in the language of ss(8), and more fields than it has.
//!
//! ```text
//! state NAME…  exclude NAME…         adjacent ones add and take away, from left to right
//! src|dst [=|!=] HOST                10.0.0.0/8:80  [::1]:80  :443  NAME:http
//!                                    inet:…  inet6:…  unix:GLOB  /GLOB  @GLOB
//!                                    netlink:FAMILY:PORT  link:PROTOCOL:DEV  vsock:CID:PORT
//! sport|dport [OP] PORT              80  :80  http  inet6:80  vsock:1024  netlink:4711
//! dev [=|!=] NAME|INDEX              fwmark [=|!=] VALUE[/MASK]    autobound
//! process|user|container|netns|cgroup|congestion [=|!=] GLOB
//! NUMBER [OP] VALUE                  pid, uid, recv-q, retrans, rtt, …: NumberField
//! OP: = == eq   != ne neq   < lt   <= le leq   > gt   >= ge geq
//! and & &&   or | ||   not !   ( )
//! ```
//!
//! `and` and `or` bind alike, from left to right, as in ss; a [`Note`] says where that
//! matters. States at the head hold for all that follows them.
//!
//! A condition on what a socket does not have, or what could not be read, is neither true
//! nor false, and neither is `not` of it: such a socket does not match. So `sport != :80`
//! and `not sport = :80` both leave unix sockets out, `process != x` those without a known
//! owner, and `rtt < 1ms` listeners.
//!
//! Where ss differs: it takes no `!=` for addresses, no state but at the head and in its
//! own spelling, wants white space around everything, takes a part of an IPv4 address as
//! one filled up with zeros and a port beyond 65535 as one that nothing has (both are
//! mistakes here), and lets a family such as `inet6:` apply to the whole filter (here: to
//! its condition). Its `autobound` asks the kernel as well, which knows of a port in
//! ip_local_port_range whether it was chosen by the program; of a unix socket without a
//! name it says that it is autobound.

mod address;
mod ast;
mod bounds;
mod conditions;
mod error;
mod eval;
mod fields;
mod in_kernel;
mod lexer;
mod nearest;
mod parse_address;
mod parse_other;
mod parser;
mod pattern;
mod services;
mod states;
mod units;

use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

pub use self::address::{AddressPattern, Device, PortPattern, PortSpace, Prefix};
pub use self::ast::{Condition, End, Equality, Expr, Op};
pub use self::bounds::Needs;
pub use self::error::FilterError;
pub use self::fields::{MemoryField, NumberField, TcpField, TextField};
pub use self::in_kernel::{Able, LookUp};
pub use self::parse_address::AddressFamily;
pub use self::pattern::Pattern;
pub use self::services::Services;
pub use self::states::StateSet;
use super::model::{Owner, States};
use super::row::Row;
use super::select::{Tables, Versions};
use crate::kernel::sock_diag::Bytecode;
use crate::kernel::tcp_info::TcpInfo;

/// What a filter is read with.
pub struct Context<'a> {
    /// The names of ports.
    pub services: &'a Services,
    /// The addresses of a host's name; asked for names alone.
    pub hosts: &'a dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
    /// The names of all interfaces, so that a wrong one is told; None where they are not
    /// known, as with several network namespaces.
    pub devices: Option<&'a [String]>,
    /// How an address is read that does not name its family.
    pub family: AddressFamily,
    /// The first and the last port of net.ipv4.ip_local_port_range, for `autobound`.
    pub local_ports: (u16, u16),
}

impl<'a> Context<'a> {
    /// These services, the host's resolver, the kernel's default range of ports, and
    /// interfaces that are not checked.
    #[must_use]
    pub fn new(services: &'a Services) -> Self {
        Self {
            services,
            hosts: &resolve,
            devices: None,
            family: AddressFamily::Unspecified,
            local_ports: (32_768, 60_999),
        }
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("devices", &self.devices)
            .field("family", &self.family)
            .field("local_ports", &self.local_ports)
            .finish_non_exhaustive()
    }
}

/// The addresses of a host, by getaddrinfo(3).
///
/// # Errors
/// What the resolver says.
pub fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// A filter of sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    expr: Option<Expr>,
    notes: Vec<Note>,
    local_ports: (u16, u16),
}

/// A socket, and what is known of it beyond its row.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its row.
    pub row: &'a Row<'a>,
    /// Its owners; none where they are not known.
    pub owners: &'a [Owner],
    /// The name of the user who made it.
    pub user: Option<&'a str>,
    /// The container or unit of its owner.
    pub container: Option<&'a str>,
    /// The name of its network namespace.
    pub netns: Option<&'a str>,
    /// The path of [`Row::cgroup`], below the root of the hierarchy.
    pub cgroup_path: Option<&'a str>,
    /// TCP_INFO.
    pub tcp_info: Option<&'a TcpInfo>,
    /// The name of the interface that it is bound to ([`Row::interface`]).
    pub device: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// A socket of which the row alone is known.
    #[must_use]
    pub fn of(row: &'a Row<'a>) -> Self {
        Self {
            row,
            owners: &[],
            user: None,
            container: None,
            netns: None,
            cgroup_path: None,
            tcp_info: None,
            device: None,
        }
    }
}

/// What is to be known of a filter that is right, but perhaps not meant so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// An `and` after an `or` without parentheses takes in all that stands before it.
    LeftToRight {
        /// Where it is, counted in characters from 1.
        column: usize,
    },
}

impl Note {
    fn at(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or_default();
        Self::LeftToRight { column: before.chars().count() + 1 }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::LeftToRight { column } = self;
        write!(
            f,
            "filter, column {column}: this 'and' holds for all that stands before it, as in \
             ss ('or' and 'and' bind alike); put parentheses to be plain"
        )
    }
}

impl Filter {
    /// A filter that every socket matches.
    #[must_use]
    pub fn everything() -> Self {
        Self { expr: None, notes: Vec::new(), local_ports: (0, 0) }
    }

    /// Parses a filter; one of several words on a command line is those, with a space
    /// between two. An empty one matches every socket.
    ///
    /// # Errors
    /// The first mistake, with its column.
    pub fn parse(text: &str, context: &Context<'_>) -> Result<Self, FilterError> {
        let (expr, notes) = parser::Parser::new(text, context).filter()?;
        Ok(Self { expr, notes, local_ports: context.local_ports })
    }

    /// The same filter in a network namespace with another ip_local_port_range.
    #[must_use]
    pub fn with_local_ports(self, local_ports: (u16, u16)) -> Self {
        Self { local_ports, ..self }
    }

    /// What it says; None: nothing.
    #[must_use]
    pub fn expr(&self) -> Option<&Expr> {
        self.expr.as_ref()
    }

    /// What the user should know of how it was read.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Whether a socket matches.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let holds = |expr| eval::holds(expr, subject, self.local_ports);
        self.expr.as_ref().is_none_or(|expr| holds(expr) == Some(true))
    }

    /// What must be known of a socket beyond its row to tell.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.expr.as_ref().map(Needs::of).unwrap_or_default()
    }

    /// Whether it asks for states, so that they stand in the place of those that are
    /// shown by default, as in ss.
    #[must_use]
    pub fn names_states(&self) -> bool {
        let mut found = false;
        if let Some(expr) = &self.expr {
            expr.each_condition(&mut |one| found |= matches!(one, Condition::State(_)));
        }
        found
    }

    /// The states that a socket which matches can be in; None: any.
    #[must_use]
    pub fn states(&self) -> Option<States> {
        let states = bounds::of(self.expr.as_ref()).states;
        (states != StateSet::ALL).then(|| states.to_states())
    }

    /// The tables that a socket which matches can be in. (One that is in no table at all
    /// may match whatever this says.)
    #[must_use]
    pub fn tables(&self) -> Tables {
        bounds::of(self.expr.as_ref()).tables
    }

    /// The IP versions that an inet socket which matches can be of.
    #[must_use]
    pub fn versions(&self) -> Versions {
        bounds::of(self.expr.as_ref()).versions
    }

    /// As much of it as the kernel can filter inet sockets by: what this drops does not
    /// match, what it leaves may not either. None where that is nothing.
    #[must_use]
    pub fn kernel(&self, able: &Able<'_>) -> Option<Bytecode> {
        let test = in_kernel::test(self.expr.as_ref()?, true, self.local_ports, able);
        Bytecode::compile(&test)
    }
}

/// As it is written; an empty one as nothing.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.as_ref().map_or(Ok(()), |expr| expr.fmt(f))
    }
}

#[cfg(test)]
mod tests;
