//! What tests need of the kernel and must be unsafe for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::netns::Netns;

/// Sets TCP_DEFER_ACCEPT (tcp(7)) of a listener.
pub(crate) fn set_defer_accept(listener: impl AsFd, seconds: i32) -> io::Result<()> {
    let len = u32::try_from(size_of_val(&seconds)).unwrap_or(0);
    // SAFETY: the kernel reads `len` bytes, the size of `seconds`, from it.
    let done = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            len,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A network namespace with nothing in it: EPERM without CAP_SYS_ADMIN.
pub(crate) fn new_netns() -> io::Result<Netns> {
    let inside = thread::spawn(|| {
        // SAFETY: moves this thread to a new network namespace and does not touch its
        // descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Netns::current()
    });
    inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
