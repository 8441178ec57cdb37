//! A cgroup of a test's own.

#![allow(clippy::print_stderr)] // a skipped test says so

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::fixtures::until;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What it bounds.
#[derive(Clone, Copy)]
pub(super) enum Controller {
    /// Bytes.
    Memory,
    /// Threads and processes.
    Pids,
}

/// Removed when dropped.
pub(super) struct Cgroup {
    folder: PathBuf,
    /// The file of its limit.
    limit: &'static str,
}

impl Cgroup {
    /// Makes one where the controller is mounted as version 1, or at the top of version 2
    /// is there for the cgroups below. None after a printed line where it is not: that is
    /// for the host to decide, and no matter of rights.
    pub(super) fn make(controller: Controller) -> Option<Self> {
        let (name, limits) = match controller {
            Controller::Memory => ("memory", ["memory.limit_in_bytes", "memory.max"]),
            Controller::Pids => ("pids", ["pids.max"; 2]),
        };
        let (first, second) = (Path::new("/sys/fs/cgroup").join(name), "/sys/fs/cgroup");
        let below = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control");
        let has = below.is_ok_and(|all| all.split_whitespace().any(|c| c == name));
        let (top, limit) = match first.exists() {
            true => (first, limits[0]),
            false if has => (second.into(), limits[1]),
            false => {
                eprintln!("skipped: no {name} controller for a cgroup of its own");
                return None;
            }
        };
        let name = format!("sst-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = top.join(name);
        if let Err(error) = fs::create_dir(&folder) {
            eprintln!("skipped: {}: {error}", folder.display());
            return None;
        }
        Some(Self { folder, limit })
    }

    /// Takes a process in, and bounds it.
    pub(super) fn take(&self, pid: &str, max: u64) {
        for (file, value) in [("cgroup.procs", pid), (self.limit, &max.to_string())] {
            let file = self.folder.join(file);
            fs::write(&file, value)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // As long as its last process is about to end, it is busy.
        until("its cgroup is empty", || match fs::remove_dir(&self.folder) {
            Err(error) => error.kind() != ErrorKind::ResourceBusy,
            Ok(()) => true,
        });
    }
}
