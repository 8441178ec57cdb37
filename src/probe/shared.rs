//! What the dialers and the ramp share: atomics, and locks that are not on the hot path.
//! No descriptor is in here, since the dialers' tables are not the process's.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering,
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use hdrhistogram::Histogram;
use socket2::{Domain, SockAddr};

use super::habit::Habit;
use super::held::HeldSet;
use super::plan::Close;
use super::repeats::Repeats;
use super::service::{Service, Unserved};
use super::tuples::Tuples;

use Ordering::Relaxed;

/// The longest latency told apart, in µs.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Between two dials of a trickle, in µs: 200 a second.
const TRICKLE_US: u64 = 5_000;

/// Between two keepalives, in µs: 20,000 a second, which the per-CPU backlog of packets
/// (net.core.netdev_max_backlog) takes.
pub const KEEPALIVE_GAP_US: u64 = 50;

/// For so long unused turns may be caught up with, in µs: 200 at once.
const KEEPALIVE_CREDIT_US: u64 = 10_000;

/// How many of the servers' farewells are kept.
const WORDS_MAX: usize = 8;

/// What the dialers are to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Dial.
    Fill,
    /// Give up what is unanswered; go on proving what is established.
    Prove,
    /// Report.
    Settle,
    /// Keep what is open and watch it.
    Hold,
    /// Report what has become of it.
    Recheck,
    /// Close all and end.
    Drain,
}

/// An end of this side's own, which no other four-tuple, address or fd table gets round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exhausted {
    /// Every four-tuple is in use.
    Tuples = 1,
    /// ENFILE: fs.file-max.
    Files,
    /// ENOBUFS or ENOMEM.
    Memory,
}

/// The state that all threads of one probe share.
#[derive(Debug)]
pub struct Shared {
    /// The address dialed.
    pub address: SockAddr,
    /// Its family.
    pub domain: Domain,
    /// Whether dials complete inside connect(), since they do not leave this host.
    pub quick: bool,
    /// How many dials one dialer has in flight at the most.
    pub window: usize,
    /// Whether this is one burst: `max` dials are made in all, none of which waits for
    /// what becomes of another.
    pub one_burst: bool,
    /// How long a dial may take, in µs.
    pub connect_timeout_us: u64,
    /// How connections are closed.
    pub close: Close,
    /// The most connections open or being opened.
    pub max: i64,
    /// Whether the server's end of each connection is to be proven from this side.
    pub confirm: bool,
    /// What is asked on each connection, if anything is.
    pub service: Option<Service>,
    /// Connections open now that are not served, by why.
    pub unserved: Mutex<BTreeMap<Unserved, u64>>,
    /// Connections that the server ended after a reply that was no answer, by which.
    pub refusals: Mutex<BTreeMap<Unserved, u64>>,
    /// Between two keepalives of all dialers, in µs.
    pub keepalive_gap_us: AtomicU64,
    next_keepalive_us: AtomicU64,
    /// What the first dials show of the listener.
    pub habit: Habit,
    /// Whether SYN-ACKs were repeated.
    pub repeats: Repeats,
    /// See [`Shared::moved_at`]; 0 while it is not known.
    moved_at_ms: AtomicU32,
    /// The shortest time that a dial took which is to be confirmed, in µs.
    pub way_us: AtomicU64,
    /// How many client ends each dialer describes when it settles.
    pub pairs: usize,
    /// Time zero of all µs in here.
    pub started: Instant,
    /// When dials are due.
    pub schedule: Schedule,
    /// The allocator; None for unix sockets, or where explicit binding is impossible.
    pub tuples: Option<Tuples>,
    /// The four-tuples established now.
    pub held: HeldSet,
    /// The inodes of established unix sockets.
    pub inodes: Mutex<HashSet<u64>>,
    /// Latencies since they were last taken, one histogram for each filling dialer.
    pub latencies: Vec<Mutex<Histogram<u64>>>,
    /// The same of replies; none where nothing is asked.
    pub reply_latencies: Vec<Mutex<Histogram<u64>>>,
    /// errno of failed dials and how often each came.
    pub errors: Mutex<BTreeMap<i32, u64>>,
    /// What servers said before they closed.
    pub words: Mutex<Vec<Vec<u8>>>,
    /// Connections open or being opened.
    open: AtomicI64,
    phase: AtomicU8,
    exhausted: AtomicU8,
    main: Thread,
}

