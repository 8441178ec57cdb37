//! The server as its own host sees it: its listener, who holds that, and which of our
//! connections it has. Read from sock_diag and /proc, in the server's network namespace.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::ramp::{Glance, Watch};
use super::safety::Standing;
use super::shared::{Shared, lock};
use super::tuples::Tuple;
use crate::host::ProcRoot;
use crate::host::cgroup_limits::{
    CgroupLimit, Controller, Tightest, oom_kills, tightest,
};
use crate::host::counters::{Softnet, TcpExt};
use crate::host::files::file_nr;
use crate::host::memory::memory;
use crate::host::process::{self, ProcessView};
use crate::host::user_tasks::UserTasks;
use crate::kernel::ifaddrs;
use crate::sockets::connections::{
    ServerSide, Standing as At, server_rows, server_side, server_side_unix,
};
use crate::sockets::listeners::Listener;
use crate::sockets::model::Inode;
use crate::sockets::owners::fds_of;
use crate::sockets::target::Endpoint;
use crate::sockets::watch::ListenerWatch;
pub use crate::sockets::watch::ViewError;
use crate::verdict::{Evidence, ListenerSeen, MemoryKill, OwnerSeen, ServerCounts};

/// The owners' descriptors are counted at every so many looks.
const FDS_EVERY: u32 = 5;
/// Links of fd tables that are read in search of the servers' ends: about a second.
const LINKS_MAX: usize = 200_000;
/// With more connections than this the listener's owners are not looked for again when
/// the ramp ends: that reads every fd table of this host, 4 µs a descriptor.
const LOOK_AGAIN_MAX: u64 = 100_000;

/// The server's end of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerEnd {
    /// Its inode.
    pub inode: u64,
    /// Whose descriptor it is, where that was found.
    pub owner: Option<(u32, u32, u32)>,
}

/// A view of the server's side, open for the whole probe.
#[derive(Debug)]
pub struct ServerView {
    watch: ListenerWatch,
    /// How the owners were before the first dial: all that is left of those that end.
    first: Vec<ProcessView>,
    /// The memory of their cgroup, and how often the kernel had killed for it.
    memory: Option<(Tightest, u64)>,
    drops_before: u64,
    counters_before: Option<TcpExt>,
    queue_peak: u64,
    looks: u32,
    open_fds: Option<u64>,
}

