//! The event model's accepting: when to wait for clients, and when to leave them in the
//! accept queue.
//!
//! A server out of descriptors, like nginx or HAProxy at `ulimit -n`, keeps what it
//! has, stops waiting for the listener (which stays readable: waiting would be a busy
//! loop) and tries again when a connection ends or a moment later.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::tables::Turn;
use super::{LISTENER, Worker};
use crate::server::admit::{Admission, Leaving};
use crate::server::watch::{Note, TableNote};

/// Accepted in a row before those already held have their turn.
const BATCH: usize = 128;
/// How long after a shortage to try again though no connection has ended.
const RETRY: Duration = Duration::from_millis(100);
/// How often a full fd table looks whether its limit was raised from outside.
const LOOK: Duration = Duration::from_secs(1);

/// Where a thread stands with the listeners.
pub(super) struct Listening<'a> {
    /// Whether the epoll watches them.
    watched: bool,
    /// When to go on though nothing happened.
    again: Option<Instant>,
    /// Whether the end of a connection is a reason to go on.
    starved: bool,
    /// Whether nobody will be let in any more.
    closed: bool,
    /// Where there are several fd tables: one accepts, at a time.
    turn: Option<&'a Turn>,
    /// Whether this table is full, as the main thread knows.
    table_full: bool,
    leaving: Leaving,
}

impl<'a> Listening<'a> {
    pub(super) fn new(turn: Option<&'a Turn>) -> Self {
        Self {
            watched: false,
            again: None,
            starved: false,
            closed: false,
            turn,
            table_full: false,
            leaving: Leaving::default(),
        }
    }

    pub(super) fn deadline(&mut self) -> Option<Instant> {
        [self.again, self.leaving.sweep()].into_iter().flatten().min()
    }
}

impl Worker<'_> {
    /// Waits for clients from now on.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        self.listening.again = None;
        self.listening.starved = false;
        if !self.listening.watched && !self.listening.closed {
            self.listening.watched = true;
            for listener in &self.server.listeners {
                self.register(listener, LISTENER, EventFlags::IN)?;
            }
        }
        Ok(())
    }

    fn unwatch(&mut self) -> io::Result<()> {
        if self.listening.watched {
            self.listening.watched = false;
            for listener in &self.server.listeners {
                epoll::delete(&self.epoll, listener)?;
            }
        }
        Ok(())
    }

    /// Clients are in the accept queue.
    pub(super) fn clients_wait(&mut self) -> io::Result<()> {
        match self.server.plan.faults.accept_delay {
            _ if !self.listening.watched => Ok(()),
            // Only accepting sleeps; those already held are served meanwhile.
            Some(delay) => self.rest(delay),
            None => self.accept(BATCH),
        }
    }

    /// Goes on when it is time to.
    pub(super) fn listen_again(&mut self) -> io::Result<()> {
        if self.listening.again.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.listening.again = None;
        if self.listening.table_full {
            // Full, unless the limit was raised from outside (prlimit(1)).
            return match rustix::io::fcntl_dupfd_cloexec(&self.epoll, 0) {
                Ok(_) => self.there_is_room(),
                Err(_) => self.rest(LOOK),
            };
        }
        if self.server.plan.faults.accept_delay.is_some() && !self.listening.starved {
            self.accept(1)?;
            if self.listening.again.is_some() {
                return Ok(());
            }
        }
        self.watch()
    }

    /// A connection has ended: whoever could not be let in for want of room now can.
    pub(super) fn there_is_room(&mut self) -> io::Result<()> {
        if self.listening.table_full {
            self.listening.table_full = false;
            self.listening.again = None;
            self.report(TableNote::Room);
        } else if self.listening.starved {
            self.watch()?;
        }
        Ok(())
    }

    /// The main thread says that it is this table's turn to accept.
    pub(super) fn take_turn(&mut self) -> io::Result<()> {
        if let Some(turn) = self.listening.turn {
            turn.taken();
        }
        self.watch()
    }

    fn accept(&mut self, at_most: usize) -> io::Result<()> {
        let server = self.server;
        let mut left = at_most;
        for listener in &server.listeners {
            while left > 0 {
                left -= 1;
                let leaving = &mut self.listening.leaving;
                match server.admit(listener, SocketFlags::NONBLOCK, leaving)? {
                    Admission::Client(conn) => self.begin(conn)?,
                    Admission::InPlaceOfOldest(conn) => {
                        self.evict()?;
                        self.begin(conn)?;
                    }
                    Admission::TurnedAway => {}
                    Admission::Nobody => break,
                    Admission::Short(Errno::MFILE) if self.listening.turn.is_some() => {
                        return self.pass_turn();
                    }
                    Admission::AtMaximum | Admission::Short(_) => return self.starve(),
                    Admission::Closed => {
                        self.listening.closed = true;
                        return self.unwatch();
                    }
                }
            }
        }
        Ok(())
    }

    fn evict(&mut self) -> io::Result<()> {
        match self.arrivals.as_ref().and_then(super::Ages::oldest) {
            Some((slot, _)) => self.close(self.conns.key(slot)),
            None => Ok(()),
        }
    }

    fn starve(&mut self) -> io::Result<()> {
        self.listening.starved = true;
        self.rest(RETRY)
    }

    fn rest(&mut self, how_long: Duration) -> io::Result<()> {
        self.listening.again = Some(Instant::now() + how_long);
        self.unwatch()
    }

    fn pass_turn(&mut self) -> io::Result<()> {
        self.listening.table_full = true;
        self.report(TableNote::Full);
        self.rest(LOOK)
    }

    fn report(&self, note: TableNote) {
        if let Some(turn) = self.listening.turn {
            self.notes.send(Note::Table(turn.table, note));
        }
    }
}
