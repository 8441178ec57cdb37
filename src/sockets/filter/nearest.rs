//! What a name that is none may be meant for.

/// The one of some names that a wrong one is nearest to, if it is near to any.
pub(super) fn nearest<'a>(
    wrong: &str,
    names: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // No name is so long that a longer one could be near to it.
    let chars: Vec<char> = wrong.chars().take(40).collect();
    let allowed = (chars.len() / 3).clamp(1, 3);
    let distances = names.map(|name| (distance(&chars, name), name));
    distances
        .filter(|(far, _)| *far <= allowed)
        .min_by_key(|(far, _)| *far)
        .map(|(_, n)| n)
}

/// How many characters are to be put in, left out, changed or swapped with the next.
fn distance(wrong: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for (i, &a) in wrong.iter().enumerate() {
        let above = &rows[i];
        let mut row = vec![i + 1];
        for (j, &b) in right.iter().enumerate() {
            let change = above[j] + usize::from(a != b);
            let mut least = change.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == right[j - 1] && wrong[i - 1] == b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}
