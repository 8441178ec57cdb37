//! Whose a socket is: every descriptor of it in every fd table that can be read.
//!
//! /proc/PID/fd shows the table of a process's main thread alone. A thread that called
//! `unshare(CLONE_FILES)` has its own, in /proc/PID/task/TID/fd. The kernel's `task_file`
//! iterator gives both at once, several times as fast, to whom it lets load a BPF program.

pub(crate) mod age;
mod by_bpf;
mod how;
mod index;
mod table;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::error::Error as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use self::how::{By, LookUp};
pub use self::index::OwnerIndex;
use self::index::{FdTable, Held};
use self::table::{Walk, denied};
use super::model::{Comm, Inode};
use crate::kernel::kcmp;

/// Which sockets' owners are looked for.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    All,
    These(&'a HashSet<Inode>),
}

impl Wanted<'_> {
    fn has(self, inode: Inode) -> bool {
        match self {
            Self::All => true,
            Self::These(wanted) => wanted.contains(&inode),
        }
    }
}

/// Whether rayon's pool has its threads. Where they cannot be started (`ulimit -u`,
/// pids.max of a container), using it would panic. They stay where the thread is that
/// asks first: in its network namespace and its fd table.
pub(crate) fn has_pool() -> bool {
    static STARTED: OnceLock<bool> = OnceLock::new();
    *STARTED.get_or_init(|| match rayon::ThreadPoolBuilder::new().build_global() {
        Ok(()) => true,
        // One that is there already has no further cause.
        Err(error) => error.source().is_none(),
    })
}

/// Finds all owners of `wanted`: forked and passed descriptors too, and those in the
/// tables of single threads. Where /proc is read, processes are scanned in parallel, on
/// rayon's pool. One that ends meanwhile is left out.
///
/// # Errors
/// Where /proc cannot be read, or no descriptor or memory is left to read with; where the
/// kernel's iterator alone was asked for, and cannot be used.
pub fn owners_of<'a>(
    how: impl Into<LookUp<'a>>,
    wanted: &HashSet<Inode>,
) -> io::Result<OwnerIndex> {
    if wanted.is_empty() {
        return Ok(OwnerIndex::default());
    }
    find(how.into(), Wanted::These(wanted))
}

/// Finds the owners of every socket, as [`owners_of`].
///
/// # Errors
/// As [`owners_of`].
pub fn all_owners<'a>(how: impl Into<LookUp<'a>>) -> io::Result<OwnerIndex> {
    find(how.into(), Wanted::All)
}

fn find(how: LookUp<'_>, wanted: Wanted<'_>) -> io::Result<OwnerIndex> {
    let proc_root = how.proc_root;
    match how.by_bpf(wanted, None, || has_many_files(proc_root))? {
        Ok(found) => Ok(found),
        Err(why) => {
            let found = scan(proc_root, &Scan::of(proc_root, wanted))?;
            Ok(why.map(|why| found.clone().not_by_bpf(&why)).unwrap_or(found))
        }
    }
}

/// Finds an owner for each of `wanted`, and stops once each has one: other owners of the
/// same socket may be missing. The first descriptors of every table are looked at before
/// the rest, for that is where listeners are.
///
/// # Errors
/// As [`owners_of`].
pub fn first_owners<'a>(
    how: impl Into<LookUp<'a>>,
    wanted: &HashSet<Inode>,
) -> io::Result<OwnerIndex> {
    /// Links of each table that are read first.
    const HEAD: usize = 64;
    let how = how.into();
    let proc_root = how.proc_root;
    if wanted.is_empty() {
        return Ok(OwnerIndex::default());
    }
    if how.by == By::Bpf {
        return find(how, Wanted::These(wanted));
    }
    let until =
        Until { missing: Mutex::new(wanted.clone()), met: AtomicBool::new(false) };
    let head = Scan {
        max_links: HEAD,
        until: Some(&until),
        ..Scan::of(proc_root, Wanted::These(wanted))
    };
    let found = scan(proc_root, &head)?;
    if until.met.load(Relaxed) {
        return Ok(found);
    }
    let missing = until.missing();
    // The rest of all tables, which is what the iterator is quick at.
    if let Ok(rest) =
        how.by_bpf(Wanted::These(&missing), None, || has_many_files(proc_root))?
    {
        return Ok(found.joined(&rest));
    }
    let rest = Scan { max_links: usize::MAX, wanted: Wanted::These(&missing), ..head };
    Ok(found.joined(&scan(proc_root, &rest)?))
}

