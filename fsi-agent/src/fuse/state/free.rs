//! Which slots of a table are free, as the server that lives knows it: the lowest is used first, so that a table takes no more
//! memory than it needed at its fullest.
//!
//! Nothing in the state tells a slot that is taken from one that is free until its tag is written, which comes last: whoever is
//! killed before that has taken nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::table::Slot;

/// The free slots of a table.
#[derive(Debug)]
pub struct FreeSlots {
    inner: Mutex<Inner>,
    /// Slots that there are.
    count: u32,
}

#[derive(Debug, Default)]
struct Inner {
    /// Free ones below `end`.
    free: BinaryHeap<Reverse<u32>>,
    end: u32,
}

impl FreeSlots {
    /// Of a table with so many slots, of which none was ever used.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { inner: Mutex::default(), count: u32::try_from(count).unwrap_or(u32::MAX) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While a state is read from its first slot on: the next one is free, or used.
    pub fn next_is(&mut self, used: bool) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !used {
            inner.free.push(Reverse(inner.end));
        }
        inner.end += 1;
    }

    /// Takes the lowest; none when all are taken.
    #[must_use]
    pub fn take(&self) -> Option<Slot> {
        let mut inner = self.inner();
        if let Some(Reverse(slot)) = inner.free.pop() {
            return Some(Slot(slot));
        }
        let slot = inner.end;
        (slot < self.count).then(|| {
            inner.end += 1;
            Slot(slot)
        })
    }

    /// Gives one back whose tag says that it is free.
    pub fn give_back(&self, slot: Slot) {
        self.inner().free.push(Reverse(slot.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_taken_first_and_none_twice() {
        let mut slots = FreeSlots::new(5);
        [true, false, true, false].into_iter().for_each(|used| slots.next_is(used));
        let taken: Vec<_> = std::iter::from_fn(|| slots.take()).map(|slot| slot.0).collect();
        assert_eq!(taken, [1, 3, 4]);
        slots.give_back(Slot(4));
        slots.give_back(Slot(0));
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(Slot(0)), Some(Slot(4)), None));
    }
}
