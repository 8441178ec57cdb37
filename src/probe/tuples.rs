//! The allocator of four-tuples.
//!
//! The kernel's own search for a free source port grows slower with each connection
//! (36 µs at the first 13,000, 800 µs beyond 14,000 to one destination), so the program
//! hands out source address and port itself: first the ports of ip_local_port_range at
//! every source address, but for some that are left to other programs; then the other
//! ports; then those. Source addresses that were given take turns, so that a limit for
//! each of them binds as late as it can; the others are used one after the other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sources::{Sources, Tier};

/// How many ports a dialer takes at a time.
const BLOCK: usize = 256;

/// How many tuples must rest before one of them is used again while fresh ones are
/// left: a tuple just closed may still be in the server's TIME_WAIT.
const REST: usize = 1024;

/// A source address, by its number in [`Sources`], and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// The number of the source address.
    pub source: u32,
    /// The source port.
    pub port: u16,
}

/// Hands out blocks of tuples to the dialers; none is handed out twice.
#[derive(Debug)]
pub struct Tuples {
    sources: Sources,
    target: SocketAddr,
    at: Mutex<Cursor>,
    /// What every dialer has taken and not used: another takes from it when nothing
    /// else is left, so that the end of the tuples is the end of all of them.
    slots: Mutex<Vec<Arc<Mutex<Slot>>>>,
}

#[derive(Debug, Default)]
struct Cursor {
    tier: Tier,
    /// The last kind of which some were handed out.
    used: Tier,
    next: usize,
}

/// A run of the tuples of one kind.
#[derive(Debug, Clone, Copy)]
struct Block {
    tier: Tier,
    from: usize,
    to: usize,
}

impl Tuples {
    /// An allocator over `sources` for dials to `target`.
    #[must_use]
    pub fn new(sources: Sources, target: SocketAddr) -> Self {
        Self { sources, target, at: Mutex::default(), slots: Mutex::default() }
    }

    /// The sources that this allocator hands out.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// How far it got: source addresses begun, and the last kind of ports of which some
    /// were handed out.
    #[must_use]
    pub fn progress(&self) -> (usize, Tier) {
        let at = lock(&self.at);
        let (sources, ports) =
            (self.sources.len(), self.sources.ports().of(at.tier).len());
        let begun = match at.tier {
            Tier::InRange if self.sources.are_given() => at.next,
            Tier::InRange => at.next.div_ceil(ports.max(1)),
            Tier::Others | Tier::Spared => sources,
        };
        (begun.clamp(1, sources), at.used)
    }

    fn next_block(&self) -> Option<Block> {
        let mut at = lock(&self.at);
        loop {
            let all = self.sources.len() * self.sources.ports().of(at.tier).len();
            if at.next < all {
                let to = (at.next + BLOCK).min(all);
                let from = std::mem::replace(&mut at.next, to);
                at.used = at.tier;
                return Some(Block { tier: at.tier, from, to });
            }
            (at.tier, at.next) = (at.tier.next()?, 0);
        }
    }

    /// The tuple of a kind that has this number.
    fn numbered(&self, tier: Tier, n: usize) -> Tuple {
        let ports = self.sources.ports().of(tier);
        let (source, port) = match self.sources.are_given() {
            true => (n % self.sources.len(), n / self.sources.len()),
            false => (n / ports.len(), n % ports.len()),
        };
        // There are no more than SOURCES_MAX.
        Tuple { source: u32::try_from(source).unwrap_or(u32::MAX), port: ports[port] }
    }

    /// One that some dialer has and does not use now.
    fn of_others(&self) -> Option<Tuple> {
        let slots = lock(&self.slots);
        let fresh = slots.iter().find_map(|slot| lock(slot).fresh(self));
        fresh.or_else(|| slots.iter().find_map(|slot| lock(slot).rested.pop_front()))
    }
}

/// One dialer's share: the block that it works through, and its own used tuples.
#[derive(Debug, Default)]
pub struct Share {
    slot: Arc<Mutex<Slot>>,
    listed: bool,
}

#[derive(Debug, Default)]
struct Slot {
    block: Option<Block>,
    rested: VecDeque<Tuple>,
}

impl Slot {
    /// The next of the block; none that would connect to itself.
    fn fresh(&mut self, from: &Tuples) -> Option<Tuple> {
        let block = self.block.as_mut()?;
        while block.from < block.to {
            let tuple = from.numbered(block.tier, block.from);
            block.from += 1;
            if from.sources.at(tuple.source, tuple.port) != from.target {
                return Some(tuple);
            }
        }
        None
    }
}

