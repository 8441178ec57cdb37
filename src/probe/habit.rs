//! Whether the listener waits for a first byte (TCP_DEFER_ACCEPT; tcp(7)), as the first
//! dials show it.
//!
//! They are made alone, before the ramp, so that no queue can be full of ours. A listener
//! that waits drops their bare ACKs, and repeats its SYN-ACK when the time is over, as a
//! last chance: after 1 s where it waits for up to 1 s, after 3 s for up to 3 s, after 7 s
//! for up to 7 s (net/ipv4/inet_connection_sock.c, syn_ack_recalc). Until then nothing
//! tells such a connection from one that was accepted: it ACKs keepalives. Later repeats
//! are not looked at, since a server's own keepalives are no rarer then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many dials are made alone.
pub(super) const SCOUTS: u64 = 3;
/// So many must have seen the same: one may have lost a packet.
const MOST: u64 = SCOUTS / 2 + 1;
/// When a SYN-ACK may be repeated, in seconds: and so the waits that can be told.
pub(super) const REPEATS_S: [u64; 3] = [1, 3, 7];

/// What the scouts found. Each of the three may find one thing for each repeat.
#[derive(Debug, Default)]
pub struct Habit {
    left: AtomicU64,
    repeated: [AtomicU64; REPEATS_S.len()],
    clean: [AtomicU64; REPEATS_S.len()],
}

impl Habit {
    /// Nothing is known; scouts are to be sent where `wanted`.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        let left = AtomicU64::new(if wanted { SCOUTS } else { 0 });
        Self { left, ..Self::default() }
    }

    /// Whether one of the first dials, each made alone, is still to be made.
    #[must_use]
    pub fn scouting(&self) -> bool {
        self.left.load(Relaxed) > 0
    }

    /// Counts a connection established while scouting; says whether it is a scout.
    pub fn take_scout(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok()
    }

    /// A scout did, or did not, hear the SYN-ACK again at that moment of [`REPEATS_S`].
    pub(super) fn note(&self, moment: usize, repeated: bool) {
        let of = if repeated { &self.repeated } else { &self.clean };
        if let Some(count) = of.get(moment) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// For how many seconds the listener waits for a first byte, at the most; None where
    /// it was not seen to wait.
    #[must_use]
    pub fn waits_s(&self) -> Option<u64> {
        let heard = |count: &AtomicU64| count.load(Relaxed) >= MOST;
        self.repeated.iter().position(heard).map(|moment| REPEATS_S[moment])
    }

    /// It does not wait for so many seconds or fewer; 0 where that is not known.
    #[must_use]
    pub fn waits_beyond_s(&self) -> u64 {
        let quiet = |count: &&AtomicU64| count.load(Relaxed) >= MOST;
        let moments = self.clean.iter().take_while(quiet).count();
        moments.checked_sub(1).map_or(0, |moment| REPEATS_S[moment])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(notes: &[(usize, bool)]) -> (Option<u64>, u64) {
        let habit = Habit::new(true);
        notes.iter().for_each(|(moment, repeated)| habit.note(*moment, *repeated));
        (habit.waits_s(), habit.waits_beyond_s())
    }

    #[test]
    fn two_of_three_scouts_decide() {
        assert_eq!(seen(&[]), (None, 0));
        assert_eq!(seen(&[(0, true)]), (None, 0), "its ACK may have been lost");
        assert_eq!(seen(&[(0, true), (0, true), (0, false)]), (Some(1), 0));
        assert_eq!(seen(&[(0, false), (0, false)]), (None, 1));
        let late = [(0, false), (0, false), (1, false), (1, false), (2, true), (2, true)];
        assert_eq!(seen(&late), (Some(7), 3));
    }

    #[test]
    fn three_are_sent() {
        let habit = Habit::new(true);
        assert!((0..3).all(|_| habit.scouting() && habit.take_scout()));
        assert!(!habit.scouting() && !habit.take_scout());
        assert!(!Habit::new(false).scouting());
    }
}