/// What a [`Shared`] is made from.
#[derive(Debug)]
pub struct Settings {
    /// See [`Shared::address`].
    pub address: SockAddr,
    /// See [`Shared::domain`].
    pub domain: Domain,
    /// See [`Shared::quick`].
    pub quick: bool,
    /// See [`Shared::window`].
    pub window: usize,
    /// See [`Shared::one_burst`].
    pub one_burst: bool,
    /// See [`Shared::connect_timeout_us`].
    pub connect_timeout_us: u64,
    /// See [`Shared::close`].
    pub close: Close,
    /// The most connections; None: no end.
    pub max: Option<u64>,
    /// See [`Shared::confirm`].
    pub confirm: bool,
    /// See [`Shared::service`].
    pub service: Option<Service>,
    /// See [`Shared::pairs`].
    pub pairs: usize,
    /// Dials a second.
    pub rate: Option<f64>,
    /// See [`Shared::tuples`].
    pub tuples: Option<Tuples>,
    /// How many dialers fill at a time.
    pub filling: usize,
}

impl Shared {
    /// The state at the start of a probe, owned by the calling (main) thread.
    #[must_use]
    pub fn new(s: Settings) -> Self {
        let sources = s.tuples.as_ref().map_or(0, |t| t.sources().len());
        Self {
            address: s.address,
            domain: s.domain,
            quick: s.quick,
            window: s.window,
            one_burst: s.one_burst,
            connect_timeout_us: s.connect_timeout_us,
            close: s.close,
            max: s.max.and_then(|max| i64::try_from(max).ok()).unwrap_or(i64::MAX),
            confirm: s.confirm,
            unserved: Mutex::default(),
            refusals: Mutex::default(),
            keepalive_gap_us: AtomicU64::new(KEEPALIVE_GAP_US),
            next_keepalive_us: AtomicU64::new(0),
            habit: Habit::new(s.confirm && !s.one_burst),
            repeats: Repeats::default(),
            moved_at_ms: AtomicU32::new(0),
            way_us: AtomicU64::new(u64::MAX),
            pairs: s.pairs,
            started: Instant::now(),
            schedule: Schedule { rate: s.rate, ..Schedule::default() },
            tuples: s.tuples,
            held: HeldSet::new(sources),
            inodes: Mutex::default(),
            latencies: (0..s.filling).map(|_| Mutex::new(histogram())).collect(),
            reply_latencies: match s.service {
                Some(_) => (0..s.filling).map(|_| Mutex::new(histogram())).collect(),
                None => Vec::new(),
            },
            service: s.service,
            errors: Mutex::default(),
            words: Mutex::default(),
            open: AtomicI64::new(0),
            phase: AtomicU8::new(Phase::Fill as u8),
            exhausted: AtomicU8::new(0),
            main: std::thread::current(),
        }
    }

