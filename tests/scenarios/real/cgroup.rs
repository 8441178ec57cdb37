//! A cgroup of a test's own that bounds threads and processes.

#![allow(clippy::print_stderr)] // a skipped test says so

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::fixtures::until;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removed when dropped.
pub(super) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Makes one where the pids controller is mounted as version 1, or at the top of
    /// version 2 is there for the cgroups below. None after a printed line where it is
    /// not: that is for the host to decide, and no matter of rights.
    pub(super) fn make() -> Option<Self> {
        let (first, second) = ("/sys/fs/cgroup/pids", "/sys/fs/cgroup");
        let below = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control");
        let has_pids = below.is_ok_and(|all| all.split_whitespace().any(|c| c == "pids"));
        let top = match Path::new(first).exists() {
            true => first,
            false if has_pids => second,
            false => {
                eprintln!("skipped: no pids controller for a cgroup of its own");
                return None;
            }
        };
        let name = format!("sst-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = Path::new(top).join(name);
        if let Err(error) = fs::create_dir(&folder) {
            eprintln!("skipped: {}: {error}", folder.display());
            return None;
        }
        Some(Self { folder })
    }

    /// Takes a process in, and bounds it.
    pub(super) fn take(&self, pid: &str, max: u32) {
        for (file, value) in [("cgroup.procs", pid), ("pids.max", &max.to_string())] {
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
