//! Network namespaces (network_namespaces(7)): naming one and running code in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FsWord, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// NSFS_MAGIC (linux/magic.h).
const NSFS: FsWord = 0x6e73_6673;
/// NS_GET_NSTYPE (linux/nsfs.h).
const GET_TYPE: libc::c_ulong = 0xb703;
/// SIOCGSKNS (linux/sockios.h).
const SOCKET_NETNS: libc::c_ulong = 0x894c;

/// A network namespace, kept alive by an open descriptor.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// What opening /proc/thread-self/ns/net gives.
    pub fn current() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
    }

    /// The namespace that `spec` names: a process id, or a name as `ip netns` gives
    /// (a file under /run/netns), or a path.
    ///
    /// # Errors
    /// What opening its file gives: ENOENT for a name that nobody gave, EACCES for a
    /// process of another user; InvalidInput where it is no network namespace.
    pub fn open(spec: &str) -> io::Result<Self> {
        let path: PathBuf = if spec.parse::<u32>().is_ok() {
            format!("/proc/{spec}/ns/net").into()
        } else if spec.contains('/') {
            spec.into()
        } else {
            format!("/run/netns/{spec}").into()
        };
        Self::at(&path)
    }

    /// The namespace that a file stands for: /proc/PID/ns/net, a file under /run/netns,
    /// or any other that one was mounted on.
    ///
    /// # Errors
    /// What opening it gives; InvalidInput where it is no network namespace.
    pub fn at(path: &Path) -> io::Result<Self> {
        // A FIFO that somebody put there would never open.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let is_namespace = rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type == NSFS);
        if is_namespace && kind(&file) == libc::CLONE_NEWNET {
            return Ok(Self { file });
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no network namespace"))
    }

    /// Another handle on the same namespace.
    ///
    /// # Errors
    /// EMFILE where no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// The namespace that a socket was made in, which it never leaves (SIOCGSKNS).
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN in that namespace; ENOTTY where it is no socket.
    pub fn of_socket(socket: impl AsFd) -> io::Result<Self> {
        // SAFETY: this request takes no argument. A file that does not know it refuses it.
        let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SOCKET_NETNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made by this request, and nothing else has it.
        Ok(Self { file: unsafe { File::from_raw_fd(fd) } })
    }

    /// The inode that identifies this namespace, as `readlink /proc/PID/ns/net` shows.
    ///
    /// # Errors
    /// What fstat(2) gives.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Runs `f` in this namespace, on a thread of its own that ends with it. Sockets
    /// and /proc/net files that `f` opens stay in this namespace.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in the user namespace that owns this one, or what
    /// starting a thread gives.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = thread::Builder::new().spawn_scoped(scope, || {
                move_into_link_name_space(
                    self.file.as_fd(),
                    Some(LinkNameSpaceType::Network),
                )?;
                Ok(f())
            })?;
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The CLONE_NEW… flag of a namespace's kind, or -1 (ioctl_nsfs(2), Linux 4.11).
fn kind(namespace: &File) -> i32 {
    // SAFETY: this request takes no argument and answers by its return value; it is made
    // of files of nsfs alone, which know it.
    unsafe { libc::ioctl(namespace.as_raw_fd(), GET_TYPE) }
}

impl From<Netns> for OwnedFd {
    fn from(netns: Netns) -> Self {
        netns.file.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::new_netns_or_rerun;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn only_a_file_of_a_network_namespace_is_one() {
        let current = Netns::current().unwrap().inode().unwrap();
        let pid = std::process::id().to_string();
        for spec in ["/proc/thread-self/ns/net", "/proc/self/ns/net", &pid] {
            assert_eq!(Netns::open(spec).unwrap().inode().unwrap(), current, "{spec}");
        }
        for spec in ["/proc/self/ns/mnt", "/proc/self/stat", "/dev/null", "/proc"] {
            let error = Netns::open(spec).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{spec}");
        }
        let error = Netns::open("nobody gave this name").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_socket_stays_in_the_namespace_that_it_was_made_in() {
        let test =
            "kernel::netns::tests::a_socket_stays_in_the_namespace_that_it_was_made_in";
        let Some(netns) = new_netns_or_rerun(test) else { return };
        let there = netns.run(|| UnixDatagram::unbound().unwrap()).unwrap();
        let here = UnixDatagram::unbound().unwrap();
        let of = |socket: Netns| socket.inode().unwrap();
        assert_eq!(of(Netns::of_socket(&there).unwrap()), of(netns));
        assert_eq!(of(Netns::of_socket(&here).unwrap()), of(Netns::current().unwrap()));
    }
}
