//! What is made of recorded runs: held against requirements and against a baseline
//! ([`gate`]), side by side ([`mod@compare`]), taken together ([`repeat`]), and as metrics for a
//! collector ([`metrics`]).

pub mod compare;
pub mod gate;
pub mod measure;
pub mod metrics;
pub mod noise;
pub mod repeat;
pub mod unit;
