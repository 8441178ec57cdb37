//! Slots in order of age: the oldest at the front, the youngest at the back.

use std::time::Instant;

const NONE: u32 = u32::MAX;

/// A doubly linked list through an array, so that each operation is a few stores.
#[derive(Debug)]
pub(super) struct Ages {
    nodes: Vec<Node>,
    oldest: u32,
    youngest: u32,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    older: u32,
    younger: u32,
    since: Instant,
}

impl Ages {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), oldest: NONE, youngest: NONE }
    }

    /// The slot that was put in longest ago, and when.
    pub(super) fn oldest(&self) -> Option<(u32, Instant)> {
        Some((self.oldest, self.nodes.get(self.oldest as usize)?.since))
    }

    /// Makes a slot that is not in the list the youngest.
    pub(super) fn push(&mut self, slot: u32) {
        let node = Node { older: self.youngest, younger: NONE, since: Instant::now() };
        let at = slot as usize;
        if at >= self.nodes.len() {
            self.nodes.resize(at + 1, node);
        }
        self.nodes[at] = node;
        match self.nodes.get_mut(self.youngest as usize) {
            Some(youngest) => youngest.younger = slot,
            None => self.oldest = slot,
        }
        self.youngest = slot;
    }

    /// Takes out a slot that is in the list.
    pub(super) fn remove(&mut self, slot: u32) {
        let Node { older, younger, .. } = self.nodes[slot as usize];
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.younger = younger,
            None => self.oldest = younger,
        }
        match self.nodes.get_mut(younger as usize) {
            Some(node) => node.older = older,
            None => self.youngest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(ages: &mut Ages) -> Vec<u32> {
        std::iter::from_fn(|| {
            let (slot, _) = ages.oldest()?;
            ages.remove(slot);
            Some(slot)
        })
        .collect()
    }

    #[test]
    fn they_leave_in_the_order_they_came() {
        let mut ages = Ages::new();
        for slot in [3, 0, 2, 1] {
            ages.push(slot);
        }
        ages.remove(0);
        ages.remove(1);
        ages.push(0);
        assert_eq!(drain(&mut ages), [3, 2, 0]);
        assert!(ages.oldest().is_none());
        ages.push(7);
        assert_eq!(drain(&mut ages), [7]);
    }
}
