//! The slow link itself: what it promises to the scenarios that are built on it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fixtures::relay::{CLIENT, Fate, SERVER, Shape, SlowLink, Way, server_ip};
use crate::fixtures::{DEADLINE, until};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A listener of the link's server, and its address.
fn listen(link: &SlowLink, v6: bool) -> (TcpListener, SocketAddr) {
    let at = (server_ip(v6), 0);
    let listener = link.server.inside(|| TcpListener::bind(at)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(link: &SlowLink, to: SocketAddr) -> TcpStream {
    let client =
        link.client.inside(|| TcpStream::connect_timeout(&to, DEADLINE)).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.set_write_timeout(Some(DEADLINE)).unwrap();
    client
}

#[test]
fn a_connect_over_the_link_takes_one_round_trip() {
    let Some(link) = SlowLink::new(Shape::default()) else { return };
    for v6 in [false, true] {
        let (_listener, to) = listen(&link, v6);
        for round_trip in [ms(2), ms(50), ms(200)] {
            link.set_shape(Shape { round_trip, ..Shape::default() });
            let least = link
                .client
                .inside(|| {
                    (0..3)
                        .map(|_| {
                            let begin = Instant::now();
                            TcpStream::connect(to).unwrap();
                            begin.elapsed()
                        })
                        .min()
                })
                .unwrap();
            // The machine may be busy; the least of three is the link's own.
            let most = round_trip + ms(40);
            assert!(
                (round_trip..most).contains(&least),
                "{to} {round_trip:?}: {least:?}"
            );
        }
    }
}

#[test]
fn a_link_loses_its_share_both_ways() {
    const PACKETS: u64 = 4000;
    let shape = Shape { loss: 0.1, seed: 7, ..Shape::default() };
    let Some(link) = SlowLink::new(shape) else { return };
    for (way, from, to) in
        [(Way::Up, &link.client, SERVER[0]), (Way::Down, &link.server, CLIENT[0])]
    {
        let all = || link.counts(way).0 + link.counts(way).1;
        let before = all();
        let sender = from.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        for _ in 0..PACKETS {
            sender.send_to(&[1], (to, 9)).unwrap();
        }
        until("every packet was carried or lost", || all() >= before + PACKETS);
        let lost = link.counts(way).1 as f64 / all() as f64;
        // Five standard deviations, each 0.0047.
        assert!((0.1 - 0.024..0.1 + 0.024).contains(&lost), "{way:?}: {lost}");
    }
}

#[test]
fn a_link_without_loss_carries_a_burst_whole_and_in_order() {
    let shape = Shape { round_trip: ms(50), ..Shape::default() };
    let Some(link) = SlowLink::new(shape) else { return };
    let (listener, to) = listen(&link, false);
    let largest = Arc::new(Mutex::new((0, 0)));
    let (seen, client) = (largest.clone(), connect(&link, to));
    link.set_tap(move |passing| {
        let mut seen = seen.lock().unwrap();
        if passing.way == Way::Up && passing.segment.data > 0 {
            seen.0 = seen.0.max(passing.segment.data);
            seen.1 += 1;
        }
        Fate::Carried
    });
    let (mut server, _) = listener.accept().unwrap();
    let text: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut heard = vec![0; text.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&text).unwrap());
        server.read_exact(&mut heard).unwrap();
    });
    assert!(heard == text);
    let retransmitted = sockscope::kernel::tcp_info::TcpInfo::of(&client).unwrap();
    assert_eq!(retransmitted.total_retrans, 0, "a packet was lost or overtaken");
    let (data, segments) = *largest.lock().unwrap();
    assert_eq!(data, 1500 - 20 - 32, "a full segment at MTU 1500, with timestamps");
    assert!(segments >= 4_000_000 / data);
}

#[test]
fn segments_are_as_large_as_the_mtu_allows() {
    let Some(link) = SlowLink::new(Shape::default()) else { return };
    link.set_mtu(1400);
    for (v6, header) in [(false, 20), (true, 40)] {
        let (listener, to) = listen(&link, v6);
        let client = connect(&link, to);
        let largest = Arc::new(Mutex::new(0));
        let seen = largest.clone();
        link.set_tap(move |passing| {
            let mut seen = seen.lock().unwrap();
            *seen = passing.segment.data.max(*seen);
            Fate::Carried
        });
        let (mut server, _) = listener.accept().unwrap();
        (&client).write_all(&[1; 9000]).unwrap();
        server.read_exact(&mut [0; 9000]).unwrap();
        link.remove_tap();
        assert_eq!(*largest.lock().unwrap(), 1400 - header - 32, "{to}");
    }
}

#[test]
fn a_tap_can_hold_a_packet_back() {
    let Some(link) = SlowLink::new(Shape::default()) else { return };
    let (_listener, to) = listen(&link, true);
    link.set_tap(|passing| match passing.segment.opens() {
        true => Fate::Late(ms(300)),
        false => Fate::Carried,
    });
    let begin = Instant::now();
    connect(&link, to);
    assert!(begin.elapsed() >= ms(302), "{:?}", begin.elapsed());
}

#[test]
fn a_slow_link_leaves_nothing_behind() {
    let Some(link) = SlowLink::new(Shape::default()) else { return };
    let names: Vec<String> = link.both().map(|netns| netns.name.clone()).into();
    let exists = |name: &String| std::fs::exists(format!("/run/netns/{name}")).unwrap();
    assert!(names.iter().all(exists));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _link = link;
        std::panic::resume_unwind(Box::new("as a failing test does"));
    }));
    assert!(panicked.is_err());
    assert!(!names.iter().any(exists));
}
