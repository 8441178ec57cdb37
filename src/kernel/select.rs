//! select(2) with sets of any size.
//!
//! The C library's `fd_set` has FD_SETSIZE bits, and its FD_SET writes beyond the set for
//! a larger descriptor. The system call takes as many bits as it is told of.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{
    FdSetElement, FdSetIter, Timespec, fd_set_insert, fd_set_num_elements, select,
};

/// How many descriptors an `fd_set` of the C library has room for: 0 up to this.
pub const FD_SET_BITS: usize = libc::FD_SETSIZE;

/// Which of `fds` can be read from without waiting, after `at_most`: their numbers.
///
/// # Errors
/// What select(2) gives: EINTR where a signal came first.
pub fn readable(fds: &[BorrowedFd<'_>], at_most: Duration) -> io::Result<Vec<i32>> {
    let last = fds.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(-1);
    let mut set = vec![FdSetElement::default(); fd_set_num_elements(fds.len(), last + 1)];
    for fd in fds {
        fd_set_insert(&mut set, fd.as_raw_fd());
    }
    let timeout = Timespec::try_from(at_most).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the set has room for `last + 1` bits, and every descriptor in it is
    // borrowed, so open.
    unsafe { select(last + 1, Some(&mut set), None, None, Some(&timeout)) }?;
    Ok(FdSetIter::new(&set).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::fcntl_dupfd_cloexec;
    use rustix::process::{Resource, getrlimit};
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_beyond_an_fd_set_is_waited_for() {
        let beyond = i32::try_from(FD_SET_BITS).unwrap() + 500;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if limit <= u64::try_from(beyond).unwrap() {
            return crate::sockets::testing::skip("RLIMIT_NOFILE is too low");
        }
        let (reader, mut writer) = io::pipe().unwrap();
        let high = fcntl_dupfd_cloexec(&reader, beyond).unwrap();
        let (silent, _silent_writer) = io::pipe().unwrap();
        let fds = [silent.as_fd(), high.as_fd()];
        assert!(readable(&fds, Duration::ZERO).unwrap().is_empty());
        writer.write_all(b"x").unwrap();
        let ready = readable(&fds, Duration::from_secs(5)).unwrap();
        assert_eq!(ready, [high.as_raw_fd()]);
    }

    #[test]
    fn without_descriptors_nothing_is_ready() {
        assert!(readable(&[], Duration::ZERO).unwrap().is_empty());
    }
}
