//! The matrix: does a probe count what the server has, whatever the network is like?
//! A probe in one namespace sees a server in another only by the packets of a slow link;
//! what it counts is compared with the server's own table.

pub(crate) mod cell;
pub(crate) mod trial;
pub(crate) mod watcher;
