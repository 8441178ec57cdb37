//! The accept queue of a listener, observed.

mod due;
pub mod gauge;
pub mod judge;
pub mod list;
pub mod namespace;
pub mod observe;
mod owners;
mod pace;
pub mod remedies;
pub mod report;
pub mod sampler;

pub use crate::sockets::sample;
