//! Rows of /proc/net/packet and /proc/net/netlink: `packet_seq_show` in
//! net/packet/af_packet.c, `netlink_native_seq_show` in net/netlink/af_netlink.c.
//! (The procfs crate reads neither.)

use super::fields::Fields;
use super::recent::Key;
use crate::sockets::model::{Inode, State};
use crate::sockets::row::{Address, Kind, Row};

/// Parses a row of the packet table; None for any other line. Such a socket has no
/// state; sock_diag(7) gives none either, and ss(8) says UNCONN.
pub(super) fn parse_packet(line: &[u8]) -> Option<(Row<'static>, Key)> {
    let mut fields = Fields::of(line);
    let pointer = pointer(&mut fields)?;
    let _references = fields.decimal()?;
    // SOCK_PACKET (10), the oldest form, has the link-level header too.
    let kind = match fields.decimal()? {
        3 | 10 => Kind::PacketRaw,
        2 => Kind::PacketDatagram,
        _ => Kind::Family(17),
    };
    let protocol = u16::try_from(fields.hex::<4>()?).ok()?;
    // -1 once the interface it was bound to is gone.
    let interface = fields.signed()?;
    let interface = i32::try_from(interface).map_or(0, i32::unsigned_abs);
    let _running = fields.decimal()?;
    let recv_q = u32::try_from(fields.decimal()?).ok()?;
    let uid = u32::try_from(fields.decimal()?).ok()?;
    let inode = fields.decimal()?;
    let row = Row {
        local: Address::Packet { protocol, interface },
        recv_q,
        uid: Some(uid),
        inode: Inode(inode),
        interface,
        ..Row::new(kind, State::Close)
    };
    Some((row, Key::NONE.with(inode).with(pointer)))
}

/// Parses a row of the netlink table; None for any other line. The kernel's own sockets
/// have port 0.
pub(super) fn parse_netlink(line: &[u8]) -> Option<(Row<'static>, Key)> {
    let mut fields = Fields::of(line);
    let pointer = pointer(&mut fields)?;
    let family = u8::try_from(fields.decimal()?).ok()?;
    let port = u32::try_from(fields.signed()?).ok()?;
    let _groups = fields.long_hex()?;
    let recv_q = u32::try_from(fields.signed()?).ok()?;
    let send_q = u32::try_from(fields.signed()?).ok()?;
    // Whether a dump runs; an address before Linux 3.10.
    let _dump = fields.word()?;
    let _references = fields.signed()?;
    let drops = u32::try_from(fields.signed()?).ok()?;
    let inode = fields.decimal()?;
    let row = Row {
        local: Address::Netlink { family, port },
        recv_q,
        send_q: Some(send_q),
        drops: Some(drops),
        inode: Inode(inode),
        ..Row::new(Kind::Netlink, State::Close)
    };
    let key = Key::NONE.with(inode).with(pointer).with(family.into()).with(port.into());
    Some((row, key))
}

/// The first column: an address, or what the kernel says instead of it.
fn pointer(fields: &mut Fields<'_>) -> Option<u64> {
    let word = fields.word()?;
    let hidden = word.starts_with(b"(");
    if hidden { Some(0) } else { Fields::of(word).long_hex() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_socket_has_its_protocol_and_interface() {
        let line = "0000000011fc0c4b 2      3    0003   2     1 4352   104    85732806";
        let row = parse_packet(line.as_bytes()).unwrap().0;
        assert_eq!((row.kind, row.state), (Kind::PacketRaw, State::Close));
        assert_eq!(row.local, Address::Packet { protocol: 3, interface: 2 });
        assert_eq!((row.recv_q, row.uid), (4352, Some(104)));
        assert_eq!((row.inode, row.interface), (Inode(85_732_806), 2));
        let gone = line.replace(" 2     1 ", " -1    0 ");
        let row = parse_packet(gone.as_bytes()).unwrap().0;
        assert_eq!(row.local, Address::Packet { protocol: 3, interface: 0 });
    }

    #[test]
    fn a_netlink_socket_has_its_family_and_port() {
        let line = "00000000d0d839e1 4   29285      00000000 512      0        0     2   \
                    3        83586137";
        let row = parse_netlink(line.as_bytes()).unwrap().0;
        assert_eq!(row.local, Address::Netlink { family: 4, port: 29_285 });
        assert_eq!((row.recv_q, row.drops), (512, Some(3)));
        assert_eq!(row.inode, Inode(83_586_137));
        let auto = line.replace("29285     ", "4294966290");
        let row = parse_netlink(auto.as_bytes()).unwrap().0;
        assert_eq!(row.local, Address::Netlink { family: 4, port: 4_294_966_290 });
        let older = line.replace("29285     ", "-1006     ");
        let row = parse_netlink(older.as_bytes()).unwrap().0;
        assert_eq!(row.local, Address::Netlink { family: 4, port: 4_294_966_290 });
    }

    #[test]
    fn a_header_is_no_row() {
        let header = b"sk               RefCnt Type Proto  Iface R Rmem   User   Inode";
        assert_eq!(parse_packet(header), None);
        let header = b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  \
                       Locks    Drops    Inode";
        assert_eq!(parse_netlink(header), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, near in "[0-9a-f -]{0,80}") {
            let _ = (parse_packet(&line), parse_netlink(&line));
            let _ = (parse_packet(near.as_bytes()), parse_netlink(near.as_bytes()));
        }
    }
}
