//! Dialing: when the next dial is due, from which four-tuple, and how it begins.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Socket, Type};

use super::super::shared::{Exhausted, Permit, Phase, bump};
use super::super::tuples::Tuple;
use super::{Dialer, NAP_US};
use crate::kernel::fd_table::LocalFd;

/// How long is slept while a scout is under way.
const SCOUTED_US: u64 = 1_000;
/// Before the first success a dialer makes this many dials, then one each
/// [`CAUTIOUS_US`].
const CAUTIOUS_DIALS: u64 = 16;
const CAUTIOUS_US: u64 = 250_000;
/// The pause after a unix socket's queue was full (EAGAIN; connect(2)).
const QUEUE_FULL_US: u64 = 10_000;
/// The pause after a loopback dial that was not answered inside connect(): the accept
/// queue is full. It doubles, up to [`PAUSE_MAX_US`], while that goes on. Without it, a
/// server that is not scheduled for 10 ms has the whole window of SYNs dropped, and each
/// comes again a second later.
const PAUSE_US: u64 = 200;
const PAUSE_MAX_US: u64 = 10_000;

/// What became of an attempt to dial.
enum Attempt {
    Began,
    Failed,
    TableFull,
    Exhausted,
}

impl Dialer {
    /// Dials until something says wait; returns for how many µs.
    pub(super) fn fill(&mut self) -> io::Result<u64> {
        loop {
            let now = self.shared.now_us();
            let open_loop = self.shared.schedule.is_open_loop();
            let in_flight = self.gauges.in_flight.load(Relaxed);
            let window_full = !open_loop && self.under_way() >= self.shared.window as u64;
            if self.gauges.full.load(Relaxed)
                || self.shared.exhausted().is_some()
                || self.shared.phase() != Phase::Fill
                || window_full
            {
                return Ok(NAP_US);
            }
            if now < self.not_before_us {
                return Ok(self.not_before_us - now);
            }
            let scouting = self.shared.habit.scouting();
            if scouting && (!self.is_first || in_flight > 0) {
                return Ok(SCOUTED_US);
            }
            if !self.shared.reserve() {
                self.all_are_open = true;
                return Ok(NAP_US);
            }
            if std::mem::take(&mut self.all_are_open) {
                self.shared.schedule.resume(now);
            }
            let due = match self.shared.schedule.take(now, scouting) {
                Permit::Due(due) => due,
                Permit::NotBefore(at) => {
                    self.shared.unreserve();
                    return Ok(at.saturating_sub(now));
                }
            };
            if open_loop {
                self.note_lateness(now - due);
            }
            match self.dial(due)? {
                Attempt::Began => {}
                Attempt::Failed => self.shared.release(),
                Attempt::TableFull => {
                    self.shared.unreserve();
                    self.gauges.full.store(true, Relaxed);
                    self.publish();
                    self.shared.wake_main();
                }
                Attempt::Exhausted => self.shared.unreserve(),
            }
            if !self.shared.one_burst {
                self.be_cautious(now);
            }
            self.expire(now);
            self.confirm(now);
            self.keep_serving(now);
            if self.shared.quick {
                // A loopback dial is complete when connect() returns: looked at here,
                // its latency is its own and not that of the batch. 1 % of the rate.
                self.handle_events(0)?;
                if !open_loop && !self.shared.one_burst {
                    self.back_off(in_flight);
                }
            }
        }
    }

    /// Pauses where the dial just made, beside `before` older ones, got no answer.
    fn back_off(&mut self, before: u64) {
        if self.gauges.in_flight.load(Relaxed) <= before {
            self.pause_us = 0;
            return;
        }
        self.pause_us = (self.pause_us * 2).clamp(PAUSE_US, PAUSE_MAX_US);
        let until = self.shared.now_us() + self.pause_us;
        self.not_before_us = self.not_before_us.max(until);
    }

    fn note_lateness(&self, late_us: u64) {
        self.gauges.late_max_us.fetch_max(late_us, Relaxed);
        if late_us > 1_000 {
            bump(&self.gauges.late);
        }
    }

    /// Until something answers, a few dials tell as much as many.
    fn be_cautious(&mut self, now: u64) {
        let g = &self.gauges;
        let answers = match self.shared.service {
            Some(_) => g.answered.load(Relaxed),
            None => g.established.load(Relaxed),
        };
        if answers == 0 && !self.shared.schedule.is_open_loop() {
            let waiting = g.in_flight.load(Relaxed) + g.established.load(Relaxed);
            let made = waiting + g.failed.load(Relaxed);
            if made >= CAUTIOUS_DIALS {
                self.not_before_us = now + CAUTIOUS_US;
            }
        }
    }

