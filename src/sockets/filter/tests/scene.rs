//! A network namespace with a socket of each sort.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use socket2::{Domain, Protocol as Ipproto, SockRef, Socket, Type};

use super::*;
use crate::kernel::defer::set_defer_accept;
use crate::kernel::sock_diag::{
    Bytecode, Cookie, Extensions, Family, InetRequest, InetRow, Protocol, SockDiag, State,
};
use crate::sockets::row::{Address, Kind};
use crate::sockets::testing::{dial, skip, wait_for};

/// Sockets that live as long as this.
#[derive(Debug, Default)]
pub(super) struct Scene {
    sockets: Vec<Socket>,
    streams: Vec<TcpStream>,
    udp: Vec<UdpSocket>,
}

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

impl Scene {
    /// Puts it up in the network namespace of this thread, which has nothing in it.
    pub(super) fn new() -> Self {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let mut scene = Self::default();
        scene.listeners();
        scene.connections();
        scene.datagrams();
        scene
    }

    fn listeners(&mut self) {
        for (at, backlog) in [
            ((LOCAL, 80).into(), 9),
            ((LOCAL, 81).into(), 9),
            (([127, 0, 0, 2], 80).into(), 9),
            ((Ipv4Addr::UNSPECIFIED, 79).into(), 9),
            ((LOCAL, 40_000).into(), 9),
            ((LOCAL, 65_535).into(), 9),
            ((Ipv6Addr::UNSPECIFIED, 1).into(), 9),
            ((Ipv6Addr::LOCALHOST, 80).into(), 9),
            // Its queue is full with one.
            ((LOCAL, 1_008).into(), 0),
        ] {
            self.sockets.push(tcp(at, Some(backlog)));
        }
        let on_lo = tcp((LOCAL, 82).into(), None);
        on_lo.bind_device(Some(b"lo")).unwrap();
        on_lo.listen(3).unwrap();
        let bound_alone = tcp((LOCAL, 83).into(), None);
        self.sockets.extend([on_lo, bound_alone]);
        for at in [(LOCAL, 86).into(), (Ipv6Addr::UNSPECIFIED, 87).into()] {
            let deferred = tcp(at, Some(9));
            set_defer_accept(&deferred, 100).unwrap();
            self.sockets.push(deferred);
        }
        match Socket::new(Domain::IPV4, Type::STREAM, Some(Ipproto::MPTCP)) {
            Ok(mptcp) => {
                mptcp.bind(&SocketAddr::from((LOCAL, 84)).into()).unwrap();
                mptcp.listen(3).unwrap();
                self.sockets.push(mptcp);
            }
            Err(error) => skip(&format!("no MPTCP: {error}")),
        }
    }

