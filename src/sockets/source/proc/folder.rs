//! The folder that the tables are in.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::Table;
use crate::host::ProcRoot;

/// No row is longer than this: 150 bytes of tcp, about 180 of tcp6, 170 of unix. A read
/// that left more of a page unused was the last of its table.
const LONGEST_ROW: usize = 512;

/// A folder of network tables.
pub(super) struct NetFolder {
    folder: OwnedFd,
    /// As it is shown.
    pub(super) path: String,
    /// The kernel's own: a file that is not there has no protocol behind it.
    is_procfs: bool,
    /// A read of fewer bytes was the last one of its file.
    pub(super) full_read: usize,
}

impl NetFolder {
    pub(super) fn open(root: &ProcRoot) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut first = None;
        for at in ["thread-self/net", "net", "1/net"] {
            let path = root.path(at);
            let path_shown = path.display();
            let error = match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(folder) => return Ok(Self::new(folder, path_shown.to_string())),
                Err(error) => io::Error::from(error),
            };
            let kind = error.kind();
            let named = io::Error::new(kind, format!("{path_shown}: {error}"));
            if kind != io::ErrorKind::NotFound {
                return Err(named);
            }
            first.get_or_insert(named);
        }
        Err(first.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn new(folder: OwnedFd, path: String) -> Self {
        let is_procfs = rustix::fs::fstatfs(&folder)
            .is_ok_and(|fs| fs.f_type == rustix::fs::PROC_SUPER_MAGIC);
        let page = rustix::param::page_size();
        let full_read = if is_procfs { page.saturating_sub(LONGEST_ROW) } else { 0 };
        Self { folder, path, is_procfs, full_read }
    }

    pub(super) fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, name, flags, Mode::empty())?.into())
    }

    pub(super) fn whole(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(name)?.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.path)
    }

    /// Whether a file cannot be opened because the kernel does not have its protocol, so
    /// that nothing is missing.
    pub(super) fn is_absent(&self, table: &Table, error: &io::Error) -> bool {
        self.is_procfs && table.is_optional && error.kind() == io::ErrorKind::NotFound
    }
}
