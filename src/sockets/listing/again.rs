//! Listing again and again: owners are looked for only when there is a socket that was
//! not there the last time, and now and then.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{Listed, Lister, Look};
use crate::sockets::model::Inode;
use crate::sockets::owners::age::Moment;
use crate::sockets::owners::{LookUp, all_owners};
use crate::sockets::row::Row;
use crate::sockets::source::Source;

/// The longest that a descriptor goes unnoticed which a process passed to another.
const STALE: Duration = Duration::from_secs(10);
/// Looks that no new socket asks for take at most one part of so many of the time.
const SHARE: u32 = 20;

/// What is kept from one list to the next.
#[derive(Debug)]
pub(super) struct Kept {
    /// When owners were last looked for, and how long that took.
    at: Instant,
    took: Duration,
    /// Sockets that were looked for and have no owner that may be read.
    unowned: HashSet<Inode>,
}

impl<'a> Lister<'a> {
    /// One that lists again and again: [`Lister::list`] looks for owners anew after it
    /// met a socket that it does not know, and [`Lister::refresh`] when that is long ago.
    /// With [`Look::First`] it finds all owners all the same.
    ///
    /// # Errors
    /// As [`Lister::new`].
    pub fn again(how: impl Into<LookUp<'a>>, look: Look) -> io::Result<Self> {
        let look = match look {
            Look::None => Look::None,
            Look::First | Look::All => Look::All,
        };
        let at = Instant::now();
        let mut lister = Self::new(how, look)?;
        let unowned = HashSet::new();
        lister.kept = Some(Kept { at, took: at.elapsed(), unowned });
        Ok(lister)
    }

    /// Looks for owners where that was not done for 10 s, or for 20 times as long as it
    /// takes.
    ///
    /// # Errors
    /// As [`all_owners`].
    pub fn refresh(&mut self) -> io::Result<()> {
        let due = |kept: &Kept| kept.at.elapsed() > STALE.max(kept.took * SHARE);
        match self.look != Look::None && self.kept.as_ref().is_some_and(due) {
            true => self.look_again(),
            false => Ok(()),
        }
    }

    /// Whether a socket was looked for in vain.
    pub(super) fn is_unowned(&self, inode: Inode) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.unowned.contains(&inode))
    }

    fn look_again(&mut self) -> io::Result<()> {
        let at = Instant::now();
        (self.looked, self.index) = (Moment::now(), all_owners(self.how)?);
        self.hidden = self.hidden();
        let (took, unowned) = (at.elapsed(), HashSet::new());
        self.kept = Some(Kept { at, took, unowned });
        Ok(())
    }

    /// Hands out sockets that were not known.
    pub(super) fn list_new(
        &mut self,
        source: &mut dyn Source,
        new: &[Row<'_>],
        each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let before = self.kept.take();
        self.look_again()?;
        let mut unowned = before.map(|kept| kept.unowned).unwrap_or_default();
        let mut owners = Vec::new();
        for row in new {
            self.find(&self.index, row, &mut owners);
            let mut hidden = self.hidden;
            if owners.is_empty() {
                hidden = self.unless_gone(source, row);
                unowned.insert(row.inode);
            }
            if self.hand_out(row, &owners, hidden, each).is_break() {
                break;
            }
        }
        if let Some(kept) = &mut self.kept {
            kept.unowned = unowned;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::model::{Owner, States};
    use crate::sockets::select::{Details, Selection, Tables, Versions};
    use crate::sockets::source::netlink::NetlinkSource;
    use crate::sockets::testing::{inode, listen, loopback};
    use std::os::fd::AsFd;
    use std::path::Path;

    fn owners(
        lister: &mut Lister<'_>,
        source: &mut NetlinkSource,
        inode: Inode,
    ) -> Option<Vec<Owner>> {
        let selection = Selection {
            tables: Tables::TCP,
            versions: Versions::BOTH,
            states: States::LISTEN,
            details: Details::default(),
            program: None,
        };
        let mut found = None;
        let each = &mut |listed: &Listed<'_>| {
            if listed.row.inode == inode {
                found = Some(listed.owners.to_vec());
            }
            ControlFlow::Continue(())
        };
        lister.list(source, &selection, each).unwrap();
        found
    }

    #[test]
    fn a_socket_that_is_new_is_looked_for_and_every_one_now_and_then() {
        let mut source = NetlinkSource::open().unwrap();
        let mut lister = Lister::again(Path::new("/proc"), Look::First).unwrap();
        let (listener, _) = listen(loopback(), 5);
        let this = inode(&listener);
        let found = owners(&mut lister, &mut source, this).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid, std::process::id());
        assert!(lister.index.has(this));
        let second = listener.as_fd().try_clone_to_owned().unwrap();
        lister.look_again().unwrap();
        assert_eq!(owners(&mut lister, &mut source, this).unwrap().len(), 2);
        drop(second);
        if let Some(kept) = &mut lister.kept {
            kept.at = kept.at.checked_sub(STALE * 2).unwrap();
            kept.took = Duration::ZERO;
        }
        lister.refresh().unwrap();
        assert_eq!(owners(&mut lister, &mut source, this).unwrap().len(), 1);
    }

    #[test]
    fn what_has_no_owner_is_not_looked_for_again() {
        let mut source = NetlinkSource::open().unwrap();
        let nobody = tempfile::tempdir().unwrap();
        let mut lister = Lister::again(nobody.path(), Look::All).unwrap();
        let (listener, _) = listen(loopback(), 5);
        let this = inode(&listener);
        assert_eq!(owners(&mut lister, &mut source, this), Some(vec![]));
        assert!(lister.is_unowned(this));
        let looked = lister.kept.as_ref().unwrap().at;
        assert_eq!(owners(&mut lister, &mut source, this), Some(vec![]));
        // Other tests may have made a listener meanwhile.
        let again = lister.kept.as_ref().unwrap();
        assert!(again.at == looked || again.unowned.len() > 1);
    }
}
