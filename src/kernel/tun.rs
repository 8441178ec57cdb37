//! A tun device (linux/Documentation/networking/tuntap.rst): a network interface whose
//! packets a program reads and writes, so that it can delay or lose them.

use std::ffi::c_short;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// A tun device, without blocking; the interface is gone when this is dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes the interface `name` in the calling thread's network namespace. It is down
    /// and has no address yet.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EBUSY where the name is taken, EINVAL for one that
    /// is no interface's, or what opening /dev/net/tun gives.
    pub fn create(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // SAFETY: all bytes zero is a value of this struct of integers and pointers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays 0: it ends the name.
        let room = request.ifr_name.len() - 1;
        if name.is_empty() || name.len() > room || !name.is_ascii() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let flags = libc::IFF_TUN | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags =
            c_short::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel reads and writes one ifreq, which outlives the call.
        let done =
            unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file })
    }

    /// Takes one packet that the kernel sent out by the interface, from its IP header
    /// on; what does not fit `packet` is cut off.
    ///
    /// # Errors
    /// WouldBlock where none waits.
    pub fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(packet)
    }

    /// Hands one packet to the kernel as if it had come in by the interface.
    ///
    /// # Errors
    /// EINVAL for what is no IP packet, EIO while the interface is down.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(|_| ())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::new_netns;
    use crate::testing::{is_root, lacking};

    #[test]
    fn a_device_lives_as_long_as_its_value() {
        if !is_root() {
            return lacking("root, for /dev/net/tun");
        }
        let netns = new_netns().unwrap();
        let seen = |name: &str| {
            let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            table.lines().any(|line| line.trim_start().starts_with(&format!("{name}:")))
        };
        let (before, taken, after) = netns
            .run(|| {
                let tun = Tun::create("tun-test").unwrap();
                let before = seen("tun-test");
                let taken = Tun::create("tun-test").unwrap_err();
                drop(tun);
                (before, taken, seen("tun-test"))
            })
            .unwrap();
        assert!(before && !after);
        assert_eq!(taken.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        if !is_root() {
            return lacking("root, for /dev/net/tun");
        }
        for name in ["", "longer-than-15-bytes"] {
            let refused = Tun::create(name).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
