//! By what owners are looked up.

use std::io;
use std::path::Path;

use super::by_bpf::{self, NoBpf};
use super::{OwnerIndex, Wanted};

/// What reads the fd tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// The quicker one that can be used.
    #[default]
    Auto,
    /// The kernel's `task_file` iterator alone.
    Bpf,
    /// /proc/PID/fd and /proc/PID/task/TID/fd alone.
    Proc,
}

/// Where and how owners are looked up.
#[derive(Debug, Clone, Copy)]
pub struct LookUp<'a> {
    /// Where /proc is. The iterator tells of this host alone.
    pub proc_root: &'a Path,
    /// What reads the fd tables.
    pub by: By,
}

impl<'a> From<&'a Path> for LookUp<'a> {
    fn from(proc_root: &'a Path) -> Self {
        Self { proc_root, by: By::Auto }
    }
}

impl LookUp<'_> {
    /// What the iterator finds of `wanted`. Err is why /proc has to be read instead: None
    /// where that is as quick.
    ///
    /// # Errors
    /// Where the iterator alone was asked for, and cannot be used.
    pub(super) fn by_bpf(
        self,
        wanted: Wanted<'_>,
        process: Option<u32>,
        is_large: impl FnOnce() -> bool,
    ) -> io::Result<Result<OwnerIndex, Option<NoBpf>>> {
        match self.by {
            By::Proc => Ok(Err(None)),
            By::Auto if !is_large() => Ok(Err(None)),
            By::Auto => Ok(by_bpf::scan(self.proc_root, wanted, process).map_err(Some)),
            By::Bpf => by_bpf::scan(self.proc_root, wanted, process)
                .map(Ok)
                .map_err(io::Error::other),
        }
    }
}
