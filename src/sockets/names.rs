//! Names of what the kernel gives as numbers: users, interfaces, control groups, and what
//! a process runs in. Each is looked up once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::host::cgroups::CgroupNames;
use crate::host::container::{self, Workload};
use crate::kernel::netns::Netns;

/// A name, or that there is none.
pub type Name = Option<Arc<str>>;

/// Names of users, by what this host's name service says (getpwuid(3)).
#[derive(Debug, Default)]
pub struct Users {
    known: RefCell<HashMap<u32, Name>>,
}

impl Users {
    /// The name of a user; none where nobody has that id.
    pub fn name(&self, uid: u32) -> Name {
        let look_up = || {
            let user = uzers::get_user_by_uid(uid)?;
            Some(user.name().to_string_lossy().into_owned().into())
        };
        self.known.borrow_mut().entry(uid).or_insert_with(look_up).clone()
    }
}

/// Names of the interfaces of one network namespace.
#[derive(Debug, Default)]
pub struct Interfaces {
    /// Where they are; None for the calling thread's own namespace.
    netns: Option<Netns>,
    known: RefCell<HashMap<u32, Name>>,
}

impl Interfaces {
    /// Those of another network namespace than the calling thread's.
    #[must_use]
    pub fn of(netns: Netns) -> Self {
        Self { netns: Some(netns), known: RefCell::default() }
    }

    /// The name of an interface by its index; none where it is gone, or its namespace
    /// may not be entered.
    pub fn name(&self, index: u32) -> Name {
        let look_up = || {
            let name = self.ask(|socket| netdevice::index_to_name(socket, index));
            Some(name?.into())
        };
        self.known.borrow_mut().entry(index).or_insert_with(look_up).clone()
    }

    /// The index of an interface by its name; none where there is no such.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<u32> {
        self.ask(|socket| netdevice::name_to_index(socket, name))
    }

    /// Asks by a socket that is there for no longer, so that no list of sockets has it.
    fn ask<T: Send>(
        &self,
        f: impl FnOnce(&OwnedFd) -> rustix::io::Result<T> + Send,
    ) -> Option<T> {
        let ask = || {
            let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
            f(&socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
        };
        match &self.netns {
            None => ask().ok(),
            Some(netns) => netns.run(ask).ok()?.ok(),
        }
    }
}

/// What processes run in: a container, a pod, a unit of systemd.
#[derive(Debug)]
pub struct Workloads {
    proc_root: PathBuf,
    names: RefCell<container::Names>,
    known: RefCell<HashMap<u32, Option<Arc<Workload>>>>,
}

impl Workloads {
    /// Of the processes below `proc_root`; names of containers from the files that their
    /// runtimes keep on this host.
    #[must_use]
    pub fn new(proc_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            names: RefCell::new(container::Names::new("/")),
            known: RefCell::default(),
        }
    }

    /// What a process runs in; none on a plain host, or where it may not be seen.
    pub fn of(&self, pid: u32) -> Option<Arc<Workload>> {
        let look_up = || {
            let cgroup = fs::read(self.proc_root.join(format!("{pid}/cgroup"))).ok()?;
            let mut workload = Workload::parse(&cgroup)?;
            self.names.borrow_mut().complete(&mut workload);
            Some(Arc::new(workload))
        };
        self.known.borrow_mut().entry(pid).or_insert_with(look_up).clone()
    }
}

/// Paths of control groups of v2.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// None before the first is asked for; within, None where none is mounted.
    names: RefCell<Option<Option<CgroupNames>>>,
}

impl Cgroups {
    /// The path of a control group by its id, below where they are mounted.
    pub fn path(&self, id: u64) -> Option<String> {
        let mut names = self.names.borrow_mut();
        let names = names.get_or_insert_with(|| CgroupNames::find(Path::new("/")).ok());
        names.as_mut()?.path_of(id).map(str::to_owned)
    }

    /// The id of a control group by its path.
    pub fn id(&self, path: &str) -> Option<u64> {
        let mut names = self.names.borrow_mut();
        let names = names.get_or_insert_with(|| CgroupNames::find(Path::new("/")).ok());
        names.as_ref()?.id_of(path).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::new_netns_or_rerun;

    #[test]
    fn root_has_a_name_and_an_id_of_nobody_has_none() {
        let users = Users::default();
        assert_eq!(users.name(0).as_deref(), Some("root"));
        assert_eq!(users.name(0).as_deref(), Some("root"), "asked again");
        assert_eq!(users.name(3_999_999_999), None);
    }

    #[test]
    fn interfaces_are_those_of_their_namespace() {
        let here = Interfaces::default();
        let index = here.index("lo").unwrap();
        assert_eq!(here.name(index).as_deref(), Some("lo"));
        assert_eq!((here.name(987_654), here.index("none0")), (None, None));
        let test = "sockets::names::tests::interfaces_are_those_of_their_namespace";
        let Some(empty) = new_netns_or_rerun(test) else { return };
        let there = Interfaces::of(empty);
        assert_eq!(there.name(1).as_deref(), Some("lo"));
        assert_eq!(there.name(2), None, "an empty namespace has lo alone");
    }
}
