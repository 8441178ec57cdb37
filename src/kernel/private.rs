//! Private namespaces (namespaces(7)): a place of one's own to try things in.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

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

/// Sets a network interface of the calling thread's namespace up (netdevice(7)).
///
/// # Errors
/// ENODEV where there is none of this name; EPERM without CAP_NET_ADMIN.
pub fn set_up(name: &str) -> io::Result<()> {
    // SAFETY: an ifreq of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let socket = std::net::UdpSocket::bind(("::", 0))
        .or_else(|_| std::net::UdpSocket::bind(("0.0.0.0", 0)))?;
    // SAFETY: the kernel reads the name, which ends with a zero, and writes the flags,
    // both within `request`.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) }
        < 0
    {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFFLAGS has just written this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags =
        flags | libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: the kernel reads the name and the flags.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }
        < 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

    #[test]
    fn an_interface_that_is_not_there_is_not_set_up() {
        assert_eq!(set_up("nosuch0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        let error = set_up("a-name-that-is-too-long").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
