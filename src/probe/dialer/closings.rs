//! The ends of connections, and what their ages tell of who ended them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use socket2::SockRef;

use super::super::conns::{Conn, Proof, Reply};
use super::super::plan::Close;
use super::super::shared::{Phase, bump, drop_one, lock};
use super::{Dialer, FIRST};
use crate::kernel::fd_table::LocalFd;
use crate::kernel::tcp_info::TcpInfo;

/// Lifetimes are told apart up to a day, to 1 %.
const LIFETIME_MAX_MS: u64 = 86_400_000;
/// One that ended within so long was never held: the server turned it away.
const NEVER_HELD_MS: u32 = 100;
/// What a repeat of the SYN-ACK may come too early by: this side counts from the first.
const SYN_ACK_EARLY_MS: u32 = 20;
/// What ended within so long is young; and a little more in µs, for the one counts from
/// a whole ms.
const YOUNG_MS: u32 = 1000;
const YOUNG_MAX_US: u64 = 1_002_000;
/// Moments that are kept of a sample, at the most.
const SAMPLE_MAX: usize = 2048;

/// What a dialer saw of the connections that the server ended.
#[derive(Debug, Clone, Default)]
pub struct Closings {
    /// For how many µs each had been open, of those that were asked nothing and ended
    /// within a second; None where there were none.
    pub young_us: Option<Histogram<u64>>,
    /// For how many ms each had been open and silent, of those held for a while; None
    /// where there were none.
    pub silent_ms: Option<Histogram<u64>>,
    /// When those that ended while others were still dialed had been established, in µs
    /// since the start.
    pub ended_since_us: Sample<u64>,
    /// When those that had been held for a while ended, and when they had been
    /// established, likewise.
    pub lives_us: Sample<(u64, u64)>,
}

/// An even sample of moments, of bounded size.
#[derive(Debug, Clone)]
pub struct Sample<T> {
    kept: Vec<T>,
    every: u32,
    seen: u32,
}

impl<T> Default for Sample<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), every: 1, seen: 0 }
    }
}

impl<T> Sample<T> {
    /// Adds a moment.
    pub fn push(&mut self, moment: T) {
        if self.seen.is_multiple_of(self.every) {
            self.kept.push(moment);
        }
        self.seen = self.seen.wrapping_add(1);
        if self.kept.len() >= SAMPLE_MAX {
            let mut nth = 0_u32;
            self.kept.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.every = self.every.saturating_mul(2);
        }
    }

    /// Those that are kept, each with how many it stands for.
    pub fn weighed(&self) -> impl Iterator<Item = (T, u32)>
    where
        T: Copy,
    {
        self.kept.iter().map(|moment| (*moment, self.every))
    }

    /// Those that are kept, in the order in which they came.
    #[must_use]
    pub fn kept(&self) -> &[T] {
        &self.kept
    }
}

impl<T> FromIterator<T> for Sample<T> {
    fn from_iter<I: IntoIterator<Item = T>>(moments: I) -> Self {
        let mut sample = Self::default();
        moments.into_iter().for_each(|moment| sample.push(moment));
        sample
    }
}

impl Closings {
    /// Notes the end of a connection that had been silent for so long; None where it was
    /// never held. `life_us` is when it ended and when it had been established; `dialing` is
    /// whether others are still dialed.
    pub(in crate::probe) fn note(
        &mut self,
        silent_ms: Option<u32>,
        life_us: (u64, u64),
        dialing: bool,
    ) {
        if let Some(silent_ms) = silent_ms {
            self.lives_us.push(life_us);
            let histogram = self.silent_ms.get_or_insert_with(|| up_to(LIFETIME_MAX_MS));
            histogram.saturating_record(u64::from(silent_ms));
        }
        if dialing {
            self.ended_since_us.push(life_us.1);
        }
    }
}

impl Closings {
    /// Notes for how long one had been open that ended young.
    fn note_young(&mut self, lived_us: u32) {
        let histogram = self.young_us.get_or_insert_with(|| up_to(YOUNG_MAX_US));
        histogram.saturating_record(u64::from(lived_us));
    }
}