/// Finds every socket of one process, in its threads' own fd tables too, without a look at
/// any other. A socket that other processes have as well has its owners of this one alone.
///
/// # Errors
/// NotFound where there is no such process, PermissionDenied where its fd table may not be
/// read, and as [`owners_of`]. A table of a single thread that may not be read is counted
/// by [`OwnerIndex::unreadable`].
pub fn owners_of_process<'a>(
    how: impl Into<LookUp<'a>>,
    pid: u32,
) -> io::Result<OwnerIndex> {
    let how = how.into();
    let proc_root = how.proc_root;
    let folder = open_folder(rustix::fs::CWD, proc_root.join(pid.to_string()))?;
    let is_large = || has_large_table(&folder) && has_many_files(proc_root);
    if let Ok(found) = how.by_bpf(Wanted::All, Some(pid), is_large)? {
        return Ok(found);
    }
    let scan = ProcessScan::of(proc_root, pid, &Scan::of(proc_root, Wanted::All))?;
    if scan.unreadable && scan.tables.is_empty() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut all = OwnerIndex::default();
    all.add(&scan.tables, &scan.held, scan.unreadable);
    Ok(all.finish())
}

/// What a scan looks for, and how far.
#[derive(Debug, Clone, Copy)]
struct Scan<'a> {
    wanted: Wanted<'a>,
    /// Links read in each table.
    max_links: usize,
    /// Where it may stop early.
    until: Option<&'a Until>,
    /// Whether kcmp(2) can compare the threads of this /proc.
    compare: bool,
}

impl<'a> Scan<'a> {
    fn of(proc_root: &Path, wanted: Wanted<'a>) -> Self {
        let compare = is_our_proc(proc_root);
        Self { wanted, max_links: usize::MAX, until: None, compare }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until.met.load(Relaxed))
    }
}

/// The sockets that have no owner yet.
#[derive(Debug)]
struct Until {
    missing: Mutex<HashSet<Inode>>,
    met: AtomicBool,
}

impl Until {
    fn missing(&self) -> HashSet<Inode> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn found(&self, held: &[Held]) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        for one in held {
            missing.remove(&Inode(one.inode.into()));
        }
        self.met.store(missing.is_empty(), Relaxed);
    }
}

fn scan(proc_root: &Path, how: &Scan<'_>) -> io::Result<OwnerIndex> {
    let root = open_folder(rustix::fs::CWD, proc_root)?;
    let pids = table::numbers_in(&root)?;
    // The pool's threads may have another fd table than this one: they open by path.
    drop(root);
    let one = |pid| ProcessScan::of(proc_root, pid, how);
    let scans: Vec<ProcessScan> = if has_pool() {
        pids.into_par_iter().map(one).collect::<io::Result<_>>()?
    } else {
        pids.into_iter().map(one).collect::<io::Result<_>>()?
    };
    let mut all = OwnerIndex::default();
    for scan in scans {
        all.add(&scan.tables, &scan.held, scan.unreadable);
    }
    Ok(all.finish())
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
    tables: Vec<FdTable>,
    /// By the places of their tables in `tables`.
    held: Vec<Held>,
    unreadable: bool,
}

