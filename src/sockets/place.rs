//! The network namespace that a process or thread is in.

use std::io;
use std::path::Path;

use super::descriptor::what_helps;
use crate::kernel::netns::Netns;

/// Why the network namespace of a process cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    /// The process is somebody else's.
    #[error("the network namespace of process {pid} may not be read{}", what_helps())]
    NotSeen {
        /// The process.
        pid: u32,
    },
    /// It may not be entered.
    #[error(
        "process {pid} is in another network namespace, which may not be entered without \
         CAP_SYS_ADMIN: run with sudo"
    )]
    NotEntered {
        /// The process.
        pid: u32,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// The network namespace of a thread; None where that is the calling thread's own, or the
/// thread is one of a fixture tree, which has none.
///
/// # Errors
/// [`NoPlace`].
pub fn of_thread(proc_root: &Path, pid: u32, tid: u32) -> Result<Option<Netns>, NoPlace> {
    match Netns::at(&proc_root.join(format!("{pid}/task/{tid}/ns/net"))) {
        Ok(netns) => Ok(unless_own(netns)?),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => Ok(None),
            io::ErrorKind::PermissionDenied => Err(NoPlace::NotSeen { pid }),
            _ => Err(NoPlace::Other(error)),
        },
    }
}

/// None for the calling thread's own.
pub(super) fn unless_own(netns: Netns) -> io::Result<Option<Netns>> {
    let own = Netns::current()?.inode()?;
    Ok((netns.inode()? != own).then_some(netns))
}

/// Runs `f` in the namespace of a thread of `pid`, or in the calling thread's own.
///
/// # Errors
/// [`NoPlace::NotEntered`] without the right.
pub fn within<T: Send>(
    netns: Option<&Netns>,
    pid: u32,
    f: impl FnOnce() -> T + Send,
) -> Result<T, NoPlace> {
    let Some(netns) = netns else { return Ok(f()) };
    netns.run(f).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => NoPlace::NotEntered { pid },
        _ => NoPlace::Other(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::new_netns_or_rerun;

    #[test]
    fn ones_own_namespace_is_none_to_enter() {
        let pid = std::process::id();
        assert!(of_thread(Path::new("/proc"), pid, pid).unwrap().is_none());
        let fixture = tempfile::tempdir().unwrap();
        assert!(of_thread(fixture.path(), 7, 7).unwrap().is_none());
        assert_eq!(within(None, pid, || 5).unwrap(), 5);
    }

    #[test]
    fn another_namespace_is_entered() {
        let test = "sockets::place::tests::another_namespace_is_entered";
        let Some(netns) = new_netns_or_rerun(test) else { return };
        let inode = netns.inode().unwrap();
        let netns = unless_own(netns).unwrap().unwrap();
        let inside =
            within(Some(&netns), 7, || Netns::current().unwrap().inode().unwrap());
        assert_eq!(inside.unwrap(), inode);
    }
}
