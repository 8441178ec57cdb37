//! The one integration binary: the built program, driven over real sockets.
#![allow(clippy::unwrap_used)] // what goes wrong in a test is to be seen there
#![allow(clippy::print_stdout)] // so is what is skipped

mod cli;
mod fixtures;
mod phantoms;
mod scenarios;
