//! The ramp: dials go on until a limit shows, and what shows it is named.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::dialer::FIRST as FIRST_OF_EACH;
use super::fleet::{Fleet, Totals};
use super::plan::Plan;
use super::shared::{Exhausted, KEEPALIVE_GAP_US, Phase, Shared};
use crate::host::ProcRoot;
use crate::verdict::Stop;

/// How often the ramp looks around.
const TICK: Duration = Duration::from_millis(20);
/// Without growth for so long, dials that only fail are slowed to a trickle.
const TRICKLE_AFTER_US: u64 = 150_000;
/// So many dials that failed, none that succeeded: nothing is there.
const ALL_FAILED: u64 = 16;
/// Without growth for so long when the time is over, it was a limit that stopped it.
const STILL_US: u64 = 1_000_000;
/// What the proof of a connection takes on a network without loss, beside the way: there
/// and back for the dial and for its keepalive, and as much again where that is looked for
/// too early.
const PROOF_US: u64 = 1_900_000;
const LONGEST_WAY_US: u64 = 1_000_000;
/// Without one more decided in so long, the rest cannot be: three keepalives, and the
/// second due repeat of a SYN-ACK, are less.
const DECIDED_WITHIN_US: u64 = 5_000_000;
/// The same where it is repeats that are waited for: those of 7 and 15 s are so far apart.
const UNHEARD_WITHIN_US: u64 = 9_500_000;
/// How long after its time is over a reply may be given up: a dialer naps.
const PING_SLACK_US: u64 = 200_000;
/// How often the pace of keepalives is looked at, and its slowest, in µs between two.
const PACE_EVERY_US: u64 = 100_000;
const KEEPALIVE_GAP_MAX_US: u64 = 5_000;
/// How often the memory that is left is looked at.
const MEMORY_EVERY_US: u64 = 250_000;
/// A queue is short where what it holds is dialed in so long.
const SHORT_QUEUE_US: u64 = 200_000;
/// What came so long ago and is not held yet is not about to be.
const ACCEPTED_WITHIN_US: u64 = 250_000;
/// What ARP or neighbour discovery takes to give up (EHOSTUNREACH after three tries a
/// second apart; arp(7)), and a little more: a silence is not called a filter before.
const NEIGHBOUR_US: u64 = 4_000_000;
/// Looks in a row that must miss the listener before it is called gone.
const GONE_LOOKS: u32 = 3;

/// What one look at the server's side shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Glance {
    /// Whether a LISTEN socket answers for the target.
    pub listening: bool,
    /// The length of its accept queue, of all its listeners together.
    pub queue_len: u64,
    /// Its effective backlog, of all its listeners together.
    pub backlog: u64,
    /// What its listeners have dropped, ever.
    pub drops: u64,
    /// The descriptors open in the fullest fd table of an owner.
    pub server_open_fds: Option<u64>,
    /// How long ago all this was so, at the most, in µs; 0: now.
    pub behind_us: u64,
}

/// Where looks at the server's side come from.
pub trait Watch {
    /// One look, cheap enough for fifty a second.
    ///
    /// # Errors
    /// What reading the host's tables gives; Unsupported: the server is out of sight.
    fn glance(&mut self) -> io::Result<Glance>;

    /// MemAvailable of this host, in bytes.
    fn mem_available(&mut self) -> Option<u64>;

    /// Packets that this host's queues have dropped (/proc/net/softnet_stat), ever.
    fn packets_dropped(&self) -> Option<u64>;
}

/// One look at both sides.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// µs since the start.
    pub at_us: u64,
    /// What is being done.
    pub phase: Phase,
    /// The client's side.
    pub totals: Totals,
    /// The server's side, where it can be seen.
    pub glance: Option<Glance>,
    /// Established less what is known to stand in the accept queue.
    pub held: u64,
    /// What is waited for, if dialing has come to a stand.
    pub waits_for: Option<&'static str>,
}

