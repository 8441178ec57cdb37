//! Memory: of the machine (/proc/meminfo) and of this process (/proc/self/status).

use super::text::field_bytes;
use super::{ProcRoot, ReadError};

/// Memory of the machine (proc_meminfo(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// MemTotal.
    pub total_bytes: u64,
    /// MemAvailable: what could be had without swapping.
    pub available_bytes: u64,
    /// Slab: structures of the kernel, sockets among them.
    pub slab_bytes: u64,
}

/// Resident memory of a process (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// VmRSS: now.
    pub now_bytes: u64,
    /// VmHWM: the most so far.
    pub peak_bytes: u64,
}

/// Reads the memory of the machine.
///
/// # Errors
/// As [`ProcRoot::read`]; InvalidData where a field is missing.
pub fn memory(root: &ProcRoot) -> Result<Memory, ReadError> {
    let text = root.read("meminfo")?;
    parse_meminfo(&text).ok_or_else(|| root.malformed("meminfo", "a field is missing"))
}

/// Reads the resident memory of this process.
///
/// # Errors
/// As [`memory`].
pub fn own_resident(root: &ProcRoot) -> Result<Resident, ReadError> {
    let text = root.read("self/status")?;
    parse_resident(&text)
        .ok_or_else(|| root.malformed("self/status", "no VmRSS and VmHWM"))
}

pub(super) fn parse_meminfo(text: &str) -> Option<Memory> {
    Some(Memory {
        total_bytes: field_bytes(text, "MemTotal")?,
        available_bytes: field_bytes(text, "MemAvailable")?,
        slab_bytes: field_bytes(text, "Slab")?,
    })
}

fn parse_resident(status: &str) -> Option<Resident> {
    Some(Resident {
        now_bytes: field_bytes(status, "VmRSS")?,
        peak_bytes: field_bytes(status, "VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    #[test]
    fn sizes_come_in_bytes() {
        let meminfo = "MemTotal:       24682728 kB\nMemFree:        23153140 kB\n\
            MemAvailable:   24001084 kB\nSlab:              98004 kB\n";
        let status = "Name:\tx\nVmHWM:\t    1664 kB\nVmRSS:\t    1660 kB\n";
        let (_tree, root) = tree(&[("meminfo", meminfo), ("self/status", status)]);
        let machine = memory(&root).unwrap();
        assert_eq!(machine.total_bytes, 24_682_728 * 1024);
        assert_eq!(machine.slab_bytes, 98_004 * 1024);
        let own = own_resident(&root).unwrap();
        let expected = Resident { now_bytes: 1_660 * 1024, peak_bytes: 1_664 * 1024 };
        assert_eq!(own, expected);
    }

    #[test]
    fn this_kernel_says_all_of_it() {
        let root = ProcRoot::default();
        let machine = memory(&root).unwrap();
        assert!(machine.available_bytes <= machine.total_bytes);
        let own = own_resident(&root).unwrap();
        assert!(0 < own.now_bytes && own.peak_bytes < machine.total_bytes);
    }
}
