//! What the ends of connections have in common: the summary of what all dialers saw.

use hdrhistogram::Histogram;

use super::dialer::Report;
use crate::verdict::Closings;

/// Sums up: `settled` are the reports when dialing ended, `after` those after the hold.
pub(super) fn summary(settled: &[Report], after: &[Report]) -> Closings {
    let young = merged(after.iter().filter_map(|r| r.closings.young_us.as_ref()));
    let all = merged(after.iter().filter_map(|r| r.closings.silent_ms.as_ref()));
    let at = |q| all.as_ref().map_or(0, |all| all.value_at_quantile(q));
    let ended = settled.iter().flat_map(|r| r.closings.ended_since_us.weighed());
    // What still waited to be turned away when dialing ended was not held.
    let since = |of: &[Report]| -> Vec<u64> {
        of.iter().flat_map(|r| &r.held_since_us).copied().collect()
    };
    let stayed = since(after);
    let held = if stayed.is_empty() { since(settled) } else { stayed };
    let order = order(held, ended.collect());
    let lives = || after.iter().flat_map(|r| r.closings.lives_us.kept());
    let left: Vec<u64> = after.iter().flat_map(|r| &r.left_since_us).copied().collect();
    let (older_stay, between_stay) = beside(&left, lives().map(|life| life.1).collect());
    Closings {
        young_p50_us: young.map_or(0, |young| young.value_at_quantile(0.5)),
        older_stay,
        between_stay,
        ended_span_ms: span_ms(lives().map(|life| life.0).collect()),
        born_span_ms: span_ms(lives().map(|life| life.1).collect()),
        aged: all.as_ref().map_or(0, Histogram::len),
        p10_ms: at(0.1),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        held_after: order.held_after,
        held_between: order.held_between,
        ended_after: order.ended_after,
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
fn beside(these: &[u64], mut others: Vec<u64>) -> (f64, f64) {
    others.sort_unstable();
    let strays = others.len() / 50;
    let ends = others.get(strays).zip(others.iter().rev().nth(strays));
    let Some((first, last)) = ends else { return (0.0, 0.0) };
    let all = these.len().max(1) as f64;
    let before = these.iter().filter(|moment| *moment < first).count() as f64;
    let upto = these.iter().filter(|moment| *moment <= last).count() as f64;
    (before / all, (upto - before) / all)
}

/// From the first tenth of these moments, in µs, to the last, in ms.
fn span_ms(mut moments: Vec<u64>) -> u64 {
    moments.sort_unstable();
    let at = |nth: usize| moments.get(nth).copied().unwrap_or_default();
    let (first, last) = (at(moments.len() / 10), at(moments.len() * 9 / 10));
    last.saturating_sub(first) / 1000
}

/// How the held and those that ended lie to each other, by when they were established.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Order {
    /// See [`Closings::held_after`].
    held_after: f64,
    /// See [`Closings::held_between`].
    held_between: f64,
    /// See [`Closings::ended_after`].
    ended_after: f64,
}

impl Order {
    /// All that ended came after all that are held; or nothing ended.
    const IN_TURN: Self = Self { held_after: 0.0, held_between: 0.0, ended_after: 1.0 };
}

/// The order of those held and those that ended, but for strays: 2 % of what ended, and no
/// more than 5 % of the held or 10, however long it went on dialing. Each that ended stands
/// for so many.
#[allow(clippy::cast_precision_loss)]
fn order(mut held: Vec<u64>, mut ended: Vec<(u64, u32)>) -> Order {
    held.sort_unstable();
    ended.sort_unstable();
    let many = |ended: &[(u64, u32)]| ended.iter().map(|(_, n)| u64::from(*n)).sum();
    let all: u64 = many(&ended);
    let strays = (all / 50).min((held.len() as u64 / 20).max(10));
    let first = beyond(ended.iter(), strays).zip(beyond(ended.iter().rev(), strays));
    let (Some((first, last)), Some(&median)) = (first, held.get(held.len() / 2)) else {
        return Order::IN_TURN;
    };
    let after = |end: u64| held.len() - held.partition_point(|moment| *moment <= end);
    let share = |n: usize| n as f64 / held.len() as f64;
    let after_median = many(&ended[ended.partition_point(|one| one.0 <= median)..]);
    Order {
        held_after: share(after(first)),
        held_between: share(after(first).saturating_sub(after(last))),
        ended_after: after_median as f64 / all as f64,
    }
}

/// The first of these moments but for so many strays.
fn beyond<'a>(
    mut moments: impl Iterator<Item = &'a (u64, u32)>,
    mut strays: u64,
) -> Option<u64> {
    let found = moments.find(|(_, n)| {
        let found = strays < u64::from(*n);
        strays = strays.saturating_sub(u64::from(*n));
        found
    });
    found.map(|(moment, _)| *moment)
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
        assert_eq!(span_ms(Vec::new()), 0);
        assert_eq!(span_ms((0..=100_000).rev().collect()), 80);
        assert_eq!(span_ms([&[5; 30][..], &[9_000_000]].concat()), 0);
    }

    #[test]
    fn what_waits_to_be_turned_away_when_dialing_ends_was_not_held() {
        // A server holds the first 50 and turns the others away, one by one: when dialing
        // ends, 200 still wait for it.
        let mut closings = DialerClosings::default();
        (50..250).for_each(|since_us| closings.note(None, (500, since_us), true));
        let told = |held_since_us: Vec<u64>| {
            let closings = closings.clone();
            [Report { closings, held_since_us, ..Report::default() }]
        };
        let settled = told((0..50).chain(250..450).collect());
        let ordered = |after: &[Report]| {
            let closings = summary(&settled, after);
            (closings.held_after, closings.held_between, closings.ended_after)
        };
        assert_eq!(ordered(&told((0..50).collect())), (0.0, 0.0, 1.0));
        // Where the end of the hold does not tell, what was open when dialing ended does.
        assert_eq!(ordered(&told(Vec::new())), (0.8, 0.0, 0.0));
    }

    #[test]
    fn the_order_tells_who_was_ended() {
        let (first, last): (Vec<u64>, Vec<u64>) =
            ((0..100).collect(), (100..400).collect());
        // New ones are turned away; old ones make room.
        let each = |ended: Vec<u64>| ended.into_iter().map(|at| (at, 1)).collect();
        let told = |held, ended| {
            let told = order(held, each(ended));
            (told.held_after, told.held_between, told.ended_after)
        };
        assert_eq!(told(first.clone(), last.clone()), (0.0, 0.0, 1.0));
        assert_eq!(told(last, first), (1.0, 0.0, 0.0));
        // A few were turned away before the server stopped accepting.
        let (before, after) = (0..150, 160..200);
        let (held_after, held_between, _) =
            told(before.chain(after).collect(), (150..160).collect());
        assert!(held_after > 0.2 && held_between == 0.0, "{held_after}, {held_between}");
        let (even, odd) = ((0..200).step_by(2), (50..200).skip(1).step_by(2));
        let (held_after, held_between, ended_after) = told(even.collect(), odd.collect());
        assert!(held_after - held_between < 0.05, "{held_after}, {held_between}");
        assert!((0.7..0.8).contains(&held_after), "{held_after}");
        assert!((0.6..0.7).contains(&ended_after), "{ended_after}");
        // Dialed for long after the last was taken: that does not hide those before it.
        let long_after = (50..200).skip(1).step_by(2).chain(200..30_000);
        let (held_after, held_between, _) =
            told((0..200).step_by(2).collect(), long_after.collect());
        assert!((0.6..0.8).contains(&held_after), "{held_after}");
        assert!((0.6..0.8).contains(&held_between), "{held_between}");
        let sampled = (3..30_000).step_by(16).map(|at| (at, 16)).collect();
        let held_after = order((0..200).step_by(2).collect(), sampled).held_after;
        assert!(held_after > 0.9, "{held_after}");
        assert_eq!(order(vec![1], Vec::new()), Order::IN_TURN);
        assert_eq!(order(Vec::new(), vec![(1, 1)]), Order::IN_TURN);
    }
}
