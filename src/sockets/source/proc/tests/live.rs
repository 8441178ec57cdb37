//! Real sockets, and what sock_diag(7) says of the same.

use super::*;
use crate::kernel::sock_diag::{
    Extensions, InetRequest, InetRow, Protocol as DiagProtocol, Show, SockDiag, UnixKind,
    UnixRequest,
};
use crate::sockets::model::{Family, Inode, State, UnixName};
use crate::sockets::testing::*;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

fn live(tables: Tables) -> Vec<Row<'static>> {
    read(&ProcRoot::default(), &selection(tables)).0
}

/// What both sources can tell of a socket.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    state: State,
    is_v6: bool,
    local: SocketAddr,
    remote: SocketAddr,
    recv_q: u32,
    send_q: Option<u32>,
    uid: Option<u32>,
    inode: Inode,
    timer: Option<(String, u8)>,
}

fn known_by_proc(row: &Row<'_>) -> Known {
    Known {
        state: row.state,
        is_v6: row.is_v6,
        local: row.local.inet().unwrap(),
        remote: row.remote.inet().unwrap(),
        recv_q: row.recv_q,
        send_q: row.send_q,
        uid: row.uid,
        inode: row.inode,
        timer: row.timer.map(|timer| (format!("{:?}", timer.kind), timer.retransmits)),
    }
}

fn known_by_sock_diag(row: &InetRow<'_>) -> Known {
    Known {
        state: row.state,
        is_v6: row.family == Family::V6,
        local: row.local,
        remote: row.remote,
        recv_q: row.recv_q,
        send_q: (row.state != State::Listen).then_some(row.send_q),
        uid: (row.state != State::TimeWait).then_some(row.uid),
        inode: row.inode,
        timer: row.timer.map(|timer| (format!("{:?}", timer.kind), timer.retransmits)),
    }
}

/// What both say of the sockets that `is_ours` names, in one order.
fn both_sources(
    kind: Kind,
    protocol: DiagProtocol,
    is_ours: impl Fn(IpAddr, u16) -> bool,
) -> (Vec<Known>, Vec<Known>) {
    let of_us = |known: &Known| {
        [known.local, known.remote].iter().any(|end| is_ours(end.ip(), end.port()))
    };
    let tables = if kind == Kind::Tcp { Tables::TCP } else { Tables::UDP };
    let mut proc: Vec<Known> = live(tables)
        .iter()
        .filter(|row| row.kind == kind)
        .map(known_by_proc)
        .filter(of_us)
        .collect();
    let mut diag = Vec::new();
    let mut sock_diag = SockDiag::open().unwrap();
    for family in [Family::V4, Family::V6] {
        let request = InetRequest {
            protocol,
            extensions: Extensions::NONE,
            ..InetRequest::tcp(family, States::ALL - States::BOUND)
        };
        sock_diag.inet(&request, |row| diag.push(known_by_sock_diag(row))).unwrap();
    }
    diag.retain(of_us);
    proc.sort_unstable();
    diag.sort_unstable();
    (proc, diag)
}

