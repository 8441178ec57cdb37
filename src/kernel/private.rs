//! Private namespaces (namespaces(7)): a place of one's own to try things in.

use std::fs;
use std::io;

use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::interface::set_up;

/// Gives this process a user namespace of its own, in which it has every capability and
/// its user and group keep their numbers (user_namespaces(7)).
///
/// # Errors
/// EINVAL in a process with more than one thread; EPERM, ENOSPC or EUSERS where this
/// host forbids it; what writing /proc/self/uid_map gives.
pub fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: NEWUSER moves no descriptor and no memory; the kernel refuses it where
    // another thread would disagree.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    // Only who gives up setgroups(2) may map a group.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Moves the calling thread to a new network namespace, its loopback device up.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; ENOSPC where /proc/sys/user/max_net_namespaces is
/// reached.
pub fn enter_network_namespace() -> io::Result<()> {
    // SAFETY: NEWNET moves the calling thread alone, and none of its descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    set_up("lo")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netns::Netns;
    use crate::sockets::testing::skip;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    #[test]
    fn a_new_network_namespace_has_a_loopback_that_carries() {
        let before = Netns::current().unwrap().inode().unwrap();
        let inside = thread::spawn(|| {
            enter_network_namespace()?;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            assert_eq!(TcpStream::connect(to).unwrap().peer_addr().unwrap(), to);
            Netns::current().unwrap().inode()
        });
        match inside.join().unwrap() {
            Ok(inode) => assert_ne!(inode, before),
            Err(error) => skip(&format!("no network namespace: {error}")),
        }
        assert_eq!(Netns::current().unwrap().inode().unwrap(), before);
    }
}
