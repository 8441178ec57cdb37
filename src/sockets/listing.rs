//! The socket table: the rows of a source, each with its owners, or why it has none.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use self::again::Kept;
use self::process::ProcessSockets;
use super::model::{Inode, Owner, State};
use super::owners::age::Moment;
use super::owners::{
    LookUp, OwnerIndex, all_owners, first_owners, is_first_pid_namespace, owners_of,
};
use super::row::{Address, Kind, Row};
use super::select::Selection;
use super::source::{Passed, Source};

mod again;
mod process;

/// Sockets without an owner that are looked up again, in case they were closed.
const LOOKED_UP: usize = 1000;

/// Why a socket has no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoOwner {
    /// It waits in an accept queue.
    Queued,
    /// In TIME_WAIT: the kernel alone remembers it.
    TimeWait,
    /// In SYN_RECV: its handshake is not over.
    Handshake,
    /// Every process has closed it; the kernel still sends what is left, or waits for
    /// the peer's end.
    Closed,
    /// The kernel itself has it.
    Kernel,
    /// A process of another user may have it, whose descriptors may not be read.
    NotPermitted,
    /// A process of another pid namespace has it.
    OtherNamespace,
}

impl NoOwner {
    /// The word for it in every format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::TimeWait => "time-wait",
            Self::Handshake => "handshake",
            Self::Closed => "closed",
            Self::Kernel => "kernel",
            Self::NotPermitted => "not permitted",
            Self::OtherNamespace => "other namespace",
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::TimeWait,
        Self::Handshake,
        Self::Closed,
        Self::Kernel,
        Self::NotPermitted,
        Self::OtherNamespace,
    ];

    /// Their names, and none: what a schema of a socket says.
    pub(super) fn or_null() -> Vec<Option<&'static str>> {
        Self::ALL.into_iter().map(|why| Some(why.name())).chain([None]).collect()
    }

    /// Of a socket that no file has.
    fn without_inode(row: &Row<'_>) -> Self {
        match row.state {
            _ if row.is_queued() => Self::Queued,
            State::TimeWait => Self::TimeWait,
            State::SynRecv => Self::Handshake,
            State::Listen | State::Close => Self::Kernel,
            _ if row.kind == Kind::Netlink => Self::Kernel,
            _ => Self::Closed,
        }
    }
}

/// Whether owners are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Not at all.
    None,
    /// One for each socket: the look ends as soon as each has one.
    First,
    /// All of them.
    All,
}

/// A socket and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The socket.
    pub row: &'a Row<'a>,
    /// Every descriptor of it that was looked for and found.
    pub owners: &'a [Owner],
    /// Why it has none; None where it has some, or they were not looked for.
    pub no_owner: Option<NoOwner>,
}

/// Lists sockets of one or several network namespaces of a host.
#[derive(Debug)]
pub struct Lister<'a> {
    how: LookUp<'a>,
    look: Look,
    index: OwnerIndex,
    /// When they were looked for: a socket made since may have one all the same.
    looked: Moment,
    /// Of what no readable process has: whose it may be.
    hidden: NoOwner,
    /// Sockets that were handed out as not permitted.
    not_permitted: Cell<u64>,
    /// Where it lists again and again.
    kept: Option<Kept>,
    /// The sockets of the one process whose are listed.
    process: Option<ProcessSockets>,
}

impl<'a> Lister<'a> {
    /// With [`Look::All`] it reads every fd table at once: half a µs a descriptor by BPF,
    /// 4 µs through /proc.
    ///
    /// # Errors
    /// As [`all_owners`].
    pub fn new(how: impl Into<LookUp<'a>>, look: Look) -> io::Result<Self> {
        let how = how.into();
        let (looked, index) = match look {
            Look::All => (Moment::now(), all_owners(how)?),
            Look::None | Look::First => (Moment::default(), OwnerIndex::default()),
        };
        let mut lister = Self {
            how,
            look,
            index,
            looked,
            hidden: NoOwner::Kernel,
            not_permitted: Cell::new(0),
            kept: None,
            process: None,
        };
        lister.hidden = lister.hidden();
        Ok(lister)
    }

