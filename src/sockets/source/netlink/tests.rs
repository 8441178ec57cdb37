use super::*;
use crate::sockets::select::Versions;
use crate::sockets::testing::*;
use socket2::{Domain, Protocol as Ipproto, SockAddr, Socket, Type};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::unix::net::{UnixDatagram, UnixStream};

fn selection(tables: Tables) -> Selection {
    let details = Details { unix_peers: true, ..Details::default() };
    Selection {
        tables,
        versions: Versions::BOTH,
        states: States::ALL,
        details,
        program: None,
    }
}

fn rows(
    source: &mut NetlinkSource,
    selection: &Selection,
    wanted: impl Fn(&Row<'_>) -> bool,
) -> Vec<Row<'static>> {
    let mut found = Vec::new();
    let passed = source.rows(selection, &mut |row| {
        if wanted(&row) {
            found.push(row.into_owned());
        }
        ControlFlow::Continue(())
    });
    assert!(!passed.unwrap().interrupted);
    found
}

fn cookie(socket: &Socket) -> Option<Cookie> {
    Some(Cookie(socket.cookie().unwrap()))
}

fn of_port(port: u16) -> impl Fn(&Row<'_>) -> bool {
    move |row| {
        let port_is =
            |address: &Address<'_>| address.inet().map(|a| a.port()) == Some(port);
        port_is(&row.local) || port_is(&row.remote)
    }
}

#[test]
fn tcp_of_both_families_is_read_in_one_walk_and_by_itself_alike() {
    let test = "sockets::source::netlink::tests::tcp_of_both_families_is_read_in_one_\
                walk_and_by_itself_alike";
    let Some(netns) = new_netns_or_rerun(test) else { return };
    let (mut source, sockets) = netns
        .run(|| {
            let mut sockets = Vec::new();
            for ip in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
                for listens in [true, false, true] {
                    let domain = Domain::for_address((ip, 0).into());
                    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
                    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
                    if listens {
                        socket.listen(1).unwrap();
                    }
                    sockets.push(socket);
                }
            }
            (NetlinkSource::open().unwrap(), sockets)
        })
        .unwrap();
    let mut cookies: Vec<_> = sockets.iter().map(cookie).collect();
    cookies.sort_unstable();
    let mut seen = |v4: bool, v6: bool| {
        let versions = Versions { v4, v6 };
        let asked = Selection { versions, ..selection(Tables::TCP) };
        let rows = rows(&mut source, &asked, |_| true);
        assert!(rows.iter().all(|row| row.is_v6 == row.local.inet().unwrap().is_ipv6()));
        let mut seen: Vec<_> = rows.iter().map(|row| row.cookie).collect();
        seen.sort_unstable();
        seen
    };
    let both = seen(true, true);
    assert_eq!(both, cookies);
    let mut apart = [seen(true, false), seen(false, true)].concat();
    apart.sort_unstable();
    assert_eq!(both, apart);
}

#[test]
fn an_mptcp_connection_is_one_socket_accepted_or_not() {
    let mptcp = |ip: IpAddr| listen_as(Ipproto::MPTCP, ip, 5);
    for ip in [IpAddr::V4(loopback()), Ipv6Addr::UNSPECIFIED.into()] {
        let Ok((listener, address)) = mptcp(ip) else { return skip("no MPTCP here") };
        let to = SocketAddr::from((loopback_for(ip), address.port()));
        let client =
            Socket::new(Domain::IPV4, Type::STREAM, Some(Ipproto::MPTCP)).unwrap();
        client.connect(&to.into()).unwrap();
        let plain = TcpStream::connect(to).unwrap();
        let mut source = NetlinkSource::open().unwrap();
        let mut kinds = |tables| {
            let found = rows(&mut source, &selection(tables), of_port(address.port()));
            let mut kinds: Vec<_> = found.iter().map(|r| (r.kind, r.state)).collect();
            kinds.sort_unstable();
            kinds
        };
        let (one, listens) = (State::Established, State::Listen);
        let once = [
            (Kind::Tcp, one),
            (Kind::Tcp, one),
            (Kind::Mptcp, one),
            (Kind::Mptcp, one),
            (Kind::Mptcp, listens),
        ];
        let both = Tables::TCP | Tables::MPTCP;
        wait_for("the queued connections", || (kinds(both) == once).then_some(()));
        let accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
        assert_eq!(kinds(both), once);
        // By themselves the subflows are what TCP's table has.
        assert_eq!(
            kinds(Tables::TCP),
            [[(Kind::Tcp, one); 4].as_slice(), &[(Kind::Tcp, listens)]].concat()
        );
        drop((accepted, plain));
    }
}

