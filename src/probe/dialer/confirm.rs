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
//!   cleared when one stays away. That one may have been lost: so what was cleared is
//!   looked at once more when the next is due.
//! - One from a cookie looks true until spoken to. So what passed the watch is sent a
//!   **keepalive** (RFC 9293, 3.8.4): a true one ACKs it, a phantom answers by RST or not
//!   at all. Three that stay unanswered are silence, and end it by RST at once, so that
//!   no broken connection is left at the server.
//!
//! Only what cannot be known of all at once is asked of each: while no SYN-ACK at all was
//! repeated to this namespace ([`Repeats`]), none has to be looked for.
//!
//! [`Repeats`]: super::super::repeats::Repeats
//!
//! No timer for each connection: all wait for the same few times, so that a queue for
//! each time is in order by itself.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::sockopt;

use super::super::conns::{Conn, Conns, Proof, State};
use super::super::habit::REPEATS_S;
use super::super::shared::{bump, drop_one};
use super::Dialer;
use crate::kernel::fd_table::LocalFd;
use crate::kernel::tcp_info::TcpInfo;

/// A connect that took this long had its SYN repeated, so that more than one SYN-ACK may
/// have come, and the server's clock began earlier than ours.
pub(super) const SLOW_US: u64 = 900_000;
/// When a slow one's segments are counted first.
const BASE_MS: u32 = 500;
/// Unanswered keepalives before silence counts.
const KEEPALIVES: u8 = 3;
/// After so long a keepalive's answer is looked for first, and on loopback, while the
/// socket is still in the processor's cache; then a second after each. Two within half a
/// second are ACKed but once (tcp_invalid_ratelimit).
const ANSWER_MS: u32 = 250;
const QUICK_ANSWER_MS: u32 = 20;
const AGAIN_MS: u32 = 1000;
/// At most so many looks in a row, so that dials and answers are not held up.
const LOOKS: usize = 64;
/// How often those are counted whose next due repeat is waited for.
const UNHEARD_MS: u32 = 50;
/// What was dialed within so long is looked at within so long.
const WAVE_MS: u32 = 2_000;
/// How long the dialer sleeps while keepalives wait for their turn, or for an answer on
/// loopback.
const PACE_US: u64 = 10_000;

/// The moments at which a connection is looked at, since it was established: each due
/// repeat, and what it may be late. The kernel's timers are coarse, the longer the more
/// (64 ms up to 4 s, 512 ms up to 32 s, at HZ 1000; kernel/time/timer.c), each repeat
/// counts from the one before, and packets come a little apart.
const WATCH_MS: [u32; 6] = [BASE_MS, 1_400, 3_500, 7_700, 16_400, 33_200];
/// The first of these at which a repeat is due.
const FIRST_REPEAT: usize = 1;

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
    /// The same of what was cleared at the moment before.
    again: [VecDeque<Look>; WATCH_MS.len()],
    /// The scouts, whatever is known of them, with the moment of their look.
    scouts: Vec<(Look, usize)>,
    /// Watched and found clean: a keepalive is next, as the pace allows.
    ready: VecDeque<Look>,
    /// By how many seconds ago the keepalive was sent.
    sent: [VecDeque<Look>; KEEPALIVES as usize + 1],
    /// When dialing ended, in ms since the start and modulo 2^32.
    dialed_until: Option<u32>,
    /// When the unheard were last counted, in ms likewise.
    unheard_at: u32,
}

impl Confirmer {
    fn is_idle(&self) -> bool {
        let all = [&self.watched[..], &self.again, &self.sent];
        self.ready.is_empty()
            && self.scouts.is_empty()
            && all.into_iter().flatten().all(VecDeque::is_empty)
    }

    /// Whether looks are due that were too many for one time.
    fn is_due(&self, now: u32) -> bool {
        let all = [&self.watched[..], &self.again, &self.sent];
        let mut fronts = all.into_iter().flatten().filter_map(VecDeque::front);
        fronts.any(|look| is_due(look.due, now))
    }

    /// Looks at cleared ones that are still to come.
    fn doubtful(&self) -> u64 {
        self.again.iter().map(|queue| queue.len() as u64).sum()
    }

