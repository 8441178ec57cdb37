//! Rows of /proc/net/unix: `unix_seq_show` in net/unix/af_unix.c.
//!
//! The procfs crate ends a path at its first blank and refuses the whole file for one
//! name that is not UTF-8, so the parser is ours.

use std::borrow::Cow;

use super::fields::Fields;
use super::recent::Key;
use crate::sockets::model::{Inode, State, UnixName};
use crate::sockets::row::{Address, Kind, Row};

/// __SO_ACCEPTCON (net.h): it listens.
const ACCEPTS: u32 = 1 << 16;
/// The kind of a type that this program does not know.
const UNKNOWN: Kind = Kind::Family(1);

/// Parses one row; None for any other line. A socket without an inode has as its key the
/// address of the kernel's object, or none where that is hidden: those that wait in one
/// accept queue look all the same then.
///
/// An abstract name begins with `@`, which stands for each of its zero bytes too, and
/// cannot be told from a path that begins so.
pub(super) fn parse(line: &[u8]) -> Option<(Row<'_>, Option<Key>)> {
    let mut fields = Fields::of(line);
    let pointer = Fields::of(fields.word()?.strip_suffix(b":")?).long_hex()?;
    let _references = fields.hex::<8>()?;
    let _protocol = fields.hex::<8>()?;
    let flags = fields.hex::<8>()?;
    let kind = match fields.hex::<4>()? {
        1 => Kind::UnixStream,
        2 => Kind::UnixDatagram,
        5 => Kind::UnixSeqPacket,
        _ => UNKNOWN,
    };
    let state = state(flags, fields.hex::<2>()?);
    let inode = Inode(fields.decimal()?);
    let name = fields.rest().strip_prefix(b" ").and_then(name);
    let local = Address::Unix { name, inode };
    let identity = if inode.exists() { inode.0 } else { pointer };
    let key =
        (identity != 0).then(|| Key::NONE.with(u64::from(inode.exists())).with(identity));
    Some((Row { local, inode, ..Row::new(kind, state) }, key))
}

/// Whether the name of a row may go on in the next line: it has one, if only the blank
/// before it.
pub(super) fn may_go_on(row: &[u8]) -> bool {
    let mut fields = Fields::of(row);
    let columns = (0..6).try_for_each(|_| fields.word().map(|_| ()));
    columns.is_some() && fields.decimal().is_some() && !fields.rest().is_empty()
}

/// The state that sock_diag(7) gives for what the file has: whether it listens, and
/// SS_CONNECTING (without a file, so in an accept queue) or SS_CONNECTED (net.h).
fn state(flags: u32, socket_state: u32) -> State {
    match socket_state {
        _ if flags & ACCEPTS != 0 => State::Listen,
        2 | 3 => State::Established,
        _ => State::Close,
    }
}

fn name(bytes: &[u8]) -> Option<UnixName<'_>> {
    match bytes.split_first()? {
        (b'@', name) => Some(UnixName::Abstract(Cow::Borrowed(name))),
        _ => Some(UnixName::Path(Cow::Borrowed(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Row<'_> {
        parse(line.as_bytes()).unwrap().0
    }

    fn shown_name(row: &Row<'_>) -> String {
        match &row.local {
            Address::Unix { name: Some(name), .. } => name.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn listeners_connections_and_queued_sockets_are_told_apart() {
        let line = "00000000af9973a3: 00000002 00000000 00010000 0001 01 17779 /run/a b";
        let row = parsed(line);
        assert_eq!((row.kind, row.state), (Kind::UnixStream, State::Listen));
        assert_eq!((row.inode, shown_name(&row).as_str()), (Inode(17_779), "/run/a b"));

        let row = parsed("0000000000000000: 00000003 00000000 00000000 0005 03  1518");
        assert_eq!((row.kind, row.state), (Kind::UnixSeqPacket, State::Established));
        assert_eq!(row.local, Address::Unix { name: None, inode: Inode(1518) });

        let row = parsed("0000000000000000: 00000003 00000000 00000000 0001 02     0");
        assert!(row.is_queued());
        let row =
            parsed("0000000000000000: 00000002 00000000 00000000 0002 01     7 @x@y");
        assert_eq!((row.kind, row.state), (Kind::UnixDatagram, State::Close));
        assert_eq!(shown_name(&row), "@x@y");
        let row = parsed("ffff88810a3a4000: 00000002 00000000 00000000 0003 04     7");
        assert_eq!((row.kind, row.state), (UNKNOWN, State::Close));
    }

    #[test]
    fn sockets_that_wait_in_one_queue_are_not_taken_for_one() {
        let key = |line: &str| parse(line.as_bytes()).unwrap().1;
        let hidden = "0000000000000000: 00000003 00000000 00000000 0001 02     0 /a";
        assert_eq!(key(hidden), None);
        let one = "00000000000000ab: 00000003 00000000 00000000 0001 02     0 /a";
        assert_ne!(key(one), key(&one.replace("ab", "cd")));
        let accepted = "00000000000000ab: 00000003 00000000 00000000 0001 03   171 /a";
        assert_ne!(key(one), key(accepted));
        assert_ne!(key(&one.replace("     0", "   171")), None);
    }

    #[test]
    fn only_a_name_goes_on_in_the_next_line() {
        let row = "0000000000000000: 00000002 00000000 00000000 0001 01     7";
        assert!(!may_go_on(row.as_bytes()) && !may_go_on(b""));
        assert!(may_go_on(format!("{row} /a").as_bytes()));
        assert!(
            may_go_on(format!("{row} ").as_bytes()),
            "the name begins with a newline"
        );
    }

    #[test]
    fn what_is_no_row_is_none() {
        for line in [
            "Num       RefCount Protocol Flags    Type St Inode Path",
            "",
            "/a second line of a path: 00000002",
            "af99: 00000003 00000000 00000000 0001 03",
            "af99: 00000003 00000000 00000000 1 03 17",
            "af99: 00000003 00000000 00000000 0001 03 17x",
            "af9g: 00000003 00000000 00000000 0001 03 17",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, name: Vec<u8>) {
            let _ = parse(&line);
            let mut near = b"af99: 00000003 00000000 00000000 0001 03 17 ".to_vec();
            near.extend(name);
            let row = parse(&near).unwrap().0;
            prop_assert!(!shown_name(&row).chars().any(char::is_control));
        }
    }
}
