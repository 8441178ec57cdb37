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
        let ended = settled.iter().flat_map(|r| r.closings.ended_since_us.weighed());
        // What still waited to be turned away when dialing ended was not held.
        let since = |of: &[Report]| -> Vec<u32> {
            of.iter().flat_map(|r| &r.held_since_us).copied().collect()
        };
        let left = since(after);
        let held = if left.is_empty() { since(settled) } else { left };
        order(held, ended.collect())
    } else {
        (0.0, 1.0)
    };
    let lives = || after.iter().flat_map(|r| r.closings.lives_ms.kept());
    let left: Vec<u32> = after.iter().flat_map(|r| &r.left_since_ms).copied().collect();
    let (older_stay, between_stay) = beside(&left, lives().map(|life| life.1).collect());
    Closings {
        young_p50_us: young.map_or(0, |young| young.value_at_quantile(0.5)),
        older_stay,
        between_stay,
        ended_span_ms: span(lives().map(|life| life.0).collect()),
        born_span_ms: span(lives().map(|life| life.1).collect()),
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

/// The shares of these that came before all of the others, and between them (but for 2 %
/// of strays at either end).
#[allow(clippy::cast_precision_loss)]
fn beside(these: &[u32], mut others: Vec<u32>) -> (f64, f64) {
    others.sort_unstable();
    let strays = others.len() / 50;
    let ends = others.get(strays).zip(others.iter().rev().nth(strays));
    let Some((first, last)) = ends else { return (0.0, 0.0) };
    let all = these.len().max(1) as f64;
    let before = these.iter().filter(|moment| *moment < first).count() as f64;
    let upto = these.iter().filter(|moment| *moment <= last).count() as f64;
    (before / all, (upto - before) / all)
}

/// From the first tenth of these moments to the last.
fn span(mut moments: Vec<u32>) -> u64 {
    moments.sort_unstable();
    let at = |nth: usize| moments.get(nth).copied().unwrap_or_default();
    let (first, last) = (at(moments.len() / 10), at(moments.len() * 9 / 10));
    u64::from(last.saturating_sub(first))
}

/// By when they were established: the share of the held that came after the first of
/// those that ended (but for strays: 2 %, and no more than 5 % of the held or 10, however
/// long it went on dialing), and the share of those that ended that came after the median of
/// the held. (0, 1) where nothing ended. Each that ended stands for so many.
#[allow(clippy::cast_precision_loss)]
fn order(mut held: Vec<u32>, mut ended: Vec<(u32, u32)>) -> (f64, f64) {
    held.sort_unstable();
    ended.sort_unstable();
    let many = |ended: &[(u32, u32)]| ended.iter().map(|(_, n)| u64::from(*n)).sum();
    let all: u64 = many(&ended);
    let mut strays = (all / 50).min((held.len() as u64 / 20).max(10));
    let first = ended.iter().find(|(_, n)| {
        let found = strays < u64::from(*n);
        strays = strays.saturating_sub(u64::from(*n));
        found
    });
    let (Some(&(first, _)), Some(&median)) = (first, held.get(held.len() / 2)) else {
        return (0.0, 1.0);
    };
    let after_first = held.len() - held.partition_point(|moment| *moment <= first);
    let after_median = many(&ended[ended.partition_point(|one| one.0 <= median)..]);
    (after_first as f64 / held.len() as f64, after_median as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::super::dialer::Closings as DialerClosings;
    use super::*;

    #[test]
    fn who_stays_came_before_or_between_those_that_ended() {
        let ended = || (100..200).collect();
        assert_eq!(beside(&[1, 2, 300, 400], ended()), (0.5, 0.0));
        assert_eq!(beside(&[1, 120, 130, 400], ended()), (0.25, 0.5));
        assert_eq!(beside(&[1], Vec::new()), (0.0, 0.0));
        assert_eq!(beside(&[], ended()), (0.0, 0.0));
    }

    #[test]
    fn a_span_leaves_strays_out() {
        assert_eq!(span(Vec::new()), 0);
        assert_eq!(span((0..=100).rev().collect()), 80);
        assert_eq!(span([&[5; 30][..], &[9_000]].concat()), 0);
    }

    #[test]
    fn what_waits_to_be_turned_away_when_dialing_ends_was_not_held() {
        // A server holds the first 50 and turns the others away, one by one: when dialing
        // ends, 200 still wait for it.
        let mut closings = DialerClosings::default();
        (50..250).for_each(|since_us| closings.note(0, (0, 0), Some(since_us)));
        let told = |held_since_us: Vec<u32>| {
            let closings = closings.clone();
            [Report { closings, held_since_us, ..Report::default() }]
        };
        let settled = told((0..50).chain(250..450).collect());
        let ordered = |after: &[Report]| {
            let closings = summary(&settled, after, 1.0);
            (closings.held_after, closings.ended_after)
        };
        assert_eq!(ordered(&told((0..50).collect())), (0.0, 1.0));
        // Where the end of the hold does not tell, what was open when dialing ended does.
        assert_eq!(ordered(&told(Vec::new())), (0.8, 0.0));
    }

    #[test]
    fn the_order_tells_who_was_ended() {
        let (first, last): (Vec<u32>, Vec<u32>) =
            ((0..100).collect(), (100..400).collect());
        // New ones are turned away; old ones make room.
        let each = |ended: Vec<u32>| ended.into_iter().map(|at| (at, 1)).collect();
        assert_eq!(order(first.clone(), each(last.clone())), (0.0, 1.0));
        assert_eq!(order(last, each(first)), (1.0, 0.0));
        let (even, odd) = ((0..200).step_by(2), (50..200).skip(1).step_by(2));
        let (held_after, ended_after) = order(even.collect(), each(odd.collect()));
        assert!((0.7..0.8).contains(&held_after), "{held_after}");
        assert!((0.6..0.7).contains(&ended_after), "{ended_after}");
        // Dialed for long after the last was taken: that does not hide those before it.
        let long_after = (50..200).skip(1).step_by(2).chain(200..30_000);
        let (held_after, _) =
            order((0..200).step_by(2).collect(), each(long_after.collect()));
        assert!((0.6..0.8).contains(&held_after), "{held_after}");
        let sampled = (3..30_000).step_by(16).map(|at| (at, 16)).collect();
        let (held_after, _) = order((0..200).step_by(2).collect(), sampled);
        assert!(held_after > 0.9, "{held_after}");
        assert_eq!(order(vec![1], Vec::new()), (0.0, 1.0));
        assert_eq!(order(Vec::new(), vec![(1, 1)]), (0.0, 1.0));
    }
}
