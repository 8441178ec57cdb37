//! Where a run took place.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine and the rights that a run had. The name of the host is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Environment {
    /// The version of sockscope.
    pub sockscope: String,
    /// The command line, control characters escaped.
    pub command: Vec<String>,
    /// The kernel release, as `uname -r` shows it.
    pub kernel: String,
    /// The machine, as `uname -m` shows it.
    pub machine: String,
    /// Processors that this process may run on.
    pub cores: u32,
    /// MemTotal of proc_meminfo(5).
    pub memory_total_bytes: Option<u64>,
    /// MemAvailable of proc_meminfo(5), at the start.
    pub memory_available_bytes: Option<u64>,
    /// The effective user id.
    pub uid: u32,
    /// The capabilities that widen what can be seen and done.
    pub capabilities: Capabilities,
    /// RLIMIT_NOFILE, soft, at the start (getrlimit(2)); null where it is unlimited.
    pub nofile_soft: Option<u64>,
    /// RLIMIT_NOFILE, hard; null where it is unlimited.
    pub nofile_hard: Option<u64>,
    /// Files open on the whole machine, at the start (fs.file-nr).
    pub file_nr: Option<u64>,
    /// sysctls that bear on connections, by dotted name, blanks as one space each. One
    /// that this kernel lacks is not in it.
    pub sysctls: BTreeMap<String, String>,
}

/// Whether each of these is in the effective set (capabilities(7)).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[serde(default)]
pub struct Capabilities {
    /// CAP_NET_ADMIN: sockets of other users, sysctls of a namespace.
    pub net_admin: bool,
    /// CAP_SYS_ADMIN: entering namespaces.
    pub sys_admin: bool,
    /// CAP_SYS_PTRACE: descriptors of other users' processes.
    pub sys_ptrace: bool,
}
