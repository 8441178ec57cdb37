//! Sockets that a process has and no table shows: made, and neither bound nor connected
//! (TCP, UDP, netlink), or of a protocol without a table (AF_ALG).
//!
//! What is known of such a socket is its inode, its owners, and the name of its protocol,
//! which `getxattr(/proc/PID/fd/N, "system.sockprotoname")` gives (`sockfs_xattr_get` in
//! net/socket.c).

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use rustix::io::Errno;

use super::model::{Inode, Owner, State};
use super::protocol;
use super::row::{Kind, Row};
use super::source::{Lack, Passed};
use crate::host::ProcRoot;

/// Hands out a row for each socket of `found` that is not `is_seen`, with the first of
/// its owners that still has it, until `each` breaks.
///
/// Read the tables that `is_seen` answers from **after** the fd tables that `found` comes
/// from. Then a socket made in between is in neither, and one that was bound or accepted
/// in between is seen; the other way round each new connection would look unbound.
///
/// With `netns` (the inode of the namespace that the tables are of) a socket of processes
/// in other namespaces, whose tables were not read, is none of these and is only counted
/// in what is lacking. (A process is taken to have the sockets of its own namespace; one
/// that it got from elsewhere is told by nothing in /proc.)
pub fn rows(
    root: &ProcRoot,
    found: impl IntoIterator<Item = (Inode, Owner)>,
    is_seen: impl Fn(Inode) -> bool,
    netns: Option<u64>,
    each: &mut dyn FnMut(Row<'static>, Owner) -> ControlFlow<()>,
) -> Passed {
    let mut done = HashSet::new();
    let mut elsewhere = HashSet::new();
    for (inode, owner) in found {
        if is_seen(inode) || done.contains(&inode) {
            continue;
        }
        if netns.is_some_and(|netns| is_elsewhere(root, owner, netns)) {
            elsewhere.insert(inode);
            continue;
        }
        let Some(row) = row(root, inode, owner) else { continue };
        done.insert(inode);
        if each(row, owner).is_break() {
            break;
        }
    }
    let others = elsewhere.difference(&done).count();
    let lack = || Lack {
        what: match others {
            1 => "1 socket of a process in another network namespace".to_owned(),
            n => format!("{n} sockets of processes in other network namespaces"),
        },
        why: "the tables of those were not read".to_owned(),
    };
    Passed { interrupted: false, lacking: (others > 0).then(lack).into_iter().collect() }
}

/// What a descriptor tells of a socket; None where it is not this socket any more.
pub(super) fn row(root: &ProcRoot, inode: Inode, owner: Owner) -> Option<Row<'static>> {
    let (kind, is_v6) = match protocol_of(root, owner) {
        Ok(found) => found,
        Err(error) if is_gone(&error) => return None,
        Err(_) => (Kind::Family(0), false),
    };
    // After the name: a number that was used again meanwhile leads elsewhere.
    let socket = rustix::fs::stat(path(root, owner)).ok()?;
    (socket.st_ino == inode.0).then(|| Row {
        is_v6,
        uid: Some(socket.st_uid),
        inode,
        ..Row::new(kind, State::Close)
    })
}

/// The kind of a socket by its protocol's name, and whether it is of AF_INET6. See
/// [`protocol::kind_of`].
///
/// # Errors
/// NotFound where the descriptor has been closed, EOPNOTSUPP where it is no socket,
/// PermissionDenied for a process of another user.
pub fn protocol_of(root: &ProcRoot, owner: Owner) -> io::Result<(Kind, bool)> {
    // As long as the longest name, and the zero byte that ends it.
    let mut name = [0_u8; 64];
    let len =
        rustix::fs::getxattr(path(root, owner), "system.sockprotoname", &mut name[..])?;
    let name = name.get(..len).unwrap_or_default();
    Ok(protocol::kind_of(name.strip_suffix(b"\0").unwrap_or(name)))
}

fn path(root: &ProcRoot, owner: Owner) -> PathBuf {
    let Owner { pid, tid, fd, .. } = owner;
    root.path(&if tid == pid {
        format!("{pid}/fd/{fd}")
    } else {
        format!("{pid}/task/{tid}/fd/{fd}")
    })
}

fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOENT | Errno::SRCH | Errno::OPNOTSUPP | Errno::NODATA))
}

