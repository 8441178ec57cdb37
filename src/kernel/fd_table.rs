//! File descriptor tables of a thread's own.
//!
//! On Linux RLIMIT_NOFILE bounds one fd table, not one process (`fs/file.c`,
//! `alloc_fd`). A thread that calls `unshare(CLONE_FILES)` (unshare(2)) gets a copy of
//! its process's table, with the full limit for itself, and needs no privilege for it.
//! What it opens then can be used and closed in that thread alone, and dies with it.

use std::fs::OpenOptions;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::signals::leave_to_others;

/// Proof that this thread has an fd table of its own; it cannot leave the thread.
///
/// Descriptors 0, 1 and 2 are /dev/null in it, so that no inherited copy keeps a pipe
/// of the process open and a panic message never lands in a connection.
#[derive(Debug)]
pub struct OwnTable {
    _stays_in_its_thread: PhantomData<*const ()>,
}

impl OwnTable {
    /// Gives the calling thread a table of its own, and closes in it everything
    /// inherited but `keep` (by the same numbers). Signals sent to the process are left
    /// to its other threads: a handler may write to a descriptor by its number.
    ///
    /// The caller must not hold descriptors of the process other than `keep` for use
    /// in this thread: their numbers mean nothing here any more.
    ///
    /// # Errors
    /// EPERM where a seccomp filter forbids unshare(2) (containers often do), ENOMEM,
    /// EMFILE or what opening /dev/null gives. After an error the thread must end.
    pub fn unshare(keep: &[BorrowedFd<'_>]) -> io::Result<Self> {
        leave_to_others()?;
        // SAFETY: from here on this thread's descriptors are its own. The borrowed
        // `keep` are copied by unshare under the same numbers and stay open; everything
        // else inherited is closed below, before any code can use it, and the type
        // returned cannot be sent to another thread.
        unsafe { unshare_unsafe(UnshareFlags::FILES) }?;
        let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        keep.sort_unstable();
        close_all_but(&keep)?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        for standard in 0..3 {
            if null.as_raw_fd() != standard && keep.binary_search(&standard).is_err() {
                // SAFETY: dup3 of an open descriptor onto 0..=2, which nothing in this
                // table owns: they were closed above.
                let done =
                    unsafe { libc::dup3(null.as_raw_fd(), standard, libc::O_CLOEXEC) };
                if done < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        if null.as_raw_fd() < 3 {
            // It became a standard descriptor itself, and stays open as such.
            let _ = null.into_raw_fd();
        }
        Ok(Self { _stays_in_its_thread: PhantomData })
    }
}

/// Closes every descriptor of this table but those in `keep`, which is sorted.
pub(super) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut from: u32 = 0;
    for &fd in keep {
        let fd = u32::try_from(fd).map_err(|_| io::ErrorKind::InvalidInput)?;
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: called through `close_all_but` alone, in a new table of a thread or of
    // a forked child, for numbers that nothing there uses. The call takes three
    // integers and touches no memory of ours.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor that is closed in the thread that made it: it can neither be sent nor
/// shared. Four bytes, also as an `Option`, for tables of many.
#[derive(Debug)]
pub struct LocalFd {
    fd: OwnedFd,
    _stays_in_its_thread: PhantomData<*const ()>,
}

impl<T: Into<OwnedFd>> From<T> for LocalFd {
    fn from(owned: T) -> Self {
        Self { fd: owned.into(), _stays_in_its_thread: PhantomData }
    }
}

impl AsFd for LocalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for LocalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn an_optional_descriptor_takes_four_bytes() {
        assert_eq!(size_of::<Option<LocalFd>>(), 4);
    }

    /// Runs `check` while a thread with a table of its own lives.
    fn beside_another_table(check: impl FnOnce()) {
        let (ready, is_ready) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _table = OwnTable::unshare(&[]).unwrap();
            ready.send(()).unwrap();
            let _ = ended.recv();
        });
        is_ready.recv().unwrap();
        check();
        drop(end);
        holder.join().unwrap();
    }

    #[test]
    fn an_inherited_copy_keeps_no_pipe_open() {
        let (mut reader, writer) = io::pipe().unwrap();
        beside_another_table(|| {
            drop(writer);
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty(), "end of file while the other table still lives");
        });
    }

    #[test]
    fn an_inherited_copy_keeps_no_listener_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        beside_another_table(|| {
            drop(listener);
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn what_is_kept_works_under_its_number() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|s| {
            let acceptor = s.spawn(|| {
                let _table = OwnTable::unshare(&[listener.as_fd()]).unwrap();
                let (stream, _) = listener.accept().unwrap();
                LocalFd::from(stream).as_raw_fd()
            });
            let _client = TcpStream::connect(address).unwrap();
            assert!(acceptor.join().unwrap() >= 3);
        });
    }
}
