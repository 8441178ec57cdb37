//! Which sockets are older than a look for their owners.
//!
//! The kernel numbers the inodes of sockets, pipes and the like in batches of 1,024 a CPU
//! (get_next_ino in fs/inode.c). So each CPU is asked for its next number, twice. A
//! number in a batch that a CPU was using at the second time is older if it is lower than
//! what that CPU gave. Any other batch was used up by then if it had been begun at the
//! first: and it had been, if it is no later than the latest of that time.

use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::sockets::model::Inode;

/// LAST_INO_BATCH.
const BATCH: u64 = 1024;

/// The batch of an inode: that of 1 to 1,024 is the first.
fn batch_of(inode: u64) -> u64 {
    inode.saturating_sub(1) / BATCH
}

/// A moment, in the numbers of inodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The latest batch that had been begun.
    latest: Option<u64>,
    /// An inode of that moment for each CPU that this process may run on.
    inodes: Vec<u64>,
}

impl Moment {
    /// Now: makes two sockets on each CPU, in a thread that ends with it. About 20 µs
    /// each.
    pub(crate) fn now() -> Self {
        let taken = thread::scope(|scope| {
            let taker = thread::Builder::new().spawn_scoped(scope, || {
                let allowed = sched_getaffinity(None).unwrap_or_default();
                (take(&allowed), take(&allowed))
            });
            taker.ok().and_then(|taker| taker.join().ok()).unwrap_or_default()
        });
        let (first, inodes) = taken;
        Self { latest: first.into_iter().map(batch_of).max(), inodes }
    }

    /// Whether a socket was made before. False where that cannot be told. A socket made
    /// since on a CPU that this process may not run on may be taken for an older one.
    pub(crate) fn is_after(&self, inode: Inode) -> bool {
        let batch = batch_of(inode.0);
        let mut of_its_batch =
            self.inodes.iter().filter(|then| batch_of(**then) == batch);
        match of_its_batch.next() {
            Some(then) => inode.0 < *then,
            None => self.latest.is_some_and(|latest| batch <= latest),
        }
    }
}

/// A number of each CPU. The thread stays on the last.
fn take(allowed: &CpuSet) -> Vec<u64> {
    let mut inodes = Vec::new();
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)) {
        let mut one = CpuSet::new();
        one.set(cpu);
        if sched_setaffinity(None, &one).is_err() {
            continue;
        }
        let kind = (AddressFamily::UNIX, SocketType::DGRAM);
        let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None);
        inodes.extend(socket.and_then(rustix::fs::fstat).map(|stat| stat.st_ino));
    }
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::inode;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn sockets_before_and_after_a_moment_are_told_apart() {
        let make = || {
            // Whatever CPU they are made on.
            let makers: Vec<_> = (0..8)
                .map(|_| thread::spawn(|| UnixDatagram::unbound().unwrap()))
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect::<Vec<_>>()
        };
        for _ in 0..50 {
            let older = make();
            let moment = Moment::now();
            let newer = make();
            assert!(older.iter().all(|socket| moment.is_after(inode(socket))));
            assert!(!newer.iter().any(|socket| moment.is_after(inode(socket))));
        }
    }

    #[test]
    fn without_a_moment_nothing_is_older() {
        assert!(!Moment::default().is_after(Inode(1)));
    }
}
