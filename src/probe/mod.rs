//! Opens connections until something stops them.

mod assemble;
mod closed;
pub mod conns;
pub mod dialer;
pub mod fleet;
pub mod habit;
pub mod held;
mod keeper;
pub mod latency;
mod levels;
mod nearby;
pub mod plan;
mod predict;
pub mod prepare;
pub mod ramp;
pub mod remote;
pub mod repeats;
pub mod run;
pub mod safety;
pub mod server_view;
pub mod service;
pub mod shared;
mod snapshot;
pub mod sources;
mod steady;
pub mod tuples;

pub use crate::sockets::target;
pub use keeper::Progress;
pub use predict::{ceilings, predict};
