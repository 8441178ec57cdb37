use super::*;
use crate::kernel::tcp_info::TcpInfo;
use crate::sockets::listeners;
use crate::sockets::testing::*;
use socket2::Protocol;
use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use tempfile::TempDir;

fn counts(side: ServerSide) -> [u64; 4] {
    [side.accepted, side.queued, side.deferred, side.closing]
}

fn everyone(diag: &mut SockDiag, target: SocketAddr, family: Family) -> ServerSide {
    server_side(diag, target, family, |_| true).unwrap()
}

fn wait_for_counts(target: SocketAddr, family: Family, expected: [u64; 4]) {
    let mut diag = SockDiag::open().unwrap();
    wait_for("accepted, queued, deferred, closing as expected", || {
        (counts(everyone(&mut diag, target, family)) == expected).then_some(())
    });
}

#[test]
fn what_waits_in_the_queue_is_not_counted_as_accepted() {
    let (listener, target) = listen(loopback(), 8);
    let _clients = connect(5, target);
    let mut diag = SockDiag::open().unwrap();
    assert_eq!(counts(everyone(&mut diag, target, Family::V4)), [0, 5, 0, 0]);
    let _taken: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
    assert_eq!(counts(everyone(&mut diag, target, Family::V4)), [2, 3, 0, 0]);
}

#[test]
fn ipv6_and_v4_mapped_connections_are_found_in_the_v6_table() {
    let (listener, bound) = listen(Ipv6Addr::UNSPECIFIED, 8);
    let v4_address = loopback();
    let v4: SocketAddr = (v4_address, bound.port()).into();
    let v6: SocketAddr = (Ipv6Addr::LOCALHOST, bound.port()).into();
    let _clients = (connect(3, v4), connect(2, v6));
    let _taken = listener.accept().unwrap();
    let mut diag = SockDiag::open().unwrap();
    assert_eq!(counts(everyone(&mut diag, v4, Family::V6)), [1, 2, 0, 0]);
    assert_eq!(counts(everyone(&mut diag, v6, Family::V6)), [0, 2, 0, 0]);
    let mapped = SocketAddr::from((v4_address.to_ipv6_mapped(), bound.port()));
    assert_eq!(counts(everyone(&mut diag, mapped, Family::V6)), [1, 2, 0, 0]);
}

#[test]
fn closed_by_the_client_while_queued_still_fills_the_queue() {
    let (_listener, target) = listen(loopback(), 8);
    let clients = connect(2, target);
    clients[0].shutdown(Shutdown::Both).unwrap();
    let mut diag = SockDiag::open().unwrap();
    wait_for("CLOSE_WAIT", || {
        let mut states = Vec::new();
        server_rows(&mut diag, target, Family::V4, |row| {
            assert_eq!((row.standing, row.inode), (Standing::Queued, Inode(0)));
            states.push(row.state);
        })
        .unwrap();
        states.contains(&State::CloseWait).then_some(())
    });
    assert_eq!(counts(everyone(&mut diag, target, Family::V4)), [0, 2, 0, 0]);
    let listening = listeners::inet(&mut diag).unwrap();
    assert_eq!(listeners::answering(&listening, target)[0].queue_len, 2);
}

#[test]
fn accepted_and_closed_by_either_end_is_neither_accepted_nor_queued() {
    let (listener, target) = listen(loopback(), 8);
    let clients = connect(3, target);
    let mut taken: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
    // FIN_WAIT2 without an inode.
    drop(taken.pop());
    wait_for_counts(target, Family::V4, [2, 0, 0, 1]);
    // CLOSE_WAIT with an inode.
    clients[0].shutdown(Shutdown::Write).unwrap();
    wait_for_counts(target, Family::V4, [1, 0, 0, 2]);
}

#[test]
fn a_server_that_waits_for_a_byte_has_its_connections_deferred() {
    for at in [IpAddr::from(loopback()), Ipv6Addr::UNSPECIFIED.into()] {
        let (listener, bound) = listen(at, 8);
        crate::kernel::defer::set_defer_accept(&listener, 30).unwrap();
        let to = if at.is_ipv4() { at } else { loopback().into() };
        let target = SocketAddr::from((to, bound.port()));
        let mut clients = connect(2, target);
        let family = Family::of(bound);
        wait_for_counts(target, family, [0, 0, 2, 0]);
        clients[0].write_all(b"x").unwrap();
        wait_for_counts(target, family, [0, 1, 1, 0]);
    }
}

