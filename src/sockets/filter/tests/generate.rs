//! Filters and sockets by chance, of few values, so that they meet.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::sockets::model::{Comm, Family, Inode, State, UnixName};
use crate::sockets::row::{Address, Kind};

const V4: [&str; 4] = ["0.0.0.0", "127.0.0.1", "127.0.0.2", "10.1.2.3"];
const V6: [&str; 5] = ["::", "::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "2001:db8::1"];

fn ip(v6: bool) -> BoxedStrategy<IpAddr> {
    let texts = if v6 { V6.to_vec() } else { V4.to_vec() };
    select(texts).prop_map(|text| text.parse().unwrap()).boxed()
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (ip(false), select(vec![0_u8, 1, 8, 31, 32]));
    let v6 = (ip(true), select(vec![0_u8, 1, 96, 127, 128]));
    prop_oneof![v4, v6].prop_map(|(address, bits)| Prefix::new(address, bits).unwrap())
}

fn end() -> impl Strategy<Value = End> + Clone {
    prop_oneof![Just(End::Local), Just(End::Remote)]
}

fn equality() -> impl Strategy<Value = Equality> + Clone {
    prop_oneof![Just(Equality::Same), Just(Equality::Other)]
}

fn op() -> impl Strategy<Value = Op> + Clone {
    select(vec![Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge])
}

fn family() -> impl Strategy<Value = Family> + Clone {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// Texts that are hard to write down.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z*?]{1,4}", "[a-z\\[\\]\\\\'\"()&|!=<>, /@:*?#\n\tä-]{1,8}",]
}

fn inet_address() -> impl Strategy<Value = AddressPattern> {
    let port = || prop::option::of(select(vec![0_u16, 80, 81, 40_000]));
    let with_prefix =
        (prefix(), port(), any::<bool>()).prop_map(|(prefix, port, named)| {
            let family = named.then(|| prefix.family());
            AddressPattern::Inet { family, prefix: Some(prefix), port }
        });
    let without = (prop::option::of(family()), port())
        .prop_map(|(family, port)| AddressPattern::Inet { family, prefix: None, port });
    prop_oneof![3 => with_prefix, 2 => without, 1 => Just(AddressPattern::Any)]
}

fn device() -> impl Strategy<Value = Device> {
    prop_oneof![
        (0_u32..3).prop_map(Device::Index),
        select(vec!["lo", "eth0"]).prop_map(|name| Device::Name(name.into())),
    ]
}

fn other_address() -> impl Strategy<Value = AddressPattern> {
    let number = || prop::option::of(0_u32..3);
    prop_oneof![
        text().prop_map(|text| AddressPattern::Unix(Pattern::new(&text))),
        (prop::option::of(0_u16..3), prop::option::of(device()))
            .prop_map(|(protocol, device)| AddressPattern::Packet { protocol, device }),
        (prop::option::of(0_u8..3), number())
            .prop_map(|(family, port)| AddressPattern::Netlink { family, port }),
        (number(), number()).prop_map(|(cid, port)| AddressPattern::Vsock { cid, port }),
    ]
}

fn port() -> impl Strategy<Value = (PortPattern, bool)> {
    let spaces = prop_oneof![
        4 => Just(PortSpace::Inet),
        2 => family().prop_map(PortSpace::Family),
        1 => Just(PortSpace::Vsock),
        1 => Just(PortSpace::Netlink),
    ];
    let ports = prop::option::of(select(vec![0_u32, 1, 79, 80, 81, 40_000, 65_535]));
    (spaces, ports)
        .prop_map(|(space, port)| (PortPattern { space, port }, port.is_none()))
}

/// A condition on what the kernel can be asked for too.
pub(super) fn kernel_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        6 => (end(), equality(), inet_address()).prop_map(|(end, equality, pattern)| {
            Condition::Address { end, equality, pattern }
        }),
        6 => (end(), op(), port()).prop_map(|(end, op, (port, any))| {
            let op = if any && op != Op::Ne { Op::Eq } else { op };
            Condition::Port { end, op, port }
        }),
        1 => Just(Condition::Autobound),
        2 => (equality(), device())
            .prop_map(|(equality, device)| Condition::Device { equality, device }),
    ]
}

fn set() -> impl Strategy<Value = StateSet> {
    let names: Vec<&str> = StateSet::names().collect();
    prop::collection::vec((select(names), any::<bool>()), 0..4).prop_map(|steps| {
        let step = |set: StateSet, (name, add)| {
            let named = StateSet::of_name(name).unwrap();
            if add { set.or(named) } else { set.without(named) }
        };
        steps.into_iter().fold(StateSet::ALL, step)
    })
}

