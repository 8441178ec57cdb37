//! Whose a socket is: every descriptor of it in every fd table that can be read.
//!
//! /proc/PID/fd shows the table of a process's main thread alone. A thread that called
//! `unshare(CLONE_FILES)` has its own, in /proc/PID/task/TID/fd.

mod table;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::table::{Walk, denied};
use super::model::{Comm, Inode, Owner};
use crate::kernel::kcmp;

/// The owners of a set of sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerScan {
    /// Every descriptor found of each socket, by process, thread and number. A socket
    /// that is not here has no owner that could be read.
    pub owners: HashMap<Inode, Vec<Owner>>,
    /// Processes whose descriptors this user may not read. Kernel threads and zombies,
    /// which have none, are not counted.
    pub unreadable: usize,
}

/// Finds all owners of `wanted`: forked and passed descriptors too, and those in the
/// tables of single threads. Processes are scanned in parallel, on rayon's pool; one
/// that ends meanwhile is left out.
///
/// # Errors
/// Where `proc_root` cannot be read, or no descriptor or memory is left to read with.
pub fn owners_of(proc_root: &Path, wanted: &HashSet<Inode>) -> io::Result<OwnerScan> {
    if wanted.is_empty() {
        return Ok(OwnerScan::default());
    }
    let root = open_folder(rustix::fs::CWD, proc_root)?;
    let pids = table::numbers_in(&root)?;
    // The pool's threads may have another fd table than this one: they open by path.
    drop(root);
    let compare = is_our_proc(proc_root);
    let scans: Vec<ProcessScan> = pids
        .into_par_iter()
        .map(|pid| ProcessScan::of(proc_root, pid, wanted, compare))
        .collect::<io::Result<_>>()?;
    let mut all = OwnerScan::default();
    for scan in scans {
        all.unreadable += usize::from(scan.unreadable);
        for (inode, owner) in scan.found {
            all.owners.entry(inode).or_default().push(owner);
        }
    }
    for owners in all.owners.values_mut() {
        owners.sort_unstable_by_key(|owner| (owner.pid, owner.tid, owner.fd));
    }
    Ok(all)
}

/// Descriptors found in one fd table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FdsFound {
    /// Inode and descriptor, in the order of the table.
    pub fds: Vec<(Inode, u32)>,
    /// How many links were read for it.
    pub links_read: usize,
}

/// Finds descriptors of `wanted` in the fd table of one thread, and stops when each has
/// one or `max_links` links were read: to pair a few of a million connections.
///
/// # Errors
/// What reading /proc/PID/task/TID/fd gives: ENOENT where the thread has ended, EACCES
/// without the right to read it.
pub fn fds_of(
    proc_root: &Path,
    pid: u32,
    tid: u32,
    wanted: &HashSet<Inode>,
    max_links: usize,
) -> io::Result<FdsFound> {
    let table = proc_root.join(format!("{pid}/task/{tid}/fd"));
    let table = open_folder(rustix::fs::CWD, &table)?;
    let mut found = FdsFound::default();
    let mut missing = wanted.clone();
    found.links_read = table::walk(&table, max_links, |inode, fd| {
        if missing.remove(&inode) {
            found.fds.push((inode, fd));
        }
        if missing.is_empty() { Walk::Stop } else { Walk::On }
    })?;
    Ok(found)
}

/// What one process has of the sockets wanted.
#[derive(Debug, Default)]
struct ProcessScan {
    found: Vec<(Inode, Owner)>,
    unreadable: bool,
}

impl ProcessScan {
    fn of(
        proc_root: &Path,
        pid: u32,
        wanted: &HashSet<Inode>,
        compare: bool,
    ) -> io::Result<Self> {
        // An open folder stays that of this process, even if its pid is used again.
        let folder = match open_folder(rustix::fs::CWD, proc_root.join(pid.to_string())) {
            Ok(folder) => folder,
            Err(errno) => return Self::nothing_or(errno),
        };
        let main = match scan_table(&folder, "fd", pid, pid, wanted) {
            Ok(found) => found,
            Err(errno) if denied(errno) && !has_no_descriptors(&folder) => {
                return Ok(Self { found: Vec::new(), unreadable: true });
            }
            // A main thread that has ended may leave others behind.
            Err(errno) if denied(errno) => Vec::new(),
            Err(errno) => return Self::nothing_or(errno),
        };
        let mut scan = Self { found: main, unreadable: false };
        let threads = threads_with_other_tables(&folder, pid, compare);
        let certain = threads.other.into_iter().map(|tid| (tid, true));
        let uncertain = threads.unknown.into_iter().map(|tid| (tid, false));
        for (tid, is_certain) in certain.chain(uncertain) {
            let at = format!("task/{tid}/fd");
            match scan_table(&folder, &at, pid, tid, wanted) {
                Ok(found) if is_certain || !scan.has(&found) => scan.found.extend(found),
                Ok(_) => {}
                Err(errno) => scan.unreadable |= Self::nothing_or(errno)?.unreadable,
            }
        }
        Ok(scan)
    }

