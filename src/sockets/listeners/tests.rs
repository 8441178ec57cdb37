use super::*;
use crate::sockets::testing::*;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};

fn find(diag: &mut SockDiag, target: SocketAddr) -> Listener {
    let all = inet(diag).unwrap();
    let found = answering(&all, target);
    assert_eq!(found.len(), 1, "{target}: {found:?}");
    found[0].clone()
}

#[test]
fn the_queue_admits_one_more_than_the_backlog_and_the_rest_wait() {
    for backlog in [0, 1, 5] {
        let (socket, target) = listen(loopback(), backlog);
        let backlog = u32::try_from(backlog).unwrap();
        let _dials: Vec<_> = (0..backlog + 4).map(|_| dial(target)).collect();
        let mut diag = SockDiag::open().unwrap();
        let listener = wait_for("a full queue", || {
            Some(find(&mut diag, target)).filter(Listener::is_full)
        });
        assert_eq!((listener.queue_len, listener.backlog), (backlog + 1, backlog));
        assert_eq!(listener.inode, inode(&socket));
        assert_eq!(listener.cookie.0, socket.cookie().unwrap());
        let request = InetRequest {
            remote_port: Some(target.port()),
            ..InetRequest::tcp(Family::V4, crate::sockets::model::State::SynSent.into())
        };
        let mut waiting = 0;
        diag.inet(&request, |row| waiting += u32::from(row.remote == target)).unwrap();
        assert_eq!(waiting, 3, "the others are in SYN_SENT");
    }
}

#[test]
fn drops_grow_at_the_listener_that_overflows_and_at_no_other() {
    let (_full, target) = listen(loopback(), 0);
    let (_idle, other) = listen(loopback(), 0);
    let mut diag = SockDiag::open().unwrap();
    let before = find(&mut diag, target).drops;
    let _dials: Vec<_> = (0..8).map(|_| dial(target)).collect();
    wait_for("drops", || (find(&mut diag, target).drops > before + 4).then_some(()));
    assert_eq!(find(&mut diag, other).drops, 0);
}

#[test]
fn a_listener_on_the_v6_wildcard_answers_ipv4_unless_it_is_v6_only() {
    let (_socket, bound) = listen(Ipv6Addr::UNSPECIFIED, 1);
    let mut diag = SockDiag::open().unwrap();
    let all = inet(&mut diag).unwrap();
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port()));
    let found = answering(&all, v4);
    assert_eq!((found.len(), &found[0].at), (1, &ListenAt::Inet(bound)));
    assert_eq!(found[0].family(), Some(Family::V6));
    let only: Vec<_> =
        found.into_iter().map(|one| Listener { v6_only: true, ..one.clone() }).collect();
    assert!(answering(&only, v4).is_empty());
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, bound.port()));
    assert_eq!(answering(&only, v6).len(), 1);
}

#[test]
fn the_kernel_agrees_on_which_listener_answers() {
    // An exact address, a v4-mapped one, and both wildcards, all on one port.
    let group = |at: SocketAddr| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        if at.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_port(true)?;
        socket.bind(&at.into())?;
        socket.listen(8)?;
        Ok::<_, io::Error>(socket)
    };
    let (exact, mapped, neither) = (loopback(), loopback(), loopback());
    // A port that is free at one address need not be so at all of them.
    let (port, sockets) = wait_for("a port that is free everywhere", || {
        let first = group((exact, 0).into()).ok()?;
        let port = first.local_addr().ok()?.as_socket()?.port();
        let others = [
            mapped.to_ipv6_mapped().into(),
            Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ];
        let mut sockets = vec![first];
        for at in others {
            sockets.push(group((at, port).into()).ok()?);
        }
        Some((port, sockets))
    });
    let mut diag = SockDiag::open().unwrap();
    let targets = [
        (IpAddr::from(exact), 0),
        (mapped.into(), 1),
        (neither.into(), 2),
        (Ipv6Addr::LOCALHOST.into(), 3),
    ];
    for (address, expected) in targets {
        let target = SocketAddr::from((address, port));
        let _client = connect(1, target);
        let predicted = find(&mut diag, target);
        assert_eq!(predicted.inode, inode(&sockets[expected]), "{target}");
        assert_eq!(predicted.queue_len, 1, "{target}");
    }
}

#[test]
fn all_of_an_so_reuseport_group_may_answer() {
    let at = loopback();
    let mut sockets = Vec::new();
    let mut port = 0;
    for _ in 0..3 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::from((at, port)).into()).unwrap();
        socket.listen(8).unwrap();
        port = socket.local_addr().unwrap().as_socket().unwrap().port();
        sockets.push(socket);
    }
    let target = SocketAddr::from((at, port));
    let mut diag = SockDiag::open().unwrap();
    let all = inet(&mut diag).unwrap();
    let mut group: Vec<_> = answering(&all, target).into_iter().cloned().collect();
    assert_eq!(group.len(), 3);
    let _clients = connect(6, target);
    assert_eq!(sample(&mut diag, &mut group).unwrap(), 3);
    assert_eq!(group.iter().map(|one| one.queue_len).sum::<u32>(), 6);
}

fn listener(at: &str, interface: u32) -> Listener {
    Listener {
        at: ListenAt::Inet(at.parse().unwrap()),
        backlog: 0,
        queue_len: 0,
        drops: 0,
        inode: Inode(1),
        cookie: Cookie(1),
        uid: 0,
        v6_only: false,
        interface,
    }
}

