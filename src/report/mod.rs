//! What is made of recorded runs.
//!
//! As people look at one: [`page()`] puts together what a record says; [`html`],
//! [`markdown`] and [`text`] write it down. Nothing is measured or judged again: a number
//! that the record lacks is missing in the report too, with a word why.
//!
//! Held against requirements and against a baseline ([`gate`]), side by side
//! ([`mod@compare`]), taken together ([`repeat`]), and as metrics for a collector
//! ([`metrics`]).

mod answer;
pub mod blocks;
pub mod capacity;
pub mod charts;
pub mod compare;
pub mod cut_off;
pub mod gate;
pub mod html;
pub mod input;
pub mod list;
mod loads;
pub mod markdown;
pub mod measure;
pub mod metrics;
pub mod noise;
mod numbers;
pub mod page;
pub mod repeat;
mod series;
mod tables;
pub mod text;
pub mod unit;

pub use capacity::Beside;
pub use input::{Input, LimitsDoc};
pub use page::{Page, page};
