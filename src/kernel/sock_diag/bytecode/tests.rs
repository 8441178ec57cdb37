use super::interpreter::{Entry, accepts, is_sound};
use super::*;
use crate::kernel::sock_diag::{InetRequest, SockDiag, States};
use crate::sockets::testing::{loopback, skip};
use proptest::prelude::*;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

fn program(test: &Test) -> Vec<u8> {
    Bytecode::compile(test).unwrap().as_bytes().to_vec()
}

/// What a test means.
fn holds(test: &Test, entry: &Entry) -> bool {
    let begins = |address: IpAddr, prefix: IpAddr, bits: u8| {
        let shift = |wide: u32| wide - u32::from(bits);
        match (address, prefix) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differ = u64::from(a.to_bits() ^ b.to_bits());
                differ >> shift(32) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    };
    let one = |condition: &Condition| match *condition {
        Condition::PortAtLeast(end, port) => of(entry, end).port() >= port,
        Condition::PortAtMost(end, port) => of(entry, end).port() <= port,
        Condition::Host { end, family, prefix, port } => {
            let address = of(entry, end);
            let canonical = address.ip().to_canonical();
            let in_family = match family {
                None => true,
                Some(Family::V4) => canonical.is_ipv4(),
                Some(Family::V6) => entry.is_v6,
            };
            let in_prefix = prefix.is_none_or(|(prefix, bits)| {
                let address = if prefix.is_ipv4() { canonical } else { address.ip() };
                begins(address, prefix, bits)
            });
            in_family && in_prefix && port.is_none_or(|port| port == address.port())
        }
        Condition::Device(index) => entry.device == index,
        Condition::Mark { value, mask } => entry.mark & mask == value,
        Condition::Cgroup(id) => entry.cgroup == id,
    };
    match test {
        Test::Always => true,
        Test::Never => false,
        Test::Is(condition) => one(condition),
        Test::IsNot(condition) => !one(condition),
        Test::All(tests) => tests.iter().all(|test| holds(test, entry)),
        Test::Any(tests) => tests.iter().any(|test| holds(test, entry)),
    }
}

fn of(entry: &Entry, end: End) -> SocketAddr {
    match end {
        End::Local => entry.local,
        End::Remote => entry.remote,
    }
}

fn end() -> impl Strategy<Value = End> + Clone {
    prop_oneof![Just(End::Local), Just(End::Remote)]
}

