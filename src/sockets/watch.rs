//! A server as its own host sees it: its listeners, who holds them, and what that host
//! allows. Read from sock_diag and /proc, in the server's network namespace.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::listeners::{self, Listener, UnixTarget};
use super::model::{Family, Inode, Owner, UnixName};
use super::owners::owners_of;
use super::target::Endpoint;
use crate::host::ProcRoot;
use crate::host::conntrack::{Conntrack, conntrack};
use crate::host::counters::TcpExt;
use crate::host::process::{self, ProcessView, fds_below};
use crate::host::sysctl;
use crate::kernel::netns::Netns;
use crate::kernel::sock_diag::SockDiag;

/// At most so many processes that hold the listener are looked at.
const OWNERS_MAX: usize = 64;

/// And so many of their descriptors.
const DESCRIPTORS_MAX: usize = 4096;

/// Why the server's side cannot be looked at as the user asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ViewError {
    #[error(
        "no network namespace '{name}': {why} (a name as `ip netns` shows, or a PID)"
    )]
    NoNetns { name: String, why: io::Error },
    #[error("the network namespace '{name}' cannot be entered: {why}; that takes root")]
    NetnsClosed { name: String, why: io::Error },
    #[error("the kernel's socket tables cannot be read (sock_diag): {0}")]
    NoDiag(io::Error),
}

/// The listeners that answer for one endpoint, and whose they are.
#[derive(Debug)]
pub struct ListenerWatch {
    proc_root: ProcRoot,
    netns: Option<Netns>,
    diag: SockDiag,
    endpoint: Endpoint,
    found: Vec<Listener>,
    owners: Vec<Owner>,
    by_inode: Vec<(Inode, Owner)>,
    unreadable: usize,
}

impl ListenerWatch {
    /// Looks for the listener that answers for `endpoint`, in this network namespace or
    /// in the one named.
    ///
    /// # Errors
    /// A [`ViewError`].
    pub fn attach(
        endpoint: &Endpoint,
        netns: Option<&str>,
        proc_root: ProcRoot,
    ) -> Result<Self, ViewError> {
        let netns = netns.map(|name| {
            let refused = |why: io::Error| match (name.to_owned(), why.kind()) {
                (name, io::ErrorKind::PermissionDenied) => {
                    ViewError::NetnsClosed { name, why }
                }
                (name, _) => ViewError::NoNetns { name, why },
            };
            Netns::open(name).map_err(refused).map(|ns| (name.to_owned(), ns))
        });
        let own = Netns::current().and_then(|own| own.inode()).ok();
        // One's own needs not be entered, which takes a right.
        let is_other = |ns: &Netns| own.is_none() || ns.inode().ok() != own;
        let netns = netns.transpose()?.filter(|(_, ns)| is_other(ns));
        let diag = match &netns {
            None => SockDiag::open(),
            Some((name, ns)) => ns
                .run(SockDiag::open)
                .map_err(|why| ViewError::NetnsClosed { name: name.clone(), why })?,
        };
        let mut watch = Self {
            proc_root,
            netns: netns.map(|(_, ns)| ns),
            diag: diag.map_err(ViewError::NoDiag)?,
            endpoint: endpoint.clone(),
            found: Vec::new(),
            owners: Vec::new(),
            by_inode: Vec::new(),
            unreadable: 0,
        };
        watch.find().map_err(ViewError::NoDiag)?;
        Ok(watch)
    }

    /// Looks for the listeners again.
    ///
    /// # Errors
    /// What the dump gives.
    pub fn find(&mut self) -> io::Result<()> {
        let answering = match &self.endpoint {
            Endpoint::Tcp(target) => {
                let all = listeners::inet(&mut self.diag)?;
                listeners::answering(&all, *target).into_iter().cloned().collect()
            }
            Endpoint::Unix(name) => {
                let wanted = match name {
                    UnixName::Abstract(name) => Some(UnixTarget::Abstract(name.to_vec())),
                    UnixName::Path(path) => {
                        let path = std::ffi::OsStr::from_bytes(path);
                        UnixTarget::path(path.as_ref()).ok()
                    }
                };
                let all = listeners::unix(&mut self.diag)?;
                wanted.map_or_else(Vec::new, |wanted| {
                    let found = listeners::answering_unix(&all, &wanted);
                    found.into_iter().cloned().collect()
                })
            }
        };
        self.found = answering;
        Ok(())
    }

    /// What is watched.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where /proc is.
    #[must_use]
    pub fn proc_root(&self) -> &ProcRoot {
        &self.proc_root
    }

    /// The socket to ask the kernel by, in the server's network namespace.
    pub fn diag(&mut self) -> &mut SockDiag {
        &mut self.diag
    }

