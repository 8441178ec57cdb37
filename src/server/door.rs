//! What the models without an event loop share: waiting for the next client, and
//! serving one with blocking reads and writes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::Socket;

use super::admit::{Admission, Leaving, Server};
use super::plan::{Faults, Speak};
use super::speak::Talk;

/// How long after a shortage to try again though no connection has ended.
const RETRY: Duration = Duration::from_millis(100);

/// The listeners of a server, seen by its one accepting thread.
pub(super) struct Door<'a> {
    server: &'a Server,
    /// Readable when connections have ended.
    bell: Option<BorrowedFd<'a>>,
    leaving: Leaving,
    /// Where to look first, so that no listener starves another.
    next: usize,
}

/// What [`Door::next`] waited for.
pub(super) enum Arrival {
    /// A client to serve.
    Client(Socket),
    /// The same, once the connection held longest is closed for it.
    InPlaceOfOldest(Socket),
    /// The bell rang: connections have ended.
    Bell,
}

/// Whether clients may be let in.
enum Mood {
    Open,
    /// Not before a connection ends, or this moment.
    Until(Instant),
    Closed,
}

impl<'a> Door<'a> {
    pub(super) fn new(server: &'a Server, bell: Option<BorrowedFd<'a>>) -> Self {
        Self { server, bell, leaving: Leaving::default(), next: 0 }
    }

    /// Waits for the next client, or until the bell rings.
    pub(super) fn next(&mut self) -> io::Result<Arrival> {
        let mut mood = Mood::Open;
        loop {
            let Some(listener) = self.wait(&mut mood)? else { return Ok(Arrival::Bell) };
            if let Some(delay) = self.server.plan.faults.accept_delay {
                thread::sleep(delay);
            }
            let listener = &self.server.listeners[listener];
            // Accepted sockets block, though the listener does not (accept(2)).
            match self.server.admit(listener, SocketFlags::empty(), &mut self.leaving)? {
                Admission::Client(conn) => return Ok(Arrival::Client(conn.into())),
                Admission::InPlaceOfOldest(conn) => {
                    return Ok(Arrival::InPlaceOfOldest(conn.into()));
                }
                Admission::TurnedAway | Admission::Nobody => {}
                Admission::AtMaximum | Admission::Short(_) => {
                    mood = Mood::Until(Instant::now() + RETRY);
                }
                Admission::Closed => mood = Mood::Closed,
            }
        }
    }

    /// Waits for the bell, and while open for clients too: the index of their listener.
    fn wait(&mut self, mood: &mut Mood) -> io::Result<Option<usize>> {
        loop {
            let mut until = self.leaving.sweep();
            if let Mood::Until(end) = *mood {
                if end <= Instant::now() {
                    *mood = Mood::Open;
                } else {
                    until = Some(until.map_or(end, |other| other.min(end)));
                }
            }
            let listeners: &[_] = match mood {
                Mood::Open => &self.server.listeners,
                _ => &[],
            };
            let mut fds: Vec<PollFd<'_>> = listeners
                .iter()
                .map(AsFd::as_fd)
                .chain(self.bell)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, until.and_then(timeout).as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |at: &usize| !fds[*at].revents().is_empty();
            if self.bell.is_some() && ready(&listeners.len()) {
                return Ok(None);
            }
            let from = self.next;
            let turns = (0..listeners.len()).map(|at| (at + from) % listeners.len());
            if let Some(at) = turns.into_iter().find(ready) {
                self.next = at + 1;
                return Ok(Some(at));
            }
        }
    }
}

fn timeout(end: Instant) -> Option<Timespec> {
    end.saturating_duration_since(Instant::now()).try_into().ok()
}

/// Serves a client until it goes, or has been silent for longer than it may.
pub(super) fn converse(conn: &Socket, speak: &Speak, faults: &Faults) {
    // Whatever goes wrong, the connection is closed: so does an ordinary server.
    let _ = try_converse(conn, speak, faults);
}

fn try_converse(mut conn: &Socket, speak: &Speak, faults: &Faults) -> io::Result<()> {
    conn.set_read_timeout(faults.idle_timeout)?;
    conn.set_write_timeout(faults.idle_timeout)?;
    let mut talk = Talk::default();
    let mut buffer = [0; 4096];
    speak.greet(&mut talk);
    loop {
        conn.write_all(&talk.unsent)?;
        talk.unsent.clear();
        if talk.last {
            return Ok(());
        }
        let heard = match conn.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) => return Ok(()),
            heard => heard?,
        };
        speak.answer(&buffer[..heard], &mut talk);
    }
}

/// Empties the bell, which is nonblocking.
pub(super) fn silence(bell: &OwnedFd) {
    while rustix::io::read(bell, &mut [0; 64]).is_ok_and(|read| read == 64) {}
}
