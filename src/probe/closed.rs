//! What the ends of connections have in common: the summary of what all dialers saw.

use hdrhistogram::Histogram;

use super::dialer::Report;
use crate::verdict::Closings;

/// The moments wrap after so long, and can then not be put in order.
const ORDERED_S: f64 = 4_000.0;

/// Sums up: `settled` are the reports when dialing ended, `after` those after the hold.
pub(super) fn summary(settled: &[Report], after: &[Report], ramp_s: f64) -> Closings {
    let young = merged(after.iter().filter_map(|r| r.closings.young_us.as_ref()));
    let all = merged(after.iter().filter_map(|r| r.closings.silent_ms.as_ref()));
    let at = |q| all.as_ref().map_or(0, |all| all.value_at_quantile(q));
    let (held_after, ended_after) = if ramp_s < ORDERED_S {
        let ended = settled.iter().flat_map(|r| r.closings.ended_since_us.kept());
        let held = settled.iter().flat_map(|r| &r.held_since_us);
        order(held.copied().collect(), ended.copied().collect())
    } else {
        (0.0, 1.0)
    };
    Closings {
        young_p50_us: young.map_or(0, |young| young.value_at_quantile(0.5)),
        aged: all.as_ref().map_or(0, Histogram::len),
        p10_ms: at(0.1),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        held_after,
        ended_after,
    }
}

/// The sum of histograms that have the same bounds; None of none.
fn merged<'a>(
    mut parts: impl Iterator<Item = &'a Histogram<u64>>,
) -> Option<Histogram<u64>> {
    let mut sum = parts.next()?.clone();
    for part in parts {
        // The bounds are the same, so that nothing can fail to fit.
        let _ = sum.add(part);
    }
    Some(sum)
}

/// By when they were established: the share of the held that came after the first of
/// those that ended (but for 2 % of strays), and the share of those that ended that came
/// after the median of the held. (0, 1) where nothing ended.
#[allow(clippy::cast_precision_loss)]
fn order(mut held: Vec<u32>, mut ended: Vec<u32>) -> (f64, f64) {
    held.sort_unstable();
    ended.sort_unstable();
    let (Some(&first), Some(&median)) =
        (ended.get(ended.len() / 50), held.get(held.len() / 2))
    else {
        return (0.0, 1.0);
    };
    let after = |all: &[u32], t| {
        (all.len() - all.partition_point(|x| *x <= t)) as f64 / all.len() as f64
    };
    (after(&held, first), after(&ended, median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_tells_who_was_ended() {
        let (first, last): (Vec<u32>, Vec<u32>) =
            ((0..100).collect(), (100..400).collect());
        // New ones are turned away; old ones make room.
        assert_eq!(order(first.clone(), last.clone()), (0.0, 1.0));
        assert_eq!(order(last, first), (1.0, 0.0));
        let (even, odd) = ((0..200).step_by(2), (50..200).skip(1).step_by(2));
        let (held_after, ended_after) = order(even.collect(), odd.collect());
        assert!((0.7..0.8).contains(&held_after), "{held_after}");
        assert!((0.6..0.7).contains(&ended_after), "{ended_after}");
        assert_eq!(order(vec![1], Vec::new()), (0.0, 1.0));
        assert_eq!(order(Vec::new(), vec![1]), (0.0, 1.0));
    }
}
