//! A socket as text and as JSON.

pub mod address;
pub mod columns;
pub mod detail;
pub mod document;
pub mod full;
pub mod owners;

use std::sync::Arc;

use super::listing::Listed;
use super::names::{Cgroups, Interfaces, Name, Users, Workloads};
use super::row::Row;
use crate::host::container::Workload;
use crate::kernel::sock_diag::escape;

/// What rows are shown with: the names of what they have as numbers.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Names of users.
    pub users: &'a Users,
    /// Names of the interfaces of the rows' network namespace; None where the rows are
    /// not of this host.
    pub interfaces: Option<&'a Interfaces>,
    /// What processes run in.
    pub workloads: &'a Workloads,
    /// Paths of control groups.
    pub cgroups: &'a Cgroups,
    /// What the rows' network namespace is called, where it was asked for.
    pub netns: Option<&'a str>,
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

    /// The path of the control group that a socket was made in.
    #[must_use]
    pub fn cgroup(&self, row: &Row<'_>) -> Option<String> {
        self.cgroups.path(row.cgroup?)
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

impl Shown<'_> {
    /// What the first of its owners runs in.
    #[must_use]
    pub fn workload(&self) -> Option<Arc<Workload>> {
        self.context.workloads.of(self.listed.owners.first()?.pid)
    }

    /// The same in words.
    #[must_use]
    pub fn container(&self) -> Option<String> {
        self.workload().map(|workload| workload.to_string())
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    // A `String` takes all that is written to it.
    let _ = escape(bytes, &mut text);
    text
}