#[test]
fn tcp_sockets_are_as_sock_diag_has_them() {
    let at = loopback();
    let (listener, address) = listen(at, 8);
    // Accepted, with bytes unread; closed at one end; closed at both, so in TIME_WAIT;
    // and one that nobody accepts.
    let mut clients = connect(4, address);
    let mut accepted: Vec<Socket> =
        (0..4).map(|_| listener.accept().unwrap().0).collect();
    let of = |client: &TcpStream| client.local_addr().ok();
    accepted.sort_by_key(|server| {
        let peer = server.peer_addr().unwrap().as_socket();
        clients.iter().position(|client| of(client) == peer)
    });
    io::Write::write_all(&mut &clients[0], b"12345").unwrap();
    accepted[1].set_keepalive(true).unwrap();
    clients[2].shutdown(std::net::Shutdown::Write).unwrap();
    drop(clients.pop());
    drop(accepted.pop());
    let queued = connect(1, address);
    // A server that takes IPv4 on an IPv6 socket.
    let (dual, dual_address) =
        listen_as(Protocol::TCP, Ipv6Addr::UNSPECIFIED.into(), 8).unwrap();
    let mapped = connect(1, (at, dual_address.port()).into());
    let seen = wait_for("both sources to say the same of all states", || {
        let ours =
            |ip: IpAddr, port| ip.to_canonical() == at || port == dual_address.port();
        let (proc, diag) = both_sources(Kind::Tcp, DiagProtocol::TCP, ours);
        let has = |state| proc.iter().any(|known| known.state == state);
        let complete = [
            State::Listen,
            State::Established,
            State::TimeWait,
            State::FinWait2,
            State::CloseWait,
        ]
        .into_iter()
        .all(has);
        (complete && proc == diag).then_some(proc)
    });
    let of = |state| seen.iter().filter(|known| known.state == state).collect::<Vec<_>>();
    assert!(
        of(State::Listen).iter().any(|known| known.local == address && known.recv_q == 1)
    );
    assert!(of(State::Established).iter().any(|known| known.recv_q == 5));
    assert!(seen.iter().any(|known| {
        known.is_v6
            && matches!(known.local.ip(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
    }));
    assert!(seen.iter().any(|known| known.timer == Some(("Keepalive".into(), 0))));
    drop((listener, accepted, dual, mapped, clients, queued));
}

#[test]
fn udp_sockets_are_as_sock_diag_has_them() {
    let at = loopback();
    let server = UdpSocket::bind((at, 0)).unwrap();
    let client = UdpSocket::bind((at, 0)).unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    client.send(b"x").unwrap();
    let port = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let v6_port = port.local_addr().unwrap().port();
    let (proc, diag) = wait_for("the datagram to be in the queue", || {
        let (proc, diag) = both_sources(Kind::Udp, DiagProtocol::UDP, |ip, its_port| {
            ip == at || its_port == v6_port && ip.is_ipv6()
        });
        (proc == diag && proc.iter().any(|known| known.recv_q > 0))
            .then_some((proc, diag))
    });
    assert_eq!((proc.len(), proc == diag), (3, true), "{proc:?}");
    let rows = live(Tables::UDP);
    let server = rows.iter().find(|row| row.inode == inode(&server)).unwrap();
    assert_eq!((server.drops, server.state), (Some(0), State::Close));
}

#[test]
fn raw_and_ping_sockets_are_read_that_this_kernel_may_have_no_diag_module_of() {
    let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(253))) else {
        return skip("no right to make raw sockets");
    };
    let raw6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(253))).unwrap();
    let rows = live(Tables::RAW);
    let of =
        |socket: &Socket| rows.iter().find(|row| row.inode == inode(socket)).unwrap();
    for (socket, is_v6) in [(&raw, false), (&raw6, true)] {
        let row = of(socket);
        assert_eq!((row.kind, row.state, row.is_v6), (Kind::Raw, State::Close, is_v6));
        assert_eq!(row.local.inet().unwrap().port(), 253, "its protocol");
    }
}

#[test]
fn ping_sockets_have_their_echo_identifier() {
    let name =
        "sockets::source::proc::tests::live::ping_sockets_have_their_echo_identifier";
    let Some(netns) = new_netns_or_rerun(name) else { return };
    let seen = netns.run(|| {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
        let ping = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
        let any: SocketAddr = ([0, 0, 0, 0], 777).into();
        ping.bind(&any.into())?;
        Ok::<_, io::Error>((live(Tables::RAW), inode(&ping)))
    });
    let (rows, inode) = match seen.unwrap() {
        Ok(seen) => seen,
        Err(error) => return skip(&format!("no ping sockets: {error}")),
    };
    let [row] = rows.as_slice() else { panic!("one socket, not {rows:?}") };
    assert_eq!((row.kind, row.inode), (Kind::Icmp, inode));
    assert_eq!(row.local.inet().unwrap().port(), 777);
}

