//! The processes that hold a listener, as far as they may be stopped.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use super::watchdog::ProcessId;
use crate::host::ProcRoot;
use crate::host::process::{self, ProcessView};
use crate::host::text::{escaped, field};
use crate::sockets::listeners::Listener;
use crate::sockets::model::{Inode, Owner};
use crate::sockets::owners::owners_of;

/// Why a process may not be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// The first process of this host or container.
    Init,
    /// This program.
    Itself,
    /// What started this program, or what started that.
    Ancestor,
    /// A debugger has it; a stop would be told to that.
    Traced,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => {
                "it is PID 1, which holds the sockets that it activates services by; \
                 stopped, it would stop the whole host"
            }
            Self::Itself => "it is this program",
            Self::Ancestor => "this program was started from it",
            Self::Traced => "a debugger traces it, and would be told of the stop",
        })
    }
}

/// A process that holds the listener, and that may be stopped.
#[derive(Debug)]
pub struct Holder {
    /// Which.
    pub id: ProcessId,
    /// Its command's name, as it is.
    pub comm: String,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
    /// Whether it was stopped already: then it stays so.
    pub was_stopped: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", escaped(&self.comm), self.id.pid)
    }
}

/// Why the processes that hold a listener are not known, or may not be stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HoldersError {
    #[error("{comm}[{pid}] holds the listener and may not be stopped: {why}")]
    Forbidden { comm: String, pid: u32, why: Forbidden },
    #[error("the processes of this host cannot be looked through: {0}")]
    Scan(io::Error),
    #[error("no descriptor of {comm}[{pid}] can be taken (pidfd_open): {why}")]
    Pidfd { comm: String, pid: u32, why: io::Error },
}

/// What a look for holders found.
#[derive(Debug)]
pub(super) struct Found {
    /// Those that were not known.
    pub(super) new: Vec<Holder>,
    /// Every descriptor of the listeners.
    pub(super) owners: Vec<(Inode, Owner)>,
    /// Processes that could not be looked into.
    pub(super) unreadable: usize,
}

