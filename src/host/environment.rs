//! Where a run takes place, for its record.

use std::ffi::OsString;
use std::thread;

use rustix::process::Resource;

use super::text::{field, printable};
use super::{ProcRoot, files, memory, sysctl};
use crate::record::{Capabilities, Environment};

/// The sysctls that bear on connections.
const SYSCTLS: [&str; 19] = [
    "fs.file-max",
    "fs.nr_open",
    "net.core.somaxconn",
    "net.core.netdev_max_backlog",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_max_orphans",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
];

// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;

/// Reads the environment of this process, whose arguments are `command`. What cannot
/// be read is null or left out: a record is worth having without it.
#[must_use]
pub fn environment(
    root: &ProcRoot,
    command: impl IntoIterator<Item = OsString>,
) -> Environment {
    let uname = rustix::system::uname();
    let nofile = rustix::process::getrlimit(Resource::Nofile);
    let memory = memory::memory(root).ok();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let status = root.read("self/status").unwrap_or_default();
    Environment {
        sockscope: env!("CARGO_PKG_VERSION").to_owned(),
        command: command
            .into_iter()
            .map(|word| printable(&word.to_string_lossy()))
            .collect(),
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        memory_total_bytes: memory.map(|memory| memory.total_bytes),
        memory_available_bytes: memory.map(|memory| memory.available_bytes),
        uid: rustix::process::geteuid().as_raw(),
        capabilities: capabilities(&status),
        nofile_soft: nofile.current,
        nofile_hard: nofile.maximum,
        file_nr: files::file_nr(root).ok().map(|files| files.allocated),
        sysctls: SYSCTLS
            .iter()
            .filter_map(|&name| Some((name.to_owned(), sysctl::read(root, name).ok()?)))
            .collect(),
    }
}

/// The effective capabilities in the text of /proc/self/status.
#[must_use]
pub fn capabilities(status: &str) -> Capabilities {
    let set = field(status, "CapEff").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let has = |capability: u32| set.unwrap_or(0) >> capability & 1 == 1;
    Capabilities {
        net_admin: has(CAP_NET_ADMIN),
        sys_admin: has(CAP_SYS_ADMIN),
        sys_ptrace: has(CAP_SYS_PTRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, tree};

    #[test]
    fn capabilities_are_bits_of_the_effective_set() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\n";
        let expected = Capabilities { net_admin: true, ..Capabilities::default() };
        assert_eq!(capabilities(status), expected);
        assert_eq!(capabilities(""), Capabilities::default());
    }

    #[test]
    fn a_sysctl_that_is_not_there_is_left_out() {
        let (_tree, root) = tree(&[("sys/net/core/somaxconn", "4096\n")]);
        let found = environment(&root, []);
        let expected = [("net.core.somaxconn".to_owned(), "4096".to_owned())];
        assert_eq!(found.sysctls, expected.into());
        assert_eq!(found.memory_total_bytes, None);
    }

    #[test]
    fn this_host_is_described() {
        let command = ["sockscope", "probe", "a\u{1b}[31m"].map(OsString::from);
        let found = environment(&ProcRoot::default(), command);
        assert_eq!(found.command[2], "a\\u{1b}[31m");
        assert!(found.cores > 0 && found.memory_total_bytes.is_some());
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(found.kernel, release.trim());
        assert!(found.sysctls.contains_key("net.ipv4.tcp_syncookies"));
        if !testing::is_root() {
            assert!(!found.capabilities.sys_admin);
        }
    }
}
