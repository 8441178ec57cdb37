//! What can be said of the sockets that match before one is looked at: an
//! over-approximation, for a source to leave out what cannot match.

use super::super::model::Family;
use super::super::select::{Details, Tables, Versions};
use super::address::{AddressPattern, Device, PortSpace};
use super::ast::{Condition, End, Equality, Expr, Op};
use super::fields::{NumberField, TextField};
use super::states::StateSet;

/// Where the sockets are that can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) states: StateSet,
    pub(super) tables: Tables,
    pub(super) versions: Versions,
}

impl Bounds {
    const ALL: Self =
        Self { states: StateSet::ALL, tables: Tables::ALL, versions: Versions::BOTH };
    const NONE: Self = Self {
        states: StateSet::NONE,
        tables: Tables::NONE,
        versions: Versions { v4: false, v6: false },
    };

    fn and(self, other: Self) -> Self {
        Self {
            states: self.states.and(other.states),
            tables: self.tables.and(other.tables),
            versions: Versions {
                v4: self.versions.v4 && other.versions.v4,
                v6: self.versions.v6 && other.versions.v6,
            },
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            states: self.states.or(other.states),
            tables: self.tables | other.tables,
            versions: Versions {
                v4: self.versions.v4 || other.versions.v4,
                v6: self.versions.v6 || other.versions.v6,
            },
        }
    }
}

/// The bounds of a filter.
pub(super) fn of(expr: Option<&Expr>) -> Bounds {
    expr.map_or(Bounds::ALL, |expr| where_it_is(expr, true))
}

/// Where an expression can be `wanted`: true or false.
fn where_it_is(expr: &Expr, wanted: bool) -> Bounds {
    let parts_where = |parts: &[Expr], all: bool| {
        let each = parts.iter().map(|part| where_it_is(part, wanted));
        if all {
            each.fold(Bounds::ALL, Bounds::and)
        } else {
            each.fold(Bounds::NONE, Bounds::or)
        }
    };
    match expr {
        Expr::All(parts) => parts_where(parts, wanted),
        Expr::Any(parts) => parts_where(parts, !wanted),
        Expr::Not(part) => where_it_is(part, !wanted),
        Expr::Is(condition) => where_one_is(condition, wanted),
    }
}

fn where_one_is(condition: &Condition, wanted: bool) -> Bounds {
    let in_tables = |tables| Bounds { tables, ..Bounds::ALL };
    let states = |without: &str| {
        let without = StateSet::of_name(without).unwrap_or(StateSet::NONE);
        StateSet::ALL.without(without)
    };
    match condition {
        Condition::State(set) if wanted => Bounds { states: *set, ..Bounds::ALL },
        Condition::State(set) => {
            Bounds { states: StateSet::ALL.without(*set), ..Bounds::ALL }
        }
        Condition::Address { equality, pattern, .. } => {
            of_address(pattern, wanted == (*equality == Equality::Same))
        }
        Condition::Port { op, port, .. } => {
            // A star is true of all that have a port.
            let is_true = *op != Op::Ne;
            if port.port.is_none() && is_true != wanted {
                return Bounds::NONE;
            }
            match port.space {
                PortSpace::Inet => in_tables(Tables::INET),
                PortSpace::Family(family) => of_family(family),
                PortSpace::Vsock => in_tables(Tables::VSOCK),
                PortSpace::Netlink => in_tables(Tables::NETLINK),
            }
        }
        Condition::Autobound => in_tables(
            Tables::INET
                | Tables::UNIX
                | Tables::PACKET
                | Tables::NETLINK
                | Tables::VSOCK,
        ),
        Condition::Device { .. } => {
            in_tables(Tables::INET | Tables::PACKET | Tables::XDP)
        }
        Condition::Mark { .. } => in_tables(Tables::INET),
        // No process owns what is in TIME_WAIT, and it has no TCP_INFO.
        Condition::Number { field: NumberField::Pid, .. }
        | Condition::Text { field: TextField::Process, .. } => {
            Bounds { states: states("time-wait"), ..Bounds::ALL }
        }
        Condition::Number { field: NumberField::Tcp(_), .. } => Bounds {
            states: states("time-wait").and(states("listening")).and(states("closed")),
            tables: Tables::TCP | Tables::MPTCP,
            ..Bounds::ALL
        },
        Condition::Text { field: TextField::Congestion, .. } => {
            in_tables(Tables::TCP | Tables::MPTCP | Tables::SCTP)
        }
        Condition::Number { .. } | Condition::Text { .. } => Bounds::ALL,
    }
}

