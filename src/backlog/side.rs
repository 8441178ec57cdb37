//! The server's side of connections that were made to it: its listeners before and after,
//! and what their namespace counted meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::list;
use super::namespace::{Namespace, sysctls};
use crate::record::backlog::{Counters, ListenerDoc};
use crate::sockets::listeners::Listener;
use crate::sockets::model::{Cookie, Inode, Owner};
use crate::sockets::target::Endpoint;
use crate::sockets::watch::ListenerWatch;

/// The side, from before the first connection was made.
#[derive(Debug)]
pub(super) struct Side {
    namespace: Option<Namespace>,
    drops: HashMap<Cookie, u32>,
    peaks: HashMap<Cookie, u32>,
}

/// The side as documents have it.
#[derive(Debug, Clone, Default)]
pub struct SideSeen {
    /// Each listener, with the longest queue that was seen.
    pub listeners: Vec<ListenerDoc>,
    /// What the namespace counted; none for a unix socket.
    pub counters: Option<Counters>,
    /// Sysctls by name.
    pub sysctls: BTreeMap<String, Option<u64>>,
}

impl Side {
    pub(super) fn begin(watch: &mut ListenerWatch) -> io::Result<Self> {
        let is_unix = matches!(watch.endpoint(), Endpoint::Unix(_));
        let namespace = if is_unix { None } else { Some(Namespace::begin(watch)?) };
        let drops = watch.listeners().iter().map(|one| (one.cookie, one.drops)).collect();
        let mut side = Self { namespace, drops, peaks: HashMap::new() };
        side.note(watch.listeners());
        Ok(side)
    }

    /// Keeps the longest queue of each listener.
    pub(super) fn note(&mut self, listeners: &[Listener]) {
        for one in listeners {
            let peak = self.peaks.entry(one.cookie).or_default();
            *peak = one.queue_len.max(*peak);
        }
    }

    /// The side now. `there`: how many of the listeners the last look found.
    pub(super) fn seen(
        &self,
        watch: &ListenerWatch,
        there: usize,
        owners: &[(Inode, Owner)],
        unreadable: usize,
    ) -> SideSeen {
        let describe = |one: &Listener| {
            let held = owners.iter().filter(|(inode, _)| *inode == one.inode);
            let held: Vec<Owner> = held.map(|(_, owner)| *owner).collect();
            let doc = list::document(one, &held, unreadable);
            let before = self.drops.get(&one.cookie).copied().unwrap_or(0);
            let peak = self.peaks.get(&one.cookie).copied().unwrap_or(0);
            ListenerDoc {
                listening: there == watch.listeners().len(),
                queue_peak: peak.max(one.queue_len).into(),
                drops_watched: doc.drops.map(|_| one.drops.wrapping_sub(before).into()),
                ..doc
            }
        };
        let totals = self.namespace.as_ref().and_then(|one| one.counted(watch));
        SideSeen {
            listeners: watch.listeners().iter().map(describe).collect(),
            counters: totals.map(|totals| totals.counters),
            sysctls: sysctls(watch),
        }
    }
}