impl ServerView {
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
        Ok(Self {
            watch: ListenerWatch::attach(endpoint, netns, proc_root)?,
            first: Vec::new(),
            memory: None,
            drops_before: 0,
            counters_before: None,
            queue_peak: 0,
            looks: 0,
            open_fds: None,
        })
    }

    /// Begins to count: what grows from here on is this probe's.
    pub fn begin(&mut self) {
        self.watch.look_for_owners();
        self.first = self.processes().collect();
        let root = self.watch.proc_root();
        self.memory = self.first.iter().find_map(|owner| memory_of(root, owner));
        self.drops_before = self.watch.drops();
        self.counters_before = self.watch.counters();
    }

    /// What the safety rules ask about the target.
    ///
    /// # Errors
    /// What getifaddrs(3) gives.
    pub fn standing(&self) -> io::Result<Standing> {
        let Endpoint::Tcp(target) = self.watch.endpoint() else {
            return Ok(Standing::default());
        };
        let ip = target.ip().to_canonical();
        let has_listener = !self.listeners().is_empty();
        if ip.is_loopback() {
            return Ok(Standing { own_address: true, has_listener, broadcast: false });
        }
        let own = self.watch.inside(ifaddrs::addresses)??;
        let broadcasts = self.watch.inside(ifaddrs::broadcasts)??;
        Ok(Standing {
            own_address: own.iter().any(|a| a.to_canonical() == ip),
            has_listener,
            broadcast: broadcasts.contains(&ip),
        })
    }

    /// The listeners that answer for the target.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        self.watch.listeners()
    }

    /// Whether the server is in another network namespace than this probe.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.watch.is_elsewhere()
    }

    /// The listeners and their owners, to look at them closer.
    #[must_use]
    pub fn watch(&self) -> &ListenerWatch {
        &self.watch
    }

    /// The same, to look again.
    pub fn watch_mut(&mut self) -> &mut ListenerWatch {
        &mut self.watch
    }

    /// Its effective backlog, of all its listeners together.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.watch.backlog()
    }

    /// The processes, and threads with tables of their own, that hold the listener.
    pub fn processes(&self) -> impl Iterator<Item = ProcessView> + '_ {
        self.watch.processes()
    }

    /// Whether a listener answers for the target now.
    #[must_use]
    pub fn is_there(&mut self) -> bool {
        self.watch.look().is_ok_and(|there| there > 0)
    }

    /// Everything that the verdict needs to know of this moment, with so many open.
    #[must_use]
    pub fn evidence(&mut self, open: u64) -> Evidence {
        if open <= LOOK_AGAIN_MAX {
            self.watch.look_for_owners();
        }
        let listening_after = self.is_there();
        let watch = &self.watch;
        let seen = |mut process: ProcessView| {
            watch.count_below_limit(&mut process);
            OwnerSeen { process, alive_after: true }
        };
        let mut owners: Vec<OwnerSeen> = self.processes().map(seen).collect();
        let mut gone = self.ended();
        if !listening_after {
            let ended = std::mem::take(&mut gone).into_iter();
            owners.extend(ended.map(|process| OwnerSeen { process, alive_after: false }));
        }
        let counters = watch.counters().zip(self.counters_before.as_ref());
        let aborts = watch.sysctl("net.ipv4.tcp_abort_on_overflow");
        let root = watch.proc_root();
        let tasks = owners.iter().find_map(|o| task_limit(root, &o.process));
        let user_tasks = owners.iter().find_map(|o| UserTasks::of(root, o.process.pid));
        Evidence {
            sees_server: true,
            listener: self.listener_seen(),
            listening_after,
            owners,
            gone,
            unreadable_owner: watch.hidden_owner().map(|uid| format!("uid {uid}")),
            counters: counters.map(|(now, before)| now.since(before)),
            somaxconn: watch.sysctl("net.core.somaxconn"),
            abort_on_overflow: aborts.map(|n| n != 0),
            // Its own namespace's; in the client's it is the client's table.
            conntrack: watch
                .conntrack()
                .filter(|_| watch.is_elsewhere())
                .map(|c| (c.count, c.max)),
            client_conntrack: None,
            tasks,
            user_tasks,
            memory_kill: self.memory_kill(),
            file_nr: file_nr(root).ok().map(|f| (f.allocated, f.max)),
            mem_available_bytes: memory(root).ok().map(|m| m.available_bytes),
            ceilings: Vec::new(),
            remote: None,
        }
    }

    /// Who held the listener before the first dial, and is no more.
    fn ended(&self) -> Vec<ProcessView> {
        let root = self.watch.proc_root();
        self.first.iter().filter(|p| still(root, p).is_none()).cloned().collect()
    }

    /// Whether the kernel has killed for the memory of the server's cgroup since.
    fn memory_kill(&self) -> Option<MemoryKill> {
        let (memory, before) = self.memory.as_ref()?;
        let (now, file) = oom_kills(&memory.folder)?;
        let (kills, limit) = (now.saturating_sub(*before), memory.limit.clone());
        let source = file.display().to_string();
        (kills > 0).then_some(MemoryKill { kills, source, limit })
    }

    /// Completes what [`Self::evidence`] said by how it is now.
    pub fn update(&mut self, evidence: &mut Evidence) {
        evidence.memory_kill = self.memory_kill();
        evidence.listening_after = self.is_there();
        for owner in &mut evidence.owners {
            let now = still(self.watch.proc_root(), &owner.process);
            owner.alive_after = now.is_some();
            if let Some(now) = now {
                owner.process.state = now.state;
            }
        }
    }

    fn listener_seen(&self) -> Option<ListenerSeen> {
        Some(ListenerSeen {
            address: self.watch.address()?,
            members: self.listeners().len() as u64,
            backlog: self.watch.backlog(),
            queue_len: self.watch.queue_len(),
            queue_peak: self.queue_peak,
            drops: self.watch.drops().saturating_sub(self.drops_before),
        })
    }

    /// Counts which of our connections the server has, and how they stand. What is open
    /// at the client and unknown to the server is a phantom.
    ///
    /// # Errors
    /// What the dump gives.
    pub fn count(&mut self, shared: &Shared, open: u64) -> io::Result<ServerCounts> {
        let side = match self.watch.endpoint() {
            Endpoint::Tcp(target) => {
                let (target, family) = (*target, self.watch.family());
                let ours = |remote: SocketAddr| is_ours(shared, remote);
                server_side(self.watch.diag(), target, family, ours)?
            }
            Endpoint::Unix(_) => self.count_unix(shared, |_, _| {})?,
        };
        let full =
            self.listeners().iter().any(Listener::is_full) || self.has_overflowed();
        Ok(server_counts(&side, full, open))
    }

    /// Whether the server has a connection from that client.
    pub(super) fn knows(&mut self, client: SocketAddr) -> bool {
        let Endpoint::Tcp(target) = *self.watch.endpoint() else { return false };
        let (mut known, family) = (false, self.watch.family());
        let rows = server_rows(self.watch.diag(), target, family, |row| {
            known |= row.remote == client;
        });
        rows.is_ok() && known
    }

    /// Whether the queue was full since the beginning, as far as a listener that defers
    /// can be ruled out: that drops ACKs too.
    fn has_overflowed(&self) -> bool {
        let counters = self.watch.counters().zip(self.counters_before.as_ref());
        let grown = counters.map(|(now, before)| now.since(before));
        self.watch.drops() > self.drops_before
            && grown.is_some_and(|c| c.listen_overflows > 0 && c.defer_accept_drop == 0)
    }

    fn count_unix(
        &mut self,
        shared: &Shared,
        each: impl FnMut(Inode, Inode),
    ) -> io::Result<ServerSide> {
        let (diag, found) = self.watch.diag_and_listeners();
        let Some(listener) = found.first() else { return Ok(ServerSide::default()) };
        let clients: HashSet<Inode> =
            lock(&shared.inodes).iter().map(|i| Inode(*i)).collect();
        server_side_unix(diag, listener, &clients, each)
    }

    /// The servers' ends of the accepted connections among `wanted`, by four-tuple.
    ///
    /// # Errors
    /// What the dump gives.
    pub fn ends(
        &mut self,
        shared: &Shared,
        wanted: &HashSet<Tuple>,
    ) -> io::Result<HashMap<Tuple, ServerEnd>> {
        let Endpoint::Tcp(target) = *self.watch.endpoint() else {
            return Ok(HashMap::new());
        };
        let mut ends = HashMap::new();
        let family = self.watch.family();
        server_rows(self.watch.diag(), target, family, |row| {
            if row.standing == At::Accepted
                && let Some(tuple) = tuple_of(shared, row.remote)
                && wanted.contains(&tuple)
            {
                ends.insert(tuple, ServerEnd { inode: row.inode.0, owner: None });
            }
        })?;
        self.find_descriptors(ends.values_mut());
        Ok(ends)
    }

    /// The servers' ends of accepted unix connections, by the client's inode.
    ///
    /// # Errors
    /// What the dump gives.
    pub fn unix_ends(
        &mut self,
        shared: &Shared,
        wanted: &HashSet<u64>,
    ) -> io::Result<HashMap<u64, ServerEnd>> {
        let mut ends = HashMap::new();
        self.count_unix(shared, |client, server| {
            if wanted.contains(&client.0) {
                ends.insert(client.0, ServerEnd { inode: server.0, owner: None });
            }
        })?;
        self.find_descriptors(ends.values_mut());
        Ok(ends)
    }

    fn find_descriptors<'a>(&self, ends: impl Iterator<Item = &'a mut ServerEnd>) {
        let mut wanted: HashMap<Inode, &mut ServerEnd> =
            ends.map(|end| (Inode(end.inode), end)).collect();
        let mut links_left = LINKS_MAX;
        for owner in self.watch.owners() {
            let missing: HashSet<Inode> = wanted.keys().copied().collect();
            if missing.is_empty() || links_left == 0 {
                return;
            }
            let root = self.watch.proc_root().as_path();
            let found = fds_of(root, owner.pid, owner.tid, &missing, links_left);
            let found = found.unwrap_or_default();
            links_left = links_left.saturating_sub(found.links_read);
            for (inode, fd) in found.fds {
                if let Some(end) = wanted.remove(&inode) {
                    end.owner = Some((owner.pid, owner.tid, fd));
                }
            }
        }
    }
}

