//! A socket as text and as JSON.

pub mod address;
pub mod columns;
pub mod detail;
pub mod document;
pub mod owners;

use std::path::Path;

use super::listing::Listed;
use super::names::{Interfaces, Name, Users};
use super::row::Row;
use crate::kernel::sock_diag::escape;

/// What rows are shown with: the names of what they have as numbers.
#[derive(Debug)]
pub struct Context<'a> {
    /// Names of users.
    pub users: &'a Users,
    /// Names of the interfaces of the rows' network namespace; None where it cannot be
    /// entered, or the rows are not of this host.
    pub interfaces: Option<&'a Interfaces>,
    /// What the rows' network namespace is called, where several are shown.
    pub netns: Option<&'a str>,
    /// Where the processes are.
    pub proc_root: &'a Path,
}

impl Context<'_> {
    /// The name of the interface that a row is bound to, harmless for a terminal: whoever
    /// may make an interface may put control characters in its name.
    #[must_use]
    pub fn interface(&self, row: &Row<'_>) -> Name {
        if row.interface == 0 {
            return None;
        }
        match self.interfaces.and_then(|all| all.name(row.interface)) {
            Some(name) if name.chars().all(|c| c.is_ascii_graphic() && c != '\\') => {
                Some(name)
            }
            Some(name) => Some(escaped(name.as_bytes()).into()),
            None => Some(format!("if{}", row.interface).into()),
        }
    }
}

/// PLACEHOLDER
impl Context<'_> {
    pub fn cgroup(&self, _row: &Row<'_>) -> Name {
        None
    }
}
impl Shown<'_> {
    pub fn container(&self) -> Option<String> {
        None
    }
}
/// A socket to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// It, and whose it is.
    pub listed: &'a Listed<'a>,
    /// The names around it.
    pub context: &'a Context<'a>,
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    // A `String` takes all that is written to it.
    let _ = escape(bytes, &mut text);
    text
}
