//! All counts at one moment, while the dialers go on counting.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::fleet::{Fleet, Totals};
use super::service::Unserved;
use super::shared::{Shared, lock};

/// How often they are read again where a dialer counted meanwhile, and how long between.
const ATTEMPTS: usize = 100;
const BETWEEN: Duration = Duration::from_micros(200);

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The sums of all dialers.
    pub(super) totals: Totals,
    /// Of what is open, how many are not served, by why.
    pub(super) unserved: BTreeMap<Unserved, u64>,
    /// Connections that the server ended after a reply that is none, by what it was.
    pub(super) refusals: BTreeMap<Unserved, u64>,
}

impl Snapshot {
    /// Counts. What a dialer is just counting is in some of its gauges and not yet in
    /// others: they are read again until they add up.
    pub(super) fn of(fleet: &Fleet, shared: &Shared) -> Self {
        let asks = shared.service.is_some();
        let read = || Self {
            totals: fleet.totals(),
            unserved: lock(&shared.unserved).clone(),
            refusals: lock(&shared.refusals).clone(),
        };
        let mut now = read();
        for _ in 0..ATTEMPTS {
            if now.adds_up(asks) && fleet.totals() == now.totals {
                break;
            }
            thread::sleep(BETWEEN);
            now = read();
        }
        now
    }

    fn adds_up(&self, asks: bool) -> bool {
        let t = &self.totals;
        let unserved: u64 = self.unserved.values().sum();
        t.established == t.open + t.closed() + t.phantoms
            && (!asks || t.open == t.served + t.awaited + unserved)
            && t.unserved == unserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_just_ending_does_not_add_up() {
        let totals = Totals {
            established: 12,
            open: 7,
            closed_reset: 4,
            phantoms: 1,
            served: 5,
            unserved: 2,
            ..Totals::default()
        };
        let unserved = [(Unserved::NoReply, 2)].into();
        let whole = Snapshot { totals, unserved, ..Snapshot::default() };
        assert!(whole.adds_up(true));
        let asked_nothing = Totals { served: 0, unserved: 0, ..totals };
        let mute = Snapshot { totals: asked_nothing, ..Snapshot::default() };
        assert!(mute.adds_up(false) && !mute.adds_up(true));
        for torn in [
            Totals { closed_reset: 5, ..totals },
            Totals { served: 4, ..totals },
            Totals { unserved: 1, ..totals },
            Totals { established: 13, ..totals },
        ] {
            assert!(!Snapshot { totals: torn, ..whole.clone() }.adds_up(true));
        }
        let later = [(Unserved::NoReply, 1)].into();
        assert!(!Snapshot { unserved: later, ..whole }.adds_up(true));
    }
}
