//! What is sent on a connection, and what comes back: whether the server serves it.
//!
//! A reply proves more than any keepalive, and cannot break a connection (FACTS 6): where
//! there is something to send it is sent first, and nothing else confirms.
//!
//! No timer for each connection: all replies may take equally long, and all are asked
//! again equally long after an answer, so that a queue for each is in order by itself.
//! Nothing is allocated for a connection but while its request or its reply is in parts.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::super::conns::{Conn, Reply, State};
use super::super::service::{Finding, Service, Unserved};
use super::super::shared::{Phase, bump, drop_one, lock};
use super::Dialer;

/// At most so many are asked again in a row, so that dials and replies are not held up.
const AGAIN_AT_ONCE: usize = 256;

/// The conversations of one dialer that are not over.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// Asked and not yet known to be answered, oldest first: place and [`Conn::asked`].
    asked: VecDeque<(u32, u32)>,
    /// To be asked again, the first due first.
    again: VecDeque<Again>,
    /// How much of the request is sent, where the kernel did not take it all.
    sent: HashMap<u32, usize>,
    /// Replies of which only a part came.
    heard: HashMap<u32, Vec<u8>>,
}

/// A held connection that will be asked again.
#[derive(Debug, Clone, Copy)]
struct Again {
    place: u32,
    /// The connection's [`Conn::asked`], so that another in its place is not meant.
    asked: u32,
    /// When, in ms since the start, modulo 2^32.
    due: u32,
}

/// The connection that was asked at this µs, if it is still there.
fn asked_at(conn: Option<&mut Conn>, asked: u32) -> Option<&mut Conn> {
    conn.filter(|conn| conn.asked == asked && conn.state != State::Connecting)
}

#[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Again::due` says
fn millis(us: u64) -> u32 {
    (us / 1000) as u32
}

