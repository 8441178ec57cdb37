//! The rows of a table that were read a short while ago, to know one that comes again.

const SETS: usize = 512;
const WAYS: usize = 8;

/// Remembers the keys of about the last thousand rows, in 32 KiB. A key is forgotten
/// when 8 later ones have fallen into its set: of 30 rows about none, of 1,000 about
/// one in a thousand.
#[derive(Debug)]
pub(super) struct Recent {
    sets: Vec<[u64; WAYS]>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { sets: vec![[0; WAYS]; SETS] }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.sets.fill([0; WAYS]);
    }

    /// Remembers a key; false where it is known.
    #[inline]
    pub(super) fn is_new(&mut self, key: Key) -> bool {
        let key = key.0.max(1);
        // The low bits, of which any number fits.
        let at = usize::try_from(key & (SETS as u64 - 1)).unwrap_or(0);
        let set = &mut self.sets[at];
        let known = set.iter().fold(false, |known, &other| known | (other == key));
        if !known {
            set.copy_within(..WAYS - 1, 1);
            set[0] = key;
        }
        !known
    }
}

/// What tells one socket from the others of its table, in 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    /// Of a socket of which nothing is known yet.
    pub(super) const NONE: Self = Self(0x9e37_79b9_7f4a_7c15);

    /// With another value that tells it apart.
    #[inline]
    pub(super) fn with(self, value: u64) -> Self {
        let product = u128::from(self.0 ^ value) * 0xa076_1d64_78bd_642f;
        let (low, high) = (product as u64, (product >> 64) as u64);
        Self((low ^ high).wrapping_add(0xe703_7ed1_a0b4_28db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u64) -> Key {
        Key::NONE.with(n).with(n >> 3)
    }

    #[test]
    fn the_last_rows_are_known_and_those_of_long_ago_forgotten() {
        let mut recent = Recent::new();
        for n in 0..100_000_u64 {
            assert!(recent.is_new(key(n)), "{n} came once");
            assert!(!recent.is_new(key(n.saturating_sub(64))), "64 rows before {n}");
        }
        assert!(recent.is_new(key(7)));
        recent.clear();
        assert!(recent.is_new(key(99_999)));
    }

    #[test]
    fn rows_that_differ_by_little_have_keys_of_their_own() {
        let keys: std::collections::HashSet<u64> =
            (0..1_000_000).map(|n| Key::NONE.with(n / 1000).with(n % 1000).0).collect();
        assert_eq!(keys.len(), 1_000_000);
    }

    proptest! {
        #[test]
        fn the_order_of_values_matters(a: u64, b: u64) {
            prop_assume!(a != b);
            prop_assert_ne!(Key::NONE.with(a).with(b), Key::NONE.with(b).with(a));
        }
    }
}