/// Where a listener at `ip` is dialed by IPv4.
fn loopback_for(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { ip } else { loopback().into() }
}

#[test]
fn a_unix_listener_counts_who_waits_and_its_client_has_a_peer_of_no_inode() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Type::STREAM, Type::SEQPACKET] {
        let address = SockAddr::unix(folder.path().join(format!("{kind:?}"))).unwrap();
        let listener = Socket::new(Domain::UNIX, kind, None).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(7).unwrap();
        let client = Socket::new(Domain::UNIX, kind, None).unwrap();
        client.connect(&address).unwrap();
        let mut source = NetlinkSource::open().unwrap();
        let mut look = |socket: &Socket| {
            let wanted = cookie(socket);
            let found =
                rows(&mut source, &selection(Tables::UNIX), |row| row.cookie == wanted);
            found.into_iter().next().unwrap()
        };
        let queue = look(&listener);
        assert_eq!(
            (queue.state, queue.recv_q, queue.send_q),
            (State::Listen, 1, Some(7))
        );
        let waiting = look(&client);
        assert_eq!((waiting.state, waiting.is_queued()), (State::Established, false));
        assert_eq!(waiting.remote, Address::Unix { name: None, inode: Inode(0) });
        let accepted = listener.accept().unwrap().0;
        let (served, client) = (look(&accepted), look(&client));
        assert_eq!((served.kind, look(&listener).recv_q), (client.kind, 0));
        let name = address.as_pathname().unwrap().to_str().unwrap().to_owned();
        match client.remote {
            Address::Unix { name: Some(peer), inode } => {
                assert_eq!((peer.to_string(), inode), (name, served.inode));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sockets_that_are_still_there_are_found_again_and_closed_ones_are_not() {
    let ip = loopback();
    let reuse = |kind: Type| {
        let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket
    };
    let mut sockets = Vec::new();
    for kind in [Type::STREAM, Type::DGRAM] {
        let first = reuse(kind);
        first.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
        let address = first.local_addr().unwrap();
        sockets.push(first);
        for _ in 0..3 {
            let again = reuse(kind);
            again.bind(&address).unwrap();
            sockets.push(again);
        }
    }
    for tcp in &sockets[..3] {
        tcp.listen(1).unwrap();
    }
    let to = sockets[0].local_addr().unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.connect(&to).unwrap();
    let udp = UdpSocket::bind((ip, 0)).unwrap();
    udp.connect(sockets[4].local_addr().unwrap().as_socket().unwrap()).unwrap();
    sockets.extend([client, udp.into()]);
    if let Ok((listener, at)) = listen_as(Ipproto::MPTCP, ip.into(), 3) {
        let client =
            Socket::new(Domain::IPV4, Type::STREAM, Some(Ipproto::MPTCP)).unwrap();
        client.connect(&at.into()).unwrap();
        sockets.extend([listener, client]);
    }
    sockets.push(UnixDatagram::unbound().unwrap().into());

    let mut source = NetlinkSource::open().unwrap();
    let wanted: Vec<_> = sockets.iter().map(cookie).collect();
    let asked = selection(Tables::INET | Tables::UNIX);
    let rows = rows(&mut source, &asked, |row| wanted.contains(&row.cookie));
    assert_eq!(rows.len(), sockets.len(), "{rows:#?}");
    for row in &rows {
        assert_eq!(source.still_has(row), Some(true), "{row:?}");
    }
    drop(sockets);
    for row in &rows {
        // A closed connection's end may be in TIME_WAIT for a while, as itself.
        let gone = |source: &mut NetlinkSource| source.still_has(row) == Some(false);
        let stays = matches!(row.kind, Kind::Tcp | Kind::Mptcp)
            && row.state == State::Established;
        assert!(stays || gone(&mut source), "{row:?}");
    }
}

#[test]
fn rows_end_where_they_are_told_to_in_any_table() {
    let test = "sockets::source::netlink::tests::rows_end_where_they_are_told_to_in_any_\
                table";
    // Nobody else makes or closes sockets there.
    let Some(netns) = new_netns_or_rerun(test) else { return };
    let (mut source, _sockets) = netns
        .run(|| {
            let udp = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            let tcp = TcpListener::bind(("::", 0)).unwrap();
            let unix = UnixStream::pair().unwrap();
            (NetlinkSource::open().unwrap(), (udp, tcp, unix))
        })
        .unwrap();
    let all = rows(&mut source, &selection(Tables::ALL), |_| true).len();
    assert!(all >= 6, "{all}");
    for stop in 1..=all {
        let mut seen = 0;
        source
            .rows(&selection(Tables::ALL), &mut |_| {
                seen += 1;
                if seen < stop {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .unwrap();
        assert_eq!(seen, stop);
    }
}