impl Dialer {
    /// Asks on a connection that was just established, or waits for the server to speak.
    pub(super) fn ask_first(&mut self, place: u32, now_us: u64) {
        if self.shared.service.is_some() {
            self.ask(place, now_us, Reply::Awaited);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::asked` says
    fn ask(&mut self, place: u32, now_us: u64, as_what: Reply) {
        let Some(conn) = self.conns.get(place) else { return };
        conn.asked = now_us as u32;
        self.serving.asked.push_back((place, now_us as u32));
        self.turn(place, as_what);
        self.send_from(place, 0, now_us);
    }

    /// Goes on with a request that the kernel did not take whole.
    pub(super) fn send_on(&mut self, place: u32, now_us: u64) {
        if let Some(sent) = self.serving.sent.remove(&place) {
            self.send_from(place, sent, now_us);
        }
    }

    fn send_from(&mut self, place: u32, mut sent: usize, now_us: u64) {
        let Some(service) = &self.shared.service else { return };
        let Some(fd) = self.conns.get(place).and_then(|conn| conn.fd()) else { return };
        while sent < service.send.len() {
            match send(fd, &service.send[sent..], SendFlags::NOSIGNAL) {
                Ok(n) => sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.serving.sent.insert(place, sent);
                    return;
                }
                // The error is told once: what is read after it looks like a FIN's end.
                Err(Errno::CONNRESET) => return self.read(place, now_us, true),
                // It was closed; the event that says so is under way.
                Err(_) => return,
            }
        }
    }

    /// Judges what came on a connection.
    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::asked` says
    pub(super) fn hear(&mut self, place: u32, bytes: &[u8], now_us: u64) {
        let shared = self.shared.clone();
        let Some(service) = &shared.service else { return };
        let Some(conn) = self.conns.get(place) else { return };
        let (reply, asked) = (conn.reply, conn.asked);
        let late = reply == Reply::Unserved(Unserved::NoReply);
        if !late && !matches!(reply, Reply::Awaited | Reply::AskedAgain) {
            // The rest of a reply that is already judged.
            return;
        }
        let finding = self.judge_all(service, place, bytes);
        if finding == Finding::Wait {
            return;
        }
        self.serving.heard.remove(&place);
        if finding == Finding::Answered {
            let latency = u64::from((now_us as u32).wrapping_sub(asked)).max(1);
            lock(&shared.reply_latencies[self.slot]).saturating_record(latency);
        }
        let turned = match finding {
            Finding::Answered if late => Reply::Unserved(Unserved::LateReply),
            Finding::Answered => Reply::Served,
            Finding::Wrong(why) => Reply::Unserved(why),
            Finding::Wait => return,
        };
        if reply == Reply::AskedAgain && !turned.is_served() {
            bump(&self.gauges.forgotten);
        }
        self.turn(place, turned);
        if turned == Reply::Served {
            bump(&self.gauges.answered);
            self.not_before_us = 0;
            if let Some(ping) = service.ping {
                let ping = u32::try_from(ping.as_millis()).unwrap_or(u32::MAX / 2);
                let due = millis(now_us).wrapping_add(ping);
                self.serving.again.push_back(Again { place, asked, due });
            }
        }
    }

    /// Judges a reply by all that came of it; keeps what says nothing yet.
    fn judge_all(&mut self, service: &Service, place: u32, bytes: &[u8]) -> Finding {
        if let Some(heard) = self.serving.heard.get_mut(&place) {
            heard.extend_from_slice(bytes);
            return service.judge(heard);
        }
        let finding = service.judge(bytes);
        if finding == Finding::Wait {
            self.serving.heard.insert(place, bytes.to_vec());
        }
        finding
    }

    /// Gives up replies that are overdue, and asks again where it is time.
    pub(super) fn keep_serving(&mut self, now_us: u64) {
        if self.shared.service.is_none() {
            // Called for each dial: no counter is to be shared for nothing.
            return;
        }
        let shared = self.shared.clone();
        let Some(service) = &shared.service else { return };
        self.give_up_replies(service, now_us);
        for _ in 0..AGAIN_AT_ONCE {
            let Some(&Again { place, asked, due }) = self.serving.again.front() else {
                return;
            };
            let waits = due.wrapping_sub(millis(now_us));
            if (waits != 0 && waits < u32::MAX / 2) || shared.phase() >= Phase::Recheck {
                return;
            }
            self.serving.again.pop_front();
            let conn = asked_at(self.conns.get(place), asked);
            if conn.is_some_and(|conn| conn.reply == Reply::Served) {
                bump(&self.gauges.pings);
                self.ask(place, now_us, Reply::AskedAgain);
            }
        }
    }

    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::asked` says
    fn give_up_replies(&mut self, service: &Service, now_us: u64) {
        let timeout = service.reply_timeout.as_micros();
        while let Some(&(place, asked)) = self.serving.asked.front() {
            let conn = asked_at(self.conns.get(place), asked).map(|conn| conn.reply);
            let waits = matches!(conn, Some(Reply::Awaited | Reply::AskedAgain));
            if waits {
                if u128::from((now_us as u32).wrapping_sub(asked)) < timeout {
                    return;
                }
                if conn == Some(Reply::AskedAgain) {
                    bump(&self.gauges.forgotten);
                }
                let heard = self.serving.heard.remove(&place).unwrap_or_default();
                self.turn(place, Reply::Unserved(service.judge_end(&heard)));
            }
            self.serving.asked.pop_front();
        }
    }

    fn turn(&mut self, place: u32, to: Reply) {
        let Some(conn) = self.conns.get(place) else { return };
        let from = std::mem::replace(&mut conn.reply, to);
        self.count_turn(from, to);
    }

    /// A connection ends that stood so with its reply.
    pub(super) fn end_serving(&mut self, place: u32, reply: Reply) {
        if reply != Reply::None {
            self.serving.heard.remove(&place);
            self.serving.sent.remove(&place);
            self.count_turn(reply, Reply::None);
        }
    }

    fn count_turn(&self, from: Reply, to: Reply) {
        let g = &self.gauges;
        match from {
            Reply::None => {}
            Reply::Awaited => drop_one(&g.awaited),
            Reply::Served => drop_one(&g.served),
            Reply::AskedAgain => {
                drop_one(&g.served);
                drop_one(&g.asked_pings);
            }
            Reply::Unserved(why) => {
                drop_one(&g.unserved);
                if let Some(n) = lock(&self.shared.unserved).get_mut(&why) {
                    *n -= 1;
                }
            }
        }
        match to {
            Reply::None => {}
            Reply::Awaited => bump(&g.awaited),
            Reply::Served => bump(&g.served),
            Reply::AskedAgain => {
                bump(&g.served);
                bump(&g.asked_pings);
            }
            Reply::Unserved(why) => {
                bump(&g.unserved);
                *lock(&self.shared.unserved).entry(why).or_default() += 1;
            }
        }
    }

    /// Dials and first replies that are waited for: what the window bounds.
    pub(super) fn under_way(&self) -> u64 {
        self.gauges.in_flight.load(Relaxed) + self.gauges.awaited.load(Relaxed)
    }
}
