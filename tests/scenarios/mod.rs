//! Verdicts: one real situation each, and the probe must name it; and what the kernel
//! does that makes them hard to tell.

mod backlog;
mod client;
mod confirmation;
mod deferred;
mod drops;
mod ends;
mod foreign;
mod limits;
mod link;
mod namespaces;
mod neighbours;
mod path;
mod phantoms;
mod random;
pub(crate) mod real;
mod remote_evidence;
mod requested;
mod served;
mod server;
mod slow_link;
mod sockets_churn;
mod sockets_hostile;
mod sockets_like_ss;
mod sockets_owners;
mod sockets_owners_bpf;
mod sockets_states;
