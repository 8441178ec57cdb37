//! netlink(7): framing, and a socket that asks the kernel and streams its answers.

pub(crate) mod frame;
pub(crate) mod socket;