    /// Processes whose descriptors could not be read.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.index.unreadable()
    }

    /// Sockets so far whose owners could not be read.
    #[must_use]
    pub fn not_permitted(&self) -> u64 {
        self.not_permitted.get()
    }

    /// The owners of all sockets, where they were looked for.
    #[must_use]
    pub fn index(&self) -> &OwnerIndex {
        &self.index
    }

    /// Hands out each socket that was selected, as [`Source::rows`] does. A socket that
    /// has been made since owners were looked for comes last, after a second look.
    ///
    /// # Errors
    /// As [`Source::rows`] and [`all_owners`].
    pub fn list(
        &mut self,
        source: &mut dyn Source,
        selection: &Selection,
        each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        match self.look {
            _ if self.process.is_some() => self.list_process(source, selection, each),
            Look::None => source.rows(selection, &mut |row| {
                each(&Listed { row: &row, owners: &[], no_owner: None })
            }),
            Look::First => self.list_first(source, selection, each),
            Look::All => self.list_all(source, selection, each),
        }
    }

    fn list_first(
        &mut self,
        source: &mut dyn Source,
        selection: &Selection,
        each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        let mut rows = Vec::new();
        let passed = source.rows(selection, &mut |row| {
            rows.push(row.into_owned());
            ControlFlow::Continue(())
        })?;
        self.index = first_owners(self.how, &inodes_of(&rows))?;
        self.hidden = self.hidden();
        let mut owners = Vec::new();
        let mut left = LOOKED_UP;
        for row in &rows {
            self.find(&self.index, row, &mut owners);
            let unknown = owners.is_empty() && row.inode.exists() && left > 0;
            left -= usize::from(unknown);
            let hidden =
                if unknown { self.unless_gone(source, row) } else { self.hidden };
            if self.hand_out(row, &owners, hidden, each).is_break() {
                break;
            }
        }
        Ok(passed)
    }

    fn list_all(
        &mut self,
        source: &mut dyn Source,
        selection: &Selection,
        each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        let mut late: Vec<Row<'static>> = Vec::new();
        let mut owners = Vec::new();
        let mut over = false;
        let passed = source.rows(selection, &mut |row| {
            self.find(&self.index, &row, &mut owners);
            let known =
                !row.inode.exists() || !owners.is_empty() || self.is_unowned(row.inode);
            if !known && !self.looked.is_after(row.inode) {
                late.push(row.into_owned());
                return ControlFlow::Continue(());
            }
            let flow = self.hand_out(&row, &owners, self.hidden, each);
            over |= flow.is_break();
            flow
        })?;
        if over || late.is_empty() {
            return Ok(passed);
        }
        if self.kept.is_some() {
            self.list_new(source, &late, each)?;
            return Ok(passed);
        }
        let again = owners_of(self.how, &inodes_of(&late))?;
        for row in &late {
            self.find(&again, row, &mut owners);
            let hidden = match owners.is_empty() {
                true => self.unless_gone(source, row),
                false => self.hidden,
            };
            if self.hand_out(row, &owners, hidden, each).is_break() {
                break;
            }
        }
        Ok(passed)
    }

    fn find(&self, index: &OwnerIndex, row: &Row<'_>, owners: &mut Vec<Owner>) {
        owners.clear();
        owners.extend(index.owners(row.inode));
    }

    /// What was closed since it was read had an owner.
    fn unless_gone(&self, source: &mut dyn Source, row: &Row<'_>) -> NoOwner {
        let gone = source.still_has(row) == Some(false);
        if gone { NoOwner::Closed } else { self.hidden }
    }

    fn hand_out(
        &self,
        row: &Row<'_>,
        owners: &[Owner],
        hidden: NoOwner,
        each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let no_owner = owners.is_empty().then(|| match row.inode.exists() {
            _ if is_the_kernels(row) => NoOwner::Kernel,
            true => hidden,
            false => NoOwner::without_inode(row),
        });
        let not_permitted = no_owner == Some(NoOwner::NotPermitted);
        self.not_permitted.update(|n| n + u64::from(not_permitted));
        each(&Listed { row, owners, no_owner })
    }

    /// Whose a socket may be that has an inode and no owner that could be read.
    fn hidden(&self) -> NoOwner {
        let proc_root = self.how.proc_root;
        // The iterator sees what /proc does not show.
        let hides = !self.index.is_by_bpf() && hides_processes(proc_root);
        if self.unreadable() > 0 || hides {
            NoOwner::NotPermitted
        } else if sees_every_process(proc_root) {
            NoOwner::Kernel
        } else {
            NoOwner::OtherNamespace
        }
    }
}

/// Whether it is the kernel's end of a netlink family: a program's has a port.
fn is_the_kernels(row: &Row<'_>) -> bool {
    matches!(row.local, Address::Netlink { port: 0, .. })
}

fn inodes_of(rows: &[Row<'_>]) -> HashSet<Inode> {
    rows.iter().map(|row| row.inode).filter(|inode| inode.exists()).collect()
}

/// Whether a proc file system is that of the first pid namespace, which shows every
/// process. (A fixture tree has no such link and stands for a whole host.)
fn sees_every_process(proc_root: &Path) -> bool {
    let links = ["1/ns/pid", "self/ns/pid"].map(|link| proc_root.join(link));
    let link = links.iter().find(|link| fs::read_link(link).is_ok());
    link.is_none_or(|link| is_first_pid_namespace(link))
}

/// Whether a proc file system was mounted so that an ordinary user sees his own
/// processes alone (hidepid, proc(5)).
fn hides_processes(proc_root: &Path) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let mounts = fs::read_to_string(proc_root.join("self/mounts")).unwrap_or_default();
    let mut here = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind, options) = (words.next()?, words.next()?, words.next()?);
        (kind == "proc" && Path::new(at) == proc_root).then_some(options)
    });
    here.any(|options| {
        options.split(',').any(|option| {
            option.strip_prefix("hidepid=").is_some_and(|how| !matches!(how, "0" | "off"))
        })
    })
}

#[cfg(test)]
mod tests;
