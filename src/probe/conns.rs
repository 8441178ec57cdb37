//! One dialer's table of connections: 24 bytes each, in one allocation.

use crate::kernel::fd_table::LocalFd;

use super::service::Unserved;
use super::tuples::Tuple;

/// How far one connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Dialed; no answer yet.
    Connecting,
    /// Established; nothing came.
    Open,
    /// Established; the server sent something.
    Spoken,
}

/// What is known of the server's end of a connection, from the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Nothing yet.
    None,
    /// The server repeated its SYN-ACK once.
    Suspect,
    /// The server goes on repeating its SYN-ACK: it has half of the connection.
    HalfOpen,
    /// A keepalive was sent and is not yet answered.
    Probing,
    /// The server has it.
    True,
}

/// How it stands with the answer that a connection is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// None is expected, or the connection is not established.
    None,
    /// The first is waited for.
    Awaited,
    /// It came.
    Served,
    /// It came, and another one is waited for (`--ping`).
    AskedAgain,
    /// It did not come, or was none.
    Unserved(Unserved),
}

impl Reply {
    /// Whether the server serves this connection, as far as it is known.
    #[must_use]
    pub fn is_served(self) -> bool {
        matches!(self, Self::Served | Self::AskedAgain)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    fd: Option<LocalFd>,
    /// While connecting the µs at which the dial was due, after that the ms at which it
    /// was established, both since the start and modulo 2^32.
    pub since: u32,
    /// The µs, modulo 2^32, at which it was established or last asked for an answer.
    pub asked: u32,
    /// The number of the source address; of a unix socket, the inode.
    pub source: u32,
    /// The source port.
    pub port: u16,
    /// How far it got.
    pub state: State,
    /// What is known of the server's end.
    pub proof: Proof,
    /// How it stands with the server's answer.
    pub reply: Reply,
    /// Segments that had come in when this was last looked at, at most 255.
    pub segments: u8,
    /// Whether it took so long to be answered that its SYN was sent again.
    pub slow: bool,
}

impl Conn {
    /// Its descriptor, while it is open.
    #[must_use]
    pub fn fd(&self) -> Option<&LocalFd> {
        self.fd.as_ref()
    }

    /// The µs since the start at which it was established; the ms of it, where it was
    /// asked again since.
    #[must_use]
    pub fn established_us(&self) -> u64 {
        let ms = u64::from(self.since) * 1000;
        #[allow(clippy::cast_possible_truncation)] // `asked` is modulo 2^32
        let beyond = self.asked.wrapping_sub(ms as u32);
        if beyond < 1000 { ms + u64::from(beyond) } else { ms }
    }

    /// Its source address and port.
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        Tuple { source: self.source, port: self.port }
    }
}

/// The table: a slab whose vacant places are used again first.
#[derive(Debug, Default)]
pub struct Conns {
    all: Vec<Conn>,
    vacant: Vec<u32>,
}

impl Conns {
    /// Adds a connection that was dialed just now; returns its place.
    pub fn add(&mut self, fd: LocalFd, tuple: Tuple, since: u32) -> u32 {
        let Tuple { source, port } = tuple;
        let conn = Conn {
            fd: Some(fd),
            since,
            asked: 0,
            source,
            port,
            state: State::Connecting,
            proof: Proof::None,
            reply: Reply::None,
            segments: 0,
            slow: false,
        };
        if let Some(place) = self.vacant.pop() {
            self.all[place as usize] = conn;
            return place;
        }
        self.all.push(conn);
        u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
    }

    /// The place that the next connection will get.
    #[must_use]
    pub fn next_place(&self) -> u32 {
        let end = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.vacant.last().copied().unwrap_or(end)
    }

    /// The connection at a place, if one is open there.
    pub fn get(&mut self, place: u32) -> Option<&mut Conn> {
        self.all.get_mut(place as usize).filter(|conn| conn.fd.is_some())
    }

    /// The same, to look at.
    #[must_use]
    pub fn at(&self, place: u32) -> Option<&Conn> {
        self.all.get(place as usize).filter(|conn| conn.fd.is_some())
    }

    /// Removes a connection and hands out its descriptor.
    #[must_use = "closing it sends what the plan says"]
    pub fn remove(&mut self, place: u32) -> Option<LocalFd> {
        let fd = self.all.get_mut(place as usize)?.fd.take()?;
        self.vacant.push(place);
        Some(fd)
    }

    /// Every open connection with its place.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        (0..).zip(&self.all).filter(|(_, conn)| conn.fd.is_some())
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len() - self.vacant.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn fd() -> LocalFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_connection_takes_24_bytes() {
        assert_eq!(size_of::<Conn>(), 24);
    }

    #[test]
    fn places_are_used_again() {
        let mut conns = Conns::default();
        let tuple = Tuple { source: 1, port: 2 };
        assert_eq!(conns.add(fd(), tuple, 3), 0);
        assert_eq!(conns.next_place(), 1);
        assert_eq!(conns.add(fd(), tuple, 4), 1);
        assert!(conns.remove(0).is_some());
        assert!(conns.remove(0).is_none(), "removed but once");
        assert!(conns.get(0).is_none());
        assert_eq!((conns.len(), conns.next_place()), (1, 0));
        assert_eq!(conns.add(fd(), tuple, 5), 0);
        assert_eq!(
            conns.iter().map(|(i, c)| (i, c.since)).collect::<Vec<_>>(),
            [(0, 5), (1, 4)]
        );
    }
}
