//! What becomes of dials and of what is held: epoll's events, and the clock's.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};
use rustix::fs::fstat;
use rustix::time::Timespec;
use socket2::SockRef;

use super::super::conns::State;
use super::super::shared::{bump, drop_one, lock};
use super::confirm::SLOW_US;
use super::{Dialer, ELDERS};

/// Bytes of a server's farewell that are kept, and of how many connections.
const WORDS: usize = 200;
const SPEAKERS: usize = 64;

impl Dialer {
    /// Waits at most `wait_us` for events, and handles them.
    pub(super) fn handle_events(&mut self, wait_us: u64) -> io::Result<()> {
        let wait = Duration::from_micros(wait_us);
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if self.events.is_empty() {
            return Ok(());
        }
        let now = self.shared.now_us();
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let place = u32::try_from(event.data.u64()).unwrap_or(u32::MAX);
            self.on_event(place, event.flags, now);
        }
        self.events = events;
        Ok(())
    }

    fn on_event(&mut self, place: u32, flags: EventFlags, now: u64) {
        let Some(conn) = self.conns.get(place) else { return };
        let mut flags = flags;
        if conn.state == State::Connecting {
            if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                let error = conn.fd().and_then(|fd| SockRef::from(fd).take_error().ok());
                let errno = error.flatten().and_then(|e| e.raw_os_error());
                match errno {
                    // It was established, and reset or closed before we looked.
                    None | Some(libc::ECONNRESET | libc::EPIPE) => {
                        self.establish(place, now);
                        if errno.is_some() {
                            self.read(place, now, true);
                            return;
                        }
                    }
                    Some(errno) => {
                        self.refused(place, errno);
                        return;
                    }
                }
            } else if flags.contains(EventFlags::OUT) {
                self.establish(place, now);
                flags.remove(EventFlags::OUT);
            }
        } else if flags.contains(EventFlags::OUT) {
            self.send_on(place, now);
        }
        let news = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(news) {
            self.read(place, now, false);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
    fn establish(&mut self, place: u32, now: u64) {
        let Some(conn) = self.conns.get(place) else { return };
        let latency = u64::from((now as u32).wrapping_sub(conn.since)).max(1);
        conn.state = State::Open;
        conn.slow = latency >= SLOW_US;
        conn.since = (now / 1000) as u32;
        conn.asked = now as u32;
        match &self.shared.tuples {
            None => {
                let inode = conn.fd().and_then(|fd| fstat(fd).ok()).map(|s| s.st_ino);
                conn.source = inode.and_then(|i| u32::try_from(i).ok()).unwrap_or(0);
                lock(&self.shared.inodes).insert(u64::from(conn.source));
            }
            Some(tuples) => {
                if self.kernel_ports
                    && let Some(fd) = conn.fd()
                    && let Ok(local) = SockRef::from(fd).local_addr()
                    && let Some(local) = local.as_socket()
                    && let Some(source) = tuples.sources().index_of(local.ip())
                {
                    (conn.source, conn.port) = (source, local.port());
                }
                self.shared.held.insert(conn.tuple());
            }
        }
        lock(&self.shared.latencies[self.slot]).saturating_record(latency);
        let g = &self.gauges;
        drop_one(&g.in_flight);
        bump(&g.established);
        g.established_at_us.store(now, Relaxed);
        bump(&g.open);
        if g.elders.load(Relaxed) < ELDERS {
            self.elders.insert(place, g.elders.load(Relaxed));
            bump(&g.elders);
            bump(&g.elders_open);
        }
        if self.shared.service.is_none() {
            self.not_before_us = 0;
        }
        self.watch(place, latency);
        self.ask_first(place, now);
    }

    /// A dial was answered by an error.
    fn refused(&mut self, place: u32, errno: i32) {
        if self.conns.get(place).is_some() {
            self.let_go(place);
            self.failed(errno);
        }
    }

    /// Closes what is still dialed. The server may have answered just now: so it is closed
    /// like any other.
    pub(super) fn let_go(&mut self, place: u32) {
        let Some(conn) = self.conns.get(place) else { return };
        let tuple = conn.tuple();
        if let Some(fd) = self.conns.remove(place) {
            self.close(fd);
        }
        self.share.put_back(tuple);
        drop_one(&self.gauges.in_flight);
        self.gauges.full.store(false, Relaxed);
        self.shared.release();
    }

    /// Reads what came on an established connection until there is no more; of one that
    /// is known to have been reset, what came before that.
    pub(super) fn read(&mut self, place: u32, now: u64, was_reset: bool) {
        let mut buffer = [0_u8; 4096];
        for _ in 0..16 {
            let Some(conn) = self.conns.get(place) else { return };
            let Some(fd) = conn.fd() else { return };
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) => return self.ended(place, now, was_reset),
                Ok(n) => {
                    let first = std::mem::replace(&mut conn.state, State::Spoken);
                    self.hear(place, &buffer[..n], now);
                    let served =
                        self.conns.get(place).is_some_and(|c| c.reply.is_served());
                    if first == State::Open && !served && self.said.len() < SPEAKERS {
                        let words = buffer[..n.min(WORDS)].to_vec();
                        self.said.insert(place, words);
                    }
                    self.proven_by_words(place);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if !was_reset => return,
                Err(_) => return self.ended(place, now, true),
            }
        }
    }

    /// The server ended an established connection, by a FIN or a RST. What it said first
    /// counts for more than that: with bytes of ours unread its close is a RST.
    fn ended(&mut self, place: u32, now: u64, reset: bool) {
        let Some(conn) = self.conns.get(place) else { return };
        let (spoken, served) = (conn.state == State::Spoken, conn.reply.is_served());
        if let Some(words) = self.said.remove(&place) {
            self.shared.keep_words(words);
        }
        let gauges = self.gauges.clone();
        let kind = match (served, spoken) {
            (true, _) if reset => &gauges.closed_reset,
            (true, _) => &gauges.closed_answered,
            (false, true) => &gauges.closed_after_words,
            (false, false) if reset => &gauges.closed_reset,
            (false, false) => &gauges.closed_silent,
        };
        self.closed(place, now, kind);
    }

    /// Gives up dials that are older than the connect timeout.
    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
    pub(super) fn expire(&mut self, now: u64) {
        let now = now as u32;
        while let Some(&(place, due)) = self.pending.front() {
            let waiting = |state, since| state == State::Connecting && since == due;
            let conn = self.conns.get(place).filter(|c| waiting(c.state, c.since));
            if conn.is_some() {
                if u64::from(now.wrapping_sub(due)) < self.shared.connect_timeout_us {
                    return;
                }
                self.let_go(place);
                bump(&self.gauges.timed_out);
            }
            self.pending.pop_front();
        }
    }
}
