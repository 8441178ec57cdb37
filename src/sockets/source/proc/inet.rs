//! Rows of /proc/net/tcp, udp, udplite, raw, icmp and their IPv6 twins: `get_tcp4_sock`
//! in net/ipv4/tcp_ipv4.c, `udp4_format_sock`, `raw_sock_seq_show`,
//! `ping_v4_format_sock`, `__ip6_dgram_sock_seq_show`, which print the same columns.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::fields::Fields;
use super::recent::Key;
use crate::kernel::sock_diag::{Timer, TimerKind};
use crate::sockets::model::{Inode, State};
use crate::sockets::row::{Address, Kind, Row};

/// Milliseconds in a tick of the clock that /proc counts in (USER_HZ, 100 everywhere).
const TICK_MS: u64 = 10;

/// One of these tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    /// The kind of its sockets.
    pub(super) kind: Kind,
    /// Whether it is of AF_INET6.
    pub(super) is_v6: bool,
}

/// What follows the addresses.
struct Columns {
    state: State,
    send_q: u32,
    recv_q: u32,
    timer: u32,
    ticks: u64,
    retransmits: u32,
    uid: u32,
    /// Probes of a window or of an idle peer that were not answered.
    probes: u64,
    inode: u64,
    pointer: u64,
    drops: Option<u32>,
}

/// Parses one row; None for any other line. With it comes what tells its socket from the
/// others of the table.
///
/// The words of an address are the kernel's memory as 32-bit numbers of this host's
/// byte order; a port is a number.
#[inline]
pub(super) fn parse(line: &[u8], table: Table) -> Option<(Row<'static>, Key)> {
    let mut fields = Fields::of(line);
    let slot = fields.word()?.strip_suffix(b":")?;
    if slot.is_empty() || !slot.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let local = address(&mut fields, table.is_v6)?;
    let remote = address(&mut fields, table.is_v6)?;
    let columns = columns(&mut fields, table.kind != Kind::Tcp)?;
    let key = key(local, remote, &columns);
    Some((row(table, local, remote, &columns), key))
}

#[inline]
fn address(fields: &mut Fields<'_>, is_v6: bool) -> Option<SocketAddr> {
    let first = fields.hex_part::<8>()?.to_ne_bytes();
    let ip = if is_v6 {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&first);
        for four in octets[4..].chunks_exact_mut(4) {
            four.copy_from_slice(&fields.digits::<8>()?.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets))
    } else {
        IpAddr::V4(Ipv4Addr::from(first))
    };
    fields.colon()?;
    let port = fields.digits::<4>()?;
    fields.at_end_of_field().then_some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

#[inline]
fn columns(fields: &mut Fields<'_>, has_drops: bool) -> Option<Columns> {
    let state = State::from_raw(u8::try_from(fields.hex::<2>()?).ok()?);
    let (send_q, recv_q) = fields.hex_pair::<8, 8>()?;
    let timer = fields.hex_part::<2>()?;
    fields.colon()?;
    let ticks = fields.long_hex()?;
    let retransmits = fields.hex::<8>()?;
    let uid = u32::try_from(fields.decimal()?).ok()?;
    let probes = fields.signed()?;
    let inode = fields.decimal()?;
    let _references = fields.signed()?;
    let pointer = fields.pointer();
    let drops = if has_drops { fields.decimal() } else { None };
    let drops = drops.and_then(|drops| u32::try_from(drops).ok());
    Some(Columns {
        state,
        send_q,
        recv_q,
        timer,
        ticks,
        retransmits,
        uid,
        probes,
        inode,
        pointer,
        drops,
    })
}

#[inline]
fn row(
    table: Table,
    local: SocketAddr,
    remote: SocketAddr,
    columns: &Columns,
) -> Row<'static> {
    let timer = timer(columns);
    let waits = timer.is_some_and(|timer| timer.kind == TimerKind::TimeWait);
    Row {
        is_v6: table.is_v6,
        local: Address::Inet(local),
        remote: Address::Inet(remote),
        recv_q: columns.recv_q,
        send_q: (columns.state != State::Listen).then_some(columns.send_q),
        drops: columns.drops,
        // A socket in TIME_WAIT has no user; the file says 0.
        uid: (!waits).then_some(columns.uid),
        inode: Inode(columns.inode),
        timer,
        ..Row::new(table.kind, columns.state)
    }
}

#[inline]
fn timer(columns: &Columns) -> Option<Timer> {
    let kind = TimerKind::from_raw(u8::try_from(columns.timer).ok()?)?;
    let ms = columns.ticks.saturating_mul(TICK_MS);
    let fired = match kind {
        TimerKind::Keepalive | TimerKind::WindowProbe => columns.probes,
        TimerKind::TimeWait => 0,
        _ => columns.retransmits.into(),
    };
    Some(Timer {
        kind,
        expires_ms: u32::try_from(ms).unwrap_or(u32::MAX),
        retransmits: u8::try_from(fired).unwrap_or(u8::MAX),
    })
}