    /// Whether the descriptors of one more table are all known: how tables are told
    /// apart where kcmp(2) is of no use. A copy of a table counts as the same then.
    fn has(&self, found: &[(Inode, Owner)]) -> bool {
        let known: HashSet<(Inode, u32)> =
            self.found.iter().map(|(inode, owner)| (*inode, owner.fd)).collect();
        found.iter().all(|(inode, owner)| known.contains(&(*inode, owner.fd)))
    }

    /// Nothing for a process that has ended; an error where the scan itself cannot go on.
    fn nothing_or(errno: Errno) -> io::Result<Self> {
        match errno {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(errno.into()),
            _ => Ok(Self { found: Vec::new(), unreadable: denied(errno) }),
        }
    }
}

/// Threads of a process beside its main thread.
#[derive(Debug, Default, PartialEq, Eq)]
struct Threads {
    /// One of each other fd table.
    other: Vec<u32>,
    /// Those that kcmp(2) could not place.
    unknown: Vec<u32>,
}

fn scan_table(
    folder: &OwnedFd,
    at: &str,
    pid: u32,
    tid: u32,
    wanted: &HashSet<Inode>,
) -> Result<Vec<(Inode, Owner)>, Errno> {
    let table = open_folder(folder, at)?;
    let mut found = Vec::new();
    let mut comm = None;
    table::walk(&table, usize::MAX, |inode, fd| {
        if wanted.contains(&inode) {
            let comm = *comm.get_or_insert_with(|| comm_of(folder.as_fd(), tid));
            found.push((inode, Owner { pid, tid, comm, fd }));
        }
        Walk::On
    })?;
    Ok(found)
}

fn comm_of(folder: BorrowedFd<'_>, tid: u32) -> Comm {
    let name = table::read_small(folder, &format!("task/{tid}/comm"))
        .or_else(|_| table::read_small(folder, "comm"));
    Comm::new(&name.unwrap_or_default())
}

fn threads_with_other_tables(folder: &OwnedFd, pid: u32, compare: bool) -> Threads {
    // A folder has a link for each of its folders, itself and its parent: three are one
    // thread, known without reading it.
    match rustix::fs::statat(folder, "task", rustix::fs::AtFlags::empty()) {
        Ok(task) if task.st_nlink != 3 => {}
        _ => return Threads::default(),
    }
    let Ok(task) = open_folder(folder, "task") else { return Threads::default() };
    let mut tids = table::numbers_in(&task).unwrap_or_default();
    tids.retain(|&tid| tid != pid);
    if compare {
        one_of_each_table(pid, tids, kcmp::fd_tables)
    } else {
        Threads { other: Vec::new(), unknown: tids }
    }
}

/// One thread of each table but `pid`'s. The order that kcmp(2) gives keeps this to a
/// binary search for each thread.
fn one_of_each_table(
    pid: u32,
    tids: Vec<u32>,
    compare: impl Fn(u32, u32) -> io::Result<Ordering>,
) -> Threads {
    let mut sorted = vec![pid];
    let mut unknown = Vec::new();
    for tid in tids {
        // Without the right, or where one of the two has ended.
        let mut failed = false;
        let place = sorted.binary_search_by(|&known| {
            compare(known, tid).unwrap_or_else(|_| {
                failed = true;
                Ordering::Equal
            })
        });
        match place {
            _ if failed => unknown.push(tid),
            Ok(_) => {}
            Err(at) => sorted.insert(at, tid),
        }
    }
    sorted.retain(|&tid| tid != pid);
    Threads { other: sorted, unknown }
}

/// Whether a folder is the procfs of our own pid namespace, so that its numbers mean
/// something to kcmp(2).
fn is_our_proc(proc_root: &Path) -> bool {
    let is_procfs = rustix::fs::statfs(proc_root)
        .is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC);
    let itself = std::fs::read_link(proc_root.join("self"));
    let pid = std::process::id().to_string();
    is_procfs && itself.is_ok_and(|link| link.as_os_str() == pid.as_str())
}

/// Whether /proc/PID/stat shows a kernel thread or a zombie, or the process is gone.
/// Their fd folder belongs to root, and holds nothing.
fn has_no_descriptors(folder: &OwnedFd) -> bool {
    table::read_small(folder.as_fd(), "stat")
        .map_or(true, |stat| is_kernel_or_dead(&stat))
}

/// From the bytes of /proc/PID/stat (proc_pid_stat(5)): the third field is the state,
/// the ninth the flags.
pub(super) fn is_kernel_or_dead(stat: &[u8]) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let after_comm = stat.rsplit(|&byte| byte == b')').next().unwrap_or_default();
    let Ok(text) = std::str::from_utf8(after_comm) else { return false };
    let mut fields = text.split_ascii_whitespace();
    let is_dead = matches!(fields.next(), Some("Z" | "X"));
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u32>().ok());
    is_dead || flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

fn open_folder(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests;