#[test]
fn connections_of_others_and_of_other_addresses_are_kept_apart() {
    let (listener, bound) = listen(Ipv4Addr::UNSPECIFIED, 16);
    let one = SocketAddr::from((loopback(), bound.port()));
    let two = SocketAddr::from((loopback(), bound.port()));
    let ours = connect(2, one);
    let _theirs = connect(3, one);
    let _elsewhere = connect(4, two);
    let _taken = listener.accept().unwrap();
    let ours: HashSet<SocketAddr> =
        ours.iter().map(|client| client.local_addr().unwrap()).collect();
    let mut diag = SockDiag::open().unwrap();
    let side =
        server_side(&mut diag, one, Family::V4, |remote| ours.contains(&remote)).unwrap();
    assert_eq!(side.others, 3);
    assert_eq!(side.accepted + side.queued, 2);
}

#[test]
fn a_row_pairs_a_client_with_the_inode_that_the_server_has() {
    let (listener, target) = listen(loopback(), 8);
    let client = TcpStream::connect(target).unwrap();
    let (server, _) = listener.accept().unwrap();
    let mut rows = Vec::new();
    let mut diag = SockDiag::open().unwrap();
    server_rows(&mut diag, target, Family::V4, |row| rows.push(*row)).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].remote, client.local_addr().unwrap());
    assert_eq!(rows[0].local, target);
    assert_eq!(rows[0].inode, inode(&server));
    assert_eq!(rows[0].cookie.0, server.cookie().unwrap());
    assert_eq!(TcpInfo::of(&server).unwrap().state, rows[0].state.raw());
}

#[test]
fn mptcp_is_counted_by_its_subflows() {
    let Ok((listener, target)) = listen_as(Protocol::MPTCP, loopback().into(), 8) else {
        return skip("this kernel has no MPTCP");
    };
    let dial = || {
        let client = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(Protocol::MPTCP),
        )
        .unwrap();
        client.connect(&target.into()).unwrap();
        client
    };
    let _clients: Vec<_> = (0..3).map(|_| dial()).collect();
    let _taken = listener.accept().unwrap();
    wait_for_counts(target, Family::V4, [1, 2, 0, 0]);
}

fn unix_fixture(backlog: i32) -> (TempDir, std::path::PathBuf, UnixListener) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s");
    let listener =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(backlog).unwrap();
    (folder, path, listener.into())
}

fn unix_listener(diag: &mut SockDiag, path: &std::path::Path) -> Listener {
    let all = listeners::unix(diag).unwrap();
    let target = listeners::UnixTarget::path(path).unwrap();
    listeners::answering_unix(&all, &target)[0].clone()
}

#[test]
fn unix_connections_are_accepted_queued_or_closed() {
    let (_folder, path, listener) = unix_fixture(2);
    let mut clients: Vec<_> =
        (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let ours: HashSet<Inode> = clients.iter().map(inode).collect();
    let mut diag = SockDiag::open().unwrap();
    let full = unix_listener(&mut diag, &path);
    assert_eq!((full.queue_len, full.backlog, full.is_full()), (3, 2, true));
    let mut pairs = HashMap::new();
    let mut look = |diag: &mut SockDiag, ours: &HashSet<Inode>| {
        pairs.clear();
        let side = server_side_unix(diag, &full, ours, |client, server| {
            assert_eq!(pairs.insert(client, server), None);
        })
        .unwrap();
        (counts(side), side.others, pairs.clone())
    };
    assert_eq!(look(&mut diag, &ours), ([0, 3, 0, 0], 0, HashMap::new()));

    let (first, _) = listener.accept().unwrap();
    let pair = HashMap::from([(inode(&clients[0]), inode(&first))]);
    assert_eq!(look(&mut diag, &ours), ([1, 2, 0, 0], 0, pair));

    let theirs = UnixStream::connect(&path).unwrap();
    let (_second, _) = listener.accept().unwrap();
    let (third, _) = listener.accept().unwrap();
    let (_fourth, _) = listener.accept().unwrap();
    assert_eq!(look(&mut diag, &ours).1, 1, "one of another client");
    drop(third);
    assert_eq!(look(&mut diag, &ours).0, [2, 0, 0, 1]);
    drop(theirs);

    // Closed by the client while it waits: it holds a place in the queue all the same.
    let gone = UnixStream::connect(&path).unwrap();
    drop(gone);
    assert_eq!(unix_listener(&mut diag, &path).queue_len, 1);
    // What waits when its listener closes is closed too, not queued.
    clients.push(UnixStream::connect(&path).unwrap());
    drop(listener);
    let last = HashSet::from([inode(&clients[3])]);
    assert_eq!(look(&mut diag, &last).0, [0, 0, 0, 1]);
}
