//! Control groups of v2 by their ids (open_by_handle_at(2); `kernfs_fh_to_dentry` in
//! fs/kernfs/mount.c).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{FsWord, StatFs};

/// CGROUP2_SUPER_MAGIC (linux/magic.h).
const CGROUP2: FsWord = 0x6367_7270;

/// FILEID_KERNFS (linux/exportfs.h): a handle that is the id alone (Linux 5.5).
const FILEID_KERNFS: i32 = 0xfe;

/// struct file_handle with room for an id.
#[repr(C)]
struct FileHandle {
    handle_bytes: u32,
    handle_type: i32,
    id: [u8; 8],
}

/// Whether a file system is a hierarchy of cgroup v2.
#[must_use]
pub fn is_v2(fs: &StatFs) -> bool {
    fs.f_type == CGROUP2
}

/// Opens the folder of a control group by its id. `mount` is any open folder of the
/// hierarchy.
///
/// # Errors
/// ESTALE where there is none with this id (any more), EPERM without
/// CAP_DAC_READ_SEARCH.
pub fn open_by_id(mount: BorrowedFd<'_>, id: u64) -> io::Result<OwnedFd> {
    let mut handle =
        FileHandle { handle_bytes: 8, handle_type: FILEID_KERNFS, id: id.to_ne_bytes() };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the kernel reads the head and `handle_bytes` bytes of the handle, which are
    // there, and keeps no pointer to it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            flags,
        )
    };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just opened it, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
