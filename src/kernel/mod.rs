//! Every kernel ABI that the standard library, socket2 and rustix do not cover, and
//! all unsafe code of the crate.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub mod cgroup;
pub mod defer;
pub mod errno;
pub mod fd_table;
pub mod fork;
pub mod ifaddrs;
pub mod interface;
pub mod kcmp;
pub mod link;
pub(crate) mod netlink;
pub mod netns;
pub mod pidfd;
pub mod private;
pub mod select;
pub mod signals;
pub mod sock_diag;
pub mod tcp_info;
#[cfg(test)]
pub(crate) mod testing;
pub mod tun;
