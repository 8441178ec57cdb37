//! Which sockets match.

use super::*;
use crate::kernel::sock_diag::SkMem;
use crate::sockets::model::{Comm, Inode, State, UnixName};
use crate::sockets::row::{Address, Extra, Kind};

fn tcp(local: &str, remote: &str) -> Row<'static> {
    let [local, remote] =
        [local, remote].map(|end| end.parse::<std::net::SocketAddr>().unwrap());
    Row {
        is_v6: local.is_ipv6(),
        local: Address::Inet(local),
        remote: Address::Inet(remote),
        ..Row::new(Kind::Tcp, State::Established)
    }
}

fn unix(name: Option<UnixName<'static>>) -> Row<'static> {
    Row {
        local: Address::Unix { name, inode: Inode(7) },
        remote: Address::Unix { name: None, inode: Inode(8) },
        ..Row::new(Kind::UnixStream, State::Established)
    }
}

fn path(name: &'static str) -> Option<UnixName<'static>> {
    Some(UnixName::Path(name.as_bytes().into()))
}

/// Checks a subject against filters that match and filters that do not.
#[track_caller]
fn check(subject: &Subject<'_>, matching: &[&str], others: &[&str]) {
    for text in matching {
        assert!(filter(text).matches(subject), "{text} matches");
    }
    for text in others {
        assert!(!filter(text).matches(subject), "{text} does not match");
    }
}

#[test]
fn a_connection_is_found_by_its_ends() {
    let row = tcp("127.0.0.1:80", "10.1.2.3:50000");
    check(
        &Subject::of(&row),
        &[
            "",
            "src 127.0.0.1",
            "src 127.0.0.1:80",
            "src :80",
            "src *",
            "src 127/8",
            "dst 10.1.2.3",
            "dst 10.0.0.0/8:50000",
            "sport = :80",
            "sport >= 80",
            "sport <= 80",
            "sport > 79",
            "sport < 81",
            "sport != 81",
            "dport = *",
            "src inet:*",
            "not src [::1]",
            "not src 127.0.0.2",
            "src != 127.0.0.2",
            "sport = inet:80",
            "dst 0.0.0.0/0",
        ],
        &[
            "src 127.0.0.2",
            "src 127.0.0.1:81",
            "dst :80",
            "sport > 80",
            "sport < 80",
            "sport != 80",
            "sport = inet6:80",
            "not sport = inet6:80",
            "src inet6:*",
            "src [::/0]",
            "src != 127.0.0.1",
            "dport != *",
            "src unix:*",
            "not src unix:/x",
            "src netlink:*",
            "sport = vsock:80",
            "sport = netlink:80",
        ],
    );
}

#[test]
fn a_mapped_connection_is_one_of_ipv4_and_of_ipv6() {
    let row = tcp("[::ffff:127.0.0.1]:80", "[::ffff:10.1.2.3]:5");
    check(
        &Subject::of(&row),
        &[
            "src 127.0.0.1",
            "dst 10/8:5",
            "src [::ffff:127.0.0.1]",
            "src [::/0]",
            "src inet6:*",
        ],
        &["src inet:127.0.0.1", "not src inet:127.0.0.1", "src [::1]", "src 127.0.0.2"],
    );
}

#[test]
fn a_unix_socket_is_found_by_a_glob_of_its_name() {
    check(
        &Subject::of(&unix(path("/run/App.sock"))),
        &[
            "src /run/*",
            "src unix:/RUN/app.*",
            "src unix:*",
            "not src /tmp/*",
            "src *",
            "src != /x",
        ],
        &[
            "src /run",
            "not src /run/*",
            "src @run*",
            "src 127.0.0.1",
            "sport = 80",
            "sport != 80",
            "not sport = 80",
            "not src 127.0.0.1",
            "autobound",
            "dev != lo",
            "rtt < 1s",
        ],
    );
    let autobound = UnixName::Abstract(b"0a3f1".as_slice().into());
    check(
        &Subject::of(&unix(Some(autobound))),
        &["src @0a3f1", "src unix:@*", "autobound"],
        &["src unix:0a3f1", "not autobound"],
    );
    // A peer without a name may be one that was not looked for.
    check(
        &Subject::of(&unix(None)),
        &["src unix:*", "src unix:", "not src /x"],
        &["src /*", "dst /x", "not dst /x", "autobound", "not autobound"],
    );
}

#[test]
fn the_other_families_are_found_by_their_addresses() {
    let mut row = Row::new(Kind::Netlink, State::Close);
    row.local = Address::Netlink { family: 16, port: 4_000_000_000 };
    check(
        &Subject::of(&row),
        &[
            "src netlink:genl",
            "src netlink:*:4000000000",
            "sport = netlink:4000000000",
            "autobound",
            "src netlink:*:-294967296",
            "state closed",
            "not src netlink:rtnl",
        ],
        &[
            "src netlink:rtnl",
            "src netlink:genl:kernel",
            "sport = netlink:kernel",
            "src :1",
        ],
    );
    let mut row = Row::new(Kind::PacketRaw, State::Close);
    row.local = Address::Packet { protocol: 0x806, interface: 2 };
    row.interface = 2;
    let mut subject = Subject::of(&row);
    subject.device = Some("eth0");
    check(
        &subject,
        &[
            "src link:arp",
            "src link:arp:eth0",
            "src link:*:2",
            "dev eth0",
            "dev = 2",
            "dev != lo",
        ],
        &["src link:ip", "src link:arp:lo", "dst link:arp", "not dst link:arp", "dev lo"],
    );
    let mut row = Row::new(Kind::Vsock, State::Listen);
    row.local = Address::Vsock { cid: 3, port: 1024 };
    check(
        &Subject::of(&row),
        &[
            "src vsock:3:1024",
            "src vsock:*:1024",
            "sport > vsock:1023",
            "state listening",
        ],
        &["src vsock:4", "sport = 1024", "dport = vsock:1024"],
    );
}

#[test]
fn what_is_not_known_matches_neither_a_condition_nor_its_negation() {
    let row = tcp("127.0.0.1:80", "10.1.2.3:5");
    let none = [
        "fwmark 0",
        "uid = 0",
        "send-q = 0",
        "drops = 0",
        "rmem = 0",
        "rtt > 0",
        "pid = 1",
        "process = x",
        "user = root",
        "container = x",
        "netns = x",
        "cgroup = /",
        "congestion = cubic",
    ];
    let negated = none.map(|text| format!("not {text}"));
    let negated: Vec<&str> = negated.iter().map(String::as_str).collect();
    check(&Subject::of(&row), &[], &[&none[..], &negated].concat());
    check(
        &Subject::of(&row),
        &["uid = 0 or sport = 80", "not ( uid = 0 and sport = 81 )"],
        &["uid = 0 and sport = 80", "not ( uid = 0 or sport = 81 )"],
    );
}

#[test]
fn owners_match_where_one_of_them_does() {
    let row = tcp("127.0.0.1:80", "10.1.2.3:5");
    let owner = |pid, name: &[u8]| Owner { pid, tid: pid, comm: Comm::new(name), fd: 3 };
    let owners = [owner(10, b"nginx"), owner(20, b"systemd-resolved")];
    let mut subject = Subject::of(&row);
    subject.owners = &owners;
    check(
        &subject,
        &[
            "pid = 10",
            "pid 20",
            "pid > 15",
            "pid < 15",
            "pid != 30",
            "process = nginx",
            "process ng*x",
            "process = systemd-resolve",
            "process = systemd-resolved",
            "process != apache",
            "not pid = 30",
        ],
        &[
            "pid = 30",
            "pid != 10",
            "pid > 20",
            "not pid = 10",
            "process = ngin",
            "process != nginx",
            "process = NGINX",
        ],
    );
}

#[test]
fn names_match_as_their_kind_says() {
    let mut row = tcp("127.0.0.1:80", "10.1.2.3:5");
    row.uid = Some(33);
    let mut subject = Subject::of(&row);
    subject.user = Some("www-data");
    subject.container = Some("shop-web-1");
    subject.netns = Some("blue");
    subject.cgroup_path = Some("/system.slice/nginx.service");
    check(
        &subject,
        &[
            "user = www-data",
            "user = 33",
            "user www*",
            "uid = 33",
            "container = web",
            "container = shop*",
            "container != db",
            "netns = blue",
            "netns != red",
            "cgroup /system.slice/nginx.service",
            "cgroup = /system.slice/*",
        ],
        &[
            "user = root",
            "user != 33",
            "container = *web",
            "container = db",
            "netns = blu",
            "cgroup /system.slice",
            "cgroup != /system.slice/nginx.service",
        ],
    );
}

#[test]
fn an_interface_matches_by_index_or_name() {
    let mut row = tcp("127.0.0.1:80", "10.1.2.3:5");
    check(
        &Subject::of(&row),
        &["dev != lo", "dev = 0", "not dev eth0"],
        &["dev lo", "dev = 1"],
    );
    row.interface = 2;
    let mut subject = Subject::of(&row);
    check(&subject, &["dev 2", "dev != 1"], &["dev eth0", "not dev eth0", "dev lo"]);
    subject.device = Some("eth0");
    check(&subject, &["dev eth0", "dev != lo"], &["dev lo", "dev != eth0"]);
}

#[test]
fn a_mark_matches_by_the_bits_that_count() {
    let mut row = tcp("127.0.0.1:80", "10.1.2.3:5");
    row.mark = Some(0x15);
    check(
        &Subject::of(&row),
        &["fwmark 0x15", "fwmark = 21", "fwmark 5/0xf", "fwmark != 1", "fwmark 0/0"],
        &["fwmark 5", "fwmark 0x10/0xf", "fwmark != 5/0xf"],
    );
}

#[test]
fn autobound_is_the_range_of_ports_that_was_given() {
    let services = Services::default();
    let context = Context { local_ports: (100, 200), ..Context::new(&services) };
    let filter = Filter::parse("autobound", &context).unwrap();
    let matches =
        |filter: &Filter, local| filter.matches(&Subject::of(&tcp(local, "10.1.2.3:5")));
    for (local, within) in [
        ("127.0.0.1:99", false),
        ("127.0.0.1:100", true),
        ("127.0.0.1:200", true),
        ("127.0.0.1:201", false),
    ] {
        assert_eq!(matches(&filter, local), within, "{local}");
    }
    let elsewhere = filter.with_local_ports((300, 300));
    assert!(
        matches(&elsewhere, "127.0.0.1:300") && !matches(&elsewhere, "127.0.0.1:100")
    );
}

#[test]
fn numbers_of_a_row_and_its_memory_are_compared() {
    let mut row = tcp("127.0.0.1:80", "10.1.2.3:5");
    row.recv_q = 100;
    row.send_q = Some(0);
    row.inode = Inode(77);
    let memory = SkMem { rcvbuf: 131_072, drops: 3, ..SkMem::default() };
    row.extra = Some(Box::new(Extra {
        memory: Some(memory),
        congestion: Some(b"cubic".as_slice().into()),
        ..Extra::default()
    }));
    check(
        &Subject::of(&row),
        &[
            "recv-q > 99",
            "recv-q = 100",
            "send-q = 0",
            "inode = 77",
            "drops > 0",
            "rcvbuf = 128KiB",
            "rmem = 0",
            "congestion = cubic",
            "cc != reno",
        ],
        &["recv-q > 100", "send-q > 0", "inode != 77", "drops > 3", "cc = reno"],
    );
    row.drops = Some(9);
    check(&Subject::of(&row), &["drops = 9"], &["drops = 3"]);
}

#[test]
fn tcp_info_is_compared_where_it_says_something() {
    let mut row = tcp("127.0.0.1:80", "10.1.2.3:5");
    let mut info = TcpInfo {
        rtt_us: 50_001,
        total_retrans: 2,
        snd_cwnd: 10,
        last_data_recv_ms: 1_000,
        bytes_sent: Some(5_000),
        pacing_rate: Some(125_000),
        min_rtt_us: Some(u32::MAX),
        ..TcpInfo::default()
    };
    let mut subject = Subject::of(&row);
    subject.tcp_info = Some(&info);
    check(
        &subject,
        &[
            "rtt > 50ms",
            "rtt = 50001us",
            "retrans > 0",
            "cwnd <= 10",
            "last-recv = 1s",
            "bytes-sent >= 5k",
            "pacing-rate = 1Mbps",
            "ssthresh = 0",
        ],
        &[
            "rtt > 51ms",
            "retrans = 0",
            "min-rtt > 0",
            "min-rtt < 1h",
            "rcv-rtt < 1s",
            "bytes-received = 0",
            "not bytes-received = 0",
        ],
    );
    // Without a measurement there is no round trip time, not one of 0.
    info.rtt_us = 0;
    let mut subject = Subject::of(&row);
    subject.tcp_info = Some(&info);
    check(&subject, &["cwnd = 10"], &["rtt < 1ms", "rttvar < 1h", "not rtt > 1ms"]);
    row.state = State::Listen;
    let mut subject = Subject::of(&row);
    subject.tcp_info = Some(&info);
    check(&subject, &["state listening"], &["cwnd = 10", "rtt < 1s", "retrans = 2"]);
}

#[test]
fn states_are_sets() {
    let mut row = tcp("127.0.0.1:80", "10.1.2.3:5");
    check(
        &Subject::of(&row),
        &[
            "state established",
            "state connected",
            "state synchronized",
            "state big",
            "exclude listening",
            "not state listening",
        ],
        &["state listening", "state bucket", "exclude established", "exclude all"],
    );
    row.state = State::TimeWait;
    check(&Subject::of(&row), &["state bucket", "state connected"], &["state big"]);
    row.state = State::Close;
    check(
        &Subject::of(&row),
        &["state closed", "state bound-inactive"],
        &["state connected", "state closed exclude bound-inactive"],
    );
}

#[test]
fn needs_are_those_of_the_conditions() {
    let needs = |text: &str| filter(text).needs();
    let none = Needs::default();
    assert_eq!(
        needs("state listening sport = 80 dev 1 src /x uid = 0 recv-q > 0 user = 0"),
        none
    );
    assert_eq!(needs("pid = 1"), Needs { owners: true, ..none });
    assert_eq!(needs("not ( sport = 1 or process = x )"), Needs { owners: true, ..none });
    assert_eq!(needs("rtt > 1ms cc = x"), Needs { tcp_info: true, ..none });
    assert_eq!(needs("drops > 0"), Needs { memory: true, ..none });
    assert_eq!(needs("rcvbuf > 0"), Needs { memory: true, ..none });
    assert_eq!(needs("user = root"), Needs { user_names: true, ..none });
    assert_eq!(needs("container = x"), Needs { container: true, ..none });
    assert_eq!(needs("cgroup = x"), Needs { cgroup: true, ..none });
    assert_eq!(needs("fwmark 1"), Needs { mark: true, ..none });
    assert_eq!(needs("netns = x"), Needs { netns: true, ..none });
    assert_eq!(needs("dev eth0"), Needs { devices: true, ..none });
    assert_eq!(needs("src link:*:eth0"), Needs { devices: true, ..none });
    assert_eq!(needs("dst /x"), Needs { unix_peers: true, ..none });
    let details = needs("rtt > 1ms drops > 0 dst /x").details();
    assert!(details.tcp_info && details.memory && details.unix_peers && !details.options);
}

#[test]
fn bounds_leave_out_what_cannot_match() {
    let states = |text: &str| filter(text).states();
    assert_eq!(states(""), None);
    assert_eq!(states("sport = 80"), None);
    assert_eq!(states("state listening"), Some(States::LISTEN));
    assert_eq!(states("state listening sport = 80 or dport = 80"), Some(States::LISTEN));
    assert_eq!(states("state listening or sport = 80"), None);
    assert_eq!(
        states("state listening or state time-wait"),
        Some(States::LISTEN | States::TIME_WAIT)
    );
    assert_eq!(states("state listening and state time-wait"), Some(States::default()));
    assert_eq!(states("not state listening"), Some(States::ALL - States::LISTEN));
    assert_eq!(states("not ( state listening and sport = 80 )"), None);
    assert_eq!(
        states("not ( state listening or sport = 80 )"),
        Some(States::ALL - States::LISTEN)
    );
    assert_eq!(states("pid = 1"), Some(States::ALL - States::TIME_WAIT));
    let no_connection =
        States::LISTEN | States::TIME_WAIT | States::CLOSE | States::BOUND;
    assert_eq!(states("rtt > 1ms"), Some(States::ALL - no_connection));

    let tables = |text: &str| filter(text).tables();
    for (text, wanted) in [
        ("", Tables::ALL),
        ("uid = 0", Tables::ALL),
        ("src *", Tables::ALL),
        ("not src *", Tables::NONE),
        ("sport = 80", Tables::INET),
        ("not sport = 80", Tables::INET),
        ("src /x", Tables::UNIX),
        ("src /x or sport = 80", Tables::UNIX | Tables::INET),
        ("src /x and sport = 80", Tables::NONE),
        ("src netlink:rtnl", Tables::NETLINK),
        ("sport = vsock:1", Tables::VSOCK),
        ("src link:arp", Tables::PACKET),
        ("dev lo", Tables::INET | Tables::PACKET | Tables::XDP),
        ("retrans > 0", Tables::TCP | Tables::MPTCP),
    ] {
        assert_eq!(tables(text), wanted, "{text}");
    }

    let versions = |text: &str| {
        let versions = filter(text).versions();
        (versions.v4, versions.v6)
    };
    assert_eq!(versions("src 127.0.0.1"), (true, true));
    assert_eq!(versions("src [::1]"), (false, true));
    assert_eq!(versions("not src [::1]"), (true, true));
    assert_eq!(versions("src inet:127.0.0.1"), (true, false));
    assert_eq!(versions("not src inet:127.0.0.1"), (true, false));
    assert_eq!(versions("src [::1] or dst inet:*"), (true, true));
    assert_eq!(versions("sport != *"), (false, false));
}
