//! The iterator `task_file` (kernel/bpf/task_iter.c): every descriptor of every task that
//! this pid namespace sees, in the order of thread ids. Threads that share their process's
//! fd table are passed over.

use std::io;
use std::os::fd::OwnedFd;

use rustix::thread::{CapabilitySet, capabilities};

use super::program::{self, COMM, RECORD, field};
use super::system::{self, Types};
use super::{Unavailable, btf::Btf};

/// The kernel hands out at most so much at once: its buffer has eight pages.
const BUFFER: usize = 64 << 10;

/// A descriptor of a socket. Ids are those of the first pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketFd {
    /// The process.
    pub(crate) pid: u32,
    /// The thread whose fd table has it.
    pub(crate) tid: u32,
    /// The name of that thread, up to the first zero.
    pub(crate) comm: [u8; COMM],
    /// The descriptor's number.
    pub(crate) fd: u32,
    /// The socket.
    pub(crate) inode: u32,
    /// The same for threads that share an fd table; 0 where the thread had just ended.
    pub(crate) table: u64,
}

impl SocketFd {
    fn parse(record: &[u8; RECORD]) -> Option<Self> {
        let word = |at: usize| {
            record.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
        };
        let table = record.get(field::FILES..)?.first_chunk()?;
        Some(Self {
            pid: word(field::TGID)?,
            tid: word(field::TID)?,
            comm: *record.get(field::COMM..)?.first_chunk()?,
            fd: word(field::FD)?,
            inode: word(field::INODE)?,
            table: u64::from_le_bytes(*table),
        })
    }

    /// The name of the thread.
    pub(crate) fn name(&self) -> &[u8] {
        self.comm.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// The sockets of the host's fd tables, not read yet.
#[derive(Debug)]
pub(crate) struct SocketFds {
    iterator: OwnedFd,
}

impl SocketFds {
    /// Makes ready to read them; with `process` those of one alone, by its id in the first
    /// pid namespace. Takes about 2 ms.
    pub(crate) fn open(process: Option<u32>) -> Result<Self, Unavailable> {
        if !cfg!(all(target_endian = "little", target_pointer_width = "64")) {
            return Err(Unavailable::Architecture);
        }
        if !may_load() {
            return Err(Unavailable::NotPermitted);
        }
        let bytes = Types::of_this_kernel().map_err(Unavailable::NoTypes)?;
        let (function, offsets) = program::look_up(&Btf::parse(&bytes)?)?;
        let process = process.map(|pid| i32::try_from(pid).unwrap_or(-1));
        let program = program::assemble(&offsets, process);
        Ok(Self { iterator: system::iterate(&program, function)? })
    }

    /// Reads them all.
    pub(crate) fn each(self, mut each: impl FnMut(&SocketFd)) -> Result<(), Unavailable> {
        let mut buffer = vec![0; BUFFER];
        // Of a record that was cut by the end of the last read.
        let mut kept = 0;
        loop {
            let room = buffer.get_mut(kept..).unwrap_or_default();
            let read = match rustix::io::read(&self.iterator, room) {
                Ok(0) => break,
                Ok(read) => kept + read,
                // After a million descriptors without a socket among them it pauses.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(Unavailable::Read(errno.into())),
            };
            let (records, rest) = buffer.get(..read).unwrap_or_default().as_chunks();
            records.iter().filter_map(SocketFd::parse).for_each(|one| each(&one));
            kept = rest.len();
            buffer.copy_within(read - kept..read, 0);
        }
        match kept {
            0 => Ok(()),
            _ => Err(Unavailable::Read(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Whether this thread has the rights that the kernel asks for (capabilities(7)). In
/// another user namespace they are not enough.
fn may_load() -> bool {
    let needed = CapabilitySet::BPF | CapabilitySet::PERFMON;
    capabilities(None).is_ok_and(|sets| {
        sets.effective.contains(CapabilitySet::SYS_ADMIN)
            || sets.effective.contains(needed)
    })
}
