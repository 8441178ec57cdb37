//! Sockets whose closing was told before the kernel told their end.

use std::collections::HashSet;
use std::mem;

use crate::sockets::model::Cookie;

/// Cookies of each of two generations: 16 to 32 bytes each. Ends that were missed leave
/// theirs behind, so that there must be a limit.
const GENERATION: usize = 50_000;

/// Cookies, the oldest forgotten when there are very many.
#[derive(Debug, Default)]
pub(super) struct Told {
    young: HashSet<Cookie>,
    old: HashSet<Cookie>,
}

impl Told {
    pub(super) fn insert(&mut self, cookie: Cookie) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(cookie);
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, cookie: Cookie) -> bool {
        self.young.remove(&cookie) | self.old.remove(&cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_each_is_given_once() {
        let mut told = Told::default();
        let many = 2 * u64::try_from(GENERATION).unwrap() + 1;
        (0..many).for_each(|n| told.insert(Cookie(n)));
        assert!(!told.remove(Cookie(0)), "of the generation that was forgotten");
        assert!(told.remove(Cookie(many / 2)) && told.remove(Cookie(many - 1)));
        assert!(!told.remove(Cookie(many - 1)), "given before");
    }
}
