//! What this host is and allows: sysctls, the limits of a process, counters, memory,
//! and the ceilings on connections that follow from them.
//!
//! Every reader takes a [`ProcRoot`], so that it works on a fixture tree too. What lies
//! under /proc/sys/net and /proc/net is that of the calling thread's network namespace:
//! run a reader inside [`crate::kernel::netns::Netns::run`] to read another's.

pub mod ceilings;
pub mod cgroup_limits;
pub mod cgroups;
pub mod conntrack;
pub mod container;
pub mod counters;
pub mod environment;
pub mod files;
pub mod measure;
pub mod memory;
pub mod need;
pub mod ports;
pub mod process;
pub mod remedy;
pub mod root;
pub mod socket_counts;
pub mod sysctl;
pub mod systemd;
pub mod text;
pub mod user_tasks;

pub use root::{ProcRoot, ReadError};
