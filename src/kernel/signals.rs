//! Signals of a thread (pthread_sigmask(3)).

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Leaves every signal that is sent to this process to its other threads.
///
/// A signal handler that writes to a descriptor would, in a thread with an fd table of
/// its own, write to whatever has that number there.
///
/// # Errors
/// None that Linux gives; pthread_sigmask(3) may.
pub(super) fn leave_to_others() -> io::Result<()> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set that it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT]
    {
        // What this thread itself does wrong stays its own.
        // SAFETY: the set was initialised above.
        unsafe { libc::sigdelset(all.as_mut_ptr(), fault) };
    }
    // SAFETY: the set is initialised and outlives the call; the old one is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut()) }
    {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Ignores these signals in the whole process (SIG_IGN, signal(7)); a program that it
/// executes ignores them too.
///
/// # Errors
/// EINVAL for a signal that cannot be ignored, or is none.
pub fn ignore(signals: &[i32]) -> io::Result<()> {
    for &signal in signals {
        // SAFETY: SIG_IGN runs no code of ours, and takes a handler away at the most.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
