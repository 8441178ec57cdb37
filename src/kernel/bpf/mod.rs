//! What the kernel's BPF iterators tell (Documentation/bpf/bpf_iterators.rst): the
//! sockets in every fd table of the host, in one read.
//!
//! A program of three dozen instructions, assembled here, is loaded by bpf(2) and runs
//! once for each descriptor. Where the fields of the kernel's structs are is read from the
//! kernel's own types (BTF) at run time, so that no compiler and no headers are needed.

pub(crate) mod btf;
mod program;
mod system;
mod task_file;

pub(crate) use task_file::{SocketFd, SocketFds};

use std::io;

use self::btf::BtfError;

/// Why the iterator cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// Without the rights to load a program.
    #[error("it needs CAP_BPF and CAP_PERFMON")]
    NotPermitted,
    /// Programs are made for 64-bit little-endian hosts alone.
    #[error("not made for this architecture")]
    Architecture,
    /// No BTF: CONFIG_DEBUG_INFO_BTF is off.
    #[error("{}: {}", btf::VMLINUX, .0)]
    NoTypes(io::Error),
    /// BTF that is not understood, or without something that is needed.
    #[error("{}: {}", btf::VMLINUX, .0)]
    Types(#[from] BtfError),
    /// A bpf(2) command that the kernel refused.
    #[error("bpf({command}): {error}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Reading failed half-way.
    #[error("reading the iterator: {0}")]
    Read(io::Error),
}
