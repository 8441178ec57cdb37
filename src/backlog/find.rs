//! Searches for the deepest burst that loses nothing, by doubling and halving.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::burst::{Burst, BurstError, Burster, QueueLook, Shape};
use crate::probe::ramp::Watch;

/// A dial without an answer for so long is lost: at a second it would send its SYN again.
const ANSWERED_WITHIN: Duration = Duration::from_millis(900);
/// On this host an answer comes at once.
const ANSWERED_HERE_WITHIN: Duration = Duration::from_millis(300);
/// A queue that gets no shorter for so long is not drained by anybody.
const STILL: Duration = Duration::from_secs(1);
/// Between two looks at a queue that drains.
const TICK: Duration = Duration::from_millis(2);

/// One burst of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// Its depth.
    pub dialed: u64,
    /// What was lost of it.
    pub lost: u64,
    /// How long the queue took to drain after it, where it is in sight and did.
    pub drained_in: Option<Duration>,
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchEnd {
    /// The number was found.
    Found,
    /// Even the deepest allowed lost nothing.
    Bound,
    /// The queue did not drain in time: nobody accepts.
    NotDraining,
    /// By Ctrl-C.
    Interrupted,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Search {
    /// The deepest burst that lost nothing; 0: even one dial is lost. None where no try
    /// was made.
    pub deepest: Option<u64>,
    /// Why it ended.
    pub end: SearchEnd,
    /// The tries, in order.
    pub tries: Vec<Try>,
    /// What stood in the queue before the first try, where it is in sight.
    pub queued_before: Option<u64>,
    /// The last burst that lost some.
    pub overflowed: Option<Burst>,
}

/// How a search is made.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The deepest burst that is tried.
    pub max: u64,
    /// The pause between two tries where the queue cannot be seen.
    pub pause: Duration,
    /// How long a queue that can be seen may take to drain.
    pub drain_within: Duration,
}

/// The next depth to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    /// The deepest that lost nothing.
    whole: u64,
    /// The least deep that lost some.
    lossy: Option<u64>,
    max: u64,
}

impl Bounds {
    const fn new(max: u64) -> Self {
        Self { whole: 0, lossy: None, max }
    }

    fn next(self) -> Option<u64> {
        match self.lossy {
            None if self.whole >= self.max => None,
            None => Some((self.whole * 2).clamp(1, self.max)),
            Some(lossy) if lossy - self.whole <= 1 => None,
            Some(lossy) => Some(self.whole + (lossy - self.whole) / 2),
        }
    }

    fn learn(&mut self, depth: u64, lost: u64) {
        if lost == 0 {
            self.whole = depth;
        } else {
            self.lossy = Some(depth);
        }
    }
}

/// Searches; `tell` hears of each try.
///
/// # Errors
/// A [`BurstError`].
pub fn search(
    burster: &mut Burster,
    how: Limits,
    interrupted: &AtomicBool,
    tell: &mut dyn FnMut(&Try),
) -> Result<Search, BurstError> {
    let mut bounds = Bounds::new(how.max);
    let queued_before = at_rest(burster, how.drain_within, interrupted)?;
    let mut found = Search {
        deepest: None,
        end: SearchEnd::Found,
        tries: Vec::new(),
        queued_before,
        overflowed: None,
    };
    let here = burster.view().is_some();
    let patience =
        if burster.is_quick() { ANSWERED_HERE_WITHIN } else { ANSWERED_WITHIN };
    let empty = queued_before.unwrap_or(0);
    while let Some(dials) = bounds.next() {
        let burst = burster.burst(Shape { dials, patience }, interrupted)?;
        if burst.interrupted {
            found.end = SearchEnd::Interrupted;
            break;
        }
        let lost = burst.lost();
        bounds.learn(dials, lost);
        found.deepest = Some(bounds.whole);
        let more = bounds.next().is_some();
        let drained_in = match drained_meanwhile(&burst, empty) {
            (Some(took), _) => Some(took),
            (None, watched) => drained(burster, how, empty, more, interrupted)?
                .map(|took| watched + took),
        };
        if lost > 0 {
            found.overflowed = Some(burst);
        }
        let tried = Try { dialed: dials, lost, drained_in };
        tell(&tried);
        found.tries.push(tried);
        if here && more && drained_in.is_none() {
            found.end = SearchEnd::NotDraining;
            break;
        }
    }
    if interrupted.load(Relaxed) {
        found.end = SearchEnd::Interrupted;
    }
    if found.end == SearchEnd::Found && bounds.lossy.is_none() {
        found.end = SearchEnd::Bound;
    }
    Ok(found)
}

