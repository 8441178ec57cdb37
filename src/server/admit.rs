//! Whom a server lets in: accept(2) with the faults of the plan, the same for every
//! model.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown, SocketFlags};

use super::listen::Listener;
use super::plan::{Beyond, EarlyDrop, Maximum, ServePlan};

/// What the threads of a server share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) plan: ServePlan,
    pub(super) listeners: Vec<Listener>,
    /// Connections accepted in this server's life, and those being tried for.
    claimed: AtomicU64,
    /// Connections accepted in this server's life.
    accepted: AtomicU64,
    /// Connections held now.
    open: AtomicU64,
}

/// What came of trying to let a client in.
#[derive(Debug)]
pub(super) enum Admission {
    /// A client to serve, counted as open until [`Server::ended`].
    Client(OwnedFd),
    /// A client to serve, once the connection that is held longest is closed for it.
    InPlaceOfOldest(OwnedFd),
    /// A client was turned away.
    TurnedAway,
    /// Nobody waits.
    Nobody,
    /// Whoever waits goes on waiting until a connection ends: the maximum is reached.
    AtMaximum,
    /// Whoever waits goes on waiting until a connection ends, or something else gives
    /// back what is short: EMFILE, ENFILE, ENOBUFS or ENOMEM.
    Short(Errno),
    /// Nobody will be let in any more.
    Closed,
}

impl Server {
    pub(super) fn new(plan: ServePlan, listeners: Vec<Listener>) -> Self {
        Self {
            plan,
            listeners,
            claimed: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
        }
    }

    /// Tries to let in the next client of `listener`.
    ///
    /// Where descriptors or memory are short nobody is lost: accept4(2) takes the fd
    /// before it takes the connection off the queue.
    pub(super) fn admit(
        &self,
        listener: &Listener,
        flags: SocketFlags,
        leaving: &mut Leaving,
    ) -> io::Result<Admission> {
        let faults = &self.plan.faults;
        if !claim(&self.claimed, faults.accept_at_most) {
            return Ok(Admission::Closed);
        }
        let maximum = faults.maximum.as_ref();
        let counted = match maximum {
            Some(Maximum { connections, beyond: Beyond::Ignore }) => {
                if !claim(&self.open, Some(*connections)) {
                    self.claimed.fetch_sub(1, Relaxed);
                    return Ok(Admission::AtMaximum);
                }
                true
            }
            _ => false,
        };
        let conn = match net::accept_with(listener, flags | SocketFlags::CLOEXEC) {
            Ok(conn) => conn,
            Err(error) => {
                self.claimed.fetch_sub(1, Relaxed);
                if counted {
                    self.open.fetch_sub(1, Relaxed);
                }
                return not_accepted(error, leaving);
            }
        };
        let accepted = self.accepted.fetch_add(1, Relaxed) + 1;
        if faults.die_after.is_some_and(|n| accepted >= n) {
            process::exit(1);
        }
        if let Some(early) = faults.early_drop
            && early.drops(self.open.load(Relaxed), accepted)
        {
            if counted {
                self.open.fetch_sub(1, Relaxed);
            }
            turn_away(conn, &Beyond::Close, leaving);
            return Ok(Admission::TurnedAway);
        }
        if counted || claim(&self.open, maximum.map(|m| m.connections)) {
            return Ok(Admission::Client(conn));
        }
        match maximum.map(|m| &m.beyond) {
            Some(Beyond::EvictOldest) => {
                self.open.fetch_add(1, Relaxed);
                Ok(Admission::InPlaceOfOldest(conn))
            }
            Some(beyond) => {
                turn_away(conn, beyond, leaving);
                Ok(Admission::TurnedAway)
            }
            None => Ok(Admission::Client(conn)),
        }
    }

    /// A connection ended.
    pub(super) fn ended(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

impl EarlyDrop {
    /// Whether the `nth` connection is closed, with so many held. It looks random, but is
    /// the same in every run.
    fn drops(self, held: u64, nth: u64) -> bool {
        // Fibonacci hashing: the upper half of the product is evenly spread.
        let chance = nth.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let range = self.full.saturating_sub(self.from).max(1);
        held.saturating_sub(self.from).saturating_mul(1 << 32) > chance * range
    }
}

/// Adds one to `count` unless that would exceed `limit`.
fn claim(count: &AtomicU64, limit: Option<u64>) -> bool {
    let Some(limit) = limit else {
        count.fetch_add(1, Relaxed);
        return true;
    };
    count.fetch_update(Relaxed, Relaxed, |now| (now < limit).then_some(now + 1)).is_ok()
}

fn not_accepted(error: Errno, leaving: &mut Leaving) -> io::Result<Admission> {
    match error {
        Errno::AGAIN | Errno::INTR => Ok(Admission::Nobody),
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
            leaving.close_all();
            Ok(Admission::Short(error))
        }
        // These mean that the listener itself is broken.
        Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT | Errno::OPNOTSUPP => {
            Err(error.into())
        }
        // The rest is the client's trouble, reported through accept (accept(2)).
        _ => Ok(Admission::Nobody),
    }
}

fn turn_away(conn: OwnedFd, beyond: &Beyond, leaving: &mut Leaving) {
    match beyond {
        Beyond::Reset => {
            // Without lingering, close(2) sends RST (socket(7), SO_LINGER).
            let _ = net::sockopt::set_socket_linger(&conn, Some(Duration::ZERO));
        }
        Beyond::Reject(text) => {
            let _ = net::send(&conn, text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            let _ = net::shutdown(&conn, Shutdown::Write);
            leaving.add(conn);
        }
        Beyond::Close | Beyond::Ignore | Beyond::EvictOldest => {
            let _ = net::shutdown(&conn, Shutdown::Write);
            drain(&conn);
        }
    }
}

/// Connections that were told no, and that stay open a while: a client that is sending
/// when they are closed gets a RST, which may overtake the words.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    conns: VecDeque<(Instant, OwnedFd)>,
}

impl Leaving {
    const LONGEST: Duration = Duration::from_secs(1);
    const MOST: usize = 64;

    fn add(&mut self, conn: OwnedFd) {
        if self.conns.len() == Self::MOST {
            self.close_oldest();
        }
        self.conns.push_back((Instant::now(), conn));
    }

    fn close_oldest(&mut self) {
        if let Some((_, conn)) = self.conns.pop_front() {
            drain(&conn);
        }
    }

    fn close_all(&mut self) {
        while !self.conns.is_empty() {
            self.close_oldest();
        }
    }

    /// Closes those whose time is over, and says when the next one's is.
    pub(super) fn sweep(&mut self) -> Option<Instant> {
        while let Some((since, _)) = self.conns.front() {
            let end = *since + Self::LONGEST;
            if end > Instant::now() {
                return Some(end);
            }
            self.close_oldest();
        }
        None
    }
}

/// Reads what has come: close(2) with something unread sends RST in place of FIN. Gives
/// up on a client that sends without end.
fn drain(conn: impl AsFd) {
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        match net::recv(&conn, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((1.., _)) => {}
            _ => return,
        }
    }
}
