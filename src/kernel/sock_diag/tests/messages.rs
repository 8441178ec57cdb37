//! Rows of every family as bytes: captured, cut short, with attributes of any kind and
//! length.

use super::*;

/// An attribute: its header, its value, and padding to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The fixed part of a captured row of each family, and what parses it.
type Parses = fn(&[u8]) -> bool;

fn families() -> [(Vec<u8>, Parses); 4] {
    let head = |bytes: Vec<u8>, len: usize| bytes[..len].to_vec();
    [
        (head(captured!("inet_listen"), 72), |b| {
            InetRow::parse(b, Protocol::TCP).is_some()
        }),
        (head(captured!("unix_listen"), 16), |b| UnixRow::parse(b).is_some()),
        (head(captured!("packet_ip_lo"), 16), |b| PacketRow::parse(b).is_some()),
        (head(captured!("netlink_route"), 28), |b| NetlinkRow::parse(b).is_some()),
    ]
}

#[test]
fn a_captured_packet_socket_has_its_interface_and_protocol() {
    let row = PacketRow::parse(&captured!("packet_ip_lo")).unwrap();
    assert_eq!((row.is_datagram, row.protocol, row.interface), (true, 0x0800, 1));
    assert_eq!((row.uid, row.inode), (Some(0), Inode(0x091b_c9c5)));
    assert_eq!(row.cookie, Cookie(0x2b_471e));
    assert_eq!(row.sk_mem.unwrap().rcvbuf, 212_992);
}

#[test]
fn captured_netlink_sockets_tell_the_kernels_from_a_programs() {
    let program = NetlinkRow::parse(&captured!("netlink_route")).unwrap();
    let (port, peer) = (program.port, program.remote_port);
    assert_eq!((program.family, program.is_connected, port, peer), (0, true, 20_687, 0));
    assert_eq!(program.sk_mem.unwrap().sndbuf, 212_992);
    let kernel = NetlinkRow::parse(&captured!("netlink_kernel")).unwrap();
    assert_eq!((kernel.family, kernel.is_connected, kernel.port), (16, false, 0));
    assert!(kernel.inode.exists(), "the kernel's own have an inode too");
}

#[test]
fn packet_and_netlink_rows_cut_short_anywhere_are_refused_or_read_in_part() {
    let whole = captured!("packet_ip_lo");
    for len in 0..whole.len() {
        assert_eq!(PacketRow::parse(&whole[..len]).is_some(), len >= 16, "{len}");
    }
    for whole in [captured!("netlink_route"), captured!("netlink_kernel")] {
        for len in 0..whole.len() {
            assert_eq!(NetlinkRow::parse(&whole[..len]).is_some(), len >= 28, "{len}");
        }
    }
}

#[test]
fn a_row_of_another_family_is_refused() {
    for (row, parses) in families() {
        assert!(parses(&row));
        for family in (0..=u8::MAX).filter(|family| ![1, 2, 10, 16, 17].contains(family))
        {
            let mut other = row.clone();
            other[0] = family;
            assert!(!parses(&other), "family {family}");
        }
    }
}

#[test]
fn attributes_that_are_too_short_for_their_kind_are_no_row() {
    // By kind: the bytes that it takes at the least.
    let inet =
        [(5, 1), (6, 1), (8, 1), (10, 1), (11, 1), (15, 4), (17, 4), (21, 8), (22, 2)];
    let unix = [(1, 8), (2, 4), (4, 8), (6, 1), (7, 4)];
    let packet = [(0, 4), (5, 4)];
    let [inet_row, unix_row, packet_row, _] = families();
    for (row, parses, kinds) in [
        (&inet_row.0, inet_row.1, &inet[..]),
        (&unix_row.0, unix_row.1, &unix[..]),
        (&packet_row.0, packet_row.1, &packet[..]),
    ] {
        for &(kind, least) in kinds {
            for len in 0..=least + 2 {
                let bytes = [&row[..], &attribute(kind, &vec![1; len])].concat();
                assert_eq!(parses(&bytes), len >= least, "kind {kind} of {len} bytes");
            }
        }
    }
}

