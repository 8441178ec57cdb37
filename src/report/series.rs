//! A timeline made small enough to be drawn.

use crate::record::{Phase, Sample};

/// At most `most` of `samples`, evenly: the first, the last, and each that begins a phase.
pub(super) fn thinned(samples: &[Sample], most: usize) -> Vec<&Sample> {
    let kept = |index: usize| {
        let previous = index.checked_sub(1).and_then(|before| samples.get(before));
        let phase = |sample: &Sample| -> Phase { sample.phase };
        previous.map(phase) != samples.get(index).map(phase)
    };
    thin(samples.len(), most, kept).into_iter().map(|index| &samples[index]).collect()
}

/// At most `most` indices below `len`, evenly, with the last and those of `kept` that
/// there is room for.
fn thin(len: usize, most: usize, kept: impl Fn(usize) -> bool) -> Vec<usize> {
    if len <= most {
        return (0..len).collect();
    }
    let mut chosen: Vec<usize> =
        (0..len).filter(|&index| kept(index)).take(most / 4).collect();
    let evenly = most.saturating_sub(chosen.len()).max(2);
    chosen.extend((0..evenly).map(|n| n * (len - 1) / (evenly - 1)));
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// A line of at most about `most` points that still has every peak and dip of `points`:
/// of each stretch its lowest and its highest.
pub(super) fn with_extremes(points: Vec<(f64, f64)>, most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points;
    }
    let stretch = points.len().div_ceil((most / 2).max(1));
    let mut line = Vec::with_capacity(most);
    for part in points.chunks(stretch) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (part.iter().min_by(by_value), part.iter().max_by(by_value));
        let mut both: Vec<(f64, f64)> = low.into_iter().chain(high).copied().collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        both.dedup();
        line.extend(both);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(n: u64) -> Vec<Sample> {
        let phase = |n| if n < 7 { Phase::Ramp } else { Phase::Hold };
        (0..n)
            .map(|n| Sample { t_s: n as f64, phase: phase(n), ..Sample::default() })
            .collect()
    }

    #[test]
    fn ends_and_the_beginnings_of_phases_are_kept() {
        let all = samples(10_000);
        let few: Vec<f64> = thinned(&all, 100).iter().map(|s| s.t_s).collect();
        assert!(few.len() <= 100 && few.len() > 90, "{}", few.len());
        assert_eq!((few[0], *few.last().unwrap()), (0.0, 9_999.0));
        assert!(few.contains(&7.0), "{few:?}");
        assert_eq!(thinned(&all[..100], 100).len(), 100);
    }

    proptest! {
        #[test]
        fn a_thinned_line_keeps_its_highest_and_lowest(
            values in prop::collection::vec(0.0..1e6_f64, 1..2_000),
            most in 10..300_usize,
        ) {
            let points: Vec<_> =
                values.iter().enumerate().map(|(n, v)| (n as f64, *v)).collect();
            let line = with_extremes(points, most);
            prop_assert!(line.len() <= most.max(2));
            prop_assert!(line.is_sorted_by(|a, b| a.0 <= b.0));
            let ends = |of: &[f64]| {
                let low = of.iter().copied().fold(f64::INFINITY, f64::min);
                (low, of.iter().copied().fold(0.0, f64::max))
            };
            let drawn: Vec<f64> = line.iter().map(|point| point.1).collect();
            prop_assert_eq!(ends(&values), ends(&drawn));
        }

        #[test]
        fn never_more_than_was_asked(len in 0..3_000_u64, most in 8..400_usize) {
            let all = samples(len);
            let few = thinned(&all, most);
            prop_assert!(few.len() <= most);
            prop_assert!(few.is_sorted_by(|a, b| a.t_s < b.t_s));
        }
    }
}