/// Receives every look; keeps the timeline, shows progress.
pub trait Observer {
    /// One look, as it happens.
    fn look(&mut self, look: &Look);

    /// Whether latency is above what the user allows, for good.
    fn is_too_slow(&self) -> bool;
}

/// The state of a ramp.
pub struct Ramp<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What the dialers share.
    pub shared: &'a Arc<Shared>,
    /// The dialers.
    pub fleet: &'a mut Fleet,
    /// The server's side and the host.
    pub watch: &'a mut dyn Watch,
    /// Whether `watch` can see the server.
    pub sees_server: bool,
    /// Set by Ctrl-C.
    pub interrupted: &'a AtomicBool,
    /// Who is told.
    pub observer: &'a mut dyn Observer,
    /// Where this host's counters are read.
    pub proc_root: &'a ProcRoot,
}

/// What the ramp remembers from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    best: u64,
    grew_at_us: u64,
    dialed_then: u64,
    ends_seen: u64,
    was_full: bool,
    was_listening: bool,
    /// When the accept queue was last longer than what is dialed in [`SHORT_QUEUE_US`].
    long_queue_at_us: u64,
    missed: u32,
    memory_at_us: u64,
    paced_at_us: u64,
    dropped: Option<u64>,
    last_glance: Option<Glance>,
}