impl ProcessScan {
    fn of(proc_root: &Path, pid: u32, how: &Scan<'_>) -> io::Result<Self> {
        if how.is_over() {
            return Ok(Self::default());
        }
        // An open folder stays that of this process, even if its pid is used again.
        let folder = match open_folder(rustix::fs::CWD, proc_root.join(pid.to_string())) {
            Ok(folder) => folder,
            Err(errno) => return Self::nothing_or(errno),
        };
        let mut scan = Self::default();
        match scan.table(&folder, "fd", (pid, pid), how, true) {
            Ok(()) => {}
            Err(errno) if denied(errno) && !has_no_descriptors(&folder) => {
                return Ok(Self { unreadable: true, ..Self::default() });
            }
            // A main thread that has ended may leave others behind.
            Err(errno) if denied(errno) => {}
            Err(errno) => return Self::nothing_or(errno),
        }
        let threads = threads_with_other_tables(&folder, pid, how.compare);
        let certain = threads.other.into_iter().map(|tid| (tid, true));
        let uncertain = threads.unknown.into_iter().map(|tid| (tid, false));
        for (tid, is_certain) in certain.chain(uncertain) {
            let at = format!("task/{tid}/fd");
            if let Err(errno) = scan.table(&folder, &at, (pid, tid), how, is_certain) {
                scan.unreadable |= Self::nothing_or(errno)?.unreadable;
            }
        }
        if let Some(until) = how.until {
            until.found(&scan.held);
        }
        Ok(scan)
    }

    /// Takes in one table. Where it is not certain that it is another one than those
    /// before, only if it has a descriptor that they do not have: how tables are told
    /// apart where kcmp(2) is of no use. A copy of a table counts as the same then.
    fn table(
        &mut self,
        folder: &OwnedFd,
        at: &str,
        (pid, tid): (u32, u32),
        how: &Scan<'_>,
        is_certain: bool,
    ) -> Result<(), Errno> {
        let opened = open_folder(folder, at)?;
        let table = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        let before = self.held.len();
        table::walk(&opened, how.max_links, |inode, fd| {
            if how.wanted.has(inode)
                && let Ok(inode) = u32::try_from(inode.0)
            {
                self.held.push(Held { inode, table, fd });
            }
            if how.is_over() { Walk::Stop } else { Walk::On }
        })?;
        if self.held.len() == before {
            return Ok(());
        }
        if !is_certain && self.is_known(before) {
            self.held.truncate(before);
            return Ok(());
        }
        self.tables.push(FdTable { pid, tid, comm: comm_of(folder.as_fd(), tid) });
        Ok(())
    }

    /// Whether the descriptors from `new` on are all there before as well.
    fn is_known(&self, new: usize) -> bool {
        let (known, found) = self.held.split_at(new);
        let known: HashSet<(u32, u32)> =
            known.iter().map(|held| (held.inode, held.fd)).collect();
        found.iter().all(|held| known.contains(&(held.inode, held.fd)))
    }

    /// Nothing for a process that has ended; an error where the scan itself cannot go on.
    fn nothing_or(errno: Errno) -> io::Result<Self> {
        match errno {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(errno.into()),
            _ => Ok(Self { unreadable: denied(errno), ..Self::default() }),
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
    // The lowest stands for each table.
    tids.sort_unstable();
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
pub(crate) fn is_our_proc(proc_root: &Path) -> bool {
    let is_procfs = rustix::fs::statfs(proc_root)
        .is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC);
    let itself = std::fs::read_link(proc_root.join("self"));
    let pid = std::process::id().to_string();
    is_procfs && itself.is_ok_and(|link| link.as_os_str() == pid.as_str())
}

/// Whether a link of /proc/PID/ns/pid is that of the first pid namespace, which holds
/// every process. (PROC_PID_INIT_INO, linux/proc_ns.h.)
pub(super) fn is_first_pid_namespace(link: &Path) -> bool {
    const FIRST: &str = "pid:[4026531836]";
    std::fs::read_link(link).is_ok_and(|link| link.as_os_str() == FIRST)
}

/// Whether so many files are open that reading /proc takes longer than making the
/// iterator ready, by the first number of /proc/sys/fs/file-nr.
fn has_many_files(proc_root: &Path) -> bool {
    const MANY: u64 = 2000;
    let text = std::fs::read_to_string(proc_root.join("sys/fs/file-nr"));
    let first = text.ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    first.is_none_or(|open: u64| open >= MANY)
}

/// Whether a process has so many descriptors that reading them one by one takes longer
/// than the iterator, by the size of its fd folder (since Linux 6.2).
fn has_large_table(folder: &OwnedFd) -> bool {
    const LARGE: i64 = 2000;
    let table = rustix::fs::statat(folder, "fd", rustix::fs::AtFlags::empty());
    table.is_ok_and(|table| table.st_size >= LARGE)
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
