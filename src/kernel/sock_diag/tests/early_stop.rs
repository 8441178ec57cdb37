//! A dump that its reader leaves in the middle, and the next on the same socket.

use super::*;

/// Breaks after so many rows, and counts them.
fn stop_after(most: usize, seen: &mut usize) -> ControlFlow<()> {
    *seen += 1;
    if *seen < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

#[test]
fn what_follows_a_dump_that_was_left_is_whole() {
    // More than fits in one datagram, so that the kernel still has a dump to go on with.
    let pairs: Vec<_> = (0..600).map(|_| UnixStream::pair().unwrap()).collect();
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let local = listener.local_addr().unwrap();
    let show = Show::PEER | Show::MEMINFO | Show::RQLEN;
    let unix = UnixRequest { states: States::ESTABLISHED, show };
    let mut diag = SockDiag::open().unwrap();
    for most in [1, 2, 100, 700] {
        let mut seen = 0;
        let end = diag.unix_until(&unix, |_| stop_after(most, &mut seen)).unwrap();
        assert_eq!((seen, end.rows), (most, u64::try_from(most).unwrap()));

        // Another table by the same socket has none of what was left.
        let request = InetRequest {
            local_port: Some(local.port()),
            ..InetRequest::tcp(Family::V4, States::LISTEN)
        };
        let mut found = 0;
        diag.inet(&request, |row| found += usize::from(row.local == local)).unwrap();
        assert_eq!(found, 1, "after a dump left at row {most}");

        let mut cookies = std::collections::HashSet::new();
        diag.unix(&unix, |row| assert!(cookies.insert(row.cookie), "{row:?} twice"))
            .unwrap();
        assert!(cookies.len() >= 2 * pairs.len(), "{} after {most}", cookies.len());
    }
}

#[test]
fn every_kind_of_dump_can_be_left_and_asked_for_again() {
    let _datagram = UdpSocket::bind((loopback(), 0)).unwrap();
    let _listener = TcpListener::bind((loopback(), 0)).unwrap();
    let mut diag = SockDiag::open().unwrap();
    for _ in 0..3 {
        let (mut inet, mut netlink) = (0, 0);
        let request = InetRequest::tcp(Family::V4, States::LISTEN);
        diag.inet_until(&request, None, |_| stop_after(1, &mut inet)).unwrap();
        diag.netlink_until(NetlinkRequest, |_| stop_after(1, &mut netlink)).unwrap();
        assert_eq!((inet, netlink), (1, 1));
        let end = diag.packet_until(PacketRequest, |_| ControlFlow::Break(()));
        assert!(end.is_ok(), "{end:?}");
    }
    let mut all = 0;
    diag.netlink_until(NetlinkRequest, |_| stop_after(usize::MAX, &mut all)).unwrap();
    assert!(all >= 2, "the kernel's own, and the one that asks");
}
