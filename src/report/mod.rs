//! A recorded run as people look at it: a page for a browser, Markdown, a terminal.
//!
//! [`page()`] puts together what a record says; [`html`], [`markdown`] and [`text`] write
//! it down. Nothing here is measured or judged again: a number that the record lacks is
//! missing in the report too, with a word why.

mod answer;
pub mod blocks;
pub mod capacity;
pub mod charts;
pub mod cut_off;
pub mod html;
pub mod input;
pub mod list;
pub mod markdown;
mod numbers;
pub mod page;
mod series;
mod tables;
pub mod text;

pub use capacity::Beside;
pub use input::{Input, LimitsDoc};
pub use page::{Page, page};