    /// Dialing has ended.
    pub(super) fn end_dialing(&mut self, now_ms: u32) {
        (self.dialed_until, self.unheard_at) = (Some(now_ms), now_ms);
    }

    /// What was last looked at before this moment, and is to be looked at again.
    fn unheard(&self, ended: u32) -> impl Iterator<Item = Look> {
        let moments = self.watched.iter().zip(WATCH_MS).skip(FIRST_REPEAT + 1);
        moments.zip(&WATCH_MS[FIRST_REPEAT..]).flat_map(move |((queue, _), before)| {
            let looked_at = |look: &Look| look.since.wrapping_add(*before);
            let is_before = move |look: &&Look| is_due(looked_at(look), ended);
            queue.iter().take_while(is_before).copied()
        })
    }

    fn watch(&mut self, look: Look, stage: usize) {
        let due = look.since.wrapping_add(WATCH_MS[stage]);
        self.watched[stage].push_back(Look { due, ..look });
    }

    fn watch_again(&mut self, look: Look, stage: usize) {
        if let (Some(after_ms), Some(queue)) =
            (WATCH_MS.get(stage), self.again.get_mut(stage))
        {
            queue.push_back(Look { due: look.since.wrapping_add(*after_ms), ..look });
        }
    }
}

/// The next of the moments at which a connection of this age is looked at.
fn stage_after(age_ms: u32) -> usize {
    let next = WATCH_MS.iter().position(|at| *at > age_ms);
    next.unwrap_or(WATCH_MS.len() - 1)
}

fn is_due(due: u32, now: u32) -> bool {
    // Modulo 2^32: what is less than half of that ahead is yet to come.
    let waits = due.wrapping_sub(now);
    waits == 0 || waits >= u32::MAX / 2
}

/// Takes the look at the front of a queue, if it is due.
fn due(queue: &mut VecDeque<Look>, now: u32) -> Option<Look> {
    if is_due(queue.front()?.due, now) { queue.pop_front() } else { None }
}

/// The connection that a look is about, if it is still there.
fn looked_at(conns: &mut Conns, look: Look) -> Option<&mut Conn> {
    let conn = conns.get(look.place)?;
    (conn.since == look.since && conn.state != State::Connecting).then_some(conn)
}

