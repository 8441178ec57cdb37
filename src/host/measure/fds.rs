//! The practical maximum of file descriptors: sockets opened in one fd table until the
//! kernel refuses, then in more.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};

use super::Meminfo;
use crate::host::ProcRoot;
use crate::kernel::errno;
use crate::kernel::fd_table::{LocalFd, OwnTable};

/// How often memory is looked at, and Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Less than this many tell nothing of what one costs.
const ENOUGH: u64 = 1000;

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub struct FdPlan {
    /// fd tables to fill, one after the other.
    pub tables: usize,
    /// The most descriptors, of all tables together.
    pub max: u64,
    /// MemAvailable under which it stops, in bytes.
    pub memory_floor_bytes: u64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FdsMeasured {
    /// Descriptors that this measurement opened, of all tables together.
    pub opened: u64,
    /// Each table, in the order in which they were filled.
    pub tables: Vec<TableFilled>,
    /// What the kernel said in the end; null where it never refused.
    pub errno: Option<String>,
    /// What stopped it: `RLIMIT_NOFILE`, `fs.file-max`, `memory`, `memory floor`,
    /// `--max`, `interrupted`, or an errno.
    pub stopped_by: String,
    /// Kernel memory of one, by the slab's growth; null where too few were opened.
    pub kernel_bytes_each: Option<f64>,
    /// RLIMIT_NOFILE, which each table has to itself.
    pub limit: u64,
}

/// One fd table at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFilled {
    /// Descriptors that were opened in it; 0, 1 and 2 are in it too.
    pub opened: u64,
    /// The highest number that one of them got; null where none was opened.
    pub highest: Option<i32>,
    /// What the kernel said at the next.
    pub errno: Option<String>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum FdsError {
    /// /proc/meminfo, without which there is no floor.
    #[error("memory cannot be watched: {0}")]
    Memory(io::Error),
    /// A thread, or an fd table of its own.
    #[error("no fd table of its own: {0}")]
    Table(io::Error),
}

/// What tables share while they are filled.
struct Shared {
    opened: AtomicU64,
    stop: AtomicBool,
    max: u64,
}

/// Fills the tables, and closes everything. RLIMIT_NOFILE is as this process has it.
///
/// # Errors
/// A [`FdsError`]; nothing is open then.
pub fn fill(
    root: &ProcRoot,
    plan: FdPlan,
    interrupted: &AtomicBool,
) -> Result<FdsMeasured, FdsError> {
    let meminfo = Meminfo::open(root).map_err(FdsError::Memory)?;
    let before = meminfo.read().map_err(FdsError::Memory)?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let shared =
        Shared { opened: AtomicU64::new(0), stop: AtomicBool::new(false), max: plan.max };
    let mut tables: Vec<TableFilled> = Vec::new();
    let mut why = Why::Refused;
    let mut after = before;
    thread::scope(|scope| {
        // Each thread holds its table until this is dropped.
        let mut holding: Vec<mpsc::Sender<()>> = Vec::new();
        while tables.len() < plan.tables && why == Why::Refused {
            let (end, ended) = mpsc::channel::<()>();
            let (send, filled) = mpsc::channel();
            let shared = &shared;
            let filling = move || hold_one(shared, &send, &ended);
            thread::Builder::new()
                .spawn_scoped(scope, filling)
                .map_err(FdsError::Table)?;
            holding.push(end);
            let table = loop {
                match filled.recv_timeout(LOOK_EVERY) {
                    Ok(table) => break table.map_err(FdsError::Table)?,
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        let gone = io::Error::other("its thread ended");
                        return Err(FdsError::Table(gone));
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                }
                let memory = meminfo.read().map_err(FdsError::Memory)?;
                if interrupted.load(Relaxed) {
                    why = Why::Interrupted;
                } else if memory.available_bytes < plan.memory_floor_bytes {
                    why = Why::Floor;
                }
                shared.stop.fetch_or(why != Why::Refused, Relaxed);
            };
            if table.errno.is_none() && why == Why::Refused {
                why = Why::Max;
            }
            // Only a full table leaves another to be filled.
            let goes_on = table.errno.as_deref() == Some("EMFILE");
            tables.push(table);
            if !goes_on {
                break;
            }
        }
        after = meminfo.read().map_err(FdsError::Memory)?;
        Ok(())
    })?;
    let opened = shared.opened.load(Relaxed);
    let errno = tables.last().and_then(|table| table.errno.clone());
    let grown = after.slab_bytes.checked_sub(before.slab_bytes);
    #[allow(clippy::cast_precision_loss)]
    let each =
        grown.filter(|_| opened >= ENOUGH).map(|grown| grown as f64 / opened as f64);
    Ok(FdsMeasured {
        opened,
        stopped_by: why.name(errno.as_deref()),
        tables,
        errno,
        kernel_bytes_each: each,
        limit: limit.current.unwrap_or(u64::MAX),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Refused,
    Max,
    Floor,
    Interrupted,
}

impl Why {
    fn name(self, errno: Option<&str>) -> String {
        let name = match (self, errno) {
            (Self::Interrupted, _) => "interrupted",
            (Self::Floor, _) => "memory floor",
            (Self::Max, _) => "--max",
            (Self::Refused, Some("EMFILE")) => "RLIMIT_NOFILE",
            (Self::Refused, Some("ENFILE")) => "fs.file-max",
            (Self::Refused, Some("ENOMEM" | "ENOBUFS")) => "memory",
            (Self::Refused, Some(other)) => other,
            (Self::Refused, None) => "--max",
        };
        name.to_owned()
    }
}

/// Fills a table of this thread's own and keeps it until `ended` breaks.
fn hold_one(
    shared: &Shared,
    send: &mpsc::Sender<io::Result<TableFilled>>,
    ended: &mpsc::Receiver<()>,
) {
    // Descriptors of the process are copied into the new table and closed there.
    let _table = match OwnTable::unshare(&[]) {
        Ok(table) => table,
        Err(error) => {
            let _ = send.send(Err(error));
            return;
        }
    };
    let mut held: Vec<LocalFd> = Vec::new();
    let mut refused = None;
    while !shared.stop.load(Relaxed) && shared.opened.load(Relaxed) < shared.max {
        let flags = SocketFlags::CLOEXEC;
        match socket_with(AddressFamily::INET, SocketType::STREAM, flags, None) {
            Ok(fd) => {
                held.push(fd.into());
                shared.opened.fetch_add(1, Relaxed);
            }
            Err(Errno::INTR) => {}
            Err(error) => {
                refused = Some(errno::name(error.raw_os_error()));
                break;
            }
        }
    }
    let filled = TableFilled {
        opened: held.len() as u64,
        highest: held.iter().map(AsRawFd::as_raw_fd).max(),
        errno: refused,
    };
    if send.send(Ok(filled)).is_ok() {
        // Breaks when the other end is dropped.
        let _ = ended.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(tables: usize, max: u64) -> FdPlan {
        FdPlan { tables, max, memory_floor_bytes: 64 << 20 }
    }

    #[test]
    fn it_stops_at_the_most_that_was_asked_for() {
        let run = fill(&ProcRoot::default(), plan(3, 1500), &AtomicBool::new(false));
        let found = run.unwrap();
        assert_eq!((found.opened, &*found.stopped_by), (1500, "--max"), "{found:?}");
        assert_eq!(found.errno, None);
        let of_tables: u64 = found.tables.iter().map(|table| table.opened).sum();
        assert_eq!(of_tables, 1500);
    }

    #[test]
    fn a_floor_above_what_is_available_stops_it_at_once() {
        let floor = FdPlan { memory_floor_bytes: u64::MAX, ..plan(1, 1_000_000_000) };
        let found = fill(&ProcRoot::default(), floor, &AtomicBool::new(false)).unwrap();
        // A table may be full before memory is looked at for the first time.
        assert!(
            ["memory floor", "RLIMIT_NOFILE"].contains(&&*found.stopped_by),
            "{found:?}"
        );
    }
}
