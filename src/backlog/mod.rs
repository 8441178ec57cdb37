//! The accept queue of a listener, observed.

pub mod sampler;

pub use crate::sockets::sample;
