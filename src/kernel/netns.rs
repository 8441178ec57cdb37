//! Network namespaces (network_namespaces(7)): naming one and running code in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

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
    /// process of another user.
    pub fn open(spec: &str) -> io::Result<Self> {
        let path: PathBuf = if spec.parse::<u32>().is_ok() {
            format!("/proc/{spec}/ns/net").into()
        } else if spec.contains('/') {
            spec.into()
        } else {
            format!("/run/netns/{spec}").into()
        };
        Ok(Self { file: File::open(path)? })
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

impl From<Netns> for OwnedFd {
    fn from(netns: Netns) -> Self {
        netns.file.into()
    }
}