#[test]
fn an_interface_counts_where_the_target_says_which() {
    let all =
        [listener("0.0.0.0:80", 7), listener("0.0.0.0:80", 0), listener("[::]:80", 9)];
    let at = |target: &str| {
        answering(&all, target.parse().unwrap())
            .iter()
            .map(|one| one.interface)
            .collect::<Vec<_>>()
    };
    assert_eq!(at("127.0.0.1:80"), [0]);
    assert_eq!(at("192.0.2.1:80"), [7, 0]);
    assert_eq!(at("[fe80::1%9]:80"), [9]);
    assert!(at("[fe80::1%8]:80").is_empty());
    assert!(at("127.0.0.1:81").is_empty());
}

#[test]
fn a_sample_follows_the_queue_and_notices_the_end() {
    let (socket, target) = listen(loopback(), 4);
    let (v6_socket, bound) = listen(Ipv6Addr::UNSPECIFIED, 4);
    let (_mapped, mapped) = listen(loopback().to_ipv6_mapped(), 4);
    let mut diag = SockDiag::open().unwrap();
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, bound.port()));
    let mut known: Vec<_> =
        [target, v6, mapped].map(|at| find(&mut diag, at)).into_iter().collect();
    let _clients = (connect(3, target), connect(2, v6), connect(1, mapped));
    assert_eq!(sample(&mut diag, &mut known).unwrap(), 3);
    let queues: Vec<_> = known.iter().map(|one| one.queue_len).collect();
    assert_eq!(queues, [3, 2, 1]);
    // More than a few: by a dump.
    let _more: Vec<_> = (0..5).map(|_| listen(loopback(), 1)).collect();
    let mut all = inet(&mut diag).unwrap();
    all.retain(|one| answering(std::slice::from_ref(one), target).len() == 1);
    assert_eq!(all.len(), 1);
    drop((socket, v6_socket));
    wait_for("two are gone", || {
        (sample(&mut diag, &mut known).unwrap() == 1).then_some(())
    });
}

#[test]
fn a_unix_listener_is_found_by_its_file_whatever_path_leads_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let replaced = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let current = UnixListener::bind(&path).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut diag = SockDiag::open().unwrap();
    let all = unix(&mut diag).unwrap();
    for way in [&path, &link] {
        let found = answering_unix(&all, &UnixTarget::path(way).unwrap());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].inode, inode(&current));
    }
    let gone = all.iter().find(|one| one.inode == inode(&replaced)).unwrap();
    assert!(matches!(&gone.at, ListenAt::Unix(name, Some(_)) if name.to_string()
        == path.display().to_string()));
    let elsewhere = folder.path().join("none");
    assert_eq!(UnixTarget::path(&elsewhere).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_device_that_stat_shows_otherwise_is_overcome_by_inode_and_name() {
    let at = |name: &'static [u8], inode| Listener {
        at: ListenAt::Unix(
            UnixName::Path(name.into()),
            Some(SocketFile { inode, device: 1 }),
        ),
        ..listener("0.0.0.0:0", 0)
    };
    let all = [at(b"../run/s", 5), at(b"/x/s", 6), at(b"/x/t", 5)];
    let target = UnixTarget::Path(SocketFile { inode: 5, device: 9 }, b"s".to_vec());
    assert_eq!(answering_unix(&all, &target), [&all[0]]);
}

#[test]
fn an_abstract_listener_is_found_and_sampled_by_name() {
    let name = format!("sockscope test {}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    let socket = UnixListener::bind_addr(&address).unwrap();
    let mut diag = SockDiag::open().unwrap();
    let all = unix(&mut diag).unwrap();
    let found = answering_unix(&all, &UnixTarget::Abstract(name.clone().into_bytes()));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].inode, inode(&socket));
    let ListenAt::Unix(shown, None) = &found[0].at else { panic!("{found:?}") };
    assert_eq!(shown.to_string(), format!("@{name}"));
    let mut known = [found[0].clone()];
    let _client = UnixStream::connect_addr(&address).unwrap();
    assert_eq!(sample(&mut diag, &mut known).unwrap(), 1);
    assert_eq!(known[0].queue_len, 1);
    drop(socket);
    assert_eq!(sample(&mut diag, &mut known).unwrap(), 0);
}

#[test]
fn a_queue_of_thousands_does_not_hide_other_unix_listeners() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    if somaxconn.trim().parse::<u32>().unwrap() < 1_100 {
        return skip("somaxconn is below 1,100");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(1_100).unwrap();
    let _clients: Vec<_> =
        (0..1_050).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let request = UnixRequest { states: States::LISTEN, show: Show::ICONS };
    let mut diag = SockDiag::open().unwrap();
    let mut waiting = 0;
    diag.unix(&request, |row| {
        if row.inode == inode(&socket) {
            waiting = row.icons.iter().count();
        }
    })
    .unwrap();
    assert_eq!(waiting, 1_050, "in the very first dump of a socket");
}

#[test]
fn a_socket_opened_in_a_namespace_answers_for_it_from_anywhere() {
    let Some(namespace) = new_netns_or_rerun(
        "sockets::listeners::tests::\
         a_socket_opened_in_a_namespace_answers_for_it_from_anywhere",
    ) else {
        return;
    };
    let (mut diag, _socket, bound) = namespace
        .run(|| {
            let (socket, bound) = listen(Ipv4Addr::UNSPECIFIED, 3);
            (SockDiag::open().unwrap(), socket, bound)
        })
        .unwrap();
    let there = inet(&mut diag).unwrap();
    assert_eq!(there.len(), 1, "nothing of this namespace");
    assert_eq!(there[0].at, ListenAt::Inet(bound));
    let unix_there = unix(&mut diag).unwrap();
    assert!(unix_there.is_empty(), "unix sockets belong to a namespace too");
}
