//! Proof that the server has a connection, from the client's side and without a byte.
//!
//! A connect() that succeeded is no proof: where the accept queue was full in the
//! meantime, the server knows only half of the connection, or nothing (a SYN cookie).
//! Two signs tell:
//!
//! - A half-open one is told by its server, which **repeats its SYN-ACK** 1, 3, 7, 15 and
//!   31 s after (RFC 6298 from an RTO of 1 s): segments come in though nothing was sent.
//!   So each connection is first watched over the first due repeat, from its own
//!   ESTABLISHED; one that saw it is condemned while each further due one comes too, and
//!   cleared when one stays away.
//! - One from a cookie looks true until spoken to. So what passed the watch is sent a
//!   **keepalive** (RFC 9293, 3.8.4): a true one ACKs it, a phantom answers by RST or not
//!   at all. Three that stay unanswered are silence, and end it by RST at once, so that
//!   no broken connection is left at the server.
//!
//! No timer for each connection: all wait for the same few times, so that a queue for
//! each time is in order by itself.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::sockopt;

use super::super::conns::{Conn, Conns, Proof, State};
use super::super::shared::{bump, drop_one};
use super::Dialer;
use crate::kernel::fd_table::LocalFd;
use crate::kernel::tcp_info::TcpInfo;

/// A connect that took this long had its SYN repeated, so that more than one SYN-ACK may
/// have come, and the server's clock began earlier than ours.
const SLOW_US: u64 = 900_000;
/// When a slow one's segments are counted first.
const BASE_MS: u32 = 500;
/// Unanswered keepalives before silence counts.
const KEEPALIVES: u8 = 3;
/// After so long a keepalive's answer is looked for first; then a second later each.
const ANSWER_MS: u32 = 250;
const AGAIN_MS: u32 = 1000;
/// At most so many looks in a row, so that dials and answers are not held up.
const LOOKS: usize = 64;
/// How long the dialer may sleep while keepalives wait for their turn.
const PACE_US: u64 = 1_000;

/// The moments at which a connection is looked at, since it was established: each due
/// repeat, and what it may be late. The kernel's timers are coarse, the longer the more
/// (64 ms up to 4 s, 512 ms up to 32 s, at HZ 1000; kernel/time/timer.c), each repeat
/// counts from the one before, and packets come a little apart.
const WATCH_MS: [u32; 6] = [BASE_MS, 1_300, 3_500, 7_700, 16_400, 33_200];

/// A look that is due.
#[derive(Debug, Clone, Copy)]
struct Look {
    place: u32,
    /// The connection's [`Conn::since`], so that another in its place is not meant.
    since: u32,
    /// When, in ms since the start, modulo 2^32.
    due: u32,
}

/// What waits to be looked at.
#[derive(Debug, Default)]
pub(super) struct Confirmer {
    /// By moment of [`WATCH_MS`].
    watched: [VecDeque<Look>; WATCH_MS.len()],
    /// Watched and found clean: a keepalive is next, as the pace allows.
    ready: VecDeque<Look>,
    /// By how many seconds ago the keepalive was sent.
    sent: [VecDeque<Look>; KEEPALIVES as usize + 1],
}

impl Confirmer {
    fn is_idle(&self) -> bool {
        self.ready.is_empty()
            && self.sent.iter().all(VecDeque::is_empty)
            && self.watched.iter().all(VecDeque::is_empty)
    }
}

/// Takes the look at the front of a queue, if it is due.
fn due(queue: &mut VecDeque<Look>, now: u32) -> Option<Look> {
    let front = queue.front()?;
    let waits = front.due.wrapping_sub(now);
    // Modulo 2^32: what is less than half of that ahead is yet to come.
    if waits != 0 && waits < u32::MAX / 2 { None } else { queue.pop_front() }
}

/// The connection that a look is about, if it is still there and undecided.
fn looked_at(conns: &mut Conns, look: Look) -> Option<&mut Conn> {
    let conn = conns.get(look.place)?;
    let meant = conn.since == look.since && conn.state != State::Connecting;
    (meant && conn.proof != Proof::True).then_some(conn)
}

fn segments(conn: &Conn) -> Option<u8> {
    let info = TcpInfo::of(conn.fd()?).ok()?;
    Some(u8::try_from(info.segs_in?).unwrap_or(u8::MAX))
}

/// Has the kernel send a keepalive now: the connection has been silent for a second, and
/// setting TCP_KEEPIDLE makes the kernel look (net/ipv4/tcp.c,
/// tcp_sock_set_keepidle_locked).
fn ask(fd: &LocalFd) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(fd, Duration::from_secs(1))
}

impl Dialer {
    /// Begins to watch a connection that was just established after `latency_us`.
    pub(super) fn watch(&mut self, place: u32, latency_us: u64) {
        if !self.shared.confirm {
            return;
        }
        let scout = self.shared.take_scout();
        let Some(conn) = self.conns.get(place) else { return };
        conn.scout = scout;
        // One SYN-ACK has come by now.
        conn.segments = 1;
        let stage = usize::from(latency_us < SLOW_US);
        let look = Look { place, since: conn.since, due: 0 };
        self.watch_until(look, stage);
    }

    fn watch_until(&mut self, look: Look, stage: usize) {
        let due = look.since.wrapping_add(WATCH_MS[stage]);
        self.confirmer.watched[stage].push_back(Look { due, ..look });
    }

