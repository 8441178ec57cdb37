//! bpf(2), and the kernel's types as bytes.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use super::Unavailable;
use super::btf::VMLINUX;
use super::program::Instruction;

/// BPF_PROG_TYPE_TRACING and BPF_TRACE_ITER (linux/bpf.h).
const TRACING: u32 = 26;
const TRACE_ITER: u32 = 28;
/// Helpers that write are for programs under the GPL or a licence beside it; this one's
/// text may be had under both.
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// Of union bpf_attr what BPF_PROG_LOAD takes.
#[repr(C)]
#[derive(Debug, Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// What BPF_LINK_CREATE takes.
#[repr(C)]
#[derive(Debug)]
struct Link {
    prog_fd: i32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// What BPF_ITER_CREATE takes.
#[repr(C)]
#[derive(Debug)]
struct Iter {
    link_fd: i32,
    flags: u32,
}

/// A command that gives a descriptor.
fn bpf<A>(
    command: libc::c_int,
    name: &'static str,
    attributes: &A,
) -> Result<OwnedFd, Unavailable> {
    // SAFETY: the kernel reads the attributes, which are structs of this module that begin
    // union bpf_attr and have no padding, to their end; the addresses in them are of what
    // the callers keep alive during the call, with its length.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<A>())
    };
    match i32::try_from(fd) {
        // SAFETY: these commands give a new descriptor, with close-on-exec.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => {
            let error = io::Error::last_os_error();
            Err(Unavailable::Refused { command: name, error })
        }
    }
}

/// Loads a program that runs for each object of the iterator `function` (a BTF id), and
/// starts it: what the program writes can be read from the descriptor.
pub(super) fn iterate(
    program: &[Instruction],
    function: u32,
) -> Result<OwnedFd, Unavailable> {
    let address = |pointer: *const u8| pointer.expose_provenance() as u64;
    let mut prog_name = [0; 16];
    for (to, from) in prog_name.iter_mut().zip(b"sockscope") {
        *to = *from;
    }
    let load = Load {
        prog_type: TRACING,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: address(program.as_ptr().cast()),
        license: address(LICENSE.as_ptr().cast()),
        prog_name,
        expected_attach_type: TRACE_ITER,
        attach_btf_id: function,
        ..Load::default()
    };
    let loaded = bpf(5, "BPF_PROG_LOAD", &load)?;
    let link = Link {
        prog_fd: loaded.as_raw_fd(),
        target_fd: 0,
        attach_type: TRACE_ITER,
        flags: 0,
    };
    let link = bpf(28, "BPF_LINK_CREATE", &link)?;
    let iter = Iter { link_fd: link.as_raw_fd(), flags: 0 };
    // It keeps the link, and that the program.
    bpf(33, "BPF_ITER_CREATE", &iter)
}

/// The bytes of [`VMLINUX`].
#[derive(Debug)]
pub(super) enum Types {
    /// Without a copy, since Linux 6.16.
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl Types {
    pub(super) fn of_this_kernel() -> io::Result<Self> {
        let file = File::open(VMLINUX)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        match Mapping::of(file.as_fd(), length) {
            Ok(mapping) => Ok(Self::Mapped(mapping)),
            Err(_) => std::fs::read(VMLINUX).map(Self::Read),
        }
    }
}

impl Deref for Types {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping.bytes(),
            Self::Read(bytes) => bytes,
        }
    }
}

/// A file of the kernel's that never changes, mapped for reading.
#[derive(Debug)]
pub(super) struct Mapping {
    at: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// Only of [`VMLINUX`], which is a part of the kernel's image.
    fn of(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses; nothing else of
        // this process is touched. A length of 0 is an error.
        let at = unsafe {
            let nowhere = std::ptr::null_mut();
            let (read, how) = (libc::PROT_READ, libc::MAP_PRIVATE);
            libc::mmap(nowhere, length, read, how, file.as_raw_fd(), 0)
        };
        match NonNull::new(at.cast::<u8>()) {
            Some(mapped) if at != libc::MAP_FAILED => Ok(Self { at: mapped, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes are mapped for reading from `at` until this is dropped,
        // and are of the kernel's image: they neither change nor end earlier.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping alone, which nothing borrows any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn attributes_are_laid_out_as_union_bpf_attr() {
        assert_eq!(offset_of!(Load, license), 16);
        assert_eq!(offset_of!(Load, prog_name), 48);
        assert_eq!(offset_of!(Load, expected_attach_type), 68);
        assert_eq!(offset_of!(Load, attach_btf_id), 108);
        assert_eq!(size_of::<Load>(), 112);
        assert_eq!((size_of::<Link>(), size_of::<Iter>()), (16, 8));
    }

    #[test]
    fn the_types_are_the_same_mapped_and_read() {
        let Ok(types) = Types::of_this_kernel() else {
            return crate::testing::lacking("the kernel's BTF");
        };
        let read = std::fs::read(VMLINUX).unwrap();
        assert!(read.len() > 1000 && *types == *read);
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        let (pipe, _) = io::pipe().unwrap();
        assert!(Mapping::of(pipe.as_fd(), 4096).is_err());
        let file = File::open("/proc/self/exe").unwrap();
        assert!(Mapping::of(file.as_fd(), 0).is_err());
    }

    #[test]
    fn a_refused_command_names_itself() {
        // A program without an end, or none at all without the right.
        let refused = iterate(&[], 1).unwrap_err();
        assert!(refused.to_string().starts_with("bpf(BPF_PROG_LOAD): "), "{refused}");
    }
}
