//! Which four-tuples of this probe are established now: a bit for each port of each
//! source address, written by the dialers and read when the server's table is counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::tuples::Tuple;

const WORDS: usize = 65_536 / 64;

type Bits = Box<[AtomicU64]>;

/// The set of established tuples; 8 KiB for each source address in use.
#[derive(Debug)]
pub struct HeldSet {
    by_source: Vec<OnceLock<Bits>>,
}

impl HeldSet {
    /// An empty set for this many source addresses.
    #[must_use]
    pub fn new(sources: usize) -> Self {
        Self { by_source: std::iter::repeat_with(OnceLock::new).take(sources).collect() }
    }

    /// Adds a tuple.
    pub fn insert(&self, tuple: Tuple) {
        let bits = self.by_source[tuple.source as usize].get_or_init(|| {
            std::iter::repeat_with(AtomicU64::default).take(WORDS).collect()
        });
        let (word, bit) = place(tuple.port);
        bits[word].fetch_or(bit, Relaxed);
    }

    /// Removes a tuple.
    pub fn remove(&self, tuple: Tuple) {
        if let Some(bits) = self.by_source[tuple.source as usize].get() {
            let (word, bit) = place(tuple.port);
            bits[word].fetch_and(!bit, Relaxed);
        }
    }

    /// Whether a tuple is in the set.
    #[must_use]
    pub fn contains(&self, tuple: Tuple) -> bool {
        let (word, bit) = place(tuple.port);
        let bits = self.by_source.get(tuple.source as usize).and_then(OnceLock::get);
        bits.is_some_and(|bits| bits[word].load(Relaxed) & bit != 0)
    }
}

fn place(port: u16) -> (usize, u64) {
    (usize::from(port / 64), 1 << (port % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_is_in_it_from_insert_to_remove() {
        let set = HeldSet::new(2);
        let tuple = Tuple { source: 1, port: 65_535 };
        assert!(!set.contains(tuple));
        set.insert(tuple);
        assert!(set.contains(tuple));
        assert!(!set.contains(Tuple { source: 0, port: 65_535 }));
        assert!(!set.contains(Tuple { source: 1, port: 65_534 }));
        set.remove(tuple);
        assert!(!set.contains(tuple));
    }
}