fn of_family(family: Family) -> Bounds {
    let versions = Versions { v4: family == Family::V4, v6: family == Family::V6 };
    Bounds { tables: Tables::INET, versions, ..Bounds::ALL }
}

/// Where an address is like a pattern, or is not.
fn of_address(pattern: &AddressPattern, like: bool) -> Bounds {
    let tables = match pattern {
        AddressPattern::Any if like => return Bounds::ALL,
        AddressPattern::Any => return Bounds::NONE,
        AddressPattern::Inet { family: Some(family), .. } => return of_family(*family),
        AddressPattern::Inet { prefix: Some(prefix), .. }
            if like && prefix.family() == Family::V6 =>
        {
            return of_family(Family::V6);
        }
        AddressPattern::Inet { .. } => Tables::INET,
        AddressPattern::Unix(_) => Tables::UNIX,
        AddressPattern::Packet { .. } => Tables::PACKET,
        AddressPattern::Netlink { .. } => Tables::NETLINK,
        AddressPattern::Vsock { .. } => Tables::VSOCK,
    };
    Bounds { tables, ..Bounds::ALL }
}

/// What must be known of a socket beyond what every row has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its owners.
    pub owners: bool,
    /// TCP_INFO, and the congestion control.
    pub tcp_info: bool,
    /// SO_MEMINFO, and drops.
    pub memory: bool,
    /// The names of users.
    pub user_names: bool,
    /// The container or unit of its owner.
    pub container: bool,
    /// The paths of cgroups.
    pub cgroup: bool,
    /// SO_MARK, which takes CAP_NET_ADMIN to see.
    pub mark: bool,
    /// The names of network namespaces.
    pub netns: bool,
    /// The names of interfaces.
    pub devices: bool,
    /// The names of unix peers.
    pub unix_peers: bool,
}

impl Needs {
    pub(super) fn of(expr: &Expr) -> Self {
        let mut needs = Self::default();
        expr.each_condition(&mut |condition| needs.add(condition));
        needs
    }

    /// What a source is asked for, so that rows have it.
    #[must_use]
    pub fn details(self) -> Details {
        Details {
            tcp_info: self.tcp_info,
            memory: self.memory,
            options: false,
            unix_peers: self.unix_peers,
        }
    }

    fn add(&mut self, condition: &Condition) {
        match condition {
            Condition::Address { end, pattern, .. } => match pattern {
                AddressPattern::Unix(_) => self.unix_peers |= *end == End::Remote,
                AddressPattern::Packet { device: Some(Device::Name(_)), .. } => {
                    self.devices = true;
                }
                _ => {}
            },
            Condition::Device { device: Device::Name(_), .. } => self.devices = true,
            Condition::Mark { .. } => self.mark = true,
            Condition::Number { field, .. } => match field {
                NumberField::Pid => self.owners = true,
                NumberField::Tcp(_) => self.tcp_info = true,
                NumberField::Memory(_) | NumberField::Drops => self.memory = true,
                NumberField::Uid
                | NumberField::Inode
                | NumberField::RecvQ
                | NumberField::SendQ => {}
            },
            Condition::Text { field, pattern, .. } => match field {
                TextField::Process => self.owners = true,
                TextField::User => {
                    self.user_names |= pattern.as_str().parse::<u32>().is_err();
                }
                TextField::Container => self.container = true,
                TextField::Netns => self.netns = true,
                TextField::Cgroup => self.cgroup = true,
                TextField::Congestion => self.tcp_info = true,
            },
            Condition::State(_)
            | Condition::Port { .. }
            | Condition::Autobound
            | Condition::Device { .. } => {}
        }
    }
}
