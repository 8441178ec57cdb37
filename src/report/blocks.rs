//! A chart in block characters.

use crate::render::{count, seconds};

/// Lines of the chart.
const ROWS: usize = 5;
/// Eighths of a character's height.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The widest that a chart is drawn.
const WIDEST: usize = 72;

/// Draws counts over time in at most `columns` columns: the most of each stretch of time,
/// and what was there before where a stretch has no sample. Nothing where there are no
/// two moments.
#[must_use]
pub fn chart(points: &[(f64, u64)], columns: usize) -> Vec<String> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Vec::new();
    };
    let most = points.iter().map(|point| point.1).max().unwrap_or(0);
    let label = count(most);
    let wide = columns.min(WIDEST).saturating_sub(label.len() + 4);
    if last.0 <= first.0 || wide < 8 {
        return Vec::new();
    }
    let heights = buckets(points, wide);
    let mut lines: Vec<String> = (0..ROWS)
        .map(|row| {
            let name = match row {
                0 => label.as_str(),
                _ if row == ROWS - 1 => "0",
                _ => "",
            };
            let drawn: String = heights
                .iter()
                .map(|&n| BLOCKS[eighths(n, most, ROWS - 1 - row)])
                .collect();
            format!("  {name:>wide$} │{}", drawn.trim_end(), wide = label.len())
        })
        .collect();
    let (from, to) = (seconds(first.0), seconds(last.0));
    let gap = wide.saturating_sub(from.chars().count());
    let times = match to.chars().count() < gap {
        true => format!("{from}{to:>gap$}"),
        false => String::new(),
    };
    lines.push(format!("  {:>wide$} └{times}", "", wide = label.len()));
    lines
}

/// How many eighths of the character in `row`, counted from below, `n` fills.
fn eighths(n: u64, most: u64, row: usize) -> usize {
    if most == 0 {
        return 0;
    }
    let whole = u128::from(n) * (ROWS as u128 * 8);
    let filled = whole.div_ceil(u128::from(most));
    usize::try_from(filled).unwrap_or(usize::MAX).saturating_sub(row * 8).min(8)
}

/// The most of each of `wide` equal stretches of time.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn buckets(points: &[(f64, u64)], wide: usize) -> Vec<u64> {
    let (from, to) = (points[0].0, points[points.len() - 1].0);
    let mut most: Vec<Option<u64>> = vec![None; wide];
    // What stood at the end of each stretch goes on in the next that has no sample.
    let mut at_end: Vec<Option<u64>> = vec![None; wide];
    for &(t, n) in points {
        let at = ((t - from) / (to - from) * wide as f64) as usize;
        let at = at.min(wide - 1);
        most[at] = most[at].max(Some(n));
        at_end[at] = Some(n);
    }
    let mut before = 0;
    most.into_iter()
        .zip(at_end)
        .map(|(most, end)| {
            let shown = most.unwrap_or(before);
            before = end.unwrap_or(before);
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ramp_and_a_plateau_look_like_one() {
        let points: Vec<(f64, u64)> =
            (0..=20).map(|n| (n as f64 / 2.0, 100 * n.min(10))).collect();
        assert_eq!(
            chart(&points, 30),
            [
                "  1,000 │         ▄███████████",
                "        │       ▄█████████████",
                "        │     ▄███████████████",
                "        │   ▄█████████████████",
                "      0 │ ▄███████████████████",
                "        └0.0 s          10.0 s",
            ]
        );
    }

    #[test]
    fn a_stretch_without_a_sample_keeps_what_was_there() {
        assert_eq!(
            buckets(&[(0.0, 5), (1.0, 9), (1.1, 7), (10.0, 7)], 5),
            [9, 7, 7, 7, 7]
        );
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(chart(&[], 80).is_empty());
        assert!(chart(&[(1.0, 5)], 80).is_empty());
        assert!(chart(&[(0.0, 0), (1.0, 0)], 5).is_empty());
        assert_eq!(chart(&[(0.0, 0), (1.0, 0)], 80).len(), ROWS + 1);
    }

    proptest! {
        #[test]
        fn no_chart_is_wider_than_was_asked(
            points in prop::collection::vec((0.0..1e6_f64, any::<u64>()), 0..50),
            columns in 0..200_usize,
        ) {
            let mut points = points;
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            for line in chart(&points, columns) {
                prop_assert!(line.chars().count() <= columns.max(1), "{line}");
            }
        }
    }
}
