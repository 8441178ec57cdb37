//! What became of a burst, and what that says of the queue. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::host::process::ProcessView;
use crate::verdict::ServerCounts;

/// The queue is full within so long of the first dial, or never by this burst: shorter
/// spans than this give no rate.
const SPAN_MIN: Duration = Duration::from_millis(5);

/// What was seen of the queue at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueLook {
    /// Since the first dial.
    pub at: Duration,
    /// Its length.
    pub len: u64,
    /// Dials established when the look began.
    pub established: u64,
    /// Dials established when it was over.
    pub established_after: u64,
    /// Dials made.
    pub dialed: u64,
    /// Dials without an answer.
    pub in_flight: u64,
    /// Dials answered by an error.
    pub refused: u64,
    /// Connections that the server ended.
    pub closed: u64,
}

/// What became of a burst.
#[derive(Debug, Clone, Default)]
pub struct Burst {
    /// Dials that were made, and how long that took.
    pub dialed: u64,
    /// How long it took to make them.
    pub dialed_in: Duration,
    /// Established without a SYN sent again.
    pub at_once: u64,
    /// Established after the SYN was sent again; by that moment, in ms.
    pub delayed: BTreeMap<u64, u64>,
    /// The moments at which this host sends SYNs again, in ms.
    pub steps_ms: Vec<u64>,
    /// Dials answered by an error.
    pub refused: u64,
    /// The errors, by errno.
    pub errors: BTreeMap<i32, u64>,
    /// Established, then reset.
    pub reset: u64,
    /// Established, then closed by the server.
    pub closed: u64,
    /// Not answered in the time given.
    pub never: u64,
    /// Phantoms of which the server knows nothing.
    pub phantoms_cookie: u64,
    /// Phantoms of which the server has half.
    pub phantoms_request_socket: u64,
    /// Of those established at once, phantoms and resets.
    pub lost_at_once: u64,
    /// The same of those established after their SYN was sent again.
    pub lost_later: u64,
    /// Established and known to the server.
    pub confirmed: u64,
    /// The server waits for a first byte on these (TCP_DEFER_ACCEPT).
    pub deferred: u64,
    /// How the server has them, where its table is in sight.
    pub server: Option<ServerCounts>,
    /// What stood in the queue before the first dial, where it is in sight.
    pub queued_before: Option<u64>,
    /// The queue over time, where it is in sight.
    pub queue: Vec<QueueLook>,
    /// The effective backlog of all its listeners together, and what they admit.
    pub backlog: Option<(u64, u64)>,
    /// The processes that hold it, while all that was established was still open.
    pub processes: Vec<ProcessView>,
    /// What its listeners dropped meanwhile.
    pub drops: Option<u64>,
    /// Ended by Ctrl-C, before all was known.
    pub interrupted: bool,
}

/// A rate that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drain {
    /// Connections a second.
    pub per_s: f64,
    /// Whether it may be faster.
    pub at_least: bool,
}

impl Burst {
    /// Phantoms of both kinds.
    #[must_use]
    pub fn phantoms(&self) -> u64 {
        self.phantoms_cookie + self.phantoms_request_socket
    }

    /// Those of the burst that the server took without delay: how deep a burst it takes,
    /// and whether that is a lower bound, for none was lost.
    #[must_use]
    pub fn depth(&self) -> (u64, bool) {
        // A phantom may be established at once, and so may what is reset for want of room.
        let kept = self.at_once.saturating_sub(self.lost_at_once);
        (kept, kept == self.dialed)
    }

