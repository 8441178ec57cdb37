//! sockscope sees a host's sockets and finds a server's connection limit.
//!
//! The map, from the command line down to the kernel; each module may use those
//! below it and none above it:
//!
//! - [`cli`]: one file a command. What was typed becomes a validated plan; what was
//!   learned becomes a summary and an exit code. Only here is clap known, and only
//!   here is anything printed.
//! - [`report`]: recorded runs as people look at them (HTML, Markdown, charts, a
//!   terminal), held against requirements and against each other.
//! - [`probe`]: opens connections until something stops them: the target, the plan,
//!   the allocator of four-tuples, the dialers, the ramp, and the evidence.
//! - [`backlog`]: the accept queue of a listener: observed, overrun by a burst, measured
//!   while its owner is stopped.
//! - [`lab`]: what is said of sockets, each claim an experiment on this kernel.
//! - [`server`]: the reference servers that a probe can be tried on.
//! - [`verdict`]: `judge(&Tally, &Evidence) -> Verdict`, pure: which limit stopped it.
//! - [`sockets`]: the sockets of this host: the socket table, its sources, filters and
//!   owners; listeners, and the connections of one server.
//! - [`host`]: what this host is and allows: sysctls, limits of a process, counters,
//!   memory, ceilings, containers.
//! - [`record`]: the run record: its schema, writing it as it happens, reading it back.
//! - [`render`]: numbers as text, rows as tables and documents.
//! - [`kernel`]: every kernel ABI and all unsafe code: sock_diag over netlink,
//!   TCP_INFO, fd tables, namespaces, control groups, the BPF iterator over descriptors.

pub mod backlog;
pub mod cli;
pub mod host;
pub mod kernel;
pub mod lab;
pub mod probe;
pub mod record;
pub mod render;
pub mod report;
pub mod server;
pub mod sockets;
pub mod verdict;

#[cfg(test)]
mod testing;
