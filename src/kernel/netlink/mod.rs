//! netlink(7): framing, and a socket that asks the kernel and streams its answers.

mod ahead;
pub(crate) mod frame;
pub(crate) mod socket;
