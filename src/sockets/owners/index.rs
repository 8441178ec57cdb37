//! Owners of many sockets in little memory: 12 bytes a descriptor.

use super::by_bpf::NoBpf;
use crate::sockets::model::{Comm, Inode, Owner};

/// One fd table that holds sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FdTable {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) comm: Comm,
}

/// A descriptor of a socket. Inodes of sockets have 32 bits (struct inet_diag_msg).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) inode: u32,
    pub(super) table: u32,
    pub(super) fd: u32,
}

/// Whose sockets are, by inode. A socket that is not here has no owner that could be
/// read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerIndex {
    tables: Vec<FdTable>,
    /// In the order of their inodes.
    held: Vec<Held>,
    unreadable: usize,
    read: Read,
}

/// How the tables were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Read {
    /// Through /proc.
    #[default]
    Proc,
    /// Through /proc, for want of the kernel's iterator.
    ProcFor(String),
    /// By the kernel's iterator.
    Bpf,
}

impl OwnerIndex {
    /// One for what the kernel's iterator finds, which may have passed over so many
    /// processes.
    pub(super) fn by_bpf(unreadable: usize) -> Self {
        Self { read: Read::Bpf, unreadable, ..Self::default() }
    }

    /// Says why /proc was read instead.
    pub(super) fn not_by_bpf(mut self, why: &NoBpf) -> Self {
        self.read = Read::ProcFor(why.to_string());
        self
    }

    /// Whether the kernel's iterator found them.
    #[must_use]
    pub fn is_by_bpf(&self) -> bool {
        self.read == Read::Bpf
    }

    /// Why /proc was read, where that takes longer.
    #[must_use]
    pub fn why_not_by_bpf(&self) -> Option<&str> {
        match &self.read {
            Read::ProcFor(why) => Some(why),
            Read::Proc | Read::Bpf => None,
        }
    }

    /// Every descriptor of a socket, in the order of process, thread and number.
    pub fn owners(&self, inode: Inode) -> impl Iterator<Item = Owner> + '_ {
        let wanted = u32::try_from(inode.0).unwrap_or(0);
        let from = self.held.partition_point(|held| held.inode < wanted);
        let held = self.held.get(from..).unwrap_or_default().iter();
        held.take_while(move |held| held.inode == wanted && wanted != 0)
            .filter_map(|held| self.owner(*held))
    }

    /// Whether a socket has an owner here.
    #[must_use]
    pub fn has(&self, inode: Inode) -> bool {
        let wanted = u32::try_from(inode.0).unwrap_or(0);
        self.held.binary_search_by_key(&wanted, |held| held.inode).is_ok()
    }

    /// All of them, by inode, and for each by process, thread and number.
    pub fn iter(&self) -> impl Iterator<Item = (Inode, Owner)> + '_ {
        let held = self.held.iter();
        held.filter_map(|held| Some((Inode(held.inode.into()), self.owner(*held)?)))
    }

    /// Processes, or single fd tables of them, that this user may not read. Kernel
    /// threads and zombies, which have none, are not counted.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Takes in what was found in one process.
    pub(super) fn add(&mut self, tables: &[FdTable], held: &[Held], unreadable: bool) {
        let first = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
        self.tables.extend(tables);
        let shifted = held.iter().map(|one| Held { table: one.table + first, ..*one });
        self.held.extend(shifted);
        self.unreadable += usize::from(unreadable);
    }

    /// This, and what a later scan found of other sockets.
    pub(super) fn joined(mut self, later: &Self) -> Self {
        self.add(&later.tables, &later.held, false);
        self.unreadable = self.unreadable.max(later.unreadable);
        self.read = later.read.clone();
        self.finish()
    }

    /// Puts it in order, once everything was added.
    pub(super) fn finish(mut self) -> Self {
        let tables = &self.tables;
        let place = |held: &Held| {
            let table = tables.get(held.table as usize);
            (held.inode, table.map(|table| (table.pid, table.tid)), held.fd)
        };
        self.held.sort_unstable_by_key(place);
        self.held.shrink_to_fit();
        self
    }

    fn owner(&self, held: Held) -> Option<Owner> {
        let table = self.tables.get(held.table as usize)?;
        let FdTable { pid, tid, comm } = *table;
        Some(Owner { pid, tid, comm, fd: held.fd })
    }
}
