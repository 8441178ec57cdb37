//! The connections of one event thread, in 8 bytes each.

use crate::kernel::fd_table::LocalFd;

/// Names a connection to the epoll, and no other that takes its slot after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) slot: u32,
    generation: u32,
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        Self::from(key.generation) << 32 | Self::from(key.slot)
    }
}

impl From<u64> for Key {
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken")]
    fn from(data: u64) -> Self {
        Self { slot: data as u32, generation: (data >> 32) as u32 }
    }
}

/// Open connections by slot; slots are used again.
#[derive(Debug, Default)]
pub(super) struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    conn: Option<LocalFd>,
    generation: u32,
}

impl Conns {
    pub(super) fn insert(&mut self, conn: LocalFd) -> Key {
        if let Some(slot) = self.free.pop() {
            let at = &mut self.slots[slot as usize];
            at.conn = Some(conn);
            return Key { slot, generation: at.generation };
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { conn: Some(conn), generation: 0 });
        Key { slot, generation: 0 }
    }

    pub(super) fn get(&self, key: Key) -> Option<&LocalFd> {
        let at = self.slots.get(key.slot as usize)?;
        at.conn.as_ref().filter(|_| at.generation == key.generation)
    }

    /// Takes the connection out; dropping it closes it.
    pub(super) fn remove(&mut self, key: Key) -> Option<LocalFd> {
        self.get(key)?;
        let at = &mut self.slots[key.slot as usize];
        at.generation = at.generation.wrapping_add(1);
        self.free.push(key.slot);
        at.conn.take()
    }

    /// The key of the connection that has `slot` now.
    pub(super) fn key(&self, slot: u32) -> Key {
        Key { slot, generation: self.slots[slot as usize].generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_key_does_not_name_the_next_user_of_its_slot() {
        let mut conns = Conns::default();
        let open = || LocalFd::from(File::open("/dev/null").unwrap());
        let first = conns.insert(open());
        assert!(conns.remove(first).is_some());
        let second = conns.insert(open());
        assert_eq!((first.slot, second.slot), (0, 0));
        assert!(conns.get(first).is_none() && conns.remove(first).is_none());
        assert!(conns.get(Key::from(u64::from(second))).is_some());
        assert_eq!(conns.key(0), second);
    }

    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Slot>(), 8);
    }
}