/// What bounds the threads and processes of its cgroup.
fn task_limit(root: &ProcRoot, owner: &ProcessView) -> Option<CgroupLimit> {
    let pid = owner.pid.to_string();
    tightest(root, Path::new("/"), &pid, Controller::Pids).ok()?.limit
}

/// The memory of its cgroup, and how often the kernel has killed for it.
fn memory_of(root: &ProcRoot, owner: &ProcessView) -> Option<(Tightest, u64)> {
    let pid = owner.pid.to_string();
    let memory = tightest(root, Path::new("/"), &pid, Controller::Memory).ok()?;
    let (kills, _) = oom_kills(&memory.folder)?;
    Some((memory, kills))
}

/// A process as it is now, if it is still the one that it was, and not a zombie.
fn still(root: &ProcRoot, then: &ProcessView) -> Option<ProcessView> {
    let now = process::view(root, then.pid, then.tid).ok();
    now.filter(|now| now.started == then.started && now.state != 'Z')
}

/// How `open` connections stand at the server, by its table; `full`: whether one of its
/// accept queues is.
pub(super) fn server_counts(side: &ServerSide, full: bool, open: u64) -> ServerCounts {
    // In SYN_RECV at a full listener stands what had its last ACK dropped: a phantom of
    // the request-socket kind. At one with room, what waits for a byte.
    let (deferred, half_open) =
        if full { (0, side.deferred) } else { (side.deferred, 0) };
    let known = side.accepted + side.queued + side.deferred + side.closing;
    ServerCounts {
        accepted: side.accepted,
        queued: side.queued,
        deferred,
        half_open,
        phantoms: open.saturating_sub(known) + half_open,
    }
}

