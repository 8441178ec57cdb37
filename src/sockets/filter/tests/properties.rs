//! What holds for every filter and every socket.

use proptest::prelude::*;

use super::generate::{beyond, expr, inet_row, kernel_expr, row};
use super::*;
use crate::kernel::sock_diag::bytecode::interpreter::{Entry, accepts, is_sound};
use crate::sockets::row::Kind;

fn of(expr: Expr) -> Filter {
    Filter { expr: Some(expr), notes: Vec::new(), local_ports: (32_768, 60_999) }
}

fn table(kind: Kind) -> Tables {
    match kind {
        Kind::Tcp => Tables::TCP,
        Kind::Udp => Tables::UDP,
        Kind::Mptcp => Tables::MPTCP,
        Kind::Raw => Tables::RAW,
        Kind::Sctp => Tables::SCTP,
        Kind::UnixStream => Tables::UNIX_STREAM,
        Kind::PacketRaw => Tables::PACKET,
        Kind::Netlink => Tables::NETLINK,
        Kind::Vsock => Tables::VSOCK,
        // In no table at all.
        _ => Tables::ALL,
    }
}

fn device_index(name: &str) -> Option<u32> {
    ["lo", "eth0"].into_iter().position(|known| known == name).map(|at| at as u32 + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_filter_that_is_written_is_read_as_the_same(expr in expr()) {
        let written = expr.to_string();
        let read = parse(&written);
        let read = read.map_err(|error| TestCaseError::fail(format!("{written}: {error}")))?;
        prop_assert_eq!(read.notes(), []);
        prop_assert_eq!(read.expr(), Some(&expr), "{}", written);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}") {
        let _ = parse(&text).map_err(|error| (error.to_string(), error.pointed_at()));
    }

    #[test]
    fn no_words_of_the_language_make_it_panic(words in prop::collection::vec(
        prop::sample::select(vec![
            "src", "dst", "sport", "dport", "state", "exclude", "dev", "fwmark", "cgroup",
            "autobound", "rtt", "pid", "process", "and", "or", "not", "!", "&&", "||", "(", ")",
            "=", "!=", "<", ">=", "eq", "::1", "[::1]:80", "10/8", ":80", "*", "/run/*", "http",
            "established", "all", "1", "50ms", "'", "\"", "\\", "x", "[", ":", "/", "unix:",
            "inet6:", "netlink:", "link:", "vsock:", "", ",",
        ]),
        0..12,
    ), spaced: bool) {
        let text = words.join(if spaced { " " } else { "" });
        match parse(&text) {
            Ok(filter) => {
                let written = filter.to_string();
                let again = parse(&written).map(|again| again.expr().cloned());
                prop_assert_eq!(again, Ok(filter.expr().cloned()), "{} {}", text, written);
            }
            Err(error) => {
                let chars = text.chars().count();
                prop_assert!((1..=chars + 1).contains(&error.column), "{}: {}", text, error);
                prop_assert!(error.pointed_at().lines().count() <= 2, "{}", error.pointed_at());
            }
        }
    }

    #[test]
    fn what_matches_lies_within_the_bounds(expr in expr(), row in row(), beyond in beyond()) {
        let filter = of(expr);
        let subject = beyond.subject(&row);
        // A source gives owners and TCP_INFO for no socket that has none.
        let has_none = row.state == crate::sockets::model::State::TimeWait;
        let subject = if has_none {
            Subject { owners: &[], tcp_info: None, ..subject }
        } else {
            subject
        };
        let is_tcp = matches!(row.kind, Kind::Tcp | Kind::Mptcp);
        let subject = if is_tcp { subject } else { Subject { tcp_info: None, ..subject } };
        if filter.matches(&subject) {
            let bounds = super::super::bounds::of(filter.expr());
            prop_assert!(bounds.states.contains(&row), "{}", filter);
            prop_assert!(bounds.tables.has(table(row.kind)), "{}", filter);
            if row.kind.is_inet() {
                let versions = bounds.versions;
                prop_assert!(if row.is_v6 { versions.v6 } else { versions.v4 }, "{}", filter);
            }
        }
    }

    #[test]
    fn no_socket_matches_both_a_filter_and_its_negation(
        expr in expr(), row in row(), beyond in beyond(),
    ) {
        let subject = beyond.subject(&row);
        let [plain, negated] =
            [expr.clone(), Expr::Not(Box::new(expr.clone()))].map(|e| of(e).matches(&subject));
        prop_assert!(!(plain && negated), "{}", expr);
        let twice = Expr::Not(Box::new(Expr::Not(Box::new(expr))));
        prop_assert_eq!(of(twice).matches(&subject), plain);
    }

    #[test]
    fn what_a_filter_does_not_need_does_not_change_what_matches(
        expr in expr(), row in row(), beyond in beyond(),
    ) {
        let filter = of(expr);
        let needs = filter.needs();
        let all = beyond.subject(&row);
        let needed = Subject {
            row: &row,
            owners: if needs.owners { all.owners } else { &[] },
            user: all.user.filter(|_| needs.user_names),
            container: all.container.filter(|_| needs.container),
            netns: all.netns.filter(|_| needs.netns),
            cgroup_path: all.cgroup_path.filter(|_| needs.cgroup),
            tcp_info: all.tcp_info.filter(|_| needs.tcp_info),
            device: all.device.filter(|_| needs.devices),
        };
        prop_assert_eq!(filter.matches(&needed), filter.matches(&all), "{}", filter);
    }

    #[test]
    fn the_kernel_drops_nothing_that_matches(
        expr in kernel_expr(), row in inet_row(), beyond in beyond(),
    ) {
        let filter = of(expr);
        let able = Able { marks: true, devices: Some(&device_index), cgroups: None };
        let Some(program) = filter.kernel(&able) else { return Ok(()) };
        prop_assert!(is_sound(program.as_bytes()), "{}", filter);
        let entry = Entry {
            is_v6: row.is_v6,
            local: row.local.inet().unwrap(),
            remote: row.remote.inet().unwrap(),
            device: row.interface,
            // The kernel knows the mark where it is not shown.
            mark: row.mark.unwrap_or(2),
            cgroup: 0,
        };
        let matches = filter.matches(&beyond.subject(&row));
        prop_assert!(accepts(program.as_bytes(), &entry) || !matches, "{} {:?}", filter, row);
    }
}

