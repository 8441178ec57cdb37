//! The accept queue of a listener: observed, overrun by a burst, filled while its owners
//! are stopped.

pub mod burst;
mod burst_outcome;
pub mod burst_verdict;
mod due;
pub mod find;
pub mod freeze;
pub mod gauge;
mod holders;
pub mod judge;
pub mod list;
pub mod loads;
pub mod namespace;
pub mod observe;
mod owners;
mod pace;
pub mod remedies;
pub mod report;
pub mod sampler;
mod side;
pub mod steps;
pub mod watchdog;

pub use crate::sockets::sample;
pub use holders::{Forbidden, Holder, HoldersError};