/// The same, if it is undecided.
fn undecided(conns: &mut Conns, look: Look) -> Option<&mut Conn> {
    looked_at(conns, look).filter(|conn| conn.proof != Proof::True)
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
        if latency_us < self.shared.way_us.load(Relaxed) {
            self.shared.way_us.fetch_min(latency_us, Relaxed);
        }
        let Some(conn) = self.conns.get(place) else { return };
        // One SYN-ACK has come by now.
        conn.segments = 1;
        let look = Look { place, since: conn.since, due: 0 };
        if self.shared.habit.take_scout() {
            self.confirmer.scouts.push((look, FIRST_REPEAT));
        }
        self.confirmer.watch(look, usize::from(!conn.slow));
    }

    /// Looks at what is due; returns for how many µs nothing more is.
    pub(super) fn confirm(&mut self, now_us: u64) -> u64 {
        if !self.shared.confirm {
            return u64::MAX;
        }
        if self.confirmer.is_idle() {
            self.gauges.unheard.store(0, Relaxed);
            return u64::MAX;
        }
        #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
        let now = (now_us / 1000) as u32;
        self.look_at_scouts(now);
        for stage in 0..WATCH_MS.len() {
            for _ in 0..LOOKS {
                let Some(look) = due(&mut self.confirmer.watched[stage], now) else {
                    break;
                };
                self.look_for_repeats(look, stage);
            }
            for _ in 0..LOOKS {
                let Some(look) = due(&mut self.confirmer.again[stage], now) else {
                    break;
                };
                self.look_again(look, stage);
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
        self.gauges.doubtful.store(self.confirmer.doubtful(), Relaxed);
        self.count_unheard(now);
        if self.confirmer.is_due(now) {
            return 0;
        }
        let waits =
            !self.confirmer.ready.is_empty() || !self.confirmer.sent[0].is_empty();
        if waits { PACE_US } else { u64::MAX }
    }

    /// A half-open one was admitted: the queue had room, and the others that were heard
    /// at the same repeat may have been admitted by it.
    fn note_admission(&self, at_ms: u32) {
        if self.confirmer.dialed_until.is_some() {
            self.shared.note_admission(at_ms.wrapping_add(WAVE_MS));
        }
    }

    /// The server may have admitted a half-open one when it last repeated its SYN-ACK: the
    /// next due repeat tells. Counts those of which none has since dialing ended, or since
    /// the queue was first seen to have room after that.
    fn count_unheard(&mut self, now: u32) {
        let half_open = self.gauges.half_open.load(Relaxed);
        let unheard = match self.confirmer.dialed_until {
            _ if half_open == 0 || self.shared.habit.waits_s().is_some() => 0,
            None => half_open,
            Some(_) if now.wrapping_sub(self.confirmer.unheard_at) < UNHEARD_MS => return,
            Some(ended) => {
                let looks = self.confirmer.unheard(self.shared.moved_at(ended));
                let half_open = |look: &Look| {
                    let conn = self.conns.at(look.place);
                    conn.is_some_and(|c| {
                        c.since == look.since && c.proof == Proof::HalfOpen
                    })
                };
                looks.filter(half_open).count() as u64
            }
        };
        self.confirmer.unheard_at = now;
        self.gauges.unheard.store(unheard, Relaxed);
    }

    /// Has a scout heard its SYN-ACK again? It was alone: no queue can have been full.
    fn look_at_scouts(&mut self, now: u32) {
        let mut at = 0;
        while let Some(&(look, stage)) = self.confirmer.scouts.get(at) {
            if !is_due(look.since.wrapping_add(WATCH_MS[stage]), now) {
                at += 1;
                continue;
            }
            self.confirmer.scouts.swap_remove(at);
            let Some(conn) = looked_at(&mut self.conns, look) else { continue };
            let Some(segments) = segments(conn) else { continue };
            // With a keepalive under way its ACK could not be told from a repeat; what the
            // server said is an answer of another kind.
            if conn.state != State::Open || conn.proof == Proof::Probing {
                continue;
            }
            let heard = segments > conn.segments;
            let (moment, repeated) =
                (stage - FIRST_REPEAT, heard && self.came(look, stage));
            self.shared.habit.note(moment, repeated);
            if !repeated && moment + 1 < REPEATS_S.len() {
                self.confirmer.scouts.push((look, stage + 1));
            }
        }
    }

    /// Whether any SYN-ACK was repeated here since the look before; else what a connection
    /// heard was a keepalive of the server's own.
    fn came(&self, look: Look, stage: usize) -> bool {
        let at = |stage: usize| look.since.wrapping_add(WATCH_MS[stage]);
        !self.shared.repeats.none_came(at(stage - 1), at(stage))
    }

    fn look_for_repeats(&mut self, look: Look, stage: usize) {
        let Some(conn) = undecided(&mut self.conns, look) else { return };
        let first = stage == FIRST_REPEAT && conn.proof == Proof::None;
        if first && self.shared.repeats.none_came(look.since, look.due) {
            self.confirmer.ready.push_back(look);
            self.confirmer.watch_again(look, stage + 1);
            return;
        }
        let Some(segments) = segments(conn) else { return };
        let heard = segments > conn.segments;
        conn.segments = segments;
        let (before, slow) = (conn.proof, conn.slow);
        if stage == 0 {
            // The first due repeat of a slow one may be over: the second is waited for.
            self.confirmer.watch(look, 2);
            return;
        }
        let repeated = heard && self.came(look, stage);
        let Some(conn) = undecided(&mut self.conns, look) else { return };
        if !repeated {
            conn.proof = Proof::None;
            if before == Proof::HalfOpen {
                self.gauges.no_half_open(slow);
                self.note_admission(look.due);
            }
            self.confirmer.ready.push_back(look);
            self.confirmer.watch_again(look, stage + 1);
            return;
        }
        // One repeat may come of a lost ACK; a second means that the server waits.
        conn.proof = if before == Proof::None { Proof::Suspect } else { Proof::HalfOpen };
        if conn.proof == Proof::HalfOpen && before != Proof::HalfOpen {
            self.gauges.half_open(slow);
        }
        if stage + 1 < WATCH_MS.len() {
            self.confirmer.watch(look, stage + 1);
        }
    }

    /// A repeat that stayed away may have been lost: has the next one come?
    fn look_again(&mut self, look: Look, stage: usize) {
        if !self.came(look, stage) {
            return;
        }
        let Some(conn) = looked_at(&mut self.conns, look) else { return };
        let cleared = matches!(conn.proof, Proof::None | Proof::True);
        if conn.state != State::Open || !cleared {
            return;
        }
        let Some(segments) = segments(conn) else { return };
        if segments > conn.segments {
            conn.segments = segments;
            self.condemn(look, stage);
        }
    }

    /// It was cleared, and its server goes on repeating the SYN-ACK all the same.
    fn condemn(&mut self, look: Look, stage: usize) {
        let Some(conn) = looked_at(&mut self.conns, look) else { return };
        if std::mem::replace(&mut conn.proof, Proof::HalfOpen) == Proof::True {
            drop_one(&self.gauges.confirmed);
        }
        self.gauges.half_open(conn.slow);
        if stage + 1 < WATCH_MS.len() {
            self.confirmer.watch(look, stage + 1);
        }
    }

    fn send_keepalive(&mut self, look: Look, now: u32) {
        let waits = |conn: &&mut Conn| conn.proof == Proof::None;
        let Some(conn) = undecided(&mut self.conns, look).filter(waits) else { return };
        let Some(fd) = conn.fd() else { return };
        let on = sockopt::set_socket_keepalive(fd, true).and_then(|()| ask(fd));
        if on.is_err() {
            // The connection has ended; its event is under way.
            return;
        }
        conn.proof = Proof::Probing;
        let due = now.wrapping_add(self.answer_ms());
        self.confirmer.sent[0].push_back(Look { due, ..look });
    }

    fn answer_ms(&self) -> u32 {
        if self.shared.quick { QUICK_ANSWER_MS } else { ANSWER_MS }
    }

    fn look_for_answer(&mut self, look: Look, asked: usize, now: u32) {
        let Some(conn) = undecided(&mut self.conns, look) else { return };
        let Some(segments) = segments(conn) else { return };
        if segments > conn.segments {
            let came = usize::from(segments - conn.segments);
            let sent = asked.max(1);
            conn.segments = segments;
            conn.proof = if came > sent { Proof::Suspect } else { Proof::True };
            if let Some(fd) = conn.fd() {
                // It is open, and this option cannot fail on a socket.
                let _ = sockopt::set_socket_keepalive(fd, false);
            }
            if came > sent {
                let next = stage_after(now.wrapping_sub(look.since));
                self.confirmer.watch(look, next);
                return;
            }
            bump(&self.gauges.confirmed);
            // Where each was answered, however late, nothing was lost.
            if came < sent {
                bump(&self.gauges.asked_again);
            }
            return;
        }
        if asked < usize::from(KEEPALIVES) {
            // The first look comes before it is time to ask again.
            if asked > 0
                && let Some(fd) = conn.fd()
            {
                let _ = ask(fd);
            }
            let waited = if asked == 0 { self.answer_ms() } else { 0 };
            let due = now.wrapping_add(AGAIN_MS - waited);
            self.confirmer.sent[asked + 1].push_back(Look { due, ..look });
            return;
        }
        if let Some(fd) = conn.fd() {
            // By RST, whatever --close says: the server must not be left with a part.
            let _ = socket2::SockRef::from(fd).set_linger(Some(Duration::ZERO));
        }
        self.gauges.phantom(conn.slow);
        self.forget(look.place);
    }

    /// What the server said proves the connection.
    pub(super) fn proven_by_words(&mut self, place: u32) {
        if !self.shared.confirm {
            return;
        }
        let Some(conn) = self.conns.get(place) else { return };
        let (before, slow) = (std::mem::replace(&mut conn.proof, Proof::True), conn.slow);
        match before {
            Proof::True => return,
            Proof::HalfOpen => self.gauges.no_half_open(slow),
            Proof::None | Proof::Suspect | Proof::Probing => {}
        }
        bump(&self.gauges.confirmed);
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
