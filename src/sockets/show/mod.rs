//! A socket as text and as JSON.

pub mod address;
pub mod columns;
pub mod detail;
pub mod document;
pub mod owners;

use std::sync::Arc;

use super::listing::Listed;
use super::names::{Cgroups, Interfaces, Name, Users, Workloads};
use super::row::Row;
use crate::host::container::Workload;

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
    /// The name of the interface that a row is bound to.
    #[must_use]
    pub fn interface(&self, row: &Row<'_>) -> Name {
        if row.interface == 0 {
            return None;
        }
        let known = self.interfaces.and_then(|all| all.name(row.interface));
        Some(known.unwrap_or_else(|| format!("if{}", row.interface).into()))
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