#[test]
fn unix_sockets_are_as_sock_diag_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a \n b\u{1b}[2J");
    let listener = UnixListener::bind(&path).unwrap();
    let accepted_client = UnixStream::connect(&path).unwrap();
    let accepted = listener.accept().unwrap().0;
    let queued = UnixStream::connect(&path).unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let packets = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let name = format!("\0sockscope {}", std::process::id());
    packets.bind(&SockAddr::unix(name.clone()).unwrap()).unwrap();
    packets.listen(1).unwrap();
    let ours: HashSet<Inode> = [
        inode(&listener),
        inode(&accepted_client),
        inode(&accepted),
        inode(&queued),
        inode(&datagram),
        inode(&packets),
    ]
    .into();
    let of_us = |inode: Inode, name: &Option<UnixName<'_>>| {
        let is_queued = !inode.exists()
            && name.as_ref().is_some_and(|name| {
                name.bytes().starts_with(folder.path().as_os_str().as_encoded_bytes())
            });
        ours.contains(&inode) || is_queued
    };
    let mut proc = Vec::new();
    for row in live(Tables::UNIX) {
        let Address::Unix { name, inode } = row.local.clone() else { panic!("{row:?}") };
        if of_us(inode, &name) {
            proc.push((inode, row.state, row.kind, name));
        }
    }
    let mut diag = Vec::new();
    let request = UnixRequest { states: States::ALL, show: Show::NAME };
    let mut sock_diag = SockDiag::open().unwrap();
    let dumped = sock_diag.unix(&request, |row| {
        let kind = match row.kind {
            UnixKind::Stream => Kind::UnixStream,
            UnixKind::Datagram => Kind::UnixDatagram,
            UnixKind::SeqPacket => Kind::UnixSeqPacket,
            UnixKind::Unknown(_) => Kind::Family(1),
        };
        let name = row.name.clone().map(UnixName::into_owned);
        if of_us(row.inode, &name) {
            diag.push((row.inode, row.state, kind, name));
        }
    });
    dumped.unwrap();
    proc.sort_unstable();
    diag.sort_unstable();
    let waits = proc.remove(0);
    assert!(!waits.0.exists() && waits.1 == State::Established, "{waits:?}");
    assert_eq!(proc, diag, "sock_diag leaves out what has no inode");
    assert_eq!(proc.len(), 6);
    let states: Vec<State> = proc.iter().map(|row| row.1).collect();
    assert_eq!(states.iter().filter(|state| **state == State::Listen).count(), 2);
}

#[test]
fn the_type_of_unix_sockets_is_selected() {
    let datagram = UnixDatagram::unbound().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let has = |tables, socket: Inode| live(tables).iter().any(|row| row.inode == socket);
    assert!(has(Tables::UNIX_DATAGRAM, inode(&datagram)));
    assert!(!has(Tables::UNIX_STREAM, inode(&datagram)));
    assert!(has(Tables::UNIX_STREAM, inode(&stream)));
    assert!(!has(Tables::UNIX_DATAGRAM | Tables::UNIX_SEQPACKET, inode(&stream)));
}

#[test]
fn netlink_and_packet_sockets_are_read() {
    use rustix::net::{AddressFamily, SocketType, netlink};
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None);
    let socket = socket.unwrap();
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0)).unwrap();
    let rows = live(Tables::NETLINK);
    let row = rows.iter().find(|row| row.inode == inode(&socket)).unwrap();
    let Address::Netlink { family: 0, port } = row.local else { panic!("{row:?}") };
    assert!(port != 0 && row.kind == Kind::Netlink);

    let packet = Socket::new(Domain::PACKET, Type::DGRAM, None);
    let Ok(packet) = packet else { return skip("no right to make packet sockets") };
    let rows = live(Tables::PACKET);
    let row = rows.iter().find(|row| row.inode == inode(&packet)).unwrap();
    assert_eq!(row.kind, Kind::PacketDatagram);
    assert_eq!(row.local, Address::Packet { protocol: 0, interface: 0 });
}

