//! The event model: a thread waits for thousands of connections at once (epoll(7)), and
//! never for one of them.
//!
//! A connection that nobody uses costs this process one slot in [`Conns`]; the rest is
//! the kernel's. Only while an answer is unsent or a request incomplete is there a
//! [`Talk`] for it.

mod ages;
mod conns;
mod listening;
pub(super) mod tables;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use self::ages::Ages;
use self::conns::{Conns, Key};
use self::listening::Listening;
use self::tables::Turn;
use super::admit::Server;
use super::plan::{Beyond, Maximum, Speak};
use super::speak::Talk;
use super::watch::{Note, Notes};

/// What the epoll calls the listeners and the [`Turn`]; no [`Key`] is as large.
const LISTENER: u64 = u64::MAX;
const TURN: u64 = u64::MAX - 1;

/// One thread of the event model, and everything that it holds.
struct Worker<'a> {
    server: &'a Server,
    notes: &'a Notes,
    epoll: OwnedFd,
    listening: Listening<'a>,
    conns: Conns,
    /// The conversations that are not over.
    talks: HashMap<Key, Talk>,
    /// The connections in the order in which they came, where the oldest is evicted.
    arrivals: Option<Ages>,
    /// The connections in the order in which they last spoke, where silence ends them.
    silent: Option<(Duration, Ages)>,
    buffer: Box<[u8]>,
}

/// Serves until something goes wrong. Where there are several fd tables, this thread
/// accepts only while it has its turn.
pub(super) fn serve(
    server: &Server,
    notes: &Notes,
    turn: Option<&Turn>,
) -> io::Result<()> {
    let faults = &server.plan.faults;
    let evicts =
        matches!(faults.maximum, Some(Maximum { beyond: Beyond::EvictOldest, .. }));
    let mut worker = Worker {
        server,
        notes,
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        listening: Listening::new(turn),
        conns: Conns::default(),
        talks: HashMap::new(),
        arrivals: evicts.then(Ages::new),
        silent: faults.idle_timeout.map(|after| (after, Ages::new())),
        buffer: vec![0; 16 * 1024].into(),
    };
    match turn {
        Some(turn) => worker.register(turn, TURN, EventFlags::IN)?,
        None => worker.watch()?,
    }
    notes.send(Note::Up);
    worker.run()
}

impl Worker<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            let wait = self.until_deadline();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut clients_wait = false;
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => clients_wait = true,
                    TURN => self.take_turn()?,
                    data => self.converse(data.into(), event.flags)?,
                }
            }
            if clients_wait {
                self.clients_wait()?;
            }
            self.keep_time()?;
        }
    }

    /// How long epoll may wait: until the next thing that only time brings about.
    fn until_deadline(&mut self) -> Option<Timespec> {
        let silence = self.next_silence().map(|(_, end)| end);
        let next = [self.listening.deadline(), silence].into_iter().flatten().min()?;
        let wait = next.saturating_duration_since(Instant::now());
        Timespec::try_from(wait).ok()
    }

    fn keep_time(&mut self) -> io::Result<()> {
        self.listen_again()?;
        while let Some((slot, end)) = self.next_silence()
            && end <= Instant::now()
        {
            self.close(self.conns.key(slot))?;
        }
        Ok(())
    }

    /// The connection that has been silent longest, and when that ends it.
    fn next_silence(&self) -> Option<(u32, Instant)> {
        let (after, ages) = self.silent.as_ref()?;
        let (slot, since) = ages.oldest()?;
        Some((slot, since + *after))
    }

    /// Serves a connection that has just been accepted.
    fn begin(&mut self, conn: OwnedFd) -> io::Result<()> {
        let key = self.conns.insert(conn.into());
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.push(key.slot);
        }
        if let Some((_, silent)) = &mut self.silent {
            silent.push(key.slot);
        }
        let Some(conn) = self.conns.get(key) else { return Ok(()) };
        if self.register(conn, key.into(), EventFlags::IN).is_err() {
            // ENOSPC at /proc/sys/fs/epoll/max_user_watches, ENOMEM: it cannot be
            // waited for, so it cannot be served.
            return self.close(key);
        }
        if let Speak::Banner(_) = self.server.plan.speak {
            let mut talk = Talk::default();
            self.server.plan.speak.greet(&mut talk);
            self.send(key, talk)?;
        }
        Ok(())
    }

    /// Reads what a client said and answers, or goes on sending an answer.
    fn converse(&mut self, key: Key, flags: EventFlags) -> io::Result<()> {
        // Not there any more: closed by an earlier event of the same batch.
        let Some(conn) = self.conns.get(key) else { return Ok(()) };
        if let Some(talk) = self.talks.get(&key)
            && !talk.unsent.is_empty()
            && flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP)
        {
            let talk = self.talks.remove(&key).unwrap_or_default();
            self.touch(key);
            return self.send(key, talk);
        }
        let heard = match net::recv(conn, &mut *self.buffer, RecvFlags::empty()) {
            Ok((0, _)) => return self.close(key),
            Ok((heard, _)) => heard,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return self.close(key),
        };
        self.touch(key);
        if matches!(self.server.plan.speak, Speak::Nothing | Speak::Banner(_)) {
            return Ok(());
        }
        let mut talk = self.talks.remove(&key).unwrap_or_default();
        self.server.plan.speak.answer(&self.buffer[..heard], &mut talk);
        if talk.unsent.is_empty() {
            self.talks.insert(key, talk);
            return Ok(());
        }
        self.send(key, talk)
    }

    /// Sends what the kernel takes. What it does not take is remembered, and until it
    /// is sent nothing more is read from that client.
    fn send(&mut self, key: Key, mut talk: Talk) -> io::Result<()> {
        let Some(conn) = self.conns.get(key) else { return Ok(()) };
        let was_waiting = talk.waits_to_send;
        match net::send(conn, &talk.unsent, SendFlags::NOSIGNAL) {
            Ok(sent) => drop(talk.unsent.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return self.close(key),
        }
        talk.waits_to_send = !talk.unsent.is_empty();
        if talk.waits_to_send != was_waiting {
            let interest =
                if talk.waits_to_send { EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(key.into());
            epoll::modify(&self.epoll, conn, data, interest)?;
        }
        if talk.last && talk.unsent.is_empty() {
            return self.close(key);
        }
        if !talk.is_over() {
            self.talks.insert(key, talk);
        }
        Ok(())
    }

    fn touch(&mut self, key: Key) {
        if let Some((_, silent)) = &mut self.silent {
            silent.remove(key.slot);
            silent.push(key.slot);
        }
    }

    fn close(&mut self, key: Key) -> io::Result<()> {
        let Some(conn) = self.conns.remove(key) else { return Ok(()) };
        drop(conn);
        self.talks.remove(&key);
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.remove(key.slot);
        }
        if let Some((_, silent)) = &mut self.silent {
            silent.remove(key.slot);
        }
        self.server.ended();
        self.there_is_room()
    }

    fn register(&self, source: impl AsFd, data: u64, on: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(data), on)?)
    }
}