impl Ramp<'_> {
    /// Dials until something stops it, and says what.
    ///
    /// # Errors
    /// What reading the host's tables gives, or the end of a dialer.
    pub fn run(&mut self) -> io::Result<Stop> {
        let mut memory = Memory::default();
        loop {
            thread::park_timeout(TICK);
            self.fleet.staff();
            let mut look = self.look(&mut memory);
            let stop = self.stop(&mut look, &mut memory);
            self.observer.look(&look);
            if let Some(stop) = stop {
                return Ok(stop);
            }
            if self.fleet.has_broken() {
                return Err(io::Error::other("a dialer ended early"));
            }
        }
    }

    /// One look, for the timeline: the peak.
    pub fn look_once(&mut self) {
        let look = self.look(&mut Memory::default());
        self.observer.look(&look);
    }

    /// Watches for `plan.hold`, until nothing is left, or until interrupted.
    pub fn hold(&mut self) {
        let from = self.shared.now_us();
        let until = from.saturating_add(micros(self.plan.hold));
        let mut memory = Memory::default();
        while self.shared.now_us() < until && !self.interrupted.load(Relaxed) {
            let left = Duration::from_micros(until.saturating_sub(self.shared.now_us()));
            thread::park_timeout(TICK.min(left));
            let look = self.look(&mut memory);
            self.observer.look(&look);
            if look.totals.open == 0 {
                // There is nothing left to hold.
                return;
            }
        }
    }

    /// Waits until each connection is known to be true or not, or to be served or not;
    /// or until it is plain that some cannot be known.
    pub fn prove(&mut self) {
        // A reply that does not come is given up when its time is over.
        let timeout = self.shared.service.as_ref().map_or(0, |s| micros(s.reply_timeout));
        let within = DECIDED_WITHIN_US.max(timeout.saturating_mul(2));
        let mut memory = Memory::default();
        let mut before = (u64::MAX, self.shared.now_us());
        while !self.interrupted.load(Relaxed) {
            thread::park_timeout(TICK);
            let look = self.look(&mut memory);
            self.observer.look(&look);
            let undecided = match self.shared.service {
                Some(_) => look.totals.awaited,
                None => {
                    // Without loss nothing is in doubt.
                    let lossy = look.totals.asked_again > 0;
                    let doubtful = if lossy { look.totals.doubtful } else { 0 };
                    look.totals.undecided() + doubtful + look.totals.unheard
                }
            };
            let within = if look.totals.unheard > 0 { UNHEARD_WITHIN_US } else { within };
            if undecided < before.0 {
                before = (undecided, look.at_us);
            }
            if undecided == 0 || look.at_us - before.1 > within {
                return;
            }
        }
    }

    /// Waits until what was asked again is answered or given up.
    pub fn hear_pings(&mut self) {
        let Some(service) = &self.shared.service else { return };
        let until = self.shared.now_us() + micros(service.reply_timeout) + PING_SLACK_US;
        let mut memory = Memory::default();
        while self.shared.now_us() < until && !self.interrupted.load(Relaxed) {
            let look = self.look(&mut memory);
            self.observer.look(&look);
            if look.totals.asked_pings == 0 {
                return;
            }
            thread::park_timeout(TICK);
        }
    }

    /// Looks for repeated SYN-ACKs, and fits the pace of keepalives to what this host's
    /// packet queues take.
    fn look_for_proof(&self, memory: &mut Memory, now: u64) {
        if !self.shared.confirm || now - memory.paced_at_us < PACE_EVERY_US {
            return;
        }
        memory.paced_at_us = now;
        #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Repeats` says
        self.shared.repeats.read(self.proc_root, (now / 1000) as u32);
        let Some(dropped) = self.watch.packets_dropped() else { return };
        let grew = memory.dropped.replace(dropped).is_some_and(|before| before < dropped);
        let gap = &self.shared.keepalive_gap_us;
        gap.store(next_gap(gap.load(Relaxed), grew), Relaxed);
    }

    fn look(&mut self, memory: &mut Memory) -> Look {
        let totals = self.fleet.totals();
        self.look_for_proof(memory, self.shared.now_us());
        let glance = match self.sees_server.then(|| self.watch.glance()) {
            Some(Ok(seen)) => Some(seen),
            Some(Err(error)) if error.kind() == io::ErrorKind::Unsupported => None,
            _ => memory.last_glance,
        };
        memory.last_glance = glance;
        let queued = glance.map_or(0, |g| g.queue_len);
        Look {
            at_us: self.shared.now_us(),
            phase: self.shared.phase(),
            totals,
            glance,
            held: if self.shared.service.is_some() {
                totals.served
            } else if self.shared.confirm {
                totals.confirmed.saturating_sub(queued)
            } else {
                totals.open.saturating_sub(queued)
            },
            waits_for: None,
        }
    }

    fn stop(&mut self, look: &mut Look, memory: &mut Memory) -> Option<Stop> {
        let (t, now) = (look.totals, look.at_us);
        if self.interrupted.load(Relaxed) {
            return Some(Stop::Interrupted);
        }
        if look.held > memory.best {
            (memory.best, memory.grew_at_us) = (look.held, now);
            memory.dialed_then = t.dialed;
        }
        // What it takes is at least what came on average.
        let queue_us =
            look.glance.map_or(0, |g| g.queue_len * now / t.established.max(1));
        if queue_us > SHORT_QUEUE_US {
            memory.long_queue_at_us = now;
        }
        let still_us = now - memory.grew_at_us;
        let ends = t.failed + t.closed() + t.phantoms + t.unserved;
        let failing = std::mem::replace(&mut memory.ends_seen, ends) < ends;
        // What the server accepts and closes at once is open for a moment too.
        let full = self.plan.max.is_some_and(|max| t.open >= max);
        let all_stay = std::mem::replace(&mut memory.was_full, full) && full && !failing;
        if still_us > TRICKLE_AFTER_US && failing {
            self.shared.schedule.trickle(true);
        } else if still_us == 0 {
            self.shared.schedule.trickle(false);
        }
        self.server_gone(look, memory)
            .or_else(|| self.nothing_there(look))
            .or_else(|| self.all_there(look, still_us, all_stay))
            .or_else(|| self.own_end(look, still_us))
            .or_else(|| self.losing(look, memory))
            .or_else(|| self.observer.is_too_slow().then_some(Stop::Latency))
            .or_else(|| self.short_of_memory(now, memory))
            .or_else(|| {
                let over = now >= micros(self.plan.time_limit);
                let still = still_us >= STILL_US;
                over.then_some(if still { Stop::Plateau } else { Stop::TimeLimit })
            })
            .or_else(|| self.plateau(look, memory, still_us))
    }

    fn server_gone(&self, look: &Look, memory: &mut Memory) -> Option<Stop> {
        let listening = look.glance?.listening;
        memory.was_listening |= listening;
        memory.missed = if listening { 0 } else { memory.missed + 1 };
        (memory.was_listening && memory.missed >= GONE_LOOKS).then_some(Stop::ServerGone)
    }

    /// Every dial was answered, none by a connection.
    fn nothing_there(&self, look: &Look) -> Option<Stop> {
        let t = look.totals;
        let busy = super::shared::lock(&self.shared.errors)
            .get(&libc::EAGAIN)
            .copied()
            .unwrap_or(0);
        let refused = t.failed - busy.min(t.failed);
        (t.established == 0 && refused >= ALL_FAILED).then_some(Stop::AllFailed)
    }

    /// All that was asked for is open; what is queued may still be accepted.
    fn all_there(&self, look: &mut Look, still_us: u64, all_stay: bool) -> Option<Stop> {
        if !all_stay {
            return None;
        }
        let queued = look.totals.open.saturating_sub(look.held);
        let limit = micros(self.plan.patience) + self.proof_us(look);
        let over = still_us >= limit && !is_about_to_grow(look, still_us - limit);
        if (queued == 0 && is_later(look, still_us)) || over {
            return Some(if queued == 0 { Stop::MaxReached } else { Stop::Plateau });
        }
        look.waits_for = Some(if self.shared.service.is_some() {
            "the server to answer"
        } else if self.shared.confirm {
            "proof that the server has them all"
        } else {
            "the queue to be accepted"
        });
        None
    }

    /// What it may take until a connection counts as held.
    fn proof_us(&self, look: &Look) -> u64 {
        match &self.shared.service {
            Some(service) if look.totals.awaited > 0 => micros(service.reply_timeout),
            // What is deferred for a short time looks half-open until then.
            None if self.shared.confirm => {
                let deferred = match self.shared.habit.waits_s() {
                    Some(wait @ 1..=3) => micros(Duration::from_secs(wait * 2)),
                    _ => 0,
                };
                let way = self.shared.way_us.load(Relaxed).min(LONGEST_WAY_US);
                PROOF_US + deferred + way * 4
            }
            _ => 0,
        }
    }

    /// This side can open no more, and what it opened has been answered.
    fn own_end(&self, look: &mut Look, still_us: u64) -> Option<Stop> {
        let stop = match self.shared.exhausted() {
            Some(Exhausted::Tuples) => Stop::NoTuples,
            Some(Exhausted::Files) => Stop::NoFiles,
            Some(Exhausted::Memory) => Stop::NoMemory,
            None if self.fleet.is_full() => Stop::TablesFull,
            None => return None,
        };
        let settled = look.totals.in_flight == 0
            && look.held == look.totals.open
            && is_later(look, still_us);
        if settled || still_us >= micros(self.plan.patience) {
            return Some(stop);
        }
        look.waits_for = Some("answers to the last dials");
        None
    }

    /// The server drops what it already held.
    fn losing(&self, look: &Look, memory: &Memory) -> Option<Stop> {
        let t = look.totals;
        let tolerated = (memory.best / 100).max(10);
        if t.closed_old <= tolerated {
            return None;
        }
        // Those turned away may have waited a second for it in a long accept queue; what
        // was answered has not, nor what came when none was long, nor the very first.
        let first = t.elders.min(t.tables * FIRST_OF_EACH);
        let held = t.closed_served > tolerated
            || look.glance.is_some() && look.at_us >= memory.long_queue_at_us + STILL_US
            || t.first_lost > first / 8;
        held.then_some(Stop::Losing)
    }

    fn short_of_memory(&mut self, now: u64, memory: &mut Memory) -> Option<Stop> {
        if now - memory.memory_at_us < MEMORY_EVERY_US {
            return None;
        }
        memory.memory_at_us = now;
        let left = self.watch.mem_available()?;
        (left < self.plan.memory_floor_bytes).then_some(Stop::MemoryFloor)
    }

    /// What is held stands still though dials go on. (At 0.1/s nothing is dialed for
    /// longer than patience lasts.)
    fn plateau(&self, look: &mut Look, memory: &Memory, still_us: u64) -> Option<Stop> {
        let t = look.totals;
        if t.in_flight == 0 && t.dialed == memory.dialed_then {
            return None;
        }
        let unanswered = t.established == 0 && t.failed == 0 && !self.shared.quick;
        let neighbour = if unanswered { NEIGHBOUR_US } else { 0 };
        let proof = self.proof_us(look);
        let limit = (micros(self.plan.patience) + proof).max(neighbour);
        if still_us >= limit && !is_about_to_grow(look, still_us - limit) {
            return Some(Stop::Plateau);
        }
        if still_us > TRICKLE_AFTER_US {
            look.waits_for = Some("more to be held");
        }
        None
    }
}