fn queue_len(burster: &mut Burster) -> Result<Option<u64>, BurstError> {
    let Some(view) = burster.view_mut() else { return Ok(None) };
    Ok(Some(view.glance().map_err(BurstError::Look)?.queue_len))
}

/// Waits until the queue is empty, or gets no shorter: what others left in it must not
/// count as the burst's. Returns what is still in it, where it can be seen.
fn at_rest(
    burster: &mut Burster,
    within: Duration,
    interrupted: &AtomicBool,
) -> Result<Option<u64>, BurstError> {
    let began = Instant::now();
    let (mut shortest, mut shrank) = (u64::MAX, began);
    loop {
        let Some(len) = queue_len(burster)? else { return Ok(None) };
        if len < shortest {
            (shortest, shrank) = (len, Instant::now());
        }
        let still = shrank.elapsed() >= STILL || began.elapsed() >= within;
        if shortest == 0 || still || interrupted.load(Relaxed) {
            return Ok(Some(shortest));
        }
        thread::sleep(TICK);
    }
}

/// How long after the last dial the queue was as short as before the first, where the
/// burst saw that itself; and for how long it looked.
fn drained_meanwhile(burst: &Burst, empty: u64) -> (Option<Duration>, Duration) {
    let after = |look: &&QueueLook| look.at >= burst.dialed_in;
    let mut looks = burst.queue.iter().filter(after);
    let since = |look: &QueueLook| look.at - burst.dialed_in;
    let watched = burst
        .queue
        .last()
        .map_or(Duration::ZERO, |look| look.at.saturating_sub(burst.dialed_in));
    (looks.find(|look| look.len <= empty).map(since), watched)
}

/// Waits until the queue is as short as before the first try, and says how long that
/// took; where it cannot be seen, for the pause.
fn drained(
    burster: &mut Burster,
    how: Limits,
    empty: u64,
    more: bool,
    interrupted: &AtomicBool,
) -> Result<Option<Duration>, BurstError> {
    let began = Instant::now();
    loop {
        let (over, seen) = match queue_len(burster)? {
            Some(len) if len <= empty => return Ok(Some(began.elapsed())),
            Some(_) => (began.elapsed() >= how.drain_within, true),
            None => (began.elapsed() >= how.pause, false),
        };
        if over || interrupted.load(Relaxed) || (!seen && !more) {
            return Ok(None);
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tries at a server that takes bursts up to `depth`.
    fn tries(depth: u64, max: u64) -> (Bounds, Vec<u64>) {
        let mut bounds = Bounds::new(max);
        let mut tried = Vec::new();
        while let Some(dials) = bounds.next() {
            tried.push(dials);
            bounds.learn(dials, dials.saturating_sub(depth));
        }
        (bounds, tried)
    }

    #[test]
    fn every_depth_is_found_exactly() {
        for depth in (0..300).chain([4097, 9_999, 10_000]) {
            let (bounds, tried) = tries(depth, 10_000);
            assert_eq!(bounds.whole, depth);
            assert!(tried.len() <= 28, "{depth}: {tried:?}");
        }
    }

    #[test]
    fn a_queue_drains_from_the_last_dial_on() {
        let look = |ms, len| QueueLook {
            at: Duration::from_millis(ms),
            len,
            ..QueueLook::default()
        };
        let burst = Burst {
            dialed_in: Duration::from_millis(20),
            queue: vec![look(0, 0), look(20, 60), look(120, 30), look(320, 4)],
            ..Burst::default()
        };
        let ms = Duration::from_millis;
        assert_eq!(drained_meanwhile(&burst, 4), (Some(ms(300)), ms(300)));
        assert_eq!(drained_meanwhile(&burst, 0), (None, ms(300)));
    }

    #[test]
    fn it_doubles_then_halves() {
        assert_eq!(tries(6, 100).1, [1, 2, 4, 8, 6, 7]);
        assert_eq!(tries(0, 100).1, [1]);
    }

    #[test]
    fn nothing_deeper_than_allowed_is_tried() {
        let (bounds, tried) = tries(5000, 100);
        assert_eq!((bounds.whole, bounds.lossy), (100, None));
        assert_eq!(tried, [1, 2, 4, 8, 16, 32, 64, 100]);
    }
}
