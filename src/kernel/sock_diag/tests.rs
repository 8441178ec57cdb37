use super::*;
use crate::sockets::testing::loopback;
use proptest::prelude::*;
use socket2::{Domain, Protocol as Ipproto, Socket as Plain, Type};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A row as Linux 6.18 sent it.
macro_rules! captured {
    ($name:literal) => {
        bytes(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/kernel/sock_diag/captured/",
            $name,
            ".hex"
        )))
    };
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn inet(bytes: &[u8]) -> InetRow<'_> {
    InetRow::parse(bytes, Protocol::TCP).unwrap()
}

#[test]
fn a_captured_listener_with_a_full_queue_is_read() {
    let bytes = captured!("inet_listen");
    let row = inet(&bytes);
    assert_eq!((row.family, row.state, row.uid), (Family::V4, State::Listen, 0));
    assert_eq!(row.local, SocketAddr::from(([127, 77, 3, 1], 40599)));
    assert_eq!(row.remote, SocketAddr::from(([0, 0, 0, 0], 0)));
    assert_eq!((row.recv_q, row.send_q), (3, 2));
    assert_eq!(row.sk_mem.unwrap().drops, 4);
    assert_eq!(row.sk_mem.unwrap().rcvbuf, 131_072);
    assert_eq!((row.timer, row.v6_only, row.tcp_info), (None, None, None));
}

#[test]
fn a_captured_v4_mapped_connection_keeps_its_addresses_as_they_are() {
    let bytes = captured!("inet_mapped");
    let row = inet(&bytes);
    assert_eq!((row.family, row.state), (Family::V6, State::Established));
    let shown = [row.local, row.remote].map(|address| address.ip().to_string());
    assert_eq!(shown, ["::ffff:127.0.0.1", "::ffff:127.0.0.1"]);
    assert_eq!(canonical(row.local).ip().to_string(), "127.0.0.1");
    assert!(row.inode.exists());
    let info = row.tcp_info.unwrap();
    assert_eq!((info.len(), info[0]), (280, 1), "tcpi_state is ESTABLISHED");
}

#[test]
fn a_captured_v6_listener_says_whether_it_takes_ipv4() {
    let bytes = captured!("inet_v6_listen");
    assert_eq!(inet(&bytes).v6_only, Some(false));
}

#[test]
fn a_captured_unix_listener_names_its_file_and_who_waits() {
    let bytes = captured!("unix_listen");
    let row = UnixRow::parse(&bytes).unwrap();
    assert_eq!((row.kind, row.state), (UnixKind::Stream, State::Listen));
    let name = row.name.unwrap().to_string();
    assert!(name.starts_with("/tmp/") && name.ends_with("/s"), "{name}");
    assert_eq!(row.vfs.unwrap().device, 254 << 20);
    assert_eq!((row.recv_q, row.send_q, row.uid), (3, 2, Some(0)));
    assert_eq!((row.icons.iter().count(), row.peer), (3, None));
    assert_eq!(row.sk_mem.unwrap().rcvbuf, 212_992);
    let queued = captured!("unix_queued");
    let queued = UnixRow::parse(&queued).unwrap();
    assert_eq!((queued.peer, queued.shutdown), (Some(Inode(0)), 0));
    assert_eq!(row.icons.iter().next(), Some(queued.inode));
    let datagram = captured!("unix_abstract");
    let datagram = UnixRow::parse(&datagram).unwrap();
    assert_eq!(datagram.kind, UnixKind::Datagram);
    assert_eq!(datagram.name.unwrap().to_string(), "@a b");
}

#[test]
fn rows_cut_short_anywhere_are_refused_or_read_in_part() {
    for whole in [captured!("inet_listen"), captured!("inet_mapped")] {
        for len in 0..whole.len() {
            let row = InetRow::parse(&whole[..len], Protocol::TCP);
            assert_eq!(row.is_some(), len >= 72);
        }
    }
    let whole = captured!("unix_listen");
    for len in 0..whole.len() {
        assert_eq!(UnixRow::parse(&whole[..len]).is_some(), len >= 16);
    }
}

proptest! {
    #[test]
    fn rows_of_any_bytes_are_parsed_without_panic(mut bytes: Vec<u8>, family: u8) {
        let _ = (InetRow::parse(&bytes, Protocol::TCP), UnixRow::parse(&bytes));
        if let Some(first) = bytes.first_mut() {
            *first = [1, 2, 10][usize::from(family) % 3];
        }
        let _ = InetRow::parse(&bytes, Protocol::TCP);
        if let Some(row) = UnixRow::parse(&bytes) {
            let _ = (row.icons.iter().count(), row.name.map(|name| name.to_string()));
        }
    }

    #[test]
    fn attributes_of_any_bytes_after_a_row_are_parsed_without_panic(tail: Vec<u8>) {
        for mut row in [captured!("inet_listen")[..72].to_vec(), vec![1; 16]] {
            row.extend_from_slice(&tail);
            let _ = (InetRow::parse(&row, Protocol::TCP), UnixRow::parse(&row));
        }
    }

    #[test]
    fn a_cookie_is_written_as_it_is_read(cookie: u64) {
        let bytes = Cookie(cookie).to_bytes();
        let halves = (frame::u32_at(&bytes, 0), frame::u32_at(&bytes, 4));
        prop_assert_eq!(Cookie::from_halves(halves.0, halves.1), Cookie(cookie));
    }
}

