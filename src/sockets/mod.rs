//! The sockets of this host: what listens, who owns a socket, and which connections a
//! server has.
//!
//! Every count here comes from the kernel's own tables by sock_diag(7) and every owner
//! from /proc; what cannot be read is reported as such.

pub mod block;
pub mod changes;
pub mod close;
pub mod connections;
pub mod descriptor;
pub mod egress;
pub mod ends;
pub mod filter;
pub mod listeners;
pub mod listing;
pub mod model;
pub mod names;
pub mod namespaces;
pub mod owners;
pub mod place;
pub mod protocol;
pub mod quick;
pub mod row;
pub mod sample;
pub mod select;
pub mod show;
pub mod source;
pub mod target;
#[cfg(test)]
pub(crate) mod testing;
pub mod unbound;
pub mod watch;
