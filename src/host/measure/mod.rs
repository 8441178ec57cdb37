//! What this kernel was tried for: what an idle connection costs, and how many
//! descriptors there can be. Everything that is opened is closed before the end.

pub mod fds;
pub mod memory;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::ProcRoot;
use super::memory::{Memory, parse_meminfo};

/// /proc/meminfo, kept open: a full fd table has no room to open it.
#[derive(Debug)]
struct Meminfo(File);

impl Meminfo {
    fn open(root: &ProcRoot) -> io::Result<Self> {
        File::open(root.path("meminfo")).map(Self)
    }

    fn read(&self) -> io::Result<Memory> {
        let mut bytes = [0; 4096];
        let n = self.0.read_at(&mut bytes, 0)?;
        let text = String::from_utf8_lossy(bytes.get(..n).unwrap_or_default());
        parse_meminfo(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "meminfo lacks a field")
        })
    }
}
