//! Owners by the kernel's `task_file` iterator: the answer of the walk through /proc, in a
//! fraction of its time.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use super::index::{FdTable, Held};
use super::table::{self, denied};
use super::{
    OwnerIndex, Wanted, has_no_descriptors, is_first_pid_namespace, is_our_proc,
    open_folder,
};
use crate::kernel::bpf::{SocketFd, SocketFds, Unavailable};
use crate::kernel::kcmp;
use crate::sockets::model::{Comm, Inode};

/// Why the iterator was not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoBpf {
    /// It tells of this host alone.
    #[error("owners are looked up by BPF in this host's own /proc alone")]
    OtherProc,
    /// Its process ids are those of the first pid namespace.
    #[error("owners are looked up by BPF in the first pid namespace alone")]
    OtherNamespace,
    /// The kernel has none that could be used.
    #[error("owners cannot be looked up by BPF: {0}")]
    Unavailable(String),
}

impl From<Unavailable> for NoBpf {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why.to_string())
    }
}

/// Finds the owners of `wanted`; with `process` its descriptors alone.
pub(super) fn scan(
    proc_root: &Path,
    wanted: Wanted<'_>,
    process: Option<u32>,
) -> Result<OwnerIndex, NoBpf> {
    if !is_our_proc(proc_root) {
        return Err(NoBpf::OtherProc);
    }
    if !is_first_pid_namespace(&proc_root.join("self/ns/pid")) {
        return Err(NoBpf::OtherNamespace);
    }
    let mut tables = Tables::new(wanted);
    SocketFds::open(process)?.each(|one| tables.take(one, shares_table))?;
    let hidden = match process {
        Some(_) => 0,
        None => hidden_processes(proc_root, &tables.seen).unwrap_or(0),
    };
    Ok(tables.finish(hidden))
}

/// Processes that the iterator may have passed over, as some hardened kernels have it do:
/// those that may not be read through /proc either, and of which no socket was seen.
fn hidden_processes(proc_root: &Path, seen: &HashSet<u32>) -> io::Result<usize> {
    let root = open_folder(rustix::fs::CWD, proc_root)?;
    let pids = table::numbers_in(&root)?.into_iter();
    let hidden = pids.filter(|pid| !seen.contains(pid)).filter(|pid| {
        // Needs the right that its descriptors do (PTRACE_MODE_READ_FSCREDS).
        let program = rustix::fs::readlinkat(&root, format!("{pid}/exe"), []);
        program.is_err_and(denied)
            && open_folder(&root, pid.to_string())
                .is_ok_and(|folder| !has_no_descriptors(&folder))
    });
    Ok(hidden.count())
}

fn shares_table(one: u32, other: u32) -> bool {
    // Where it cannot be compared, the kernel's address of the table is what is known.
    match kcmp::fd_tables(one, other) {
        Ok(order) => order.is_eq(),
        Err(error) => error.raw_os_error() != Some(libc::ESRCH),
    }
}

/// Fd tables and what they hold, from descriptors in the order of threads.
#[derive(Debug)]
struct Tables<'a> {
    wanted: Wanted<'a>,
    /// The thread that was last, and its place where its table is one of its own.
    current: Option<((u32, u32), Option<u32>)>,
    tables: Vec<FdTable>,
    held: Vec<Held>,
    /// By process and table: a thread whose it is beside the main thread's.
    of_threads: HashMap<(u32, u64), u32>,
    /// Processes with a socket, wanted or not.
    seen: HashSet<u32>,
    /// The one that was last.
    last: u32,
}

impl<'a> Tables<'a> {
    fn new(wanted: Wanted<'a>) -> Self {
        Self {
            wanted,
            current: None,
            tables: Vec::new(),
            held: Vec::new(),
            of_threads: HashMap::new(),
            seen: HashSet::new(),
            last: 0,
        }
    }

    fn take(&mut self, one: &SocketFd, same: impl FnMut(u32, u32) -> bool) {
        if self.last != one.pid {
            self.last = one.pid;
            self.seen.insert(one.pid);
        }
        if !self.wanted.has(Inode(one.inode.into())) {
            return;
        }
        let thread = (one.pid, one.tid);
        let place = match self.current {
            Some((current, place)) if current == thread => place,
            _ => {
                let place = self.table(one, same);
                self.current = Some((thread, place));
                place
            }
        };
        if let Some(table) = place {
            self.held.push(Held { inode: one.inode, table, fd: one.fd });
        }
    }

    /// The place of a thread's table; None where another thread had it before. The kernel
    /// passes over those alone that have their main thread's.
    fn table(
        &mut self,
        one: &SocketFd,
        mut same: impl FnMut(u32, u32) -> bool,
    ) -> Option<u32> {
        if one.tid != one.pid && one.table != 0 {
            match self.of_threads.entry((one.pid, one.table)) {
                Entry::Vacant(free) => {
                    free.insert(one.tid);
                }
                // An address may have been used again meanwhile.
                Entry::Occupied(first) if same(*first.get(), one.tid) => return None,
                Entry::Occupied(mut first) => {
                    first.insert(one.tid);
                }
            }
        }
        let place = u32::try_from(self.tables.len()).ok();
        let comm = Comm::new(one.name());
        self.tables.push(FdTable { pid: one.pid, tid: one.tid, comm });
        place
    }

    fn finish(self, hidden: usize) -> OwnerIndex {
        let mut index = OwnerIndex::by_bpf(hidden);
        index.add(&self.tables, &self.held, false);
        index.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(pid: u32, tid: u32, fd: u32, table: u64) -> SocketFd {
        SocketFd { pid, tid, comm: *b"name\0rubbish\0\0\0\0", fd, inode: 100 + fd, table }
    }

    /// (pid, tid, fd) of all that is found.
    fn found(all: &[SocketFd], same: impl Fn(u32, u32) -> bool) -> Vec<(u32, u32, u32)> {
        let mut tables = Tables::new(Wanted::All);
        all.iter().for_each(|one| tables.take(one, &same));
        let index = tables.finish(0);
        index.iter().map(|(_, owner)| (owner.pid, owner.tid, owner.fd)).collect()
    }

    #[test]
    fn one_thread_stands_for_a_table_that_is_not_its_processs() {
        let all = [
            descriptor(7, 7, 3, 70),
            descriptor(7, 8, 4, 80),
            descriptor(7, 8, 5, 80),
            descriptor(7, 9, 4, 80),
            descriptor(7, 9, 5, 80),
            // Of another process, with clone(CLONE_FILES).
            descriptor(11, 11, 4, 80),
        ];
        let expected = [(7, 7, 3), (7, 8, 4), (11, 11, 4), (7, 8, 5)];
        assert_eq!(found(&all, |_, _| true), expected);
        // Where the first one's table has gone, and its address was used again.
        let expected =
            [(7, 7, 3), (7, 8, 4), (7, 9, 4), (11, 11, 4), (7, 8, 5), (7, 9, 5)];
        assert_eq!(found(&all, |_, _| false), expected);
    }

    #[test]
    fn a_name_ends_with_its_first_zero_and_what_is_not_wanted_is_left_out() {
        let wanted = [Inode(104)].into();
        let mut tables = Tables::new(Wanted::These(&wanted));
        for fd in 3..6 {
            tables.take(&descriptor(7, 7, fd, 70), |_, _| false);
        }
        let index = tables.finish(0);
        let all: Vec<_> = index.iter().collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0, all[0].1.comm), (Inode(104), Comm::new(b"name")));
    }
}
