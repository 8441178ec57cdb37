//! Known listeners, looked at again in a few µs each: for 2,000 samples a second.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::listeners::{self, ListenAt, Listener};
use super::model::{Cookie, Family};
use crate::kernel::sock_diag::{SockDiag, SocketId};

/// INET_DIAG_NOCOOKIE (linux/inet_diag.h): any socket that answers will do.
const ANY_COOKIE: Cookie = Cookie(u64::MAX);
/// Members of a group that are looked up one by one; beyond, a dump is cheaper.
const MEMBERS_MAX: usize = 32;
/// Clients that are tried for each member of a group until one leads to it: with 32
/// members the last is missed once in 10^13.
const TRIES: usize = 32;

/// A way to each of some listeners.
///
/// A listener alone is found by its address. In an SO_REUSEPORT group the kernel
/// chooses by the client's address and port (`reuseport_select_sock`, without a packet
/// by their hash alone), so that for each member a client is found that leads there.
#[derive(Debug, Default)]
pub struct Ways {
    /// In the order of the listeners; None: by a dump.
    ways: Option<Vec<Option<SocketId>>>,
}

impl Ways {
    /// Finds a way to each listener: a lookup each, and some more for a group.
    ///
    /// # Errors
    /// As [`SockDiag::inet`].
    pub fn find(diag: &mut SockDiag, known: &[Listener]) -> io::Result<Self> {
        if known.len() > MEMBERS_MAX {
            return Ok(Self::default());
        }
        let mut ways: Vec<Option<SocketId>> = Vec::with_capacity(known.len());
        for listener in known {
            let way = match listener.at {
                ListenAt::Unix(..) => None,
                ListenAt::Inet(local) => {
                    let tries =
                        if is_alone(known, listener) { 1 } else { known.len() * TRIES };
                    let Some(way) = way_to(diag, listener, local, tries)? else {
                        return Ok(Self::default());
                    };
                    Some(way)
                }
            };
            ways.push(way);
        }
        Ok(Self { ways: Some(ways) })
    }

    /// Looks at the listeners again that ways were found to, as
    /// [`listeners::sample`] does.
    ///
    /// # Errors
    /// As [`SockDiag::inet`].
    pub fn sample(
        &self,
        diag: &mut SockDiag,
        known: &mut [Listener],
    ) -> io::Result<usize> {
        let Some(ways) = self.ways.as_ref().filter(|ways| ways.len() == known.len())
        else {
            return listeners::sample(diag, known);
        };
        for (listener, way) in known.iter_mut().zip(ways) {
            let found = match way {
                Some(way) => listeners::sample_one(diag, listener, way)?,
                None => listeners::sample_unix(diag, listener)?,
            };
            if !found {
                // Gone, or a group that changed leads elsewhere.
                return listeners::sample(diag, known);
            }
        }
        Ok(known.len())
    }
}

/// Whether no other of `all` has its address.
fn is_alone(all: &[Listener], one: &Listener) -> bool {
    all.iter().filter(|other| other.at == one.at).count() == 1
}

fn way_to(
    diag: &mut SockDiag,
    listener: &Listener,
    local: SocketAddr,
    tries: usize,
) -> io::Result<Option<SocketId>> {
    let family = Family::of(local);
    let nowhere: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    for port in 0..u16::try_from(tries).unwrap_or(u16::MAX) {
        let remote = (port > 0).then(|| SocketAddr::new(nowhere, port));
        let interface = listener.interface;
        let id = SocketId { local, remote, interface, cookie: ANY_COOKIE };
        let mut leads_there = false;
        diag.inet_one(&listeners::listening(family), &id, |row| {
            leads_there = row.cookie == listener.cookie;
        })?;
        if leads_there {
            return Ok(Some(SocketId { cookie: listener.cookie, ..id }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::{connect, listen, loopback, skip, wait_for};
    use socket2::{Domain, Socket, Type};

    fn group(n: usize, backlog: i32) -> (Vec<Socket>, SocketAddr) {
        let mut at = SocketAddr::from((loopback(), 0));
        let mut all = Vec::new();
        for _ in 0..n {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&at.into()).unwrap();
            socket.listen(backlog).unwrap();
            at = socket.local_addr().unwrap().as_socket().unwrap();
            all.push(socket);
        }
        (all, at)
    }

    fn known(diag: &mut SockDiag, at: SocketAddr) -> Vec<Listener> {
        let all = listeners::inet(diag).unwrap();
        all.into_iter().filter(|one| one.at == ListenAt::Inet(at)).collect()
    }

    #[test]
    fn each_member_of_a_group_is_looked_up_without_a_dump() {
        let (_sockets, at) = group(8, 64);
        let mut diag = SockDiag::open().unwrap();
        let mut members = known(&mut diag, at);
        let ways = Ways::find(&mut diag, &members).unwrap();
        assert!(ways.ways.as_ref().is_some_and(|ways| ways.len() == 8), "{ways:?}");
        let _clients = connect(40, at);
        assert_eq!(ways.sample(&mut diag, &mut members).unwrap(), 8);
        let queued: Vec<u32> = members.iter().map(|one| one.queue_len).collect();
        assert_eq!(queued.iter().sum::<u32>(), 40, "{queued:?}");
        let by_dump: Vec<u32> =
            known(&mut diag, at).iter().map(|one| one.queue_len).collect();
        assert_eq!(queued, by_dump);
    }

    #[test]
    fn a_group_that_loses_a_member_is_counted_by_a_dump() {
        let (mut sockets, at) = group(3, 4);
        let mut diag = SockDiag::open().unwrap();
        let mut members = known(&mut diag, at);
        let ways = Ways::find(&mut diag, &members).unwrap();
        drop(sockets.pop());
        let left = wait_for("two members", || {
            let there = ways.sample(&mut diag, &mut members).unwrap();
            (there < 3).then_some(there)
        });
        assert_eq!(left, 2);
    }

    #[test]
    fn a_listener_alone_and_one_of_ipv6_are_found_by_their_addresses() {
        let (_listener, at) = listen(loopback(), 3);
        let mut diag = SockDiag::open().unwrap();
        let mut one = known(&mut diag, at);
        let ways = Ways::find(&mut diag, &one).unwrap();
        let _clients = connect(2, at);
        assert_eq!(ways.sample(&mut diag, &mut one).unwrap(), 1);
        assert_eq!((one[0].queue_len, one[0].backlog), (2, 3));
        let Ok((_v6, at)) = crate::sockets::testing::listen_as(
            socket2::Protocol::TCP,
            Ipv6Addr::LOCALHOST.into(),
            3,
        ) else {
            return skip("IPv6");
        };
        let mut one = known(&mut diag, at);
        let ways = Ways::find(&mut diag, &one).unwrap();
        assert!(ways.ways.is_some());
        let _clients = connect(1, at);
        assert_eq!(ways.sample(&mut diag, &mut one).unwrap(), 1);
        assert_eq!(one[0].queue_len, 1);
    }
}
