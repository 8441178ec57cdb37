use super::*;
use crate::sockets::select::Details;
use crate::sockets::testing::*;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

const MPTCP: Protocol = Protocol::MPTCP;

/// The rows of these sockets that a table has, with what [`can_be_closed`] needs.
fn rows_in(source: &mut NetlinkSource, sockets: &[&dyn AsFd]) -> Vec<Row<'static>> {
    let wanted: Vec<_> = sockets.iter().map(|socket| inode(socket.as_fd())).collect();
    let selection = Selection {
        tables: Tables::TCP | Tables::UDP,
        details: Details { tcp_info: true, ..Details::default() },
        ..Selection::everything()
    };
    let mut found = Vec::new();
    source
        .rows(&selection, &mut |row| {
            if wanted.contains(&row.inode) {
                found.push(row.into_owned());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    found.sort_by_key(|row| wanted.iter().position(|inode| *inode == row.inode));
    found
}

/// The same, of sockets that are all there.
fn rows_of(source: &mut NetlinkSource, sockets: &[&dyn AsFd]) -> Vec<Row<'static>> {
    let found = rows_in(source, sockets);
    assert_eq!(found.len(), sockets.len(), "{found:?}");
    found
}

fn listens(source: &mut NetlinkSource, socket: &dyn AsFd) -> bool {
    rows_in(source, &[socket]).iter().any(|row| row.state == State::Listen)
}

/// None, after a printed line, where this user may close nothing.
fn closed(source: &mut NetlinkSource, rows: &[Row<'_>]) -> Option<Vec<Outcome>> {
    match close_all(source, rows) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            skip("closing sockets needs CAP_NET_ADMIN");
            None
        }
        done => Some(done.unwrap()),
    }
}

/// `wanted` sockets bound to one address and port, as SO_REUSEPORT allows.
fn group(kind: Type, wanted: usize) -> Vec<Socket> {
    let mut address = std::net::SocketAddr::from((loopback(), 0));
    let one = |_| {
        let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        if kind == Type::STREAM {
            socket.listen(5).unwrap();
        }
        socket
    };
    (0..wanted).map(one).collect()
}

#[test]
fn a_connection_is_closed_and_both_ends_hear_of_it() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut source = NetlinkSource::open().unwrap();
    let rows = rows_of(&mut source, &[&server]);
    assert!(can_be_closed(&rows[0]));
    let Some(outcomes) = closed(&mut source, &rows) else { return };
    assert!(matches!(outcomes[..], [Outcome::Closed]), "{outcomes:?}");
    let aborted = server.read(&mut [0]).unwrap_err();
    assert_eq!(aborted.kind(), ErrorKind::ConnectionAborted);
    let reset = client.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let again = closed(&mut source, &rows).unwrap();
    assert!(matches!(again[..], [Outcome::Gone]), "{again:?}");
}

#[test]
fn a_successor_on_the_same_four_tuple_is_not_hit() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let from = std::net::SocketAddr::from((loopback(), 40_000));
    let dial = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&at.into()).unwrap();
        (TcpStream::from(socket), listener.accept().unwrap().0)
    };
    let mut source = NetlinkSource::open().unwrap();
    let (client, server) = dial();
    let rows = rows_of(&mut source, &[&client]);
    // A reset leaves no TIME_WAIT that would keep the addresses.
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop((client, server));
    let (successor, _its_server) = dial();
    let its = rows_of(&mut source, &[&successor]);
    assert_eq!((&its[0].local, &its[0].remote), (&rows[0].local, &rows[0].remote));
    let Some(outcomes) = closed(&mut source, &rows) else { return };
    assert!(matches!(outcomes[..], [Outcome::Gone]), "{outcomes:?}");
    assert_eq!(rows_of(&mut source, &[&successor])[0].state, State::Established);
}

#[test]
fn a_udp_socket_that_keeps_its_port_is_not_called_closed() {
    let bound = UdpSocket::bind((loopback(), 0)).unwrap();
    let at = bound.local_addr().unwrap();
    // Of a port that was asked for; port 0 asks for none.
    drop(bound);
    let bound = UdpSocket::bind(at).unwrap();
    let connected = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    connected.connect(at).unwrap();
    let mut source = NetlinkSource::open().unwrap();
    let rows = rows_of(&mut source, &[&bound, &connected]);
    let Some(outcomes) = closed(&mut source, &rows) else { return };
    assert!(
        matches!(outcomes[..], [Outcome::Open(Why::StaysBound), Outcome::Closed]),
        "{outcomes:?}"
    );
    let heard = bound.recv(&mut [0]).unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::ConnectionAborted);
    UdpSocket::bind((loopback(), 0)).unwrap().send_to(b"x", at).unwrap();
    assert_eq!(bound.recv(&mut [0]).unwrap(), 1, "it goes on");
}

#[test]
fn every_listener_of_a_reuseport_group_is_closed() {
    let listeners = group(Type::STREAM, 12);
    let mut source = NetlinkSource::open().unwrap();
    let sockets: Vec<&dyn AsFd> = listeners.iter().map(|one| one as &dyn AsFd).collect();
    let rows = rows_of(&mut source, &sockets);
    let Some(outcomes) = closed(&mut source, &rows) else { return };
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Closed)),
        "{outcomes:?}"
    );
    let left: Vec<_> =
        listeners.iter().map(|listener| listens(&mut source, listener)).collect();
    assert_eq!(left, [false; 12]);
}

#[test]
fn of_a_reuseport_group_the_one_that_is_meant_is_closed() {
    let listeners = group(Type::STREAM, 8);
    let mut source = NetlinkSource::open().unwrap();
    let rows = rows_of(&mut source, &[&listeners[5]]);
    let Some(outcomes) = closed(&mut source, &rows) else { return };
    assert!(matches!(outcomes[..], [Outcome::Closed]), "{outcomes:?}");
    for (place, listener) in listeners.iter().enumerate() {
        assert_eq!(listens(&mut source, listener), place != 5, "{place}");
    }
}

#[test]
fn mptcp_and_what_is_only_bound_are_left_alone() {
    let Ok((listener, address)) = listen_as(MPTCP, loopback().into(), 5) else {
        return skip("no MPTCP");
    };
    let client = Socket::new(Domain::IPV4, Type::STREAM, Some(MPTCP)).unwrap();
    client.connect(&address.into()).unwrap();
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&std::net::SocketAddr::from((loopback(), 0)).into()).unwrap();
    let mut source = NetlinkSource::open().unwrap();
    for row in rows_of(&mut source, &[&listener, &client, &bound]) {
        assert!(!can_be_closed(&row), "{row:?}");
    }
}