#[test]
fn the_namespace_is_that_of_the_calling_thread() {
    let name =
        "sockets::source::proc::tests::live::the_namespace_is_that_of_the_calling_thread";
    let Some(netns) = new_netns_or_rerun(name) else { return };
    let inside = netns.run(|| {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        (live(Tables::TCP), inode(&listener))
    });
    let (rows, listener) = inside.unwrap();
    assert_eq!(inodes(&rows), [listener.0]);
    assert!(live(Tables::TCP).iter().all(|row| row.inode != listener));
}

/// The kernel would count from the beginning for the end of file, and give again what
/// the new sockets moved behind the place where it stopped.
#[test]
fn sockets_that_come_while_the_last_page_is_read_move_no_row_to_its_end() {
    let name = "sockets::source::proc::tests::live::\
                sockets_that_come_while_the_last_page_is_read_move_no_row_to_its_end";
    let Some(netns) = new_netns_or_rerun(name) else { return };
    let (before, given) = netns
        .run(|| {
            let listen = || TcpListener::bind("0.0.0.0:0").unwrap();
            let old: Vec<TcpListener> = (0..10).map(|_| listen()).collect();
            let mut new = Vec::new();
            let mut given = Vec::new();
            let mut source = ProcSource::new(ProcRoot::default());
            let wanted = selection(Tables::TCP);
            let passed = source.rows(&wanted, &mut |row| {
                if new.is_empty() {
                    new.extend((0..12).map(|_| listen()));
                }
                given.push(row.inode);
                ControlFlow::Continue(())
            });
            passed.unwrap();
            given.sort_unstable();
            let mut before: Vec<Inode> = old.iter().map(inode).collect();
            before.sort_unstable();
            (before, given)
        })
        .unwrap();
    assert_eq!(given, before, "those of the page that was read, and no others");
}

/// Tells other threads to end, however this one does.
struct StopsAtLast<'a>(&'a AtomicBool);

impl Drop for StopsAtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_row_comes_twice_while_thousands_of_connections_come_and_go() {
    let at = loopback();
    let (listener, address) = listen(at, 1024);
    let stable = connect(300, address);
    let accepted: Vec<Socket> = (0..300).map(|_| listener.accept().unwrap().0).collect();
    listener.set_nonblocking(true).unwrap();
    let (stop, made) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let _stops = StopsAtLast(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let client = TcpStream::connect(address);
                    while let Ok((server, _)) = listener.accept() {
                        // RST: no TIME_WAIT is left behind.
                        server.set_linger(Some(std::time::Duration::ZERO)).unwrap();
                    }
                    made.fetch_add(1, Ordering::Relaxed);
                    drop(client);
                }
            });
        }
        for _ in 0..8 {
            let mut seen: BTreeMap<Inode, u32> = BTreeMap::new();
            let mut pairs: BTreeMap<(SocketAddr, SocketAddr, u8), u32> = BTreeMap::new();
            for row in live(Tables::TCP) {
                let (Some(local), Some(remote)) = (row.local.inet(), row.remote.inet())
                else {
                    panic!("{row:?}")
                };
                if local.ip() != at {
                    continue;
                }
                if row.inode.exists() {
                    *seen.entry(row.inode).or_default() += 1;
                } else {
                    *pairs.entry((local, remote, row.state.raw())).or_default() += 1;
                }
            }
            let twice = seen.values().chain(pairs.values()).filter(|n| **n > 1).count();
            assert_eq!(twice, 0, "{seen:?} {pairs:?}");
        }
    });
    assert!(made.into_inner() > 100, "something came and went");
    drop((stable, accepted));
}
