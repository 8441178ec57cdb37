//! The framing of netlink (netlink(7), linux/netlink.h): messages in a datagram and
//! attributes in a message, as functions of bytes that hold for any bytes.

use std::io;

/// NLMSG_NOOP: asks for nothing; with NLM_F_ACK it is acknowledged.
pub(crate) const NOOP: u16 = 1;
/// NLMSG_ERROR: an error, or an acknowledgement where the error is 0.
pub(crate) const ERROR: u16 = 2;
/// NLMSG_DONE: the end of a dump, with an error where the dump failed.
pub(crate) const DONE: u16 = 3;

/// NLM_F_REQUEST.
pub(crate) const REQUEST: u16 = 0x1;
/// NLM_F_ACK.
pub(crate) const ACK: u16 = 0x4;
/// NLM_F_CREATE and NLM_F_EXCL: to be made, and not there yet.
pub(crate) const CREATE: u16 = 0x600;
/// NLM_F_DUMP_INTR: the table changed so that rows may be missing or twice there.
pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
/// NLM_F_DUMP, which is NLM_F_ROOT and NLM_F_MATCH.
pub(crate) const DUMP: u16 = 0x300;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER, which are no part of an attribute's type.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// The errno at the head of an NLMSG_ERROR or NLMSG_DONE, 0 where there is none.
    pub(crate) fn errno(&self) -> i32 {
        let code = self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        code.saturating_neg().max(0)
    }
}

/// The messages of one datagram; ends after the first that is cut short.
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) fn of(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = io::Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.rest);
        let message = parse(whole);
        if let Some((_, used)) = message {
            self.rest = whole.get(used..).unwrap_or_default();
        }
        Some(message.map(|(message, _)| message).ok_or_else(malformed))
    }
}

fn parse(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let len = usize::try_from(u32_at(header, 0)).ok()?;
    let payload = bytes.get(HEADER..len)?;
    let message = Message {
        kind: u16_at(header, 4),
        flags: u16_at(header, 6),
        sequence: u32_at(header, 8),
        payload,
    };
    Some((message, len.next_multiple_of(4)))
}

/// The attributes (struct nlattr) after the fixed part of a message: their type and
/// their bytes. Ends at the first that is cut short.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let whole = std::mem::take(&mut self.rest);
        let header: &[u8; ATTRIBUTE_HEADER] = whole.first_chunk()?;
        let len = usize::from(u16_at(header, 0));
        let value = whole.get(ATTRIBUTE_HEADER..len)?;
        self.rest = whole.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16_at(header, 2) & !ATTRIBUTE_FLAGS, value))
    }
}

/// A message to the kernel: a header, then `payload`.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Appends an attribute of four bytes.
pub(crate) fn push_u32(to: &mut Vec<u8>, kind: u16, value: u32) {
    to.extend_from_slice(&8_u16.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(&value.to_ne_bytes());
}

/// Appends an attribute of any bytes, padded to four.
pub(crate) fn push(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&len.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The host-endian u32 at `at`, which must lie within `bytes`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The host-endian u16 at `at`, which must lie within `bytes`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// The error for bytes that no kernel of today sends.
pub(crate) fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel sent a netlink message that is cut short",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_messages_in_one_datagram_are_told_apart_across_padding() {
        let mut datagram = message(20, REQUEST, 7, b"abcde");
        datagram.extend_from_slice(&[0; 3]);
        datagram.extend(message(DONE, 0, 7, &(-2_i32).to_ne_bytes()));
        let all: Vec<_> = Messages::of(&datagram).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].sequence), (20, 7));
        assert_eq!(all[0].payload, b"abcde");
        assert_eq!((all[1].kind, all[1].errno()), (DONE, libc::ENOENT));
    }

    #[test]
    fn a_length_beyond_the_datagram_is_an_error_and_the_end() {
        let mut datagram = message(20, 0, 1, &[0; 8]);
        datagram.truncate(20);
        let mut all = Messages::of(&datagram);
        assert!(all.next().unwrap().is_err());
        assert!(all.next().is_none());
    }

    #[test]
    fn a_length_shorter_than_its_own_header_does_not_loop() {
        let mut datagram = message(20, 0, 1, &[]);
        datagram[0] = 0;
        assert_eq!(Messages::of(&datagram).count(), 1);
    }

    #[test]
    fn attribute_flags_are_no_part_of_the_type() {
        let mut bytes = Vec::new();
        push_u32(&mut bytes, 0x8000 | 3, 262);
        let all: Vec<_> = Attributes::of(&bytes).collect();
        assert_eq!(all, [(3, &262_u32.to_ne_bytes()[..])]);
    }

    proptest! {
        #[test]
        fn attributes_that_are_written_are_read_again(all: Vec<Vec<u8>>) {
            let mut bytes = Vec::new();
            for value in &all {
                push(&mut bytes, 7, value);
            }
            let read: Vec<_> = Attributes::of(&bytes).map(|(_, v)| v.to_vec()).collect();
            prop_assert_eq!(read, all);
        }

        #[test]
        fn any_bytes_are_parsed_without_panic_and_to_an_end(bytes: Vec<u8>) {
            let steps = bytes.len() + 2;
            prop_assert!(Messages::of(&bytes).take(steps).count() < steps);
            prop_assert!(Attributes::of(&bytes).take(steps).count() < steps);
        }

        #[test]
        fn what_is_written_is_read_again(kind: u16, sequence: u32, payload: Vec<u8>) {
            let bytes = message(kind, ACK, sequence, &payload);
            let read = Messages::of(&bytes).next().unwrap().unwrap();
            prop_assert_eq!(
                read,
                Message { kind, flags: ACK, sequence, payload: &payload }
            );
        }
    }
}