/// A socket with an inode is that socket whatever its state is by now. Of those without
/// one (TIME_WAIT, in an accept queue) the address of the kernel's object tells two with
/// the same four-tuple apart, which different VRFs may hold.
#[inline]
fn key(local: SocketAddr, remote: SocketAddr, columns: &Columns) -> Key {
    let key = end(end(Key::NONE, local), remote).with(columns.inode);
    if columns.inode != 0 {
        return key;
    }
    key.with(columns.state.raw().into()).with(columns.pointer)
}

#[inline]
fn end(key: Key, address: SocketAddr) -> Key {
    let port = u64::from(address.port());
    match address.ip() {
        IpAddr::V4(v4) => key.with(u64::from(v4.to_bits()) << 16 | port),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            key.with((bits >> 64) as u64).with(bits as u64).with(port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TCP: Table = Table { kind: Kind::Tcp, is_v6: false };
    const TCP6: Table = Table { kind: Kind::Tcp, is_v6: true };
    const UDP: Table = Table { kind: Kind::Udp, is_v6: false };

    fn parsed(line: &str, table: Table) -> Row<'static> {
        parse(line.as_bytes(), table).unwrap().0
    }

    /// The words of an address as this host's kernel prints them.
    fn words(octets: &[u8]) -> String {
        octets
            .chunks(4)
            .map(|four| format!("{:08X}", u32::from_ne_bytes(four.try_into().unwrap())))
            .collect()
    }

    fn v4(port: u16) -> String {
        format!("{}:{port:04X}", words(&[192, 0, 2, 7]))
    }

    #[test]
    fn a_connection_has_its_addresses_queues_owner_and_timer() {
        let line = format!(
            "   4: {} {} 01 00000010:0000067C 01:00000019 00000002   104        0 \
             85479323 1 00000000c3491fd3 308 0 0 10 -1                 ",
            v4(443),
            v4(0x8015)
        );
        let row = parsed(&line, TCP);
        assert_eq!(row.local, Address::Inet("192.0.2.7:443".parse().unwrap()));
        assert_eq!(row.remote, Address::Inet("192.0.2.7:32789".parse().unwrap()));
        assert_eq!(
            (row.kind, row.state, row.is_v6),
            (Kind::Tcp, State::Established, false)
        );
        assert_eq!((row.recv_q, row.send_q), (0x67c, Some(16)));
        assert_eq!((row.uid, row.inode), (Some(104), Inode(85_479_323)));
        let timer =
            Timer { kind: TimerKind::Retransmit, expires_ms: 250, retransmits: 2 };
        assert_eq!((row.timer, row.drops, row.cookie), (Some(timer), None, None));
    }

    #[test]
    fn the_backlog_of_a_listener_is_not_known() {
        let line = format!(
            "0: {} 00000000:0000 0A 00000000:00000081 00:00000000 00000000 0 0 1521 1 \
             0000000000000000 100 0 0 10 0",
            v4(80)
        );
        let row = parsed(&line, TCP);
        assert_eq!((row.state, row.recv_q, row.send_q), (State::Listen, 129, None));
        assert_eq!(row.timer, None);
    }

    #[test]
    fn what_waits_has_neither_user_nor_inode() {
        let line = format!(
            "105: {} {} 06 00000000:00000000 03:00001770 00000000     0        0 0 3 \
             00000000a75979b9",
            v4(80),
            v4(81)
        );
        let row = parsed(&line, TCP);
        let timer =
            Timer { kind: TimerKind::TimeWait, expires_ms: 60_000, retransmits: 0 };
        assert_eq!((row.state, row.timer), (State::TimeWait, Some(timer)));
        assert_eq!((row.uid, row.inode), (None, Inode(0)));
    }

    #[test]
    fn probes_unanswered_are_counted_by_the_timer_that_sends_them() {
        let of = |timer: &str| {
            let line = format!(
                "1: {} {} 01 00000000:00000000 {timer}:00000064 00000007 0 3 5 1 0",
                v4(80),
                v4(81)
            );
            parsed(&line, TCP).timer.unwrap()
        };
        assert_eq!((of("02").kind, of("02").retransmits), (TimerKind::Keepalive, 3));
        assert_eq!((of("04").kind, of("04").retransmits), (TimerKind::WindowProbe, 3));
        assert_eq!((of("01").kind, of("01").retransmits), (TimerKind::Retransmit, 7));
    }

    #[test]
    fn a_v6_row_keeps_a_mapped_address_as_it_is() {
        let mapped: std::net::Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
        let line = format!(
            "   1: {}:0050 {}:1F90 08 00000000:00000001 00:00000000 00000000     0     \
             0 0 1 0000000000000000 20 4 30 10 -1",
            words(&mapped.octets()),
            words(&std::net::Ipv6Addr::LOCALHOST.octets())
        );
        let row = parsed(&line, TCP6);
        assert_eq!(row.local, Address::Inet((mapped, 80).into()));
        assert_eq!(row.remote, Address::Inet("[::1]:8080".parse().unwrap()));
        assert!(row.is_v6 && row.is_queued());
    }

    #[test]
    fn a_datagram_socket_has_its_drops() {
        let line = format!(
            "  741: {} 00000000:0000 07 00000000:00000300 00:00000000 00000000   101    \
             0 20913 2 00000000a1b2c3d4 17 ",
            v4(53)
        );
        let row = parsed(&line, UDP);
        assert_eq!((row.state, row.drops, row.recv_q), (State::Close, Some(17), 768));
    }

    #[test]
    fn a_kernel_that_hides_its_addresses_is_understood() {
        let line = format!(
            "1: {} {} 01 00000000:00000000 00:00000000 00000000 0 0 5 1 (ptrval) 0",
            v4(80),
            v4(81)
        );
        assert_eq!(parsed(&line, TCP).inode, Inode(5));
    }

    #[test]
    fn a_damaged_line_is_no_row() {
        let line = format!(
            "1: {} {} 01 00000000:00000000 00:00000000 00000000 0 0 5 1",
            v4(80),
            v4(81)
        );
        assert!(parse(line.as_bytes(), TCP).is_some());
        for cut in 0..line.len() - 1 {
            assert_eq!(parse(&line.as_bytes()[..cut], TCP), None, "{}", &line[..cut]);
        }
        assert_eq!(parse(line.as_bytes(), TCP6), None, "an address of another family");
        for (is, becomes) in
            [(" 01 ", " 1 "), ("1: ", "1 "), ("0000 ", "000g "), (" 0 0 5 ", " -1 0 5 ")]
        {
            let broken = line.replace(is, becomes);
            assert_eq!(parse(broken.as_bytes(), TCP), None, "{broken}");
        }
    }

    #[test]
    fn one_socket_is_known_again_and_two_are_told_apart() {
        let key = |state: &str, inode: u32, pointer: &str| {
            let line = format!(
                "1: {} {} {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 \
                 {pointer} 0",
                v4(80),
                v4(81)
            );
            parse(line.as_bytes(), TCP).unwrap().1
        };
        assert_eq!(
            key("01", 5, "ab"),
            key("08", 5, "cd"),
            "closed by its peer meanwhile"
        );
        assert_ne!(key("0A", 5, "0"), key("0A", 6, "0"), "SO_REUSEPORT");
        assert_eq!(key("06", 0, "ab"), key("06", 0, "ab"));
        assert_ne!(key("06", 0, "ab"), key("06", 0, "cd"), "in two VRFs");
    }

    proptest! {
        #[test]
        fn any_socket_reads_back(
            local: [u8; 16],
            remote: [u8; 16],
            is_v6: bool,
            ports: (u16, u16),
            state in 1_u8..=11,
            queues: (u32, u32),
            uid: u32,
            inode: u64,
        ) {
            let len = if is_v6 { 16 } else { 4 };
            let line = format!(
                "{:4}: {}:{:04X} {}:{:04X} {state:02X} {:08X}:{:08X} 00:00000000 00000000 \
                 {uid:5} {:8} {inode} 1 0000000000000000 0",
                7, words(&local[..len]), ports.0, words(&remote[..len]), ports.1,
                queues.0, queues.1, 0,
            );
            let table = Table { kind: Kind::Udp, is_v6 };
            let row = parsed(&line, table);
            let ip = |octets: [u8; 16]| if is_v6 {
                IpAddr::from(octets)
            } else {
                IpAddr::from(*octets.first_chunk::<4>().unwrap())
            };
            prop_assert_eq!(row.local.inet(), Some((ip(local), ports.0).into()));
            prop_assert_eq!(row.remote.inet(), Some((ip(remote), ports.1).into()));
            prop_assert_eq!(row.state.raw(), state);
            prop_assert_eq!(row.recv_q, queues.1);
            prop_assert_eq!(row.send_q, (state != 10).then_some(queues.0));
            prop_assert_eq!((row.uid, row.inode), (Some(uid), Inode(inode)));
        }

        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, at in 0..150_usize, byte: u8) {
            let _ = (parse(&line, TCP), parse(&line, TCP6), parse(&line, UDP));
            let mut near = format!(
                "   1: {} {} 01 00000000:00000000 00:00000000 00000000 0 0 5 1 0 0",
                v4(80), v4(81)
            ).into_bytes();
            let at = at % near.len();
            near[at] = byte;
            let _ = (parse(&near, TCP), parse(&near, TCP6), parse(&near, UDP));
        }
    }
}