    /// µs since the start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What is to be done now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Fill,
            1 => Phase::Prove,
            2 => Phase::Settle,
            3 => Phase::Hold,
            4 => Phase::Recheck,
            _ => Phase::Drain,
        }
    }

    /// Sets what is to be done from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Takes room for one more connection, unless the maximum is reached.
    pub fn reserve(&self) -> bool {
        if self.open.fetch_add(1, Relaxed) < self.max {
            return true;
        }
        self.unreserve();
        false
    }

    /// Gives room back that was taken for a dial which was not made.
    pub fn unreserve(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// Gives the room of a connection that has ended back; a burst uses each once.
    pub fn release(&self) {
        if !self.one_burst {
            self.unreserve();
        }
    }

    /// Connections open or being opened; in a burst, all that were ever dialed.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.open.load(Relaxed)
    }

    /// Notes that the accept queue was seen to have room at this ms since the start,
    /// modulo 2^32; the first time counts.
    pub fn note_admission(&self, at_ms: u32) {
        let _ = self.moved_at_ms.compare_exchange(0, at_ms.max(1), Relaxed, Relaxed);
    }

    /// When the accept queue was first seen to have room after dialing had ended; else
    /// when that was.
    #[must_use]
    pub fn moved_at(&self, ended_ms: u32) -> u32 {
        match self.moved_at_ms.load(Relaxed) {
            0 => ended_ms,
            moved => moved,
        }
    }

    /// Takes a turn to send a keepalive, if one is due.
    pub fn take_keepalive(&self, now_us: u64) -> bool {
        let next = self.next_keepalive_us.load(Relaxed);
        if next > now_us {
            return false;
        }
        let gap = self.keepalive_gap_us.load(Relaxed);
        let after = next.max(now_us.saturating_sub(KEEPALIVE_CREDIT_US)) + gap;
        self.next_keepalive_us.compare_exchange(next, after, Relaxed, Relaxed).is_ok()
    }

    /// Records an end of this side's own; the first stands.
    pub fn exhaust(&self, why: Exhausted) {
        let _ = self.exhausted.compare_exchange(0, why as u8, Relaxed, Relaxed);
        self.main.unpark();
    }

    /// The end of this side's own that was met, if one was.
    #[must_use]
    pub fn exhausted(&self) -> Option<Exhausted> {
        match self.exhausted.load(Relaxed) {
            0 => None,
            1 => Some(Exhausted::Tuples),
            2 => Some(Exhausted::Files),
            _ => Some(Exhausted::Memory),
        }
    }

    /// Wakes the main thread: a table is full, or something ended.
    pub fn wake_main(&self) {
        self.main.unpark();
    }

    /// Counts a failed dial by its errno.
    pub fn count_error(&self, errno: i32) {
        *lock(&self.errors).entry(errno).or_default() += 1;
    }

    /// Keeps what a server said before it closed, of the first few.
    pub fn keep_words(&self, said: Vec<u8>) {
        let mut words = lock(&self.words);
        if words.len() < WORDS_MAX {
            words.push(said);
        }
    }
}

/// Locks, whatever a panicking thread left: the data are counters.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty latency histogram: 1 µs to 120 s, three digits.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are constants and in order"));
    histogram.auto(false);
    histogram
}

/// Whether a dial may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Now; it was due at this µs.
    Due(u64),
    /// Not before this µs.
    NotBefore(u64),
}

/// When dials are due: open loop at a rate, at once, or a trickle.
#[derive(Debug, Default)]
pub struct Schedule {
    rate: Option<f64>,
    /// The µs at which dial 0 is due, and 1, so that 0 means not yet.
    begun_us: AtomicU64,
    next: AtomicU64,
    trickling: AtomicBool,
    /// Between two dials that are not due by a rate, in µs.
    gap_us: AtomicU64,
    next_paced_us: AtomicU64,
}

impl Schedule {
    /// Asks for the next dial; a scout is due at once, and the schedule begins after the
    /// last of them. With a rate, dial i is due at i/rate, however late its
    /// turn comes; a trickle holds back dials that only fail, but never an open loop.
    pub fn take(&self, now_us: u64, scout: bool) -> Permit {
        if scout {
            return Permit::Due(now_us);
        }
        let Some(rate) = self.rate else { return self.unpaced(now_us) };
        let begin = self.begun_us.compare_exchange(0, now_us + 1, Relaxed, Relaxed);
        let begun_us = begin.map_or_else(|begun| begun - 1, |_| now_us);
        loop {
            let turn = self.next.load(Relaxed);
            let due = begun_us + due_us(turn, rate);
            if due > now_us {
                return Permit::NotBefore(due);
            }
            if self.next.compare_exchange(turn, turn + 1, Relaxed, Relaxed).is_ok() {
                return Permit::Due(due);
            }
        }
    }