    /// Begins one dial.
    fn dial(&mut self, due_us: u64) -> io::Result<Attempt> {
        loop {
            let stream = Type::STREAM.nonblocking().cloexec();
            let socket = match Socket::new(self.shared.domain, stream, None) {
                Ok(socket) => socket,
                Err(error) => return Ok(self.no_socket(&error)),
            };
            // The kernel gives the lowest free descriptor (open(2)).
            if u64::try_from(socket.as_raw_fd()).is_ok_and(|fd| fd >= self.fds_end) {
                return Ok(Attempt::TableFull);
            }
            let Some(tuple) = self.bind(&socket)? else {
                self.shared.exhaust(Exhausted::Tuples);
                return Ok(Attempt::Exhausted);
            };
            match socket.connect(&self.shared.address) {
                Ok(()) => return self.began(socket, tuple, due_us),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINPROGRESS) => return self.began(socket, tuple, due_us),
                    Some(libc::EADDRNOTAVAIL) if !self.kernel_ports => {
                        // The tuple is live, or in TIME_WAIT without timestamps.
                        bump(&self.gauges.skipped);
                    }
                    Some(libc::EADDRNOTAVAIL) => {
                        self.shared.exhaust(Exhausted::Tuples);
                        return Ok(Attempt::Exhausted);
                    }
                    errno => {
                        drop(socket);
                        bump(&self.gauges.dialed);
                        self.share.put_back(tuple);
                        self.failed(errno.unwrap_or(0));
                        return Ok(Attempt::Failed);
                    }
                },
            }
        }
    }

    fn no_socket(&self, error: &io::Error) -> Attempt {
        match error.raw_os_error() {
            Some(libc::EMFILE) => return Attempt::TableFull,
            Some(libc::ENFILE) => self.shared.exhaust(Exhausted::Files),
            _ => self.shared.exhaust(Exhausted::Memory),
        }
        self.shared.count_error(error.raw_os_error().unwrap_or(0));
        Attempt::Exhausted
    }

    /// Binds the socket to the next four-tuple that nothing else holds; None when there
    /// is none left. A unix socket has none.
    fn bind(&mut self, socket: &Socket) -> io::Result<Option<Tuple>> {
        let none = Tuple { source: u32::MAX, port: 0 };
        let Some(tuples) = &self.shared.tuples else { return Ok(Some(none)) };
        if self.kernel_ports {
            return Ok(Some(none));
        }
        socket.set_reuse_address(true)?;
        while let Some(tuple) = self.share.next(tuples) {
            let from = tuples.sources().at(tuple.source, tuple.port);
            match socket.bind(&from.into()) {
                Ok(()) => return Ok(Some(tuple)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL) => {
                        bump(&self.gauges.skipped);
                    }
                    _ => {
                        // Something forbids explicit binding: the kernel chooses.
                        self.kernel_ports = true;
                        self.gauges.kernel_ports.store(true, Relaxed);
                        return Ok(Some(none));
                    }
                },
            }
        }
        Ok(None)
    }

    #[allow(clippy::cast_possible_truncation)] // µs modulo 2^32, as `Conn::since` says
    fn began(&mut self, socket: Socket, tuple: Tuple, due: u64) -> io::Result<Attempt> {
        bump(&self.gauges.dialed);
        let fd = LocalFd::from(socket);
        let interest =
            EventFlags::OUT | EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let place = EventData::new_u64(u64::from(self.conns.next_place()));
        if let Err(errno) = epoll::add(&self.epoll, &fd, place, interest) {
            // ENOSPC: fs.epoll.max_user_watches; ENOMEM.
            self.failed(errno.raw_os_error());
            self.shared.exhaust(Exhausted::Memory);
            return Ok(Attempt::Exhausted);
        }
        let place = self.conns.add(fd, tuple, due as u32);
        self.pending.push_back((place, due as u32));
        self.gauges.in_flight.store(self.gauges.in_flight.load(Relaxed) + 1, Relaxed);
        Ok(Attempt::Began)
    }

    pub(super) fn failed(&mut self, errno: i32) {
        bump(&self.gauges.failed);
        self.shared.count_error(errno);
        if errno == libc::EAGAIN && !self.shared.one_burst {
            self.not_before_us = self.shared.now_us() + QUEUE_FULL_US;
        }
    }
}
