//! What tests need of the kernel and must be unsafe for.

use std::io;
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::netns::Netns;

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
