//! Names of what the kernel gives as numbers: users and interfaces. Each is looked up
//! once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

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
#[derive(Debug)]
pub struct Interfaces {
    socket: OwnedFd,
    known: RefCell<HashMap<u32, Name>>,
}

impl Interfaces {
    /// Those of the calling thread's network namespace; another may ask later.
    ///
    /// # Errors
    /// What opening a socket gives.
    pub fn open() -> io::Result<Self> {
        let kind = (AddressFamily::UNIX, SocketType::DGRAM);
        let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, known: RefCell::default() })
    }

    /// The name of an interface by its index; none where it is gone.
    pub fn name(&self, index: u32) -> Name {
        let look_up = || Some(netdevice::index_to_name(&self.socket, index).ok()?.into());
        self.known.borrow_mut().entry(index).or_insert_with(look_up).clone()
    }

    /// The index of an interface by its name; none where there is no such.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<u32> {
        netdevice::name_to_index(&self.socket, name).ok()
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
    fn interfaces_are_those_of_the_namespace_where_it_was_opened() {
        let here = Interfaces::open().unwrap();
        let index = here.index("lo").unwrap();
        assert_eq!(here.name(index).as_deref(), Some("lo"));
        assert_eq!((here.name(987_654), here.index("none0")), (None, None));
        let test = "sockets::names::tests::interfaces_are_those_of_the_namespace_where_\
                    it_was_opened";
        let Some(empty) = new_netns_or_rerun(test) else { return };
        let there = empty.run(Interfaces::open).unwrap().unwrap();
        assert_eq!(there.name(1).as_deref(), Some("lo"));
        assert_eq!(there.name(2), None, "an empty namespace has lo alone");
    }
}
