//! Whether any SYN-ACK was repeated to this network namespace: one counter for all
//! connections. While it stands still none of them has to be asked (TCP_INFO costs more
//! than the rest of a confirmation).
//!
//! An established socket answers a SYN-ACK by a challenge ACK, and that is counted as
//! TCPSYNChallenge (net/ipv4/tcp_input.c, tcp_validate_incoming).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::host::ProcRoot;
use crate::host::counters::syn_challenges;

/// A repeat is due this long before a look at the least, less what it may be late: the
/// counter may have been read so long ago.
const READ_BEFORE_MS: u32 = 200;

/// When the counter was read, and when it was seen to have grown, in ms since the start
/// and modulo 2^32. Read by one thread.
#[derive(Debug, Default)]
pub struct Repeats {
    count: AtomicU64,
    read_ms: AtomicU32,
    grew_ms: AtomicU32,
    /// Whether there is such a counter.
    known: AtomicBool,
}

impl Repeats {
    /// Reads the counter.
    pub(super) fn read(&self, root: &ProcRoot, now_ms: u32) {
        let Some(count) = syn_challenges(root) else {
            self.known.store(false, Relaxed);
            return;
        };
        if self.count.swap(count, Relaxed) != count {
            self.grew_ms.store(now_ms, Relaxed);
        }
        self.read_ms.store(now_ms, Relaxed);
        self.known.store(true, Relaxed);
    }

    /// Whether nothing was repeated to any connection between these two moments, for
    /// certain.
    pub(super) fn none_came(&self, from_ms: u32, until_ms: u32) -> bool {
        let after = |a: u32, b: u32| a.wrapping_sub(b) < u32::MAX / 2;
        let read = self.read_ms.load(Relaxed).wrapping_add(READ_BEFORE_MS);
        self.known.load(Relaxed)
            && after(read, until_ms)
            && !after(self.grew_ms.load(Relaxed), from_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_counter_that_stands_still_clears_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = ProcRoot::new(dir.path());
        let repeats = Repeats::default();
        let write = |count: u64| {
            let text = format!("TcpExt: A TCPSYNChallenge\nTcpExt: 5 {count}\n");
            fs::create_dir_all(dir.path().join("net")).unwrap();
            fs::write(dir.path().join("net/netstat"), &text).unwrap();
        };
        repeats.read(&root, 1);
        assert!(!repeats.none_came(10, 1_410), "there is no counter");
        write(7);
        repeats.read(&root, 5);
        repeats.read(&root, 1_300);
        assert!(repeats.none_came(10, 1_410));
        assert!(!repeats.none_came(10, 3_500), "not read since");
        write(8);
        repeats.read(&root, 1_400);
        assert!(!repeats.none_came(10, 1_410), "somebody's was repeated");
        repeats.read(&root, 2_900);
        assert!(repeats.none_came(1_401, 2_801), "that was before");
    }
}