/// Looks for the processes that hold these listeners, beside those `known`. One that
/// ends meanwhile is left out.
///
/// # Errors
/// A [`HoldersError`]; one that may not be stopped forbids it for all.
pub(super) fn look_for_more(
    proc_root: &ProcRoot,
    listeners: &[Listener],
    known: &[Holder],
) -> Result<Found, HoldersError> {
    let inodes: HashSet<Inode> = listeners.iter().map(|l| l.inode).collect();
    let found = owners_of(proc_root.as_path(), &inodes).map_err(HoldersError::Scan)?;
    let mut pids: Vec<u32> = found.iter().map(|(_, owner)| owner.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let mut new = Vec::new();
    for pid in pids {
        let Ok(view) = process::view(proc_root, pid, pid) else { continue };
        let id = ProcessId { pid, started: view.started };
        if view.state == 'Z' || known.iter().any(|holder| holder.id == id) {
            continue;
        }
        let comm = view.comm.clone();
        if let Some(why) = forbidden(proc_root, &view) {
            return Err(HoldersError::Forbidden { comm: escaped(&comm), pid, why });
        }
        match id.open(proc_root) {
            Ok(pidfd) => {
                let was_stopped = is_stopped(proc_root, id, false);
                new.push(Holder { id, comm, pidfd, was_stopped });
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(why) => {
                return Err(HoldersError::Pidfd { comm: escaped(&comm), pid, why });
            }
        }
    }
    Ok(Found { new, owners: found.iter().collect(), unreadable: found.unreadable() })
}

fn forbidden(proc_root: &ProcRoot, view: &ProcessView) -> Option<Forbidden> {
    if view.pid == 1 {
        return Some(Forbidden::Init);
    }
    let own = std::process::id();
    if view.pid == own {
        return Some(Forbidden::Itself);
    }
    if ancestors(proc_root, own).contains(&view.pid) {
        return Some(Forbidden::Ancestor);
    }
    is_traced(proc_root, view.pid).then_some(Forbidden::Traced)
}

/// The parent of a process, its parent, and so on to PID 1.
fn ancestors(proc_root: &ProcRoot, pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut at = pid;
    while let Some(parent) = number(proc_root, &format!("{at}/status"), "PPid") {
        if parent == 0 || found.contains(&parent) {
            break;
        }
        found.push(parent);
        at = parent;
    }
    found
}

/// Whether a debugger has any of its threads (ptrace(2)).
fn is_traced(proc_root: &ProcRoot, pid: u32) -> bool {
    let tracer = |file: String| number(proc_root, &file, "TracerPid").unwrap_or(0);
    let threads = threads(proc_root, pid);
    tracer(format!("{pid}/status")) != 0
        || threads.iter().any(|tid| tracer(format!("{pid}/task/{tid}/status")) != 0)
}

fn number(proc_root: &ProcRoot, file: &str, name: &str) -> Option<u32> {
    field(&proc_root.read(file).ok()?, name)?.trim().parse().ok()
}

fn threads(proc_root: &ProcRoot, pid: u32) -> Vec<u32> {
    let Ok(folder) = fs::read_dir(proc_root.path(&format!("{pid}/task"))) else {
        return Vec::new();
    };
    let name =
        |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    folder.filter_map(|entry| name(entry)?.parse().ok()).collect()
}

/// Whether every thread of a process is stopped, so that none can accept. One that has
/// ended counts as such; one in an uninterruptible sleep with `or_asleep`: it stops
/// before it runs a line of its program again.
#[must_use]
pub(super) fn is_stopped(proc_root: &ProcRoot, id: ProcessId, or_asleep: bool) -> bool {
    let still = |state: char| {
        matches!(state, 'T' | 't' | 'Z' | 'X' | 'x') || (or_asleep && state == 'D')
    };
    let threads = threads(proc_root, id.pid);
    threads.iter().all(|&tid| match process::view(proc_root, id.pid, tid) {
        Ok(view) => view.started != id.started || still(view.state),
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    fn view(pid: u32) -> ProcessView {
        ProcessView {
            pid,
            tid: pid,
            comm: "x".into(),
            state: 'S',
            uid: 0,
            threads: 1,
            nofile_soft: None,
            nofile_hard: None,
            open_fds: None,
            started: 1,
        }
    }

    #[test]
    fn init_itself_and_ancestors_are_refused() {
        let root = ProcRoot::default();
        assert_eq!(forbidden(&root, &view(1)), Some(Forbidden::Init));
        let own = std::process::id();
        assert_eq!(forbidden(&root, &view(own)), Some(Forbidden::Itself));
        let parent = std::os::unix::process::parent_id();
        assert_eq!(forbidden(&root, &view(parent)), Some(Forbidden::Ancestor));
    }

    #[test]
    fn every_ancestor_is_found() {
        let own = std::process::id();
        let own_status = format!("{own}/status");
        let (_tree, root) = tree(&[
            (&own_status, "Name:\tx\nPPid:\t40\nTracerPid:\t0\n"),
            ("40/status", "PPid:\t30\n"),
            ("30/status", "PPid:\t1\n"),
            ("1/status", "PPid:\t0\n"),
            ("50/status", "PPid:\t1\nTracerPid:\t0\n"),
            ("50/task/50/status", "TracerPid:\t0\n"),
            ("50/task/51/status", "TracerPid:\t9\n"),
            ("60/status", "PPid:\t1\nTracerPid:\t0\n"),
        ]);
        assert_eq!(ancestors(&root, own), [40, 30, 1]);
        assert_eq!(forbidden(&root, &view(30)), Some(Forbidden::Ancestor));
        // Of one thread alone: the stop would go to its debugger too.
        assert_eq!(forbidden(&root, &view(50)), Some(Forbidden::Traced));
        assert_eq!(forbidden(&root, &view(60)), None);
    }
}