/// Locks, whatever a panicking thread left.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Share {
    /// The next tuple to dial from, or None when there is none left at all, in the
    /// shares of others neither. A tuple that would connect to itself is never handed
    /// out.
    pub fn next(&mut self, from: &Tuples) -> Option<Tuple> {
        if !std::mem::replace(&mut self.listed, true) {
            lock(&from.slots).push(self.slot.clone());
        }
        let mut own = lock(&self.slot);
        if own.rested.len() > REST {
            return own.rested.pop_front();
        }
        loop {
            if let Some(tuple) = own.fresh(from) {
                return Some(tuple);
            }
            own.block = from.next_block();
            if own.block.is_none() {
                break;
            }
        }
        let rested = own.rested.pop_front();
        // No two shares are locked at a time.
        drop(own);
        rested.or_else(|| from.of_others())
    }

    /// Takes back a tuple whose connection is closed.
    pub fn put_back(&mut self, tuple: Tuple) {
        lock(&self.slot).rested.push_back(tuple);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::sources::{Ports, SourceRange};
    use std::collections::HashSet;

    fn tuples(given: &[&str], target: &str, range: (u16, u16)) -> Tuples {
        let given: Vec<_> =
            given.iter().map(|s| SourceRange::parse(s).unwrap()).collect();
        let target = target.parse().unwrap();
        let ports = Ports::new(range, |_| false);
        Tuples::new(Sources::for_target(target, &given, ports).unwrap(), target)
    }

    #[test]
    fn the_range_of_every_source_comes_before_other_ports() {
        let all = tuples(&["127.0.0.1", "127.0.0.2"], "127.0.0.9:1", (2000, 2009));
        let mut share = Share::default();
        let first: Vec<_> = (0..17).filter_map(|_| share.next(&all)).collect();
        let in_range = |t: &Tuple| (2000..=2009).contains(&t.port);
        assert!(first[..16].iter().all(in_range));
        assert_eq!(first[16], Tuple { source: 0, port: 1024 });
        assert_eq!(all.progress(), (2, Tier::Others));
        // Those that others are to find come last of all.
        let rest: Vec<_> = std::iter::from_fn(|| share.next(&all)).collect();
        let spared = [(0, 2000), (1, 2000), (0, 2008), (1, 2008)];
        let spared = spared.map(|(source, port)| Tuple { source, port });
        assert_eq!(rest[rest.len() - 4..], spared);
        assert_eq!(all.progress(), (2, Tier::Spared));
    }

    #[test]
    fn sources_that_were_given_take_turns_and_others_follow_each_other() {
        let sources = |all: &Tuples| {
            let mut share = Share::default();
            let first = std::iter::from_fn(|| share.next(all)).take(600);
            let mut by_source = std::collections::BTreeMap::new();
            first.for_each(|tuple| *by_source.entry(tuple.source).or_insert(0) += 1);
            by_source
        };
        let range = (32_768, 60_999);
        let given = tuples(&["127.0.0.4/30", "127.0.0.9"], "127.0.0.2:1", range);
        assert_eq!(sources(&given), [(0, 200), (1, 200), (2, 200)].into());
        assert_eq!(sources(&tuples(&[], "127.0.0.2:1", range)), [(0, 600)].into());
        // Each once all the same.
        let few = tuples(&["127.0.0.4/30"], "127.0.0.2:1", (2000, 2009));
        let mut share = Share::default();
        let seen: HashSet<_> = std::iter::from_fn(|| share.next(&few)).collect();
        assert_eq!(seen.len(), 2 * 64_512);
    }

    #[test]
    fn one_source_has_64512_tuples_and_each_comes_once() {
        let all = tuples(&["127.0.0.1"], "127.0.0.9:1", (32768, 60999));
        let mut shares = [Share::default(), Share::default()];
        let mut seen = HashSet::new();
        let mut turn = 0;
        while let Some(tuple) = shares[turn % 2].next(&all) {
            assert!(seen.insert(tuple));
            turn += 1;
        }
        while let Some(tuple) = shares[(turn + 1) % 2].next(&all) {
            assert!(seen.insert(tuple));
        }
        assert_eq!(seen.len(), 64_512);
    }

    #[test]
    fn the_end_is_the_end_of_every_share() {
        let all = tuples(&["127.0.0.1"], "127.0.0.9:1", (32768, 60999));
        let mut idle = Share::default();
        let used = idle.next(&all).unwrap();
        idle.put_back(used);
        let mut busy = Share::default();
        let seen: HashSet<_> = std::iter::from_fn(|| busy.next(&all)).collect();
        assert_eq!(seen.len(), 64_512);
        assert_eq!(idle.next(&all), None);
    }

    #[test]
    fn without_other_ports_none_was_handed_out() {
        let given = [SourceRange::parse("127.0.0.1").unwrap()];
        let target = "127.0.0.9:1".parse().unwrap();
        let ports = Ports::new((2000, 2009), |port| !(2000..=2009).contains(&port));
        let sources = Sources::for_target(target, &given, ports).unwrap();
        let all = Tuples::new(sources, target);
        let mut share = Share::default();
        assert_eq!(std::iter::from_fn(|| share.next(&all)).count(), 10);
        assert_eq!(all.progress(), (1, Tier::Spared));
    }

    #[test]
    fn a_tuple_that_would_connect_to_itself_is_never_handed_out() {
        let all = tuples(&["127.0.0.1"], "127.0.0.1:2003", (2000, 2009));
        let mut share = Share::default();
        let ports: Vec<_> = (0..9).filter_map(|_| share.next(&all)).collect();
        assert!(ports.iter().all(|t| t.port != 2003));
        assert_eq!(ports.len(), 9);
    }

    #[test]
    fn what_came_back_is_used_when_nothing_fresh_is_left() {
        let all = tuples(&["127.0.0.1"], "127.0.0.9:1", (32768, 60999));
        let mut share = Share::default();
        let first = share.next(&all).unwrap();
        share.put_back(first);
        assert_ne!(share.next(&all), Some(first), "fresh ones come first");
        while let Some(tuple) = share.next(&all) {
            if tuple == first {
                return;
            }
        }
        panic!("the tuple that was put back never came");
    }
}
