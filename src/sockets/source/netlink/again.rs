//! One socket by itself: looked up again, or as the kernel told its end.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{extensions, from_inet, from_unix, identity, unix_kind};
use crate::kernel::sock_diag::{
    InetRequest, InetRow, Show, SockDiag, SocketId, UnixRequest,
};
use crate::sockets::model::{Inode, States};
use crate::sockets::row::{Address, Kind, Row};
use crate::sockets::select::{Details, Selection};
use crate::sockets::source::Again;

/// Looks up a socket that a pass did not have.
pub(super) fn look(diag: &mut SockDiag, row: &Row<'_>, selection: &Selection) -> Again {
    let found = match row.kind {
        Kind::Tcp | Kind::Udp | Kind::UdpLite => inet(diag, row, selection.details),
        kind if kind.is_unix() => unix(diag, row),
        // MPTCP is looked up by a token that no row has; others cannot be.
        _ => Found::Untold,
    };
    match found {
        Found::Row(now) if selection.states.contains(now.state) => Again::Here(now),
        Found::Row(_) => Again::Left,
        Found::Nothing => Again::Gone,
        Found::Untold => Again::Untold,
    }
}

enum Found {
    Row(Box<Row<'static>>),
    Nothing,
    Untold,
}

impl Found {
    /// Of a look-up that may have filled `row`.
    fn of(row: Option<Row<'static>>, looked: std::io::Result<bool>) -> Self {
        match (row, looked) {
            (Some(row), Ok(true)) => Self::Row(Box::new(row)),
            (_, Ok(_)) => Self::Nothing,
            (_, Err(_)) => Self::Untold,
        }
    }
}

fn inet(diag: &mut SockDiag, row: &Row<'_>, details: Details) -> Found {
    let Some((family, protocol, id)) = identity(row) else { return Found::Untold };
    let extensions = extensions(details, row.drops.is_some());
    let request =
        InetRequest { protocol, extensions, ..InetRequest::tcp(family, States::ALL) };
    let is_connection = row.kind == Kind::Tcp && id.remote.is_some();
    let id = if row.kind == Kind::Tcp { id } else { as_udp_looks(id) };
    let mut now = None;
    let looked = diag.inet_one(&request, &id, |found| {
        now = Some(from_inet(found, protocol).into_owned());
    });
    match Found::of(now, looked) {
        // Of several with one address (SO_REUSEPORT) the kernel finds any.
        Found::Nothing if !is_connection => Found::Untold,
        found => found,
    }
}

/// udp_dump_one in net/ipv4/udp_diag.c looks for the socket that a datagram with these
/// addresses would come to: the ends are the other way round.
fn as_udp_looks(id: SocketId) -> SocketId {
    let nobody = match id.local {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    SocketId { local: id.remote.unwrap_or(nobody), remote: Some(id.local), ..id }
}

fn unix(diag: &mut SockDiag, row: &Row<'_>) -> Found {
    // One that waits in an accept queue has no number to look it up by.
    let (true, Some(cookie)) = (row.inode.exists(), row.cookie) else {
        return Found::Untold;
    };
    let show = Show::NAME | Show::PEER | Show::RQLEN | Show::UID;
    let request = UnixRequest { states: States::ALL, show };
    let mut names = HashMap::new();
    if let Address::Unix { name: Some(name), inode } = &row.remote {
        names.insert(*inode, name.clone().into_owned());
    }
    let mut now = None;
    let looked = diag.unix_one(&request, row.inode, cookie, |found| {
        let (kind, _) = unix_kind(found.kind);
        now = Some(from_unix(found, kind, &names).into_owned());
    });
    Found::of(now, looked)
}

/// The row of a socket that the kernel told the end of: what is not known of one is
/// None, or 0 where there must be a number.
#[must_use]
pub fn ended(row: &InetRow<'_>, details: Details) -> Row<'static> {
    let known = InetRow {
        tcp_info: row.tcp_info.filter(|_| details.tcp_info),
        recv_q: 0,
        inode: Inode(0),
        ..*row
    };
    let mut ended = from_inet(&known, row.protocol).into_owned();
    (ended.send_q, ended.uid) = (None, None);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sock_diag::Protocol;
    use crate::sockets::model::State;
    use crate::sockets::select::{Tables, Versions};
    use crate::sockets::source::Source;
    use crate::sockets::source::netlink::NetlinkSource;
    use crate::sockets::testing::{connect, listen, loopback, wait_for};
    use std::net::UdpSocket;
    use std::ops::ControlFlow;
    use std::os::unix::net::UnixStream;

    fn selection(tables: Tables, states: States) -> Selection {
        let details = Details::default();
        Selection { tables, versions: Versions::BOTH, states, details, program: None }
    }

    fn row_of(
        source: &mut NetlinkSource,
        selection: &Selection,
        is: impl Fn(&Row<'_>) -> bool,
    ) -> Row<'static> {
        let mut found = None;
        let each = &mut |row: Row<'_>| {
            if is(&row) {
                found = Some(row.into_owned());
            }
            ControlFlow::Continue(())
        };
        source.rows(selection, each).unwrap();
        found.unwrap()
    }

    #[test]
    fn a_connection_is_there_then_in_another_state_then_gone() {
        let mut source = NetlinkSource::open().unwrap();
        let (listener, address) = listen(loopback(), 5);
        let client = connect(1, address).remove(0);
        let (accepted, _) = listener.accept().unwrap();
        let asked = selection(Tables::TCP, States::ESTABLISHED);
        let here = Address::Inet(client.local_addr().unwrap());
        let row = row_of(&mut source, &asked, |row| row.local == here);
        assert_eq!(source.again(&row, &asked), Again::Here(Box::new(row.clone())));
        drop(client);
        wait_for("it is in FIN_WAIT2", || {
            (source.again(&row, &asked) == Again::Left).then_some(())
        });
        drop(accepted);
        let waits = selection(Tables::TCP, States::TIME_WAIT);
        wait_for("it is in TIME_WAIT, the same socket", || {
            let Again::Here(now) = source.again(&row, &waits) else { return None };
            (now.state == State::TimeWait && now.cookie == row.cookie).then_some(())
        });
        let asked = selection(Tables::TCP, States::LISTEN);
        let at = Address::Inet(address);
        let row = row_of(&mut source, &asked, |row| row.local == at);
        assert_eq!(source.again(&row, &asked), Again::Here(Box::new(row.clone())));
        drop(listener);
        // Another of the same address would answer in its stead.
        assert_eq!(source.again(&row, &asked), Again::Untold);
    }

    #[test]
    fn a_reset_connection_and_a_unix_socket_are_gone() {
        let mut source = NetlinkSource::open().unwrap();
        let (listener, address) = listen(loopback(), 5);
        let client = connect(1, address).remove(0);
        let asked = selection(Tables::TCP, States::CONNECTED);
        let here = Address::Inet(client.local_addr().unwrap());
        let row = row_of(&mut source, &asked, |row| row.local == here);
        drop(listener);
        wait_for("it is gone while its descriptor is still open", || {
            (source.again(&row, &asked) == Again::Gone).then_some(())
        });
        let (one, other) = UnixStream::pair().unwrap();
        let inode = crate::sockets::testing::inode(&one);
        let asked = selection(Tables::UNIX, States::ALL);
        let row = row_of(&mut source, &asked, |row| row.inode == inode);
        assert_eq!(source.again(&row, &asked), Again::Here(Box::new(row.clone())));
        drop((one, other));
        assert_eq!(source.again(&row, &asked), Again::Gone);
    }

    #[test]
    fn udp_is_there_with_a_peer_and_without() {
        let mut source = NetlinkSource::open().unwrap();
        let asked = selection(Tables::UDP, States::CLOSE | States::ESTABLISHED);
        for connected in [false, true] {
            let socket = UdpSocket::bind((loopback(), 0)).unwrap();
            if connected {
                socket.connect((loopback(), 9)).unwrap();
            }
            let here = Address::Inet(socket.local_addr().unwrap());
            let row = row_of(&mut source, &asked, |row| row.local == here);
            let again = source.again(&row, &asked);
            assert_eq!(again, Again::Here(Box::new(row.clone())), "{connected}");
            drop(socket);
            assert_eq!(source.again(&row, &asked), Again::Untold);
        }
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let here = Address::Inet(socket.local_addr().unwrap());
        let row = row_of(&mut source, &asked, |row| row.local == here);
        assert_eq!(source.again(&row, &asked), Again::Here(Box::new(row.clone())));
    }

    #[test]
    fn an_end_says_nothing_that_the_kernel_did_not() {
        let address: SocketAddr = ([127, 0, 0, 1], 7).into();
        let bytes = [0; 8];
        let message = end(address);
        let told = InetRow::parse(&message, Protocol::TCP).unwrap();
        let told = InetRow { tcp_info: Some(&bytes), ..told };
        let row = ended(&told, Details::default());
        assert_eq!(row.local, Address::Inet(address));
        assert_eq!((row.uid, row.send_q, row.recv_q), (None, None, 0));
        assert_eq!(row.extra, None, "TCP_INFO was not asked for");
        let details = Details { tcp_info: true, ..Details::default() };
        assert_eq!(ended(&told, details).extra.unwrap().tcp_info.unwrap().len(), 8);
    }

    /// struct inet_diag_msg of a v4 socket with queues that tell nothing.
    fn end(local: SocketAddr) -> Vec<u8> {
        let mut bytes = vec![0; 72];
        (bytes[0], bytes[1]) = (2, 7);
        bytes[4..6].copy_from_slice(&local.port().to_be_bytes());
        bytes[8..12].copy_from_slice(&[127, 0, 0, 1]);
        bytes[56..64].copy_from_slice(&[0xff; 8]);
        bytes
    }
}