/// Whether a connection from `remote` is one that this probe holds.
fn is_ours(shared: &Shared, remote: SocketAddr) -> bool {
    tuple_of(shared, remote).is_some_and(|tuple| shared.held.contains(tuple))
}

fn tuple_of(shared: &Shared, remote: SocketAddr) -> Option<Tuple> {
    let source = shared.tuples.as_ref()?.sources().index_of(remote.ip())?;
    Some(Tuple { source, port: remote.port() })
}

impl Watch for ServerView {
    fn glance(&mut self) -> io::Result<Glance> {
        let there = self.watch.look()?;
        if self.looks.is_multiple_of(FDS_EVERY) {
            self.open_fds = self.processes().filter_map(|p| p.open_fds).max();
        }
        self.looks = self.looks.wrapping_add(1);
        let queue_len = self.watch.queue_len();
        self.queue_peak = self.queue_peak.max(queue_len);
        Ok(Glance {
            listening: there > 0,
            queue_len,
            backlog: self.watch.backlog(),
            drops: self.watch.drops().saturating_sub(self.drops_before),
            server_open_fds: self.open_fds,
            behind_us: 0,
        })
    }

    fn mem_available(&mut self) -> Option<u64> {
        memory(self.watch.proc_root()).ok().map(|m| m.available_bytes)
    }

    fn packets_dropped(&self) -> Option<u64> {
        Softnet::read(self.watch.proc_root()).ok().map(|softnet| softnet.dropped)
    }
}
