//! Glob patterns, as fnmatch(3) has them: `*`, `?`, `[a-z]`, `[!a]`, and a backslash before
//! a character that means itself. `*` also takes a `/`.

/// A glob pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// Any one character.
    One,
    /// Any number of them.
    Many,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Whether letters of both cases are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Same,
    Differ,
}

impl Pattern {
    /// A pattern; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut pieces = Vec::new();
        let mut rest = chars.as_slice();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            pieces.push(match first {
                '*' => Piece::Many,
                '?' => Piece::One,
                '[' => match class(after) {
                    Some((piece, after)) => {
                        rest = after;
                        piece
                    }
                    None => Piece::Char('['),
                },
                '\\' => match after.split_first() {
                    Some((&escaped, after)) => {
                        rest = after;
                        Piece::Char(escaped)
                    }
                    None => Piece::Char('\\'),
                },
                other => Piece::Char(other),
            });
        }
        // Stars in a row would be tried in all their combinations.
        pieces.dedup_by(|a, b| (&*a, &*b) == (&Piece::Many, &Piece::Many));
        Self { text: text.to_owned(), pieces }
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text that it matches alone; None where it matches more than one.
    #[must_use]
    pub fn literal(&self) -> Option<String> {
        let one = |piece: &Piece| match piece {
            Piece::Char(c) => Some(*c),
            _ => None,
        };
        self.pieces.iter().map(one).collect()
    }

    /// Whether it matches the whole of some bytes. What is no UTF-8 counts as a character
    /// a byte, and only `?` and `*` match it.
    pub(super) fn matches(&self, bytes: &[u8], case: Case) -> bool {
        let (mut piece, mut at) = (0, 0);
        // Where to try again: the piece after the last star, and what the star took.
        let mut again = None;
        loop {
            match (self.pieces.get(piece), next(bytes, at)) {
                (Some(Piece::Many), _) => {
                    piece += 1;
                    again = Some((piece, at));
                    continue;
                }
                (None, None) => return true,
                (Some(wanted), Some((found, len))) if wanted.takes(found, case) => {
                    piece += 1;
                    at += len;
                    continue;
                }
                _ => {}
            }
            let Some((after_star, taken)) = again else { return false };
            let Some((_, len)) = next(bytes, taken) else { return false };
            (piece, at) = (after_star, taken + len);
            again = Some((after_star, at));
        }
    }
}

impl Piece {
    /// Whether it takes this character, None for a byte that is none.
    fn takes(&self, found: Option<char>, case: Case) -> bool {
        let fold = |c: char| match case {
            Case::Same => c.to_ascii_lowercase(),
            Case::Differ => c,
        };
        match self {
            Self::One | Self::Many => true,
            Self::Char(c) => found.is_some_and(|found| fold(found) == fold(*c)),
            Self::Class { negated, ranges } => found.is_some_and(|found| {
                let inside = ranges.iter().any(|&(from, to)| {
                    let within = |c: char| from <= c && c <= to;
                    within(found)
                        || (case == Case::Same
                            && (within(found.to_ascii_lowercase())
                                || within(found.to_ascii_uppercase())))
                });
                inside != *negated
            }),
        }
    }
}

/// The character at `at`, None for a byte that is no part of one, and its length.
fn next(bytes: &[u8], at: usize) -> Option<(Option<char>, usize)> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let chunk = rest.get(..rest.len().min(4))?.utf8_chunks().next()?;
    Some(match chunk.valid().chars().next() {
        Some(c) => (Some(c), c.len_utf8()),
        None => (None, 1),
    })
}

/// A bracket expression after its `[`, and what follows it; None where it is not closed.
fn class(chars: &[char]) -> Option<(Piece, &[char])> {
    let (negated, mut rest) = match chars.split_first()? {
        ('!' | '^', after) => (true, after),
        _ => (false, chars),
    };
    let mut ranges = Vec::new();
    loop {
        match rest {
            [']', after @ ..] if !ranges.is_empty() => {
                return Some((Piece::Class { negated, ranges }, after));
            }
            [from, '-', to, after @ ..] if *to != ']' => {
                ranges.push((*from, *to));
                rest = after;
            }
            [one, after @ ..] => {
                ranges.push((*one, *one));
                rest = after;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).matches(text.as_bytes(), Case::Differ)
    }

    #[test]
    fn stars_and_question_marks_take_what_they_should() {
        assert!(matches("", "") && matches("*", "") && matches("*", "a/b"));
        assert!(matches("/run/*", "/run/a/b.sock") && !matches("/run/*", "/run"));
        assert!(matches("a*b*c", "a-b-b-c") && !matches("a*b*c", "a-c-b"));
        assert!(matches("?", "ä") && !matches("?", "ab") && !matches("?", ""));
        assert!(matches("*a?c", "abcabc"));
    }

    #[test]
    fn brackets_and_backslashes_are_as_in_fnmatch() {
        assert!(matches("[a-c]x", "bx") && !matches("[a-c]x", "dx"));
        assert!(matches("[!a-c]x", "dx") && !matches("[^a-c]x", "bx"));
        assert!(matches("[]]", "]") && matches("[a-]", "-"));
        assert!(matches("a[b", "a[b"), "a bracket that is not closed means itself");
        assert!(matches(r"\*", "*") && !matches(r"\*", "a"));
        assert!(matches("a\\", "a\\"));
    }

    #[test]
    fn bytes_that_are_no_text_are_taken_by_wildcards_alone() {
        let pattern = Pattern::new("/x?y*");
        assert!(pattern.matches(b"/x\xffy", Case::Differ));
        assert!(pattern.matches(b"/x\xffy\xfe\xc3", Case::Differ));
        assert!(!Pattern::new("[!a]").matches(b"\xff", Case::Differ));
    }

    #[test]
    fn case_differs_unless_it_is_asked_not_to() {
        assert!(!matches("/RUN/a", "/run/A"));
        let pattern = Pattern::new("/RUN/[A-Z]?");
        assert!(pattern.matches(b"/run/aB", Case::Same));
    }

    #[test]
    fn only_a_pattern_without_wildcards_has_one_text() {
        assert_eq!(Pattern::new("nginx").literal().as_deref(), Some("nginx"));
        assert_eq!(Pattern::new(r"a\*b").literal().as_deref(), Some("a*b"));
        assert_eq!(Pattern::new("a*").literal(), None);
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = "*a".repeat(50) + "b";
        assert!(!matches(&pattern, &"a".repeat(5_000)));
        assert!(!matches(&("*".repeat(10_000) + "b"), &"a".repeat(5_000)));
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_bytes_make_it_panic(
            pattern in ".{0,20}",
            bytes in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let _ = Pattern::new(&pattern).matches(&bytes, Case::Same);
        }

        #[test]
        fn a_text_without_special_characters_matches_itself(text in "[^*?\\[\\\\]{0,20}") {
            prop_assert!(matches(&text, &text));
            let starred = format!("{text}*");
            let longer = format!("{text}x");
            prop_assert!(matches(&starred, &longer));
        }
    }
}