/// Over-approximation alone could be had by accepting all: conditions on ports and
/// addresses are exact in the kernel, however they are combined.
#[test]
fn ports_and_addresses_are_told_exactly_in_the_kernel() {
    let kernel =
        |text: &str| filter(text).kernel(&Able::default()).map(|p| p.as_bytes().to_vec());
    for text in [
        "sport = 80",
        "sport != 80",
        "not ( sport = 80 or dport > 79 )",
        "sport > 80 and sport < 65535 or dport <= 1",
        "src 127.0.0.1 or not dst 10/8",
        "src [::1] and not ( dst [::ffff:0:0/96] or sport >= 81 )",
        "src 127.0.0.1:80 or dst *:81 and not src 127/8",
        "autobound or sport = 1",
        "not autobound",
        "dev = 1 or dev != 2 and sport > 1",
    ] {
        let filter = filter(text);
        let program = kernel(text).unwrap();
        // A runner counts its cases over all runs: each filter has its own.
        proptest::test_runner::TestRunner::deterministic()
            .run(&inet_row(), |row| {
                let entry = Entry {
                    is_v6: row.is_v6,
                    local: row.local.inet().unwrap(),
                    remote: row.remote.inet().unwrap(),
                    device: row.interface,
                    mark: 0,
                    cgroup: 0,
                };
                prop_assert_eq!(
                    accepts(&program, &entry),
                    filter.matches(&Subject::of(&row))
                );
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn what_the_kernel_cannot_tell_is_left_to_the_row() {
    let kernel = |text: &str, able: &Able<'_>| filter(text).kernel(able);
    let plain = Able::default();
    for text in [
        "",
        "state listening",
        "rtt > 1ms",
        "pid = 1",
        "not uid = 0",
        "sport = 80 or pid = 1",
        "fwmark 1",
        "dev lo",
        "cgroup /x",
        "src *",
        "not ( pid = 1 and sport = 80 )",
    ] {
        assert_eq!(kernel(text, &plain), None, "{text}");
    }
    let both = kernel("sport = 80", &plain);
    assert!(both.is_some());
    assert_eq!(kernel("pid = 1 sport = 80 state listening", &plain), both);
    assert_eq!(kernel("not ( pid = 1 or sport != 80 )", &plain), both);
    let cgroup = |path: &str| (path == "/x").then_some(7);
    let able = Able { marks: true, devices: Some(&device_index), cgroups: Some(&cgroup) };
    for text in ["fwmark 1", "dev lo", "not dev eth0", "cgroup /x", "cgroup != /x"] {
        assert!(kernel(text, &able).is_some(), "{text}");
    }
    for text in ["cgroup /y", "cgroup /*"] {
        assert_eq!(kernel(text, &able), None, "{text}");
    }
    // Nothing of inet can match: it is told to drop all.
    assert!(kernel("src /x", &plain).is_some());
}