/// An empty histogram from 1 to `most`, to 1 %.
fn up_to(most: u64) -> Histogram<u64> {
    Histogram::new_with_bounds(1, most, 2)
        .unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

/// Whether a connection of that age has only just come to the server, which ended it at
/// once: when its handshake ended the accept queue was full, and the server knew half of it
/// until it repeated its SYN-ACK, after 1 s, 3 s and so on (RFC 6298, an RTO of 1 s). Such
/// a repeat shows as a segment more than the SYN-ACK and the end.
fn came_late(conn: &Conn, lived_ms: u32) -> bool {
    let repeats_ms = (1..=6).map(|nth| ((1 << nth) - 1) * 1000);
    let mut soon_after = repeats_ms.map(|at| at - SYN_ACK_EARLY_MS..at + at / 4);
    // What was asked is acknowledged, and so is a keepalive.
    if conn.reply != Reply::None
        || matches!(conn.proof, Proof::Probing | Proof::True)
        || !soon_after.any(|span| span.contains(&lived_ms))
    {
        return false;
    }
    let info = conn.fd().and_then(|fd| TcpInfo::of(fd).ok());
    let bare = info.and_then(|info| info.segs_in?.checked_sub(info.data_segs_in?));
    bare.is_some_and(|segments| segments > 2)
}

impl Dialer {
    /// The server ended an established connection.
    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
    pub(super) fn closed(&mut self, place: u32, now: u64, kind: &AtomicU64) {
        let Some(conn) = self.conns.get(place) else { return };
        let now_ms = (now / 1000) as u32;
        let (since_us, lived_ms) =
            (conn.established_us(), now_ms.wrapping_sub(conn.since));
        let (proof, reply, asked) = (conn.proof, conn.reply, conn.asked);
        let slow = conn.slow;
        let late = came_late(conn, lived_ms);
        let elder = self.elders.get(&place).copied();
        self.forget(place);
        let g = &self.gauges;
        let is_reset = std::ptr::eq(kind, &raw const g.closed_reset);
        if proof == Proof::Probing && is_reset {
            // The answer to its keepalive: the server has no such connection.
            g.phantom(slow);
        } else {
            bump(kind);
            if is_reset && slow {
                bump(&g.slow_resets);
            }
            if !late && lived_ms >= YOUNG_MS {
                bump(&g.closed_old);
                if reply.is_served() {
                    bump(&g.closed_served);
                }
                if elder.is_some_and(|nth| nth < FIRST) {
                    bump(&g.first_lost);
                }
            }
            if reply == Reply::AskedAgain {
                bump(&g.forgotten);
            }
            if let Reply::Unserved(why) = reply
                && std::ptr::eq(kind, &raw const g.closed_after_words)
            {
                *lock(&self.shared.refusals).entry(why).or_default() += 1;
            }
            if lived_ms < YOUNG_MS && self.shared.service.is_none() {
                self.closings.note_young((now as u32).wrapping_sub(asked));
            }
            let pings = self.shared.service.as_ref().is_some_and(|s| s.ping.is_some());
            let asked_ms = (now as u32).wrapping_sub(asked) / 1000;
            let dialing = self.shared.phase() == Phase::Fill;
            let silent_ms = if pings { asked_ms } else { lived_ms };
            let held = !late && silent_ms >= NEVER_HELD_MS;
            self.closings.note(held.then_some(silent_ms), (now, since_us), dialing);
        }
    }

    /// Closes an established connection, and strikes it from all lists.
    pub(super) fn forget(&mut self, place: u32) {
        let Some(conn) = self.conns.get(place) else { return };
        let (tuple, proof, reply) = (conn.tuple(), conn.proof, conn.reply);
        let slow = conn.slow;
        self.end_serving(place, reply);
        if self.shared.tuples.is_some() {
            self.shared.held.remove(tuple);
            self.share.put_back(tuple);
        } else {
            lock(&self.shared.inodes).remove(&u64::from(tuple.source));
        }
        self.said.remove(&place);
        if let Some(fd) = self.conns.remove(place) {
            self.close(fd);
        }
        let g = &self.gauges;
        if self.elders.remove(&place).is_some() {
            drop_one(&g.elders_open);
        }
        match proof {
            Proof::True => drop_one(&g.confirmed),
            Proof::HalfOpen => g.no_half_open(slow),
            Proof::None | Proof::Suspect | Proof::Probing => {}
        }
        drop_one(&g.open);
        g.full.store(false, Relaxed);
        self.shared.release();
    }

    pub(super) fn close(&self, fd: LocalFd) {
        if self.shared.close == Close::Rst {
            let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
        }
        drop(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_stays_small_and_even() {
        let sample: Sample<u32> = (0..100_000).collect();
        assert!((512..SAMPLE_MAX).contains(&sample.kept().len()));
        let gaps: Vec<u32> = sample.kept().windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{gaps:?}");
    }

    #[test]
    fn what_was_never_held_has_no_lifetime() {
        let mut closings = Closings::default();
        closings.note(None, (9_000, 4_000), true);
        assert!(closings.silent_ms.is_none() && closings.lives_us.kept().is_empty());
        closings.note(Some(2000), (2_004_100, 4_100), false);
        assert_eq!(closings.lives_us.kept(), [(2_004_100, 4_100)]);
        assert_eq!(closings.silent_ms.map(|h| h.len()), Some(1));
        assert_eq!(closings.ended_since_us.kept(), [4_000]);
    }
}
