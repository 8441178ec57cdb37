//! Descriptors of other processes (pidfd_open(2), pidfd_getfd(2)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// PIDFD_THREAD (linux/pidfd.h): the thread itself, and thereby its own fd table.
const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.unsigned_abs());

/// A copy of a descriptor of another process, of the fd table of the thread `tid`. While
/// it is open, the file stays so too, though its owner closes it: keep it for no longer
/// than a question takes.
///
/// # Errors
/// ESRCH where the thread has ended, EBADF where it has no such descriptor, EPERM without
/// the right to trace it (ptrace(2), PTRACE_MODE_ATTACH_REALCREDS), EINVAL for a table of
/// a thread's own before Linux 6.9.
pub fn copy_of(pid: u32, tid: u32, fd: u32) -> io::Result<OwnedFd> {
    let flags = if tid == pid { PidfdFlags::empty() } else { THREAD };
    let number = i32::try_from(tid).ok().and_then(Pid::from_raw);
    let thread = pidfd_open(number.ok_or(io::ErrorKind::NotFound)?, flags)?;
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::NotFound)?;
    Ok(pidfd_getfd(thread, fd, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fd_table::{LocalFd, OwnTable};
    use crate::sockets::testing::{inode, loopback};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn a_copy_leads_to_the_same_socket() {
        let socket = TcpListener::bind((loopback(), 0)).unwrap();
        let (pid, fd) = (std::process::id(), socket.as_raw_fd().unsigned_abs());
        let copy = copy_of(pid, pid, fd).unwrap();
        assert_eq!(inode(&copy), inode(&socket));
        let none = copy_of(pid, pid, 1_000_000).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::EBADF));
        assert!(copy_of(u32::MAX, u32::MAX, fd).is_err());
    }

    #[test]
    fn a_descriptor_in_a_threads_own_table_is_reached_by_the_thread() {
        let (sender, receiver) = mpsc::channel();
        let (done, is_done) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _table = OwnTable::unshare(&[]).unwrap();
            let socket = LocalFd::from(TcpListener::bind((loopback(), 0)).unwrap());
            let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            let fd = socket.as_raw_fd().unsigned_abs();
            sender.send((inode(&socket), tid, fd)).unwrap();
            let _ = is_done.recv();
        });
        let (held, tid, fd) = receiver.recv().unwrap();
        let copied = copy_of(std::process::id(), tid, fd).map(|copy| inode(&copy));
        drop(done);
        holder.join().unwrap();
        match copied {
            Ok(copied) => assert_eq!(copied, held),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL)),
        }
    }
}
