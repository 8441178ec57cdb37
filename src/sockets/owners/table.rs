//! Reading one fd table of /proc: numbers in a folder, and the sockets they lead to.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::sockets::model::Inode;

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    On,
    Stop,
}

/// Room for what one getdents64(2) reads.
const ENTRIES: usize = 16 * 1024;
/// Longer than any `socket:[4294967295]`. Longer links are cut, and are none.
const LINK: usize = 32;

/// Hands out the inode and number of each socket in an open fd folder, until told to
/// stop or `max_links` links were read. Returns how many were read.
///
/// What is closed, or whose process ends, meanwhile is left out.
pub(super) fn walk(
    table: &OwnedFd,
    max_links: usize,
    mut each: impl FnMut(Inode, u32) -> Walk,
) -> Result<usize, Errno> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); ENTRIES];
    let mut entries = RawDir::new(table, &mut buffer);
    let mut links = 0;
    while links < max_links {
        let entry = match entries.next() {
            Some(Ok(entry)) => entry,
            None | Some(Err(Errno::NOENT | Errno::SRCH)) => break,
            Some(Err(errno)) => return Err(errno),
        };
        let Some(fd) = number(entry.file_name().to_bytes()) else { continue };
        let mut link = [MaybeUninit::<u8>::uninit(); LINK];
        links += 1;
        match rustix::fs::readlinkat_raw(table, entry.file_name(), &mut link) {
            Ok((link, _)) => {
                if let Some(inode) = socket_inode(link)
                    && each(inode, fd) == Walk::Stop
                {
                    break;
                }
            }
            Err(errno) if denied(errno) => return Err(errno),
            Err(_) => {}
        }
    }
    Ok(links)
}

/// The names in an open folder that are numbers: pids, thread ids.
pub(super) fn numbers_in(folder: &OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); ENTRIES];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        found.extend(number(entry?.file_name().to_bytes()));
    }
    Ok(found)
}

/// Reads a small file of /proc, its first 512 bytes.
pub(super) fn read_small(at: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(at, path, flags, Mode::empty())?;
    let mut bytes = vec![0; 512];
    let len = rustix::io::read(file.as_fd(), &mut *bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Whether an error is a right that is missing.
pub(super) fn denied(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM)
}

/// The inode in `socket:[N]`.
fn socket_inode(link: &[u8]) -> Option<Inode> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    number(digits).map(|inode| Inode(inode.into()))
}

/// A decimal number, with nothing else about it.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u32::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_whole_socket_link_has_an_inode() {
        assert_eq!(socket_inode(b"socket:[4294967295]"), Some(Inode(u32::MAX.into())));
        for other in
            [&b"pipe:[1]"[..], b"socket:[]", b"socket:[1", b"socket:[4294967296]"]
        {
            assert_eq!(socket_inode(other), None);
        }
    }

    proptest! {
        #[test]
        fn a_link_of_any_bytes_is_read_without_panic(bytes: Vec<u8>, inode: u32) {
            let _ = (socket_inode(&bytes), number(&bytes));
            let link = format!("socket:[{inode}]");
            prop_assert_eq!(socket_inode(link.as_bytes()), Some(Inode(inode.into())));
        }
    }
}
