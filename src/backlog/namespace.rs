//! What the network namespace of a listener counts: of all its listeners together.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;

use crate::host::counters::{Tcp, TcpExt};
use crate::kernel::sock_diag::InetRequest;
use crate::record::backlog::Counters;
use crate::sockets::listeners::{self, Listener};
use crate::sockets::model::{Family, States, canonical};
use crate::sockets::watch::ListenerWatch;

/// A namespace, from when the watch began.
#[derive(Debug)]
pub(super) struct Namespace {
    before: Option<(TcpExt, Tcp)>,
    queued: u64,
}

/// What a namespace counted while it was watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Growth of its counters.
    pub counters: Counters,
    /// By how much the accept queues of all its TCP listeners grew, together.
    pub queue_growth: i64,
    /// TCP listeners that it has beside those watched.
    pub other_listeners: u64,
}

impl Namespace {
    pub(super) fn begin(watch: &mut ListenerWatch) -> io::Result<Self> {
        let before = read(watch);
        let all = listeners::inet(watch.diag())?;
        Ok(Self { before, queued: queued(&all) })
    }

    /// What was counted since, without the queues of others.
    pub(super) fn counted(&self, watch: &ListenerWatch) -> Option<Totals> {
        let (ext, tcp) = self.before?;
        let (ext_now, tcp_now) = read(watch)?;
        let (ext, tcp) = (ext_now.since(&ext), tcp_now.since(&tcp));
        let counters = Counters {
            listen_overflows: ext.listen_overflows,
            listen_drops: ext.listen_drops,
            passive_opens: tcp.passive_opens,
            syncookies_sent: ext.syncookies_sent,
            syncookies_recv: ext.syncookies_recv,
            syncookies_failed: ext.syncookies_failed,
            req_q_full_do_cookies: ext.req_q_full_do_cookies,
            req_q_full_drop: ext.req_q_full_drop,
        };
        Some(Totals { counters, ..Totals::default() })
    }

    pub(super) fn finish(self, watch: &mut ListenerWatch) -> Option<Totals> {
        let totals = self.counted(watch)?;
        let all = listeners::inet(watch.diag()).ok()?;
        let ours = watch.listeners();
        let is_other = |one: &&Listener| ours.iter().all(|o| o.cookie != one.cookie);
        Some(Totals {
            queue_growth: queued(&all).cast_signed() - self.queued.cast_signed(),
            other_listeners: all.iter().filter(is_other).count() as u64,
            ..totals
        })
    }
}

/// The sysctls that bear on an accept queue, by their names.
pub(super) fn sysctls(watch: &ListenerWatch) -> BTreeMap<String, Option<u64>> {
    let names = [
        "net.core.somaxconn",
        "net.ipv4.tcp_max_syn_backlog",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_abort_on_overflow",
    ];
    names.map(|name| (name.to_owned(), watch.sysctl(name))).into()
}

fn queued(all: &[Listener]) -> u64 {
    all.iter().map(|one| u64::from(one.queue_len)).sum()
}

fn read(watch: &ListenerWatch) -> Option<(TcpExt, Tcp)> {
    let root = watch.proc_root();
    let read = || Some((TcpExt::read(root).ok()?, Tcp::read(root).ok()?));
    watch.inside(read).ok().flatten()
}

/// How many connections of the listeners watched are in one of these states: a walk of
/// the whole table.
///
/// # Errors
/// What the dump gives.
pub(super) fn count(watch: &mut ListenerWatch, states: States) -> io::Result<u64> {
    let all = listeners::inet(watch.diag())?;
    let (diag, found) = watch.diag_and_listeners();
    let Some(port) = found.iter().find_map(Listener::port) else { return Ok(0) };
    let mut ours: HashMap<IpAddr, bool> = HashMap::new();
    let mut counted = 0;
    for family in [Family::V4, Family::V6] {
        if !found.iter().any(|one| one.family() == Some(family)) {
            continue;
        }
        let request =
            InetRequest { local_port: Some(port), ..InetRequest::tcp(family, states) };
        diag.inet(&request, |row| {
            let local = canonical(row.local);
            let is_ours = ours.entry(local.ip()).or_insert_with(|| {
                let answering = listeners::answering(&all, local);
                answering.iter().any(|one| found.iter().any(|f| f.cookie == one.cookie))
            });
            counted += u64::from(*is_ours);
        })?;
    }
    Ok(counted)
}