    /// Dials that were not established at once, or whose connection the server lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dialed.saturating_sub(self.depth().0)
    }

    /// How fast the queue drains: by the queue itself, or by what each step of the SYN
    /// timer found room for.
    #[must_use]
    pub fn drain(&self) -> Option<Drain> {
        if self.queue.is_empty() { self.drain_by_steps() } else { self.drain_by_queue() }
    }

    /// Over the longest time without a break in which somebody queued: what was accepted
    /// is what came, less what the queue grew by.
    #[allow(clippy::cast_precision_loss)]
    fn drain_by_queue(&self) -> Option<Drain> {
        let (first, last) = self.longest_queue()?;
        let span = last.at - first.at;
        if span < SPAN_MIN {
            return None;
        }
        // The server's own table knows best whether it took any.
        let none = self.server.is_some_and(|s| s.accepted == 0) && self.closed == 0;
        let came = last.established.saturating_sub(first.established_after);
        // When a phantom came is not known: none of them may count.
        let lost = self.phantoms() + self.reset;
        let at_least = !none && came > 0 && lost > 0;
        let came = came.saturating_sub(lost);
        let accepted = if none { 0 } else { (came + first.len).saturating_sub(last.len) };
        Some(Drain { per_s: accepted as f64 / span.as_secs_f64(), at_least })
    }

    /// The longest time in which somebody queued; it ends when the queue is first empty
    /// again. Of equal ones the first.
    fn longest_queue(&self) -> Option<(QueueLook, QueueLook)> {
        let mut longest: Option<(QueueLook, QueueLook)> = None;
        let mut since: Option<QueueLook> = None;
        for look in &self.queue {
            let Some(first) = since.or((look.len > 0).then_some(*look)) else { continue };
            let span = |(first, last): (QueueLook, QueueLook)| last.at - first.at;
            if longest.is_none_or(|longest| span((first, *look)) > span(longest)) {
                longest = Some((first, *look));
            }
            since = (look.len > 0).then_some(first);
        }
        longest
    }

    /// From the client's side alone. Where some still waited after a step, those that
    /// got in at it are all that had become free since the step before; as many as the
    /// queue is deep may mean that it was empty by then.
    #[allow(clippy::cast_precision_loss)]
    fn drain_by_steps(&self) -> Option<Drain> {
        let (depth, _) = self.depth();
        let mut waiting = self.delayed.values().sum::<u64>() + self.never;
        let mut before = 0;
        let mut best: Option<Drain> = None;
        for &step in &self.steps_ms {
            let got_in = self.delayed.get(&step).copied().unwrap_or(0);
            waiting = waiting.saturating_sub(got_in);
            let span_s = (step - before) as f64 / 1e3;
            before = step;
            // At which step a phantom came is not known: it may have been this.
            let kept = got_in.saturating_sub(self.lost_later);
            if kept > 0 {
                let per_s = kept as f64 / span_s;
                let at_least = waiting == 0 || kept >= depth || self.lost_later > 0;
                let better = best.is_none_or(|best| per_s > best.per_s);
                if better {
                    best = Some(Drain { per_s, at_least });
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phantoms_and_resets_are_no_depth() {
        let burst = Burst {
            dialed: 300,
            at_once: 300,
            phantoms_cookie: 100,
            phantoms_request_socket: 50,
            reset: 21,
            lost_at_once: 171,
            ..Burst::default()
        };
        assert_eq!(burst.depth(), (129, false));
        assert_eq!(burst.lost(), 171);
        let whole = Burst { dialed: 9, at_once: 9, ..Burst::default() };
        assert_eq!(whole.depth(), (9, true));
    }

    #[test]
    fn what_was_accepted_is_what_came_less_growth() {
        let look = |ms, len, established| QueueLook {
            at: Duration::from_millis(ms),
            len,
            established,
            established_after: established,
            ..QueueLook::default()
        };
        let burst = Burst {
            queue: vec![
                look(0, 0, 0),
                look(10, 50, 60),
                look(110, 30, 70),
                look(210, 10, 70),
                look(310, 0, 70),
                look(1010, 60, 130),
            ],
            ..Burst::default()
        };
        // 10 came, and the queue is shorter by 50, in 300 ms.
        assert_eq!(burst.drain(), Some(Drain { per_s: 200.0, at_least: false }));
        // Of those that came while the queue drained, these may be phantoms.
        let phantoms = Burst { phantoms_cookie: 6, ..burst.clone() };
        assert_eq!(phantoms.drain(), Some(Drain { per_s: 180.0, at_least: true }));
        // Where the server has none of them, it took none, whatever the looks may say.
        let none = Burst { server: Some(ServerCounts::default()), ..burst };
        assert_eq!(none.drain(), Some(Drain { per_s: 0.0, at_least: false }));
        let idle = Burst { queue: vec![look(0, 0, 5)], ..Burst::default() };
        assert_eq!(idle.drain(), None);
    }

    #[test]
    fn from_the_client_alone_a_step_that_leaves_some_waiting_gives_the_rate() {
        let burst = |delayed: &[(u64, u64)], never, at_once| Burst {
            dialed: 100,
            at_once,
            delayed: delayed.iter().copied().collect(),
            never,
            steps_ms: vec![1000, 2000, 3000, 4000, 5000, 7000],
            ..Burst::default()
        };
        let saturated = burst(&[(1000, 20), (2000, 20)], 30, 30);
        assert_eq!(saturated.drain(), Some(Drain { per_s: 20.0, at_least: false }));
        let all_came = burst(&[(1000, 70)], 0, 80);
        assert_eq!(all_came.drain(), Some(Drain { per_s: 70.0, at_least: true }));
        let whole_queue = burst(&[(1000, 30)], 40, 30);
        assert_eq!(whole_queue.drain(), Some(Drain { per_s: 30.0, at_least: true }));
        assert_eq!(burst(&[], 70, 30).drain(), None);
        // 51 of these are kept by the server, the rest are phantoms.
        let phantoms = Burst { lost_later: 98, ..burst(&[(1000, 149)], 0, 51) };
        assert_eq!(phantoms.drain(), Some(Drain { per_s: 51.0, at_least: true }));
    }
}