#[test]
fn every_attribute_of_an_inet_row_is_read() {
    let ulp = attribute(1, b"mptcp\0");
    let tail = [
        attribute(4, b"bbr\0"),
        attribute(5, &[0x10]),
        attribute(6, &[0x20]),
        attribute(8, &[2]),
        attribute(10, &[58]),
        attribute(11, &[1]),
        attribute(15, &7_u32.to_ne_bytes()),
        attribute(17, &9_u32.to_ne_bytes()),
        attribute(0x8000 | 19, &ulp),
        attribute(21, &(1_u64 << 40).to_ne_bytes()),
        attribute(22, &[1, 4]),
        attribute(999, b"of a kernel to come"),
        attribute(2, b""),
    ];
    let row = [&captured!("inet_listen")[..72], &tail.concat()].concat();
    let row = inet(&row);
    assert_eq!((row.congestion, row.ulp), (Some(&b"bbr"[..]), Some(&b"mptcp"[..])));
    assert_eq!((row.tos, row.tclass, row.shutdown), (Some(16), Some(32), 2));
    assert_eq!((row.protocol, row.v6_only), (Protocol(58), Some(true)));
    assert_eq!((row.mark, row.class_id, row.cgroup), (Some(7), Some(9), Some(1 << 40)));
    assert_eq!(row.options, Some(0x0401), "recverr and defer_connect");
    assert_eq!(row.tcp_info, None, "an empty one is none");
}

#[test]
fn names_without_an_end_or_with_two_are_read_up_to_the_first() {
    for (value, name) in
        [(&b"cubic"[..], &b"cubic"[..]), (b"a\0b\0", b"a"), (b"\0", b""), (b"", b"")]
    {
        let row = [&captured!("inet_listen")[..72], &attribute(4, value)].concat();
        assert_eq!(inet(&row).congestion, Some(name), "{value:?}");
    }
    // A nested attribute that is cut short has no name.
    let row = [&captured!("inet_listen")[..72], &attribute(19, &[60, 0, 1, 0])].concat();
    assert_eq!(inet(&row).ulp, None);
}

#[test]
fn memory_of_an_older_kernel_or_a_newer_one_is_read_as_far_as_it_goes() {
    let words: Vec<u8> = (1..=12_u32).flat_map(u32::to_ne_bytes).collect();
    for words_sent in 0..=12 {
        let value = &words[..words_sent * 4];
        let row = [&captured!("packet_ip_lo")[..16], &attribute(6, value)].concat();
        let memory = PacketRow::parse(&row).unwrap().sk_mem.unwrap();
        let known = |place: usize| if place <= words_sent { place } else { 0 };
        assert_eq!(memory.rmem_alloc as usize, known(1));
        assert_eq!(memory.drops as usize, known(9), "{words_sent} words");
    }
}

proptest! {
    #[test]
    fn any_attributes_in_any_order_are_parsed_without_panic_and_to_an_end(
        attributes in prop::collection::vec(
            (0_u16..32, prop::collection::vec(any::<u8>(), 0..40)), 0..20,
        ),
        cut in 0_usize..600,
    ) {
        let tail: Vec<u8> = attributes.iter().flat_map(|(k, v)| attribute(*k, v)).collect();
        for (row, parses) in families() {
            let whole = [&row[..], &tail].concat();
            let _ = (parses(&whole), parses(&whole[..cut.min(whole.len())]));
        }
    }

    #[test]
    fn any_lengths_of_attributes_are_parsed_without_panic_and_to_an_end(
        lengths in prop::collection::vec((any::<u16>(), 0_u16..32), 0..40),
    ) {
        let tail: Vec<u8> = lengths
            .iter()
            .flat_map(|(len, kind)| [len.to_ne_bytes(), kind.to_ne_bytes()].concat())
            .collect();
        for (row, parses) in families() {
            let _ = parses(&[&row[..], &tail].concat());
        }
    }

    #[test]
    fn packet_and_netlink_rows_of_any_bytes_are_parsed_without_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = (PacketRow::parse(&bytes), NetlinkRow::parse(&bytes));
        for family in [17, 16] {
            if let Some(first) = bytes.first_mut() {
                *first = family;
            }
            let _ = (PacketRow::parse(&bytes), NetlinkRow::parse(&bytes));
        }
    }

    #[test]
    fn unknown_attributes_change_nothing(kind in 23_u16..0x4000, value: Vec<u8>) {
        let value = &value[..value.len().min(1000)];
        let [inet_row, unix_row, packet_row, netlink_row] = families();
        let with = |row: &[u8]| [row, &attribute(kind, value)].concat();
        let more = with(&inet_row.0);
        prop_assert_eq!(InetRow::parse(&more, Protocol::TCP), InetRow::parse(&inet_row.0, Protocol::TCP));
        let more = with(&unix_row.0);
        prop_assert_eq!(UnixRow::parse(&more), UnixRow::parse(&unix_row.0));
        let more = with(&packet_row.0);
        prop_assert_eq!(PacketRow::parse(&more), PacketRow::parse(&packet_row.0));
        let more = with(&netlink_row.0);
        prop_assert_eq!(NetlinkRow::parse(&more), NetlinkRow::parse(&netlink_row.0));
    }
}