fn is_elsewhere(root: &ProcRoot, owner: Owner, netns: u64) -> bool {
    let at = format!("{}/task/{}/ns/net", owner.pid, owner.tid);
    rustix::fs::stat(root.path(&at)).is_ok_and(|found| found.st_ino != netns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fd_table::{LocalFd, OwnTable};
    use crate::kernel::netns::Netns;
    use crate::sockets::model::Comm;
    use crate::sockets::testing::*;
    use socket2::{Domain, Protocol, Socket, Type};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::thread;

    fn owner(socket: &impl AsRawFd) -> Owner {
        let (pid, fd) = (std::process::id(), socket.as_raw_fd().unsigned_abs());
        Owner { pid, tid: pid, comm: Comm::default(), fd }
    }

    fn given(
        found: &[(Inode, Owner)],
        seen: &[Inode],
        netns: Option<u64>,
    ) -> (Vec<(Row<'static>, Owner)>, Vec<Lack>) {
        let mut rows = Vec::new();
        let passed = super::rows(
            &ProcRoot::default(),
            found.iter().copied(),
            |inode| seen.contains(&inode),
            netns,
            &mut |row, owner| {
                rows.push((row, owner));
                ControlFlow::Continue(())
            },
        );
        (rows, passed.lacking)
    }

    #[test]
    fn a_socket_that_was_only_made_has_its_protocol_and_user() {
        let of = |domain, kind, protocol| Socket::new(domain, kind, protocol).unwrap();
        let sockets = [
            (of(Domain::IPV4, Type::STREAM, None), Kind::Tcp, false),
            (of(Domain::IPV6, Type::STREAM, None), Kind::Tcp, true),
            (of(Domain::IPV4, Type::DGRAM, None), Kind::Udp, false),
            (of(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)), Kind::Udp, true),
        ];
        let found: Vec<(Inode, Owner)> =
            sockets.iter().map(|(socket, ..)| (inode(socket), owner(socket))).collect();
        let here = Netns::current().unwrap().inode().unwrap();
        let (rows, lacking) = given(&found, &[found[2].0], Some(here));
        assert_eq!(lacking, []);
        let got: Vec<(Kind, bool, Inode)> =
            rows.iter().map(|(row, _)| (row.kind, row.is_v6, row.inode)).collect();
        let expected: Vec<(Kind, bool, Inode)> =
            [0, 1, 3].map(|at| (sockets[at].1, sockets[at].2, found[at].0)).to_vec();
        assert_eq!(got, expected, "without the one that a table has");
        let me = rustix::process::geteuid().as_raw();
        assert!(
            rows.iter().all(|(row, _)| row.uid == Some(me) && row.state == State::Close)
        );
    }

    #[test]
    fn a_protocol_without_a_kind_is_shown_by_its_name() {
        let alg = Socket::new(Domain::from(libc::AF_ALG), Type::SEQPACKET, None);
        let unix = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        let named = |socket: &Socket| {
            protocol_of(&ProcRoot::default(), owner(socket)).unwrap().0.to_string()
        };
        assert_eq!(named(&unix), "unix", "datagram or seqpacket, it does not tell");
        // Many kernels have no AF_ALG.
        if let Ok(alg) = alg {
            assert_eq!(named(&alg), "alg");
        }
    }

    #[test]
    fn each_socket_comes_once_and_with_an_owner_that_has_it() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let copy = socket.try_clone().unwrap();
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let (it, file) = (inode(&socket), std::fs::File::open("/dev/null").unwrap());
        let closed = Owner { fd: 1_000_000, ..owner(&socket) };
        let found = [
            (it, closed),
            (it, owner(&file)),
            (it, owner(&other)),
            (it, owner(&copy)),
            (it, owner(&socket)),
        ];
        let (rows, _) = given(&found, &[], None);
        let [(row, has)] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.inode, has.fd), (it, owner(&copy).fd));
    }

    #[test]
    fn a_socket_in_a_threads_own_table_is_found_there() {
        let (sender, receiver) = mpsc::channel();
        let (done, is_done) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _table = OwnTable::unshare(&[]).unwrap();
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            let socket = LocalFd::from(std::os::fd::OwnedFd::from(socket));
            let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            sender.send((inode(&socket), Owner { tid, ..owner(&socket) })).unwrap();
            let _ = is_done.recv();
        });
        let found = receiver.recv().unwrap();
        let (rows, _) = given(&[found], &[], None);
        drop(done);
        holder.join().unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].0.kind, rows[0].0.is_v6), (Kind::Tcp, true));
    }

    #[test]
    fn a_socket_of_another_namespace_is_not_called_unbound() {
        let name = "sockets::unbound::tests::a_socket_of_another_namespace_is_not_called_unbound";
        let Some(netns) = new_netns_or_rerun(name) else { return };
        let there = netns.inode().unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let found = [(inode(&socket), owner(&socket))];
        let (rows, lacking) = given(&found, &[], Some(there));
        assert_eq!(rows.len(), 0);
        assert!(lacking[0].to_string().starts_with("1 socket of a process in another"));
    }

    #[test]
    fn it_stops_where_it_is_told_to() {
        let sockets =
            [(), ()].map(|()| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        let found = sockets.each_ref().map(|socket| (inode(socket), owner(socket)));
        let mut n = 0;
        let _ = super::rows(&ProcRoot::default(), found, |_| false, None, &mut |_, _| {
            n += 1;
            ControlFlow::Break(())
        });
        assert_eq!(n, 1);
    }
}
