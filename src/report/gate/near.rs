//! Names near to one that is none.

/// How many are named at the most.
const MOST: usize = 3;

/// The names that were likely meant, the nearest first.
pub(super) fn nearest(typed: &str, names: &[String]) -> Vec<String> {
    let end = typed.rsplit('.').next().unwrap_or(typed);
    let far = (typed.chars().count() / 2).max(2);
    let mut rated: Vec<(usize, &String)> = names
        .iter()
        .filter_map(|name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            let steps = distance(typed, name).min(distance(typed, last));
            // `p99` alone, or below the wrong parent.
            let rate = if last == end { steps.min(1) } else { steps };
            (rate <= far).then_some((rate, name))
        })
        .collect();
    rated.sort();
    rated.into_iter().take(MOST).map(|(_, name)| name.clone()).collect()
}

/// Letters to put in, take out or change (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        for (one, other, steps) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(one, other), steps, "{one} {other}");
            assert_eq!(distance(other, one), steps, "{one} {other}");
        }
    }
}
