//! kcmp(2): whether two threads share one kernel object.

use std::cmp::Ordering;
use std::io;

/// KCMP_FILES (linux/kcmp.h).
const FILES: libc::c_int = 2;

/// Compares the fd tables of two threads, by their thread ids: equal when they share
/// one, else in an order that is the same until the host restarts.
///
/// # Errors
/// ESRCH where one has ended, EPERM without the right to trace both (ptrace(2)), ENOSYS
/// in a kernel without CONFIG_KCMP.
pub fn fd_tables(one: u32, other: u32) -> io::Result<Ordering> {
    // SAFETY: kcmp takes five integers and touches no memory of ours.
    let order =
        unsafe { libc::syscall(libc::SYS_kcmp, one, other, FILES, 0_usize, 0_usize) };
    match order {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        3 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fd_table::OwnTable;
    use rustix::thread::gettid;
    use std::sync::mpsc;
    use std::thread;

    fn tid() -> u32 {
        gettid().as_raw_nonzero().get().unsigned_abs()
    }

    #[test]
    fn a_thread_shares_the_table_until_it_has_its_own() {
        let (sender, receiver) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let me = tid();
        let other = thread::spawn(move || {
            sender.send(tid()).unwrap();
            ended.recv().unwrap();
            let _table = OwnTable::unshare(&[]).unwrap();
            sender.send(tid()).unwrap();
            let _ = ended.recv();
        });
        let thread = receiver.recv().unwrap();
        assert_eq!(fd_tables(me, thread).unwrap(), Ordering::Equal);
        end.send(()).unwrap();
        receiver.recv().unwrap();
        let order = fd_tables(me, thread).unwrap();
        assert_ne!(order, Ordering::Equal);
        assert_eq!(fd_tables(thread, me).unwrap(), order.reverse());
        drop(end);
        other.join().unwrap();
    }
}
