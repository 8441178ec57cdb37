//! Open files of the whole machine.

use super::{ProcRoot, ReadError, sysctl};

/// fs.file-nr: open files of all processes (proc_sys_fs(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNr {
    /// Open now. The kernel counts in batches for each processor, so it may lag by a
    /// few dozen.
    pub allocated: u64,
    /// fs.file-max. It does not bind a process with CAP_SYS_ADMIN.
    pub max: u64,
}

/// Reads fs.file-nr.
///
/// # Errors
/// As [`sysctl::numbers`].
pub fn file_nr(root: &ProcRoot) -> Result<FileNr, ReadError> {
    // The middle number was that of unused handles; since Linux 2.6 it is 0.
    let [allocated, _unused, max] = sysctl::numbers(root, "fs.file-nr")?;
    Ok(FileNr { allocated, max })
}

/// fs.nr_open: the highest value that RLIMIT_NOFILE can be raised to.
///
/// # Errors
/// As [`sysctl::number`].
pub fn nr_open(root: &ProcRoot) -> Result<u64, ReadError> {
    sysctl::number(root, "fs.nr_open")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    #[test]
    fn open_files_are_counted_against_their_maximum() {
        let (_tree, root) = tree(&[("sys/fs/file-nr", "2186\t0\t2466186\n")]);
        let expected = FileNr { allocated: 2_186, max: 2_466_186 };
        assert_eq!(file_nr(&root).unwrap(), expected);
    }

    #[test]
    fn this_kernel_counts_them() {
        let root = ProcRoot::default();
        let files = file_nr(&root).unwrap();
        assert!(files.max > 0 && nr_open(&root).unwrap() >= 1024);
    }
}
