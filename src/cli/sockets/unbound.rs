//! Sockets that processes have and no table shows, among those that are listed.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;

use super::plan::Plan;
use crate::host::ProcRoot;
use crate::kernel::netns::Netns;
use crate::sockets::descriptor::DescriptorName;
use crate::sockets::descriptor::find::netns_of;
use crate::sockets::listing::{Listed, Lister};
use crate::sockets::model::{Inode, Owner};
use crate::sockets::select::Selection;
use crate::sockets::source::{Passed, Source};
use crate::sockets::unbound;

/// Lists what the processes of this namespace have and none of its tables shows. Of a
/// single process, those that were made in another namespace are counted instead.
///
/// The tables are read after the descriptors, or a new connection would look unbound.
pub(super) fn list(
    plan: &Plan,
    lister: &Lister<'_>,
    source: &mut dyn Source,
    selection: &Selection,
    each: &mut dyn FnMut(&Listed<'_>) -> ControlFlow<()>,
) -> io::Result<(Passed, u64)> {
    let mut seen = HashSet::new();
    // Of one process the listing itself has seen to it, if it was of everything.
    if plan.pid.is_none() || !is_everything(selection) {
        source.rows(&Selection::everything(), &mut |row| {
            seen.insert(row.inode);
            ControlFlow::Continue(())
        })?;
    }
    let found: Box<dyn Iterator<Item = (Inode, Owner)> + '_> = match plan.pid {
        Some(_) => Box::new(lister.unlisted()),
        None => Box::new(lister.index().iter()),
    };
    let root = ProcRoot::new(plan.proc_root.clone());
    let netns = Netns::current().and_then(|netns| netns.inode()).ok();
    let netns = netns.filter(|_| plan.is_this_host());
    let is_seen = |inode| seen.contains(&inode);
    let mut elsewhere = 0;
    let passed = unbound::rows(&root, found, is_seen, netns, &mut |row, owner| {
        if plan.pid.is_some() && is_elsewhere(owner, row.inode, netns) {
            elsewhere += 1;
            return ControlFlow::Continue(());
        }
        let owners: Vec<_> = lister.index().owners(row.inode).collect();
        each(&Listed { row: &row, owners: &owners, no_owner: None })
    });
    Ok((passed, elsewhere))
}

fn is_everything(selection: &Selection) -> bool {
    let Selection { tables, versions, states, details: _, program } = selection;
    let all = Selection::everything();
    (*tables, *versions, *states) == (all.tables, all.versions, all.states)
        && program.is_none()
}

/// Whether a socket is known to be of another namespace than the one that was read.
fn is_elsewhere(owner: Owner, inode: Inode, netns: Option<u64>) -> bool {
    let Owner { pid, tid, fd, .. } = owner;
    let made_in = netns_of(DescriptorName { pid, tid, fd }, inode);
    let made_in = made_in.and_then(|made_in| made_in.inode());
    netns.is_some() && made_in.is_ok_and(|made_in| Some(made_in) != netns)
}
