//! A table with a bound: what does not fit pushes out what came first, and says so.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Hashes the kernel's ids (counters, process numbers): one multiplication, no defence against chosen keys needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table takes the low bits for the place and the high ones for the tag: bring the well-mixed ones to both.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.write_u64(u64::from(id));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0.rotate_left(5) ^ id).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// Which insertion it was: tells it from a later one under the same key.
    sequence: u64,
}

/// What an insertion pushed out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Displaced<V> {
    Nothing,
    /// The entry that had the same key.
    Same(V),
    /// The oldest entry: the table was full.
    Oldest(V),
}

/// At most `capacity` values by id; the order of insertion is kept.
#[derive(Debug)]
pub(super) struct Table<V, K = u64> {
    entries: HashMap<K, Entry<V>, BuildHasherDefault<IdHasher>>,
    /// Keys in the order of insertion, those already gone included until they are swept.
    order: VecDeque<(K, u64)>,
    next_sequence: u64,
    capacity: usize,
}

impl<V, K: Copy + Eq + Hash> Table<V, K> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::default(),
            order: VecDeque::new(),
            next_sequence: 0,
            // A table for nothing could not even hold what it was just given.
            capacity: capacity.max(1),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.entries.get(&key).map(|entry| &entry.value)
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.entries.get_mut(&key).map(|entry| &mut entry.value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|entry| &mut entry.value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Displaced<V> {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.sweep();
        self.order.push_back((key, sequence));
        if let Some(same) = self.entries.insert(key, Entry { value, sequence }) {
            return Displaced::Same(same.value);
        }
        if self.entries.len() > self.capacity
            && let Some(oldest) = self.pop_oldest()
        {
            return Displaced::Oldest(oldest);
        }
        Displaced::Nothing
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        self.entries.remove(&key).map(|entry| entry.value)
    }

    pub(super) fn oldest(&mut self) -> Option<&V> {
        while let Some((key, sequence)) = self.order.front().copied() {
            if self.is_live(key, sequence) {
                return self.get(key);
            }
            self.order.pop_front();
        }
        None
    }

    pub(super) fn pop_oldest(&mut self) -> Option<V> {
        while let Some((key, sequence)) = self.order.pop_front() {
            if self.is_live(key, sequence) {
                return self.remove(key);
            }
        }
        None
    }

    fn is_live(&self, key: K, sequence: u64) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.sequence == sequence)
    }

    /// Forgets the order of what is gone, once that is most of it: constant cost per insertion on average.
    fn sweep(&mut self) {
        if self.order.len() < 2 * self.entries.len() + 64 {
            return;
        }
        let mut order = std::mem::take(&mut self.order);
        order.retain(|(key, sequence)| self.is_live(*key, *sequence));
        self.order = order;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut table = Table::new(2);
        assert_eq!(table.insert(1, 'a'), Displaced::Nothing);
        assert_eq!(table.insert(2, 'b'), Displaced::Nothing);
        assert_eq!(table.insert(1, 'c'), Displaced::Same('a'));
        assert_eq!(table.insert(3, 'd'), Displaced::Oldest('b'));
        assert_eq!(table.remove(1), Some('c'));
        assert_eq!(table.insert(4, 'e'), Displaced::Nothing);
        assert_eq!(table.oldest(), Some(&'d'));
        assert_eq!((table.pop_oldest(), table.pop_oldest(), table.pop_oldest()), (Some('d'), Some('e'), None));
    }

    #[test]
    fn memory_does_not_grow_with_churn() {
        let mut table = Table::new(10);
        for key in 0..100_000 {
            table.insert(key, ());
            table.remove(key);
        }
        assert!(table.order.len() <= 64 && table.len() == 0);
    }
}
