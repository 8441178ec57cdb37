//! Processes that share nothing with their parent but one connection (fork(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use super::fd_table::close_all_but;

/// Starts a child that runs `serve` and ends, and gives its process id. Of the
/// descriptors it has `conn` and the standard ones alone; the `signals` have their
/// default effect; it is killed when the calling thread ends.
///
/// `serve` must use no other descriptor, and no lock that another thread of the caller
/// may hold at this moment: in the child there is no such thread to give it back. (The
/// allocator is safe to use: glibc and musl see to theirs.)
///
/// # Errors
/// EAGAIN at a limit on processes (RLIMIT_NPROC, pids.max), or ENOMEM.
pub fn fork_to_serve(
    conn: BorrowedFd<'_>,
    signals: &[i32],
    serve: impl FnOnce(),
) -> io::Result<Pid> {
    let parent = getpid();
    // SAFETY: the child returns to no caller: it ends in `child`. What it does there is
    // bounded by the promise above.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => child(parent, conn, signals, serve),
        pid => Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::Other.into()),
    }
}

fn child(parent: Pid, conn: BorrowedFd<'_>, signals: &[i32], serve: impl FnOnce()) -> ! {
    // A panic must not unwind into the parent's frames, copied here with its stack.
    let done = catch_unwind(AssertUnwindSafe(|| {
        for &signal in signals {
            // SAFETY: SIG_DFL takes a handler away and runs nothing.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        let mut keep = vec![0, 1, 2, conn.as_raw_fd()];
        keep.sort_unstable();
        keep.dedup();
        close_all_but(&keep)?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before that was set.
        if getppid() == Some(parent) {
            serve();
        }
        io::Result::Ok(())
    }));
    let code = i32::from(!matches!(done, Ok(Ok(()))));
    // SAFETY: ends the process at once; exit handlers and buffers are the parent's.
    unsafe { libc::_exit(code) }
}
