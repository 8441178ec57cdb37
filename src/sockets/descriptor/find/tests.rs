use super::*;
use crate::sockets::descriptor::look_at;
use crate::sockets::testing::*;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

fn found(socket: &impl AsRawFd) -> Found {
    let (pid, fd) = (std::process::id(), socket.as_raw_fd().unsigned_abs());
    let name = DescriptorName { pid, tid: pid, fd };
    let root = Path::new("/proc");
    find(root, name, &look_at(root, name).unwrap()).unwrap()
}

/// Whether this process is among the owners of a socket by a descriptor.
fn owns(found: &Found, inode: Inode, socket: &impl AsRawFd) -> bool {
    let (pid, fd) = (std::process::id(), socket.as_raw_fd().unsigned_abs());
    found.owners.owners(inode).any(|owner| (owner.pid, owner.fd) == (pid, fd))
}

#[test]
fn a_connection_is_found_with_its_peer_and_the_owners_of_both() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let found = found(&client);
    assert_eq!(found.in_table, InTable::Yes);
    assert_eq!(found.row.state, State::Established);
    assert!(found.row.extra.as_deref().unwrap().tcp_info.is_some());
    assert_eq!(found.peer, Some(inode(&server)));
    assert!(owns(&found, inode(&client), &client), "{:?}", found.owners);
    assert!(owns(&found, inode(&server), &server), "{:?}", found.owners);
    assert!(found.netns.is_none());
}

#[test]
fn the_peer_of_a_v4_mapped_connection_is_found_from_both_ends() {
    let (listener, address) = listen(Ipv6Addr::UNSPECIFIED, 5);
    let to = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, address.port()));
    let client = TcpStream::connect(to).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert_eq!(found(&client).peer, Some(inode(&server)));
    assert_eq!(found(&server).peer, Some(inode(&client)));
}

#[test]
fn a_listener_is_not_taken_for_the_peer_of_a_connection() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let row = Row {
        local: Address::Inet(SocketAddr::from((loopback(), 9))),
        remote: Address::Inet(listener.local_addr().unwrap()),
        cookie: Some(Cookie(1)),
        ..Row::new(Kind::Tcp, State::CloseWait)
    };
    assert_eq!(peer(&row), None);
}

#[test]
fn a_unix_socket_is_found_with_its_peer() {
    let (one, other) = UnixStream::pair().unwrap();
    let found = found(&one);
    assert_eq!((found.row.kind, found.row.state), (Kind::UnixStream, State::Established));
    assert_eq!(found.peer, Some(inode(&other)));
    assert!(owns(&found, inode(&other), &other));
}

#[test]
fn a_socket_that_was_only_made_is_in_no_table() {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    let found = found(&socket);
    let may_ask = Netns::of_socket(&socket).is_ok();
    let expected = if may_ask { InTable::No } else { InTable::NotHere };
    assert_eq!(found.in_table, expected);
    assert_eq!((found.row.kind, found.row.is_v6), (Kind::Tcp, true));
    assert!(owns(&found, inode(&socket), &socket));
}

#[test]
fn a_socket_is_found_in_the_namespace_that_it_was_made_in() {
    let test = "sockets::descriptor::find::tests::a_socket_is_found_in_the_namespace_that_\
                it_was_made_in";
    let Some(netns) = new_netns_or_rerun(test) else { return };
    let there = netns.inode().unwrap();
    let bound = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
        socket
    };
    let socket = netns.run(bound).unwrap();
    let found = found(&socket);
    assert_eq!((&found.in_table, found.row.kind), (&InTable::Yes, Kind::Udp));
    assert_eq!(found.netns.unwrap().inode().unwrap(), there);
}

#[test]
fn a_socket_whose_protocol_has_no_table_is_not_called_unbound() {
    let Ok(vsock) = Socket::new(Domain::VSOCK, Type::STREAM, None) else {
        return skip("no vsock");
    };
    assert_eq!(found(&vsock).in_table, InTable::NoTable);
}