#[test]
fn a_request_is_laid_out_as_the_kernel_reads_it() {
    let request = InetRequest {
        extensions: Extensions::INFO | Extensions::SK_MEMINFO,
        local_port: Some(0x1234),
        ..InetRequest::tcp(Family::V6, States::LISTEN)
    };
    let bytes = request.to_bytes(None);
    assert_eq!(bytes.len(), 56);
    assert_eq!(bytes[..4], [10, 6, 0b100_0010, 0]);
    assert_eq!(bytes[4..8], 0x400_u32.to_ne_bytes());
    assert_eq!(bytes[8..12], [0x12, 0x34, 0, 0]);
    let mptcp = InetRequest { protocol: Protocol::MPTCP, ..request };
    assert_eq!(mptcp.to_bytes(None)[60..], 262_u32.to_ne_bytes());
}

#[test]
fn both_ends_of_a_connection_are_in_a_dump_of_its_state() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let target = listener.local_addr().unwrap();
    let client = TcpStream::connect(target).unwrap();
    let mut diag = SockDiag::open().unwrap();
    let request = InetRequest {
        remote_port: Some(target.port()),
        extensions: Extensions::INFO,
        ..InetRequest::tcp(Family::V4, States::ESTABLISHED)
    };
    let mut seen = Vec::new();
    let end = diag
        .inet(&request, |row| {
            assert_eq!(row.remote.port(), target.port(), "the kernel filters");
            assert!(row.tcp_info.is_some());
            if row.remote == target {
                seen.push((row.local, row.state));
            }
        })
        .unwrap();
    assert!(end.rows >= 1);
    assert_eq!(seen, [(client.local_addr().unwrap(), State::Established)]);
}

#[test]
fn a_dump_abandoned_by_a_panic_does_not_disturb_the_next() {
    let pairs: Vec<_> = (0..500).map(|_| UnixStream::pair().unwrap()).collect();
    let mut diag = SockDiag::open().unwrap();
    let request = UnixRequest {
        states: States::ESTABLISHED,
        show: Show::PEER | Show::MEMINFO | Show::RQLEN,
    };
    let abandoned = catch_unwind(AssertUnwindSafe(|| {
        let _ = diag.unix(&request, |_| std::panic::panic_any(()));
    }));
    assert!(abandoned.is_err());
    let mut rows = 0;
    let end = diag.unix(&request, |_| rows += 1).unwrap();
    assert!(rows >= 2 * pairs.len() && end.rows == u64::try_from(rows).unwrap());
}

#[test]
fn a_bound_socket_that_does_not_listen_is_seen() {
    let socket = Plain::new(Domain::IPV4, Type::STREAM, Some(Ipproto::TCP)).unwrap();
    socket.bind(&SocketAddr::from((loopback(), 0)).into()).unwrap();
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    let request = InetRequest {
        local_port: Some(local.port()),
        ..InetRequest::tcp(Family::V4, States::BOUND)
    };
    let mut states = Vec::new();
    let mut diag = SockDiag::open().unwrap();
    diag.inet(&request, |row| {
        if row.local == local {
            states.push(row.state);
        }
    })
    .unwrap();
    assert_eq!(states, [State::Close]);
}

#[test]
fn udp_sockets_are_dumped_where_the_kernel_can() {
    let socket = UdpSocket::bind((loopback(), 0)).unwrap();
    let local = socket.local_addr().unwrap();
    let request = InetRequest {
        protocol: Protocol::UDP,
        local_port: Some(local.port()),
        ..InetRequest::tcp(Family::V4, States::ALL)
    };
    let mut found = false;
    match SockDiag::open().unwrap().inet(&request, |row| found |= row.local == local) {
        Ok(_) => assert!(found),
        Err(error) => assert!(error.to_string().contains("udp_diag"), "{error}"),
    }
}

#[test]
fn a_protocol_that_the_kernel_lacks_is_named() {
    let request = InetRequest {
        protocol: Protocol(200),
        ..InetRequest::tcp(Family::V4, States::ALL)
    };
    let error = SockDiag::open().unwrap().inet(&request, |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this kernel offers no sock_diag module for this protocol \
         (not built, or its module not loaded)"
    );
}

#[test]
fn one_socket_is_looked_up_by_what_it_is() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let local = listener.local_addr().unwrap();
    let client = TcpStream::connect(local).unwrap();
    let mut diag = SockDiag::open().unwrap();
    let request = InetRequest::tcp(Family::V4, States::ALL);
    let cookie = Cookie(Plain::from(client.try_clone().unwrap()).cookie().unwrap());
    let from = client.local_addr().unwrap();
    let id = SocketId { local: from, remote: Some(local), interface: 0, cookie };
    let mut state = None;
    assert!(diag.inet_one(&request, &id, |row| state = Some(row.state)).unwrap());
    assert_eq!(state, Some(State::Established));
    let another = SocketId { cookie: Cookie(cookie.0 + 1), ..id };
    assert!(!diag.inet_one(&request, &another, |_| {}).unwrap());
}

mod early_stop;
mod messages;