/// Any condition.
fn condition() -> impl Strategy<Value = Condition> {
    let fields: Vec<NumberField> = NumberField::all().collect();
    let texts: Vec<TextField> = TextField::all().collect();
    prop_oneof![
        5 => kernel_condition(),
        2 => set().prop_map(Condition::State),
        2 => (end(), equality(), other_address()).prop_map(|(end, equality, pattern)| {
            Condition::Address { end, equality, pattern }
        }),
        1 => (equality(), any::<u32>(), select(vec![1, 3, u32::MAX]))
            .prop_map(|(equality, value, mask)| Condition::Mark { equality, value, mask }),
        3 => (select(fields), op(), select(vec![0_u64, 1, 2, 1_000, 1_500_000, u64::MAX]))
            .prop_map(|(field, op, value)| Condition::Number { field, op, value }),
        2 => (select(texts), equality(), text()).prop_map(|(field, equality, text)| {
            let text = match field {
                TextField::Cgroup => super::super::parse_other::cgroup_path(&text),
                _ => text,
            };
            Condition::Text { field, equality, pattern: Pattern::new(&text) }
        }),
    ]
}

fn expression(leaf: BoxedStrategy<Condition>) -> impl Strategy<Value = Expr> {
    leaf.prop_map(Expr::Is).prop_recursive(5, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            inner.prop_map(|part| Expr::Not(Box::new(part))),
            two.clone().prop_map(|(a, b)| a.and(b)),
            two.prop_map(|(a, b)| a.or(b)),
        ]
    })
}

/// Any expression.
pub(super) fn expr() -> impl Strategy<Value = Expr> {
    expression(condition().boxed())
}

/// One that the kernel can tell much of.
pub(super) fn kernel_expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![5 => kernel_condition(), 1 => condition()];
    expression(leaf.boxed())
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![8 => (1_u8..=11).prop_map(State::from_raw), 1 => Just(State::Unknown(77))]
}

/// An inet socket.
pub(super) fn inet_row() -> impl Strategy<Value = Row<'static>> {
    let ends = any::<bool>().prop_flat_map(|v6| (Just(v6), ip(v6), ip(v6)));
    let ports = || select(vec![0_u16, 1, 79, 80, 81, 40_000, 65_535]);
    let kinds = select(vec![Kind::Tcp, Kind::Udp, Kind::Mptcp, Kind::Raw, Kind::Sctp]);
    let marks = prop::option::of(0_u32..4);
    (ends, ports(), ports(), kinds, state(), 0_u32..3, marks).prop_map(
        |((is_v6, local, remote), sport, dport, kind, state, interface, mark)| Row {
            is_v6,
            local: Address::Inet(SocketAddr::new(local, sport)),
            remote: Address::Inet(SocketAddr::new(remote, dport)),
            interface,
            mark,
            ..Row::new(kind, state)
        },
    )
}

/// A socket of any family.
pub(super) fn row() -> impl Strategy<Value = Row<'static>> {
    let names = prop_oneof![
        Just(None),
        "[a-z]{1,4}".prop_map(|name| Some(UnixName::Path(name.into_bytes().into()))),
        "[0-9a-f]{5}".prop_map(|name| Some(UnixName::Abstract(name.into_bytes().into()))),
    ];
    let local = prop_oneof![
        (names, 0_u64..3).prop_map(|(name, inode)| {
            (Kind::UnixStream, Address::Unix { name, inode: Inode(inode) })
        }),
        (0_u16..3, 0_u32..3).prop_map(|(protocol, interface)| {
            (Kind::PacketRaw, Address::Packet { protocol, interface })
        }),
        (0_u8..3, 0_u32..3).prop_map(|(family, port)| {
            (Kind::Netlink, Address::Netlink { family, port })
        }),
        (0_u32..3, 0_u32..3)
            .prop_map(|(cid, port)| (Kind::Vsock, Address::Vsock { cid, port })),
        Just((Kind::Family(0), Address::None)),
    ];
    let other = (local, state())
        .prop_map(|((kind, local), state)| Row { local, ..Row::new(kind, state) });
    prop_oneof![3 => inet_row(), 2 => other]
}

/// What is known of a socket beyond its row.
#[derive(Debug, Clone)]
pub(super) struct Beyond {
    owners: Vec<Owner>,
    names: [Option<String>; 4],
    tcp_info: Option<TcpInfo>,
}

pub(super) fn beyond() -> impl Strategy<Value = Beyond> {
    let owner = (0_u32..3, "[a-z]{1,3}").prop_map(|(pid, name)| Owner {
        pid,
        tid: pid,
        comm: Comm::new(name.as_bytes()),
        fd: 3,
    });
    let name = || prop::option::of("/?[a-z]{1,3}".prop_map(String::from));
    let info =
        (0_u32..3, prop::option::of(0_u64..3)).prop_map(|(small, large)| TcpInfo {
            total_retrans: small,
            rtt_us: small,
            bytes_sent: large,
            ..TcpInfo::default()
        });
    (
        prop::collection::vec(owner, 0..3),
        [name(), name(), name(), name()],
        prop::option::of(info),
    )
        .prop_map(|(owners, names, tcp_info)| Beyond { owners, names, tcp_info })
}

impl Beyond {
    pub(super) fn subject<'a>(&'a self, row: &'a Row<'a>) -> Subject<'a> {
        let [user, container, netns, cgroup_path] =
            self.names.each_ref().map(Option::as_deref);
        let device = match row.interface {
            1 => Some("lo"),
            2 => Some("eth0"),
            _ => None,
        };
        Subject {
            row,
            owners: &self.owners,
            user,
            container,
            netns,
            cgroup_path,
            tcp_info: self.tcp_info.as_ref(),
            device,
        }
    }
}
