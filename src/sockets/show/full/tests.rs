use super::*;
use crate::kernel::sock_diag::Cookie;
use crate::sockets::listing::Listed;
use crate::sockets::model::{Comm, Inode};
use crate::sockets::names::{Cgroups, Users, Workloads};
use crate::sockets::row::Extra;
use crate::sockets::show::Context;
use proptest::prelude::*;
use std::path::Path;

fn owner(pid: u32, tid: u32, fd: u32) -> Owner {
    Owner { pid, tid, comm: Comm::new(b"node"), fd }
}

fn text(row: &Row<'_>, in_table: &InTable, own: &[Owner], its: &[Owner]) -> String {
    let (users, cgroups) = (Users::default(), Cgroups::default());
    let workloads = Workloads::new(Path::new("/nowhere"));
    let context = Context {
        users: &users,
        interfaces: None,
        workloads: &workloads,
        cgroups: &cgroups,
        netns: None,
    };
    let listed = Listed { row, owners: own, no_owner: None };
    let shown = Shown { listed: &listed, context: &context };
    let whole = Whole { shown, in_table, peer: its, netns: "net:[1]" };
    let line = |line: Line| format!("{}: {}\n", line.name, line.value);
    lines(&whole).into_iter().map(line).collect()
}

fn tcp(state: State) -> Row<'static> {
    Row {
        local: Address::Inet("127.0.0.1:80".parse().unwrap()),
        remote: Address::Inet("127.0.0.1:4000".parse().unwrap()),
        send_q: Some(0),
        uid: Some(3_999_999_999),
        inode: Inode(12),
        cookie: Some(Cookie(0x4b)),
        mark: Some(0),
        ..Row::new(Kind::Tcp, state)
    }
}

/// struct tcp_info of a connection that has seen some traffic.
fn info() -> Vec<u8> {
    let mut bytes = vec![0_u8; 248];
    for (at, value) in [
        (8, 201_000_u32),
        (16, 1448),
        (24, 3),
        (68, 1_500),
        (72, 250),
        (76, 0x7fff_ffff),
        (80, 10),
        (100, 2),
        (136, 12),
        (140, 11),
        (148, 900),
        (156, 9),
    ] {
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    for (at, value) in [(104, u64::MAX), (120, 1000), (200, 4096), (208, 2048)] {
        bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

#[test]
fn a_connection_is_told_with_units() {
    let memory =
        SkMem { rmem_alloc: 2048, rcvbuf: 131_072, drops: 3, ..SkMem::default() };
    let extra = Extra {
        tcp_info: Some(info().into()),
        congestion: Some(b"cubic"[..].into()),
        memory: Some(memory),
        options: Some(1),
        ..Extra::default()
    };
    let timer = Timer { kind: TimerKind::Keepalive, expires_ms: 62_000, retransmits: 2 };
    let row = Row {
        recv_q: 1,
        timer: Some(timer),
        shutdown: 2,
        extra: Some(Box::new(extra)),
        ..tcp(State::Established)
    };
    let own = [owner(7, 7, 4), owner(7, 9, 5)];
    let shown = text(&row, &InTable::Yes, &own, &[owner(8, 8, 3)]);
    for line in [
        "pair: 127.0.0.1:80 → 127.0.0.1:4000",
        "kind: tcp, IPv4",
        "state: ESTAB: open at both ends",
        "owners: node[7] fd 4\n: node[7] thread 9 fd 5",
        "peer: node[8] fd 3",
        "made by: uid 3999999999",
        "identity: inode 12, cookie 4b",
        "queues: 1 B to be read, 0 B not acknowledged",
        "receive: 2.0 KiB of 128.0 KiB (SO_RCVBUF)",
        "memory: 3 dropped",
        "timer: keepalive in 1 min 2 s, after 2 unanswered probes",
        "options: mark 0x0, recverr, shut down for sending",
        "round trip: 1.5 ms ± 250 µs, least 900 µs; timeout 201 ms",
        "congestion: cubic: window 10 segments; open",
        "in flight: 3 segments",
        "sent: 4.0 KiB in 12 segments (9 with data); 1000 B acknowledged; 2 segments \
         sent again (2.0 KiB)",
    ] {
        assert!(shown.contains(&format!("{line}\n")), "{line} in {shown}");
    }
    assert!(!shown.contains("paced"), "u64::MAX is no rate: {shown}");
}

#[test]
fn a_listener_has_its_queue_and_no_connection() {
    let row = Row {
        remote: Address::Inet("0.0.0.0:0".parse().unwrap()),
        recv_q: 129,
        send_q: Some(128),
        drops: Some(7),
        extra: Some(Box::new(Extra {
            tcp_info: Some(info().into()),
            ..Extra::default()
        })),
        ..tcp(State::Listen)
    };
    let shown = text(&row, &InTable::Yes, &[], &[]);
    let queue = "queues: 129 in an accept queue that admits 129 (backlog 128 + 1); FULL, \
                 7 drops\n";
    assert!(shown.contains(queue), "{shown}");
    assert!(shown.contains("pair: 127.0.0.1:80\n") && !shown.contains("round trip"));
}

#[test]
fn a_socket_in_no_table_is_said_to_be_so() {
    let row = Row { inode: Inode(5), ..Row::new(Kind::Tcp, State::Close) };
    let shown = text(&row, &InTable::No, &[owner(7, 7, 4)], &[]);
    assert!(shown.contains("state: in no table: made, and neither bound"), "{shown}");
    assert!(!shown.contains("pair") && !shown.contains("queues"), "{shown}");
    let lack =
        crate::sockets::source::Lack { what: "raw sockets".into(), why: "no".into() };
    let shown = text(&row, &InTable::Unknown(lack), &[], &[]);
    assert!(shown.contains("state: not known: raw sockets: no\n"), "{shown}");
}

#[test]
fn a_v6_socket_says_what_it_carries() {
    let at = |address: &str, only| {
        let local = Address::Inet(address.parse().unwrap());
        kind(&Row { is_v6: true, v6_only: only, local, ..tcp(State::Listen) })
    };
    assert_eq!(at("[::1]:1", Some(true)), "tcp, IPv6");
    assert_eq!(at("[::]:1", Some(false)), "tcp, IPv6 and IPv4");
    assert_eq!(at("[::ffff:127.0.0.1]:1", None), "tcp, IPv4 on an IPv6 socket");
}

proptest! {
    #[test]
    fn any_tcp_info_is_told(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        state in 0_u8..14,
    ) {
        let extra = Extra { tcp_info: Some(bytes.into()), ..Extra::default() };
        let row = Row {
            extra: Some(Box::new(extra)),
            ..tcp(State::from_raw(state))
        };
        let _ = text(&row, &InTable::Yes, &[], &[]);
    }
}