/// Between two keepalives from now on, in µs: twice as much where packets were dropped,
/// and a little less where not.
fn next_gap(gap_us: u64, dropped: bool) -> u64 {
    let gap_us = if dropped { gap_us * 2 } else { gap_us - gap_us / 10 };
    gap_us.clamp(KEEPALIVE_GAP_US, KEEPALIVE_GAP_MAX_US)
}

/// Whether what was established just now may still count as held: a SYN that was sent
/// again comes through when patience is nearly over, and is then accepted.
fn is_about_to_grow(look: &Look, late_us: u64) -> bool {
    let young = look.at_us < look.totals.established_at_us + ACCEPTED_WITHIN_US;
    young && look.totals.open > look.held && late_us < ACCEPTED_WITHIN_US
}

/// Whether the server was looked at after the last connection came, so that its queue
/// would show that.
fn is_later(look: &Look, still_us: u64) -> bool {
    look.glance.is_none_or(|glance| glance.behind_us <= still_us)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last of 299 came by its second SYN, and stands in the queue when patience ends.
    #[test]
    fn what_came_just_now_is_waited_for_and_not_for_long() {
        let totals =
            Totals { established_at_us: 1_030_000, open: 299, ..Totals::default() };
        let look = Look {
            at_us: 1_034_000,
            phase: Phase::Fill,
            totals,
            glance: None,
            held: 298,
            waits_for: None,
        };
        assert!(is_about_to_grow(&look, 4_000));
        assert!(!is_about_to_grow(&look, 250_000), "it may come to nothing");
        assert!(
            !is_about_to_grow(&Look { at_us: 1_290_000, ..look }, 4_000),
            "it is old"
        );
        assert!(!is_about_to_grow(&Look { held: 299, ..look }, 4_000), "it is held");
    }

    #[test]
    fn keepalives_slow_down_where_packets_are_dropped_and_recover() {
        let slower = (0..4).fold(KEEPALIVE_GAP_US, |gap, _| next_gap(gap, true));
        assert_eq!(slower, KEEPALIVE_GAP_US * 16);
        assert_eq!(next_gap(KEEPALIVE_GAP_MAX_US, true), KEEPALIVE_GAP_MAX_US);
        let recovered = (0..60).fold(slower, |gap, _| next_gap(gap, false));
        assert_eq!(recovered, KEEPALIVE_GAP_US);
        // 20,000 a second are the most.
        assert_eq!(1_000_000 / KEEPALIVE_GAP_US, 20_000);
    }
}