fn address(v6: bool) -> BoxedStrategy<IpAddr> {
    let texts = if v6 {
        vec!["::", "::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "2001:db8::1"]
    } else {
        vec!["0.0.0.0", "127.0.0.1", "127.0.0.2", "10.1.2.3"]
    };
    prop::sample::select(texts).prop_map(|text| text.parse().unwrap()).boxed()
}

fn prefix() -> impl Strategy<Value = (IpAddr, u8)> + Clone {
    let v4 = (address(false), prop::sample::select(vec![0_u8, 1, 8, 24, 31, 32]));
    let v6 = (address(true), prop::sample::select(vec![0_u8, 1, 32, 96, 97, 128]));
    prop_oneof![v4, v6]
}

fn condition() -> impl Strategy<Value = Condition> {
    let port = 79_u16..=82;
    prop_oneof![
        (end(), port.clone()).prop_map(|(end, port)| Condition::PortAtLeast(end, port)),
        (end(), port.clone()).prop_map(|(end, port)| Condition::PortAtMost(end, port)),
        (end(), prop::option::of(prefix()), prop::option::of(port.clone())).prop_map(
            |(end, prefix, port)| Condition::Host { end, family: None, prefix, port }
        ),
        (end(), any::<bool>(), prop::option::of(port)).prop_map(|(end, v6, port)| {
            let family = Some(if v6 { Family::V6 } else { Family::V4 });
            Condition::Host { end, family, prefix: None, port }
        }),
        (0_u32..3).prop_map(Condition::Device),
        (0_u32..4, 0_u32..4).prop_map(|(value, mask)| Condition::Mark { value, mask }),
        (0_u64..3).prop_map(Condition::Cgroup),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    let leaf = prop_oneof![
        8 => condition().prop_map(Test::Is),
        8 => condition().prop_map(Test::IsNot),
        1 => Just(Test::Always),
        1 => Just(Test::Never),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Test::All),
            prop::collection::vec(inner, 0..4).prop_map(Test::Any),
        ]
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let ends = any::<bool>().prop_flat_map(|v6| (Just(v6), address(v6), address(v6)));
    (ends, 79_u16..=82, 79_u16..=82, 0_u32..3, 0_u32..4, 0_u64..3).prop_map(
        |((is_v6, local, remote), sport, dport, device, mark, cgroup)| Entry {
            is_v6,
            local: (local, sport).into(),
            remote: (remote, dport).into(),
            device,
            mark,
            cgroup,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_program_is_sound_and_accepts_what_its_test_holds_for(test in test(), entry in entry()) {
        let Some(bytecode) = Bytecode::compile(&test) else {
            prop_assert!(holds(&test, &entry), "nothing to ask");
            return Ok(());
        };
        prop_assert!(is_sound(bytecode.as_bytes()), "{:?}", bytecode);
        prop_assert_eq!(accepts(bytecode.as_bytes(), &entry), holds(&test, &entry));
    }

    #[test]
    fn what_is_simplified_means_the_same(tests in prop::collection::vec(test(), 0..4), entry in entry()) {
        let all = Test::all(tests.clone());
        let any = Test::any(tests.clone());
        prop_assert_eq!(holds(&all, &entry), holds(&Test::All(tests.clone()), &entry));
        prop_assert_eq!(holds(&any, &entry), holds(&Test::Any(tests), &entry));
    }
}

#[test]
fn a_program_has_the_layout_of_the_kernel_header() {
    let condition = Condition::Host {
        end: End::Local,
        family: None,
        prefix: Some(("127.0.0.0".parse().unwrap(), 8)),
        port: Some(80),
    };
    let [port @ .., _, _] = 80_i32.to_ne_bytes();
    let [reject, zero] = 20_u16.to_ne_bytes();
    let mut wanted = vec![S_COND, 16, reject, zero, 2, 8, 0, 0];
    wanted.extend(port);
    wanted.extend([0, 0, 127, 0, 0, 0]);
    assert_eq!(program(&Test::Is(condition)), wanted);
}

#[test]
fn nothing_to_ask_and_too_much_to_ask_are_no_program() {
    assert_eq!(Bytecode::compile(&Test::Always), None);
    let one = Test::Is(Condition::Device(1));
    assert_eq!(Bytecode::compile(&Test::All(vec![one.clone(); 5_000])), None);
    assert!(Bytecode::compile(&Test::All(vec![one; 4_000])).is_some());
}

/// The local addresses of the listeners that the kernel gives.
fn listening(test: &Test) -> std::io::Result<Vec<SocketAddr>> {
    let bytecode = Bytecode::compile(test);
    let mut found = Vec::new();
    let request = InetRequest::tcp(Family::V4, States::LISTEN);
    SockDiag::open()?
        .inet_where(&request, bytecode.as_ref(), |row| found.push(row.local))?;
    Ok(found)
}

fn at(address: SocketAddr) -> Test {
    Test::Is(Condition::Host {
        end: End::Local,
        family: None,
        prefix: Some((address.ip(), 32)),
        port: None,
    })
}

#[test]
fn the_kernel_gives_the_sockets_of_an_address_alone() {
    let own = loopback();
    let listeners: Vec<_> =
        (0..3).map(|_| TcpListener::bind((own, 0)).unwrap()).collect();
    let mut bound: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    bound.sort();
    let mut found = listening(&at(bound[0])).unwrap();
    found.sort();
    assert_eq!(found, bound);

    let second = Condition::Host {
        end: End::Local,
        family: None,
        prefix: None,
        port: Some(bound[1].port()),
    };
    let but_second = Test::all([at(bound[0]), Test::IsNot(second)]);
    let mut found = listening(&but_second).unwrap();
    found.sort();
    assert_eq!(found, [bound[0], bound[2]]);
    assert_eq!(listening(&Test::all([at(bound[0]), Test::Never])).unwrap(), []);
}

#[test]
fn the_kernel_refuses_a_program_that_is_cut_short() {
    let bytecode = Bytecode(program(&Test::Is(Condition::Device(1)))[..4].to_vec());
    let request = InetRequest::tcp(Family::V4, States::LISTEN);
    let refused = SockDiag::open().unwrap().inet_where(&request, Some(&bytecode), |_| {});
    assert!(refused.is_err(), "{refused:?}");
    assert!(!is_sound(bytecode.as_bytes()));
}

/// Marks need CAP_NET_ADMIN, both to set and to ask for.
#[test]
fn the_kernel_gives_the_sockets_of_a_mark_alone() {
    let own = loopback();
    let marked = TcpListener::bind((own, 0)).unwrap();
    let plain = TcpListener::bind((own, 0)).unwrap();
    let condition = |value, mask| Test::Is(Condition::Mark { value, mask });
    if let Err(error) = socket2::SockRef::from(&marked).set_mark(0x15) {
        let refused = listening(&condition(0, 0)).map_err(|error| error.to_string());
        assert!(refused.is_err(), "{refused:?}");
        return skip(&format!("no right to mark a socket: {error}"));
    }
    let [marked_at, plain_at] = [&marked, &plain].map(|l| l.local_addr().unwrap());
    let of = |value, mask| {
        listening(&Test::all([at(plain_at), condition(value, mask)])).unwrap()
    };
    assert_eq!(of(0x15, u32::MAX), [marked_at]);
    assert_eq!(of(0x05, 0x0f), [marked_at]);
    assert_eq!(of(0, u32::MAX), [plain_at]);
    assert_eq!(of(0x16, u32::MAX), []);
    drop((marked, plain));
}

#[test]
fn the_kernel_gives_the_sockets_of_an_interface_alone() {
    let own = loopback();
    let bound = TcpListener::bind((own, 0)).unwrap();
    let free = TcpListener::bind((own, 0)).unwrap();
    let socket = socket2::SockRef::from(&bound);
    if let Err(error) = socket.bind_device(Some(b"lo")) {
        return skip(&format!(
            "no right to bind fd {} to lo: {error}",
            bound.as_raw_fd()
        ));
    }
    let [bound_at, free_at] = [&bound, &free].map(|l| l.local_addr().unwrap());
    let of = |index| {
        let device = Test::Is(Condition::Device(index));
        listening(&Test::all([at(free_at), device])).unwrap()
    };
    assert_eq!(of(1), [bound_at]);
    assert_eq!(of(0), [free_at]);
}

/// A kernel without cgroups refuses the condition; one with them takes it.
#[test]
fn the_kernel_gives_the_sockets_of_a_cgroup_alone() {
    let own = loopback();
    let listener = TcpListener::bind((own, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let none = Test::Is(Condition::Cgroup(u64::MAX - 1));
    match listening(&Test::all([at(address), none.clone()])) {
        Ok(found) => assert_eq!(found, []),
        Err(error) => return skip(&format!("no cgroups in filters: {error}")),
    }
    let Test::Is(none) = none else { unreachable!() };
    let all = listening(&Test::all([at(address), Test::IsNot(none)])).unwrap();
    assert_eq!(all, [address]);
    let Some(id) = own_cgroup() else { return skip("no cgroup v2 is mounted") };
    let own = Test::all([at(address), Test::Is(Condition::Cgroup(id))]);
    assert_eq!(listening(&own).unwrap(), [address]);
}

/// The id of the cgroup v2 of this process: the inode of its folder.
fn own_cgroup() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let at = words.nth(1)?;
        (words.next() == Some("cgroup2")).then(|| at.to_owned())
    })?;
    Some(std::fs::metadata(format!("{mount}/{path}")).ok()?.ino())
}
