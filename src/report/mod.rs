//! What is made of recorded runs: held against requirements and against a baseline
//! ([`gate`]), side by side ([`mod@compare`]), and taken together ([`repeat`]).

pub mod compare;
pub mod gate;
pub mod measure;
pub mod noise;
pub mod repeat;
pub mod unit;