    fn connections(&mut self) {
        for to in [
            SocketAddr::from((LOCAL, 80)),
            SocketAddr::from((LOCAL, 1)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 1)),
            SocketAddr::from(([127, 0, 0, 2], 80)),
            // By the listener that is bound to lo, and in SYN_RECV of IPv4 and mapped.
            SocketAddr::from((LOCAL, 82)),
            SocketAddr::from((LOCAL, 86)),
            SocketAddr::from((LOCAL, 87)),
        ] {
            self.streams.push(TcpStream::connect(to).unwrap());
        }
        let from_chosen = tcp((LOCAL, 2_000).into(), None);
        from_chosen.connect(&SocketAddr::from((LOCAL, 81)).into()).unwrap();
        self.sockets.push(from_chosen);
        // In TIME_WAIT at port 2,001, which closes first; in FIN_WAIT2 at 2,002, whose
        // peer does not close.
        let server = TcpListener::bind((LOCAL, 85)).unwrap();
        for port in [2_001, 2_002] {
            let leaving = tcp((LOCAL, port).into(), None);
            leaving.connect(&SocketAddr::from((LOCAL, 85)).into()).unwrap();
            let (left, _) = server.accept().unwrap();
            drop(leaving);
            self.streams.extend((port == 2_002).then_some(left));
        }
        // One is admitted, the other's SYN is dropped.
        let full = SocketAddr::from((LOCAL, 1_008));
        self.sockets.push(dial(full));
        wait_for("a queue that is full", || {
            let queued = |row: &Row<'_>| row.state == State::Listen && row.recv_q == 1;
            dump(None)
                .iter()
                .any(|row| queued(row) && row.local.inet() == Some(full))
                .then_some(())
        });
        self.sockets.push(dial(full));
        wait_for("a socket in each state", || {
            let rows = dump(None);
            let has =
                |state, n| rows.iter().filter(|row| row.state == state).count() == n;
            let all = has(State::TimeWait, 1)
                && has(State::SynSent, 1)
                && has(State::SynRecv, 2)
                && has(State::FinWait2, 1)
                && has(State::CloseWait, 1);
            all.then_some(())
        });
        self.streams[0].write_all(b"not read").unwrap();
    }

    fn datagrams(&mut self) {
        let server = UdpSocket::bind((LOCAL, 80)).unwrap();
        let client = UdpSocket::bind((LOCAL, 0)).unwrap();
        client.connect((LOCAL, 80)).unwrap();
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 81)).unwrap();
        let mapped = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        mapped.connect((LOCAL.to_ipv6_mapped(), 80)).unwrap();
        SockRef::from(&v6).set_mark(5).unwrap();
        self.udp.extend([server, client, v6, mapped]);
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Ipproto::ICMPV4)).unwrap();
        self.sockets.push(raw);
    }
}

fn tcp(at: SocketAddr, backlog: Option<i32>) -> Socket {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified()).unwrap();
    }
    socket.set_reuse_address(true).unwrap();
    socket.bind(&at.into()).unwrap();
    if let Some(backlog) = backlog {
        socket.listen(backlog).unwrap();
    }
    socket
}

/// Every inet socket of this namespace that the kernel gives with a program.
pub(super) fn dump(program: Option<&Bytecode>) -> Vec<Row<'static>> {
    let mut diag = SockDiag::open().unwrap();
    let mut rows = Vec::new();
    for (protocol, kind, needed) in [
        (Protocol::TCP, Kind::Tcp, true),
        (Protocol::UDP, Kind::Udp, true),
        (Protocol::RAW, Kind::Raw, false),
        (Protocol::MPTCP, Kind::Mptcp, false),
    ] {
        for family in [Family::V4, Family::V6] {
            let request = InetRequest {
                family,
                protocol,
                extensions: Extensions::INFO,
                ..InetRequest::tcp(family, States::ALL)
            };
            let dumped =
                diag.inet_where(&request, program, |row| rows.push(of_inet(kind, row)));
            assert!(dumped.is_ok() || !needed, "{dumped:?}");
        }
    }
    rows.sort_by_key(identity);
    rows
}

fn of_inet(kind: Kind, row: &InetRow<'_>) -> Row<'static> {
    Row {
        is_v6: row.family == Family::V6,
        local: Address::Inet(row.local),
        remote: Address::Inet(row.remote),
        recv_q: row.recv_q,
        send_q: Some(row.send_q),
        uid: Some(row.uid),
        inode: row.inode,
        cookie: Some(row.cookie),
        interface: row.interface,
        ..Row::new(kind, row.state)
    }
}

/// What tells a row from every other.
pub(super) fn identity(row: &Row<'_>) -> (Kind, Option<Cookie>) {
    (row.kind, row.cookie)
}

/// The identities of the rows that match.
pub(super) fn matching(filter: &Filter, rows: &[Row<'_>]) -> Vec<(Kind, Option<Cookie>)> {
    let device = |row: &Row<'_>| (row.interface == 1).then_some("lo");
    let matches = |row: &&Row<'_>| {
        filter.matches(&Subject { device: device(row), ..Subject::of(row) })
    };
    rows.iter().filter(matches).map(identity).collect()
}
