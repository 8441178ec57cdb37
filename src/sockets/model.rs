//! The words of the socket table: states, identities, names, owners.

use std::fmt;

use crate::kernel::sock_diag::escape;
pub use crate::kernel::sock_diag::{
    Cookie, Family, Inode, Protocol, State, States, UnixName, canonical,
};

/// The name of a thread (/proc/PID/comm), up to 15 bytes of any kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Comm {
    bytes: [u8; 15],
    len: u8,
}

impl Comm {
    /// A name as /proc has it, with or without the newline that ends it; what is beyond
    /// 15 bytes (TASK_COMM_LEN) is left out.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let name = name.strip_suffix(b"\n").unwrap_or(name);
        let mut comm = Self::default();
        for (byte, &from) in comm.bytes.iter_mut().zip(name) {
            *byte = from;
            comm.len += 1;
        }
        comm
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

/// With control characters, backslashes and what is no UTF-8 escaped.
impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.as_bytes(), f)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// One descriptor of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The process.
    pub pid: u32,
    /// The thread whose fd table has it: `pid` itself for the table that /proc/PID/fd
    /// shows, else a thread with a table of its own.
    pub tid: u32,
    /// The name of that thread.
    pub comm: Comm,
    /// The descriptor's number.
    pub fd: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_comm_is_escaped() {
        assert_eq!(Comm::new(b"a \"b\" (c)\x1b[0m\n").to_string(), "a \"b\" (c)\\x1b[0m");
        assert_eq!(Comm::new(b"0123456789abcdefXYZ").as_bytes(), b"0123456789abcde");
    }
}
