//! The part of a filter that the kernel can run on inet sockets.
//!
//! What it cannot tell counts as true. Negations are pushed down to the conditions first,
//! so that none ever stands before an approximation. As conditions on what a socket does
//! not have are neither true nor false, each is approximated twice: where it is true, and
//! where it is false.

use super::super::model::Family;
use super::address::{AddressPattern, Device, PortPattern, PortSpace};
use super::ast::{Condition, End, Equality, Expr, Op};
use super::fields::TextField;
use crate::kernel::sock_diag::{Condition as Kernel, Test};

/// Gives the number that a name stands for, if it stands for one.
pub type LookUp<'a, T> = &'a dyn Fn(&str) -> Option<T>;

/// What the kernel may be asked here. The default is what every kernel answers everyone.
#[derive(Clone, Copy, Default)]
pub struct Able<'a> {
    /// Whether it may be asked for marks: CAP_NET_ADMIN over the network namespace. It
    /// refuses the whole dump without.
    pub marks: bool,
    /// The index of an interface in the network namespace.
    pub devices: Option<LookUp<'a, u32>>,
    /// The id of a cgroup v2 by its path below the root, where the kernel knows cgroups in
    /// filters (Linux 5.9); it refuses the whole dump where it does not.
    pub cgroups: Option<LookUp<'a, u64>>,
}

impl std::fmt::Debug for Able<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Able")
            .field("marks", &self.marks)
            .field("devices", &self.devices.is_some())
            .field("cgroups", &self.cgroups.is_some())
            .finish()
    }
}

/// Where an inet socket can make an expression `wanted`: true or false.
pub(super) fn test(
    expr: &Expr,
    wanted: bool,
    ports: (u16, u16),
    able: &Able<'_>,
) -> Test {
    match expr {
        Expr::All(parts) | Expr::Any(parts) => {
            let tests = parts.iter().map(|part| test(part, wanted, ports, able));
            let is_all = matches!(expr, Expr::All(_));
            if is_all == wanted { Test::all(tests) } else { Test::any(tests) }
        }
        Expr::Not(part) => test(part, !wanted, ports, able),
        Expr::Is(condition) => of_condition(condition, wanted, ports, able),
    }
}

fn of_condition(
    condition: &Condition,
    wanted: bool,
    (first, last): (u16, u16),
    able: &Able<'_>,
) -> Test {
    match condition {
        Condition::Address { end, equality, pattern } => {
            of_address(*end, pattern, wanted == (*equality == Equality::Same))
        }
        Condition::Port { end, op, port } => {
            of_port(*end, if wanted { *op } else { op.negated() }, *port)
        }
        Condition::Autobound => {
            let low = compare(End::Local, if wanted { Op::Ge } else { Op::Lt }, first);
            let high = compare(End::Local, if wanted { Op::Le } else { Op::Gt }, last);
            if wanted { Test::all([low, high]) } else { Test::any([low, high]) }
        }
        Condition::Device { equality, device } => {
            let index = match device {
                Device::Index(index) => Some(*index),
                Device::Name(name) => able.devices.and_then(|index| index(name)),
            };
            let like = wanted == (*equality == Equality::Same);
            index.map_or(Test::Always, |index| is(Kernel::Device(index), like))
        }
        Condition::Mark { equality, value, mask } if able.marks => {
            let condition = Kernel::Mark { value: *value, mask: *mask };
            is(condition, wanted == (*equality == Equality::Same))
        }
        Condition::Text { field: TextField::Cgroup, equality, pattern } => {
            let path = pattern.literal();
            let id = able.cgroups.zip(path).and_then(|(id, path)| id(&path));
            let like = wanted == (*equality == Equality::Same);
            id.map_or(Test::Always, |id| is(Kernel::Cgroup(id), like))
        }
        // The states are in the request itself.
        Condition::State(_)
        | Condition::Mark { .. }
        | Condition::Number { .. }
        | Condition::Text { .. } => Test::Always,
    }
}

fn is(condition: Kernel, holds: bool) -> Test {
    if holds { Test::Is(condition) } else { Test::IsNot(condition) }
}

fn of_address(end: End, pattern: &AddressPattern, like: bool) -> Test {
    match pattern {
        AddressPattern::Inet { family, prefix, port } => {
            let prefix = prefix.map(|prefix| (prefix.address(), prefix.bits()));
            if family.is_none() && prefix.is_none() && port.is_none() {
                return if like { Test::Always } else { Test::Never };
            }
            is(Kernel::Host { end, family: *family, prefix, port: *port }, like)
        }
        AddressPattern::Any if like => Test::Always,
        // Neither true nor false for an inet socket.
        AddressPattern::Any
        | AddressPattern::Unix(_)
        | AddressPattern::Packet { .. }
        | AddressPattern::Netlink { .. }
        | AddressPattern::Vsock { .. } => Test::Never,
    }
}

fn of_port(end: End, op: Op, pattern: PortPattern) -> Test {
    let family = match pattern.space {
        PortSpace::Inet => None,
        PortSpace::Family(family) => Some(family),
        PortSpace::Vsock | PortSpace::Netlink => return Test::Never,
    };
    let compared = match pattern.port {
        None if op == Op::Ne => Test::Never,
        None => Test::Always,
        Some(port) => match u16::try_from(port) {
            Ok(port) => compare(end, op, port),
            // No port is that large.
            Err(_) if matches!(op, Op::Ne | Op::Lt | Op::Le) => Test::Always,
            Err(_) => Test::Never,
        },
    };
    // V4 alone would take the v4-mapped addresses of V6: an over-approximation too.
    let of_family =
        |family| Kernel::Host { end, family: Some(family), prefix: None, port: None };
    match family {
        Some(Family::V4 | Family::V6) if compared == Test::Never => Test::Never,
        Some(family) => Test::all([is(of_family(family), true), compared]),
        None => compared,
    }
}

fn compare(end: End, op: Op, port: u16) -> Test {
    let at_least = |port: Option<u16>| {
        port.map_or(Test::Never, |port| is(Kernel::PortAtLeast(end, port), true))
    };
    let at_most = |port: Option<u16>| {
        port.map_or(Test::Never, |port| is(Kernel::PortAtMost(end, port), true))
    };
    let host = Kernel::Host { end, family: None, prefix: None, port: Some(port) };
    match op {
        Op::Eq => is(host, true),
        Op::Ne => is(host, false),
        Op::Ge => at_least(Some(port)),
        Op::Gt => at_least(port.checked_add(1)),
        Op::Le => at_most(Some(port)),
        Op::Lt => at_most(port.checked_sub(1)),
    }
}