    /// The listeners that answer for the endpoint, as they were last looked at.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.found
    }

    /// Both, for what needs the one to ask about the other.
    pub fn diag_and_listeners(&mut self) -> (&mut SockDiag, &[Listener]) {
        (&mut self.diag, &self.found)
    }

    /// The same, for what looks at the listeners again.
    pub fn diag_and_listeners_mut(&mut self) -> (&mut SockDiag, &mut [Listener]) {
        (&mut self.diag, &mut self.found)
    }

    /// Runs `f` in the server's network namespace.
    ///
    /// # Errors
    /// As [`Netns::run`].
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.netns {
            None => Ok(f()),
            Some(netns) => netns.run(f),
        }
    }

    /// Looks at the listeners again; returns how many are still there.
    ///
    /// # Errors
    /// As [`listeners::sample`].
    pub fn look(&mut self) -> io::Result<usize> {
        listeners::sample(&mut self.diag, &mut self.found)
    }

    /// Looks for the owners of the listeners: reads every fd table of this host, 4 µs a
    /// descriptor.
    pub fn look_for_owners(&mut self) {
        let wanted: HashSet<Inode> = self.found.iter().map(|l| l.inode).collect();
        if wanted.is_empty() {
            return;
        }
        let scan = owners_of(self.proc_root.as_path(), &wanted).unwrap_or_default();
        let mut owners: Vec<Owner> = scan.iter().map(|(_, owner)| owner).collect();
        owners.sort_by_key(|o| (o.pid, o.tid, o.fd));
        owners.dedup_by_key(|o| (o.pid, o.tid));
        owners.truncate(OWNERS_MAX);
        (self.owners, self.unreadable) = (owners, scan.unreadable());
        self.by_inode = scan.iter().take(DESCRIPTORS_MAX).collect();
    }

    /// Who holds the listeners, as they were last looked for.
    #[must_use]
    pub fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// Every descriptor of each listener, as they were last looked for.
    #[must_use]
    pub fn owners_by_inode(&self) -> &[(Inode, Owner)] {
        &self.by_inode
    }

    /// Processes whose descriptors could not be read when owners were looked for.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// The processes, and threads with tables of their own, that hold the listener.
    pub fn processes(&self) -> impl Iterator<Item = ProcessView> + '_ {
        let view = |owner: &Owner| process::view(&self.proc_root, owner.pid, owner.tid);
        self.owners.iter().filter_map(move |owner| view(owner).ok())
    }

    /// Where an owner has opened as many as its limit, counts only those descriptors
    /// whose numbers are below that: they alone stand in the way of accept().
    pub fn count_below_limit(&self, process: &mut ProcessView) {
        if let (Some(open), Some(limit)) = (process.open_fds, process.nofile_soft)
            && open >= limit
            && let Ok(below) = fds_below(&self.proc_root, process.pid, process.tid, limit)
        {
            process.open_fds = Some(below);
        }
    }

    /// What listeners have dropped, all together, ever (each wraps at 2^32).
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.sum(|l| l.drops)
    }

    /// The length of the accept queue, of all listeners together.
    #[must_use]
    pub fn queue_len(&self) -> u64 {
        self.sum(|l| l.queue_len)
    }

    /// The effective backlog, of all listeners together.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.sum(|l| l.backlog)
    }

    fn sum(&self, of: fn(&Listener) -> u32) -> u64 {
        self.found.iter().map(|l| u64::from(of(l))).sum()
    }

    /// Where the first of the listeners listens.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        self.found.first().map(|first| first.at.to_string())
    }

    /// The table that the server's connections are in.
    #[must_use]
    pub fn family(&self) -> Family {
        let families = self.found.iter().filter_map(Listener::family);
        families.max_by_key(|f| *f == Family::V6).unwrap_or(Family::V4)
    }

    /// Whose the listener is, where none of the processes that hold it could be read.
    #[must_use]
    pub fn hidden_owner(&self) -> Option<u32> {
        let hidden = self.owners.is_empty() && self.unreadable > 0;
        self.found.first().map(|l| l.uid).filter(|_| hidden)
    }

    /// The TCP counters of the server's network namespace.
    #[must_use]
    pub fn counters(&self) -> Option<TcpExt> {
        self.inside(|| TcpExt::read(&self.proc_root).ok()).ok().flatten()
    }

    /// A sysctl of the server's network namespace.
    #[must_use]
    pub fn sysctl(&self, name: &str) -> Option<u64> {
        self.inside(|| sysctl::number(&self.proc_root, name).ok()).ok().flatten()
    }

    /// Whether it looks into another network namespace than the caller's.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.netns.is_some()
    }

    /// Tracked connections of the server's network namespace.
    #[must_use]
    pub fn conntrack(&self) -> Option<Conntrack> {
        self.inside(|| conntrack(&self.proc_root).ok().flatten()).ok().flatten()
    }
}
