//! The steps of the SYN timer: when a dial that was dropped is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::host::{ProcRoot, sysctl};

/// The first retransmission timeout of a SYN (TCP_TIMEOUT_INIT, include/net/tcp.h), in
/// ms.
pub(super) const RTO_MS: u64 = 1000;
/// A dial is counted at the step of the timer before it; no timer runs out early, but
/// latencies are kept to three digits.
const STEP_PART: u64 = 99;

/// The moments at which a SYN without an answer is sent again, in ms since the first,
/// up to `until`: the first `linear` of them a second apart (tcp_syn_linear_timeouts,
/// Linux 6.5), then each twice as far as the one before.
#[must_use]
pub fn syn_steps_ms(linear: u64, until: Duration) -> Vec<u64> {
    let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
    let (mut steps, mut at, mut rto) = (Vec::new(), 0_u64, RTO_MS);
    loop {
        at = at.saturating_add(rto);
        if at > until {
            return steps;
        }
        steps.push(at);
        if steps.len() as u64 > linear {
            // TCP_RTO_MAX (include/net/tcp.h).
            rto = (rto * 2).min(120_000);
        }
    }
}

/// How many SYNs are sent again a second apart on this host; none before Linux 6.5.
#[must_use]
pub fn linear_timeouts(proc_root: &ProcRoot) -> u64 {
    sysctl::number(proc_root, "net.ipv4.tcp_syn_linear_timeouts").unwrap_or(0)
}

/// How many were established before the first step, and from each step on.
pub(super) fn by_step(
    latencies: &Histogram<u64>,
    steps_ms: &[u64],
) -> (u64, BTreeMap<u64, u64>) {
    let (mut at_once, mut delayed) = (0, BTreeMap::new());
    for value in latencies.iter_recorded() {
        let us = value.value_iterated_to();
        let step = steps_ms.iter().rev().find(|ms| us >= **ms * 1000 / 100 * STEP_PART);
        let counter = match step {
            Some(step) => delayed.entry(*step).or_default(),
            None => &mut at_once,
        };
        *counter += value.count_since_last_iteration();
    }
    (at_once, delayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::shared::histogram;

    #[test]
    fn the_syn_timer_is_linear_first_and_doubles_then() {
        let within = Duration::from_secs(30);
        assert_eq!(
            syn_steps_ms(4, within),
            [1000, 2000, 3000, 4000, 5000, 7000, 11_000, 19_000]
        );
        assert_eq!(syn_steps_ms(0, within), [1000, 3000, 7000, 15_000]);
        assert_eq!(syn_steps_ms(1, within), [1000, 2000, 4000, 8000, 16_000]);
        assert_eq!(syn_steps_ms(4, Duration::from_millis(999)), Vec::<u64>::new());
    }

    #[test]
    fn each_dial_counts_at_the_step_before_it() {
        let mut seen = histogram();
        for us in [30, 200_000, 980_000, 1_000_000, 1_200_000, 2_000_100, 6_900_000] {
            seen.record(us).unwrap();
        }
        let steps = syn_steps_ms(4, Duration::from_secs(10));
        let (at_once, delayed) = by_step(&seen, &steps);
        assert_eq!(at_once, 3);
        assert_eq!(delayed, BTreeMap::from([(1000, 2), (2000, 1), (5000, 1)]));
    }
}
