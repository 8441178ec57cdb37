//! One descriptor of a process, named by its number, and the socket behind it.

pub mod find;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::model::{Comm, Inode, Owner};
use super::row::Kind;
use super::unbound::protocol_of;
use crate::host::ProcRoot;
use crate::host::text::{field, printable};

/// A descriptor of a process: `4711:18`, or `4711:4713:18` for the fd table of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorName {
    /// The process.
    pub pid: u32,
    /// The thread whose table is meant: `pid` for the one that /proc/PID/fd shows.
    pub tid: u32,
    /// The number.
    pub fd: u32,
}

/// That a text names no descriptor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a descriptor is written PID:FD, as 4711:18, or PID:TID:FD for a thread's own fd table"
)]
pub struct NoName;

impl FromStr for DescriptorName {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u32>().ok().filter(|_| digits).ok_or(NoName)
        };
        let parts = text.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
        let (pid, tid, fd) = match parts[..] {
            [pid, fd] => (pid, pid, fd),
            [pid, tid, fd] => (pid, tid, fd),
            _ => return Err(NoName),
        };
        if pid == 0 || tid == 0 { Err(NoName) } else { Ok(Self { pid, tid, fd }) }
    }
}

impl fmt::Display for DescriptorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, tid, fd } = self;
        match pid == tid {
            true => write!(f, "descriptor {fd} of process {pid}"),
            false => write!(f, "descriptor {fd} of thread {tid} of process {pid}"),
        }
    }
}

impl DescriptorName {
    /// Where its table is.
    fn folder(self, proc_root: &Path) -> PathBuf {
        let Self { pid, tid, .. } = self;
        proc_root.join(match pid == tid {
            true => format!("{pid}/fd"),
            false => format!("{pid}/task/{tid}/fd"),
        })
    }
}

/// Why there is no socket behind a number.
#[derive(Debug, thiserror::Error)]
pub enum NoSocket {
    /// No process has that id.
    #[error("there is no process {pid}")]
    NoProcess {
        /// What was asked for.
        pid: u32,
    },
    /// The id is that of a thread.
    #[error("{tid} is a thread of process {pid}: write {instead}")]
    Thread {
        /// What was asked for.
        tid: u32,
        /// Its process.
        pid: u32,
        /// How its descriptor is written.
        instead: String,
    },
    /// The process has no such thread.
    #[error("process {pid} has no thread {tid}")]
    NoThread {
        /// The process.
        pid: u32,
        /// What was asked for.
        tid: u32,
    },
    /// The number is not open.
    #[error("{name} is not open{}", elsewhere(*.name, *.thread))]
    NotOpen {
        /// What was asked for.
        name: DescriptorName,
        /// A thread that has that number open in a table of its own.
        thread: Option<u32>,
    },
    /// It is something else.
    #[error("{name} is {what}, not a socket")]
    Other {
        /// What was asked for.
        name: DescriptorName,
        /// What it is.
        what: String,
    },
    /// The process is somebody else's.
    #[error("the descriptors of process {pid} may not be read{}", what_helps())]
    NotPermitted {
        /// The process.
        pid: u32,
    },
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn elsewhere(name: DescriptorName, thread: Option<u32>) -> String {
    let DescriptorName { pid, fd, .. } = name;
    thread.map_or_else(String::new, |tid| {
        format!("; its thread {tid} has that in an fd table of its own: {pid}:{tid}:{fd}")
    })
}

/// What helps where a process may not be looked at; said after "may not be read".
#[must_use]
pub fn what_helps() -> &'static str {
    match rustix::process::geteuid().is_root() {
        false => ": run with sudo",
        true => ": it has rights that this command lacks (ptrace(2))",
    }
}

/// A socket that was found in an fd table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketFile {
    /// Its inode.
    pub inode: Inode,
    /// Its kind, as far as its protocol tells; `Family(0)` where that cannot be asked.
    pub kind: Kind,
}

/// Looks what is behind a number.
///
/// # Errors
/// [`NoSocket`].
pub fn look_at(proc_root: &Path, name: DescriptorName) -> Result<SocketFile, NoSocket> {
    let DescriptorName { pid, tid, fd } = name;
    let leader = process_of(proc_root, pid).ok_or(NoSocket::NoProcess { pid })?;
    if leader != pid {
        let instead = format!("{leader}:{pid}:{fd}");
        return Err(NoSocket::Thread { tid: pid, pid: leader, instead });
    }
    if tid != pid && !proc_root.join(format!("{pid}/task/{tid}")).exists() {
        return Err(NoSocket::NoThread { pid, tid });
    }
    let path = name.folder(proc_root).join(fd.to_string());
    let link = fs::read_link(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => NoSocket::NotPermitted { pid },
        io::ErrorKind::NotFound => {
            NoSocket::NotOpen { name, thread: thread_with(proc_root, name) }
        }
        _ => NoSocket::Io(error),
    })?;
    let link = link.to_string_lossy();
    let Some(inode) = socket_inode(&link) else {
        return Err(NoSocket::Other { name, what: what(&link, &path) });
    };
    let owner = Owner { pid, tid, comm: Comm::default(), fd };
    let kind = protocol_of(&ProcRoot::new(proc_root), owner).map(|(kind, _)| kind);
    Ok(SocketFile { inode, kind: kind.unwrap_or(Kind::Family(0)) })
}

/// The process that an id, of it or of one of its threads, stands for; None where there
/// is none.
#[must_use]
pub fn process_of(proc_root: &Path, id: u32) -> Option<u32> {
    let folder = proc_root.join(id.to_string());
    if !folder.is_dir() {
        return None;
    }
    let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
    let leader = field(&status, "Tgid").and_then(|leader| leader.parse().ok());
    Some(leader.unwrap_or(id))
}

/// A thread of the same process that has this number in a table of its own.
fn thread_with(proc_root: &Path, name: DescriptorName) -> Option<u32> {
    let DescriptorName { pid, tid, fd } = name;
    let tasks = fs::read_dir(proc_root.join(format!("{pid}/task"))).ok()?;
    let threads =
        tasks.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    threads.filter(|&thread| thread != tid).find(|thread: &u32| {
        let at = proc_root.join(format!("{pid}/task/{thread}/fd/{fd}"));
        fs::symlink_metadata(at).is_ok()
    })
}

fn socket_inode(link: &str) -> Option<Inode> {
    let digits = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    digits.parse().ok().map(Inode)
}

/// What a descriptor is that is no socket, by its link (proc_pid_fd(5)).
fn what(link: &str, path: &Path) -> String {
    let shown = printable(link);
    if let Some(kind) = link.strip_prefix("anon_inode:") {
        let kind = kind.trim_matches(['[', ']']);
        return match kind {
            "eventpoll" => "an epoll instance".to_owned(),
            "eventfd" | "timerfd" | "signalfd" | "pidfd" => format!("a {kind}"),
            "inotify" | "io_uring" => format!("an {kind} instance"),
            _ => format!("an anonymous file ({shown})"),
        };
    }
    if link.starts_with("pipe:[") {
        return format!("a pipe ({shown})");
    }
    if !link.starts_with('/') {
        return format!("a kernel object ({shown})");
    }
    let kind = match fs::metadata(path).map(|found| found.file_type()) {
        Ok(kind) if kind.is_dir() => "the directory",
        Ok(kind) if kind.is_fifo() => "the FIFO",
        Ok(kind) if kind.is_char_device() || kind.is_block_device() => "the device",
        _ => "the file",
    };
    format!("{kind} {shown}")
}

#[cfg(test)]
mod tests;
