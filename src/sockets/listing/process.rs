//! Listing the sockets of one process.

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;

use super::{Listed, Lister, Look, NoOwner};
use crate::sockets::model::{Inode, Owner};
use crate::sockets::owners::age::Moment;
use crate::sockets::owners::{LookUp, all_owners, owners_of_process};
use crate::sockets::select::Selection;
use crate::sockets::source::{Passed, Source};

/// The sockets of one process.
#[derive(Debug)]
pub(super) struct ProcessSockets {
    all: HashSet<Inode>,
    /// Those that a table had.
    listed: HashSet<Inode>,
}

impl<'a> Lister<'a> {
    /// Lists the sockets of one process alone, each with all descriptors that this process
    /// has of it, in its threads' own tables too; with `everyones`, with those of other
    /// processes as well.
    ///
    /// # Errors
    /// As [`owners_of_process`] and [`all_owners`].
    pub fn of_process(
        how: impl Into<LookUp<'a>>,
        pid: u32,
        everyones: bool,
    ) -> io::Result<Self> {
        let how = how.into();
        let own = owners_of_process(how, pid)?;
        let all = own.iter().map(|(inode, _)| inode).collect();
        let index = if everyones { all_owners(how)? } else { own };
        Ok(Self {
            how,
            look: Look::All,
            index,
            looked: Moment::default(),
            hidden: NoOwner::Closed,
            not_permitted: Cell::new(0),
            kept: None,
            process: Some(ProcessSockets { all, listed: HashSet::new() }),
        })
    }

    /// Whether a socket is one of those that are listed, if a table has it.
    #[must_use]
    pub fn lists(&self, inode: Inode) -> bool {
        self.process.as_ref().is_none_or(|process| process.all.contains(&inode))
    }

    /// The sockets of [`Self::of_process`] that no table had which was read so far, each
    /// with its owners.
    pub fn unlisted(&self) -> impl Iterator<Item = (Inode, Owner)> + '_ {
        let of_it = self.process.iter();
        let sockets =
            of_it.flat_map(|process| process.all.difference(&process.listed).copied());
        sockets
            .flat_map(|inode| self.index.owners(inode).map(move |owner| (inode, owner)))
    }

    pub(super) fn list_process(
        &mut self,
        source: &mut dyn Source,
        selection: &Selection,
        each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        let Some(mut process) = self.process.take() else { return Ok(Passed::default()) };
        let mut owners = Vec::new();
        let passed = source.rows(selection, &mut |row| {
            if !process.all.contains(&row.inode) {
                return ControlFlow::Continue(());
            }
            process.listed.insert(row.inode);
            self.find(&self.index, &row, &mut owners);
            self.hand_out(&row, &owners, self.hidden, each)
        });
        self.process = Some(process);
        passed
    }
}