    /// Looks at what is due; returns for how many µs nothing more is.
    pub(super) fn confirm(&mut self, now_us: u64) -> u64 {
        if !self.shared.confirm || self.confirmer.is_idle() {
            return u64::MAX;
        }
        #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
        let now = (now_us / 1000) as u32;
        for stage in 0..WATCH_MS.len() {
            for _ in 0..LOOKS {
                let Some(look) = due(&mut self.confirmer.watched[stage], now) else {
                    break;
                };
                self.look_for_repeats(look, stage);
            }
        }
        for asked in 0..=usize::from(KEEPALIVES) {
            for _ in 0..LOOKS {
                let Some(look) = due(&mut self.confirmer.sent[asked], now) else { break };
                self.look_for_answer(look, asked, now);
            }
        }
        while !self.confirmer.ready.is_empty() && self.shared.take_keepalive(now_us) {
            if let Some(look) = self.confirmer.ready.pop_front() {
                self.send_keepalive(look, now);
            }
        }
        if self.confirmer.ready.is_empty() { u64::MAX } else { PACE_US }
    }

    fn look_for_repeats(&mut self, look: Look, stage: usize) {
        let Some(conn) = looked_at(&mut self.conns, look) else { return };
        let Some(segments) = segments(conn) else { return };
        let repeated = stage > 0 && segments > conn.segments;
        conn.segments = segments;
        let (before, scout) = (conn.proof, conn.scout);
        if stage == 0 {
            // The first due repeat of a slow one may be over: the second is waited for.
            self.watch_until(look, 2);
            return;
        }
        if !repeated {
            conn.proof = Proof::None;
            if before == Proof::HalfOpen {
                drop_one(&self.gauges.half_open);
            }
            self.confirmer.ready.push_back(look);
            return;
        }
        if scout && before == Proof::None {
            // It was dialed alone, when the queue had room: the listener defers.
            self.shared.note_deferring();
        }
        // One repeat may come of a lost ACK; a second means that the server waits.
        conn.proof = if before == Proof::None { Proof::Suspect } else { Proof::HalfOpen };
        if conn.proof == Proof::HalfOpen && before != Proof::HalfOpen {
            bump(&self.gauges.half_open);
        }
        if stage + 1 < WATCH_MS.len() {
            self.watch_until(look, stage + 1);
        }
    }

    fn send_keepalive(&mut self, look: Look, now: u32) {
        let Some(conn) = looked_at(&mut self.conns, look) else { return };
        let Some(fd) = conn.fd() else { return };
        let on = sockopt::set_socket_keepalive(fd, true).and_then(|()| ask(fd));
        if on.is_err() {
            // The connection has ended; its event is under way.
            return;
        }
        conn.proof = Proof::Probing;
        let due = now.wrapping_add(ANSWER_MS);
        self.confirmer.sent[0].push_back(Look { due, ..look });
    }

    fn look_for_answer(&mut self, look: Look, asked: usize, now: u32) {
        let Some(conn) = looked_at(&mut self.conns, look) else { return };
        let Some(segments) = segments(conn) else { return };
        if segments > conn.segments {
            conn.segments = segments;
            conn.proof = Proof::True;
            if let Some(fd) = conn.fd() {
                // It is open, and this option cannot fail on a socket.
                let _ = sockopt::set_socket_keepalive(fd, false);
            }
            bump(&self.gauges.confirmed);
            if asked > 0 {
                bump(&self.gauges.asked_again);
            }
            return;
        }
        if asked < usize::from(KEEPALIVES) {
            if asked + 1 < usize::from(KEEPALIVES)
                && let Some(fd) = conn.fd()
            {
                let _ = ask(fd);
            }
            let due = now.wrapping_add(AGAIN_MS);
            self.confirmer.sent[asked + 1].push_back(Look { due, ..look });
            return;
        }
        if let Some(fd) = conn.fd() {
            // By RST, whatever --close says: the server must not be left with a part.
            let _ = socket2::SockRef::from(fd).set_linger(Some(Duration::ZERO));
        }
        bump(&self.gauges.phantoms);
        self.forget(look.place);
    }

    /// What the server said proves the connection.
    pub(super) fn proven_by_words(&mut self, place: u32) {
        if !self.shared.confirm {
            return;
        }
        let Some(conn) = self.conns.get(place) else { return };
        let before = std::mem::replace(&mut conn.proof, Proof::True);
        match before {
            Proof::True => return,
            Proof::HalfOpen => drop_one(&self.gauges.half_open),
            Proof::None | Proof::Suspect | Proof::Probing => {}
        }
        bump(&self.gauges.confirmed);
    }

    /// Where packets are lost, the first due repeat may have been one of them: what came
    /// in since then unmasks it.
    pub(super) fn recheck(&mut self) {
        let lossy = self.gauges.asked_again.load(Relaxed) > 0;
        if !self.shared.confirm || !lossy {
            return;
        }
        let held: Vec<u32> = self.conns.iter().map(|(place, _)| place).collect();
        for place in held {
            let Some(conn) = self.conns.get(place) else { continue };
            let idle = conn.proof == Proof::True && conn.state == State::Open;
            let Some(segments) = segments(conn).filter(|_| idle) else { continue };
            if segments > conn.segments {
                conn.segments = segments;
                conn.proof = Proof::HalfOpen;
                drop_one(&self.gauges.confirmed);
                bump(&self.gauges.half_open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_taken_when_it_is_due_and_not_before() {
        let look = |due| Look { place: 1, since: 0, due };
        let mut queue = VecDeque::from([look(10), look(20)]);
        assert!(due(&mut queue, 9).is_none());
        assert_eq!(due(&mut queue, 15).map(|l| l.due), Some(10));
        assert!(due(&mut queue, 15).is_none());
    }

    #[test]
    fn time_goes_on_beyond_2_to_the_32_ms() {
        let mut queue = VecDeque::from([Look { place: 1, since: 0, due: 5 }]);
        assert!(due(&mut queue, u32::MAX - 5).is_none());
        assert!(due(&mut queue, 6).is_some());
    }
}