    /// Dials go on after all that was asked for had been open: none was due meanwhile.
    pub fn resume(&self, now_us: u64) {
        let Some(rate) = self.rate else { return };
        let next = due_us(self.next.load(Relaxed), rate);
        if self.begun_us.load(Relaxed) > 0 {
            self.begun_us.fetch_max((now_us + 1).saturating_sub(next), Relaxed);
        }
    }

    fn unpaced(&self, now_us: u64) -> Permit {
        let trickle = if self.trickling.load(Relaxed) { TRICKLE_US } else { 0 };
        let gap_us = self.gap_us.load(Relaxed).max(trickle);
        if gap_us == 0 {
            return Permit::Due(now_us);
        }
        let next = self.next_paced_us.load(Relaxed);
        if next > now_us {
            return Permit::NotBefore(next);
        }
        let after = now_us + gap_us;
        match self.next_paced_us.compare_exchange(next, after, Relaxed, Relaxed) {
            Ok(_) => Permit::Due(now_us),
            Err(_) => Permit::NotBefore(after),
        }
    }

    /// Begins or ends the trickle.
    pub fn trickle(&self, on: bool) {
        self.trickling.store(on, Relaxed);
    }

    /// From now on dials come no faster than one in so many µs; a rate is kept all the
    /// same.
    pub fn pace(&self, gap_us: u64) {
        self.gap_us.store(gap_us, Relaxed);
    }

    /// Whether dials come at a fixed rate.
    #[must_use]
    pub fn is_open_loop(&self) -> bool {
        self.rate.is_some()
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn due_us(turn: u64, rate: f64) -> u64 {
    // Exact to a µs for the 2^53 µs (285 years) that a f64 counts without gaps.
    (turn as f64 * 1e6 / rate) as u64
}

/// Counters of one dialer, written by it alone and read by the ramp.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauges {
    /// connect() calls that put a SYN out (or its like on a unix socket).
    pub dialed: AtomicU64,
    /// Dials without an answer yet.
    pub in_flight: AtomicU64,
    /// Dials that succeeded, ever.
    pub established: AtomicU64,
    /// When the last of these did, in µs since the start.
    pub established_at_us: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Dials answered by an error.
    pub failed: AtomicU64,
    /// Dials that outlived the connect timeout.
    pub timed_out: AtomicU64,
    /// Dials given up unanswered when the ramp ended.
    pub abandoned: AtomicU64,
    /// Closed by the server's FIN before it sent a byte.
    pub closed_silent: AtomicU64,
    /// Closed by the server, by FIN or RST, after it had said what is no answer.
    pub closed_after_words: AtomicU64,
    /// Closed by the server's FIN after it had answered what was asked.
    pub closed_answered: AtomicU64,
    /// Closed by a RST, or by another error of the connection, with no such words before.
    pub closed_reset: AtomicU64,
    /// Of the closed, those that had been open for a second or longer.
    pub closed_old: AtomicU64,
    /// Of these, those that had been answered.
    pub closed_served: AtomicU64,
    /// Proven to be the server's too, and open now.
    pub confirmed: AtomicU64,
    /// The server repeats its SYN-ACK for these; open now.
    pub half_open: AtomicU64,
    /// Phantoms closed: a RST, or silence, in answer to a keepalive.
    pub phantoms: AtomicU64,
    /// Of the phantoms of both kinds, those whose SYN had been sent again.
    pub slow_phantoms: AtomicU64,
    /// Of those closed by a RST, those whose SYN had been sent again.
    pub slow_resets: AtomicU64,
    /// Confirmed though a keepalive or its ACK was lost.
    pub asked_again: AtomicU64,
    /// To be looked at once more, since the packet that would unmask one may be lost.
    pub doubtful: AtomicU64,
    /// Half-open ones of which no due repeat has told since dialing ended.
    pub unheard: AtomicU64,
    /// The first reply is waited for; open now.
    pub awaited: AtomicU64,
    /// Answered, and open now.
    pub served: AtomicU64,
    /// Asked, and not answered as expected; open now.
    pub unserved: AtomicU64,
    /// Answers, ever.
    pub answered: AtomicU64,
    /// Times that a held connection was asked again, ever.
    pub pings: AtomicU64,
    /// Asked again and not yet answered; open now.
    pub asked_pings: AtomicU64,
    /// Connections that had been answered and were not when they were asked again, ever.
    pub forgotten: AtomicU64,
    /// The first connections, up to [`super::dialer::ELDERS`].
    pub elders: AtomicU64,
    /// Of these, those that are still open.
    pub elders_open: AtomicU64,
    /// Of the very first of these, those that ended after a second or longer.
    pub first_lost: AtomicU64,
    /// Tuples skipped since something else uses them.
    pub skipped: AtomicU64,
    /// The longest that a dial began after it was due, in µs (open loop only).
    pub late_max_us: AtomicU64,
    /// Dials that began more than a millisecond after they were due.
    pub late: AtomicU64,
    /// Descriptors open in this dialer's table.
    pub fds: AtomicU64,
    /// The table can take no more.
    pub full: AtomicBool,
    /// Explicit binding is forbidden here; the kernel chooses the ports.
    pub kernel_ports: AtomicBool,
}

impl Gauges {
    /// Counts one more of which the server has half.
    pub fn half_open(&self, slow: bool) {
        bump(&self.half_open);
        if slow {
            bump(&self.slow_phantoms);
        }
    }

    /// One less: it is closed, or turned out to be true.
    pub fn no_half_open(&self, slow: bool) {
        drop_one(&self.half_open);
        if slow {
            drop_one(&self.slow_phantoms);
        }
    }

    /// Counts a phantom that is closed.
    pub fn phantom(&self, slow: bool) {
        bump(&self.phantoms);
        if slow {
            bump(&self.slow_phantoms);
        }
    }
}

/// Adds one; for a counter that one thread alone writes.
pub fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// Takes one off; for a counter that one thread alone writes.
pub fn drop_one(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).saturating_sub(1), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dial_i_is_due_at_i_over_rate_however_late_it_is_taken() {
        let schedule = Schedule { rate: Some(1000.0), ..Schedule::default() };
        assert_eq!(schedule.take(0, false), Permit::Due(0));
        assert_eq!(schedule.take(0, false), Permit::NotBefore(1000));
        assert_eq!(schedule.take(2500, false), Permit::Due(1000));
        assert_eq!(schedule.take(2500, false), Permit::Due(2000));
        assert_eq!(schedule.take(2500, false), Permit::NotBefore(3000));
    }

    #[test]
    fn no_dial_is_due_while_all_that_was_asked_for_is_open() {
        let schedule = Schedule { rate: Some(1000.0), ..Schedule::default() };
        schedule.resume(5);
        assert_eq!(schedule.take(10, false), Permit::Due(10));
        assert_eq!(schedule.take(1010, false), Permit::Due(1010));
        schedule.resume(9000);
        assert_eq!(schedule.take(9005, false), Permit::Due(9000));
        assert_eq!(schedule.take(9005, false), Permit::NotBefore(10_000));
        // Nothing that is to come is put off.
        schedule.resume(9500);
        assert_eq!(schedule.take(10_000, false), Permit::Due(10_000));
    }

    #[test]
    fn a_trickle_spaces_dials_but_never_an_open_loop() {
        let unpaced = Schedule::default();
        assert_eq!(unpaced.take(7, false), Permit::Due(7));
        unpaced.trickle(true);
        assert_eq!(unpaced.take(10_000, false), Permit::Due(10_000));
        assert_eq!(unpaced.take(10_001, false), Permit::NotBefore(15_000));
        unpaced.trickle(false);
        unpaced.pace(200);
        assert_eq!(unpaced.take(20_000, false), Permit::Due(20_000));
        assert_eq!(unpaced.take(20_001, false), Permit::NotBefore(20_200));
        let paced = Schedule { rate: Some(1e6), ..Schedule::default() };
        paced.pace(9_000);
        paced.trickle(true);
        assert_eq!(paced.take(5, false), Permit::Due(5));
        assert_eq!(paced.take(7, false), Permit::Due(6));
    }
}
