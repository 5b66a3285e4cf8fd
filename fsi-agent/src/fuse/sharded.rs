//! A map that many threads use at once, in parts with a lock each.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const PARTS: usize = 32;

/// Values by number; values are cheap to clone (`Arc`).
#[derive(Debug)]
pub(super) struct Sharded<V> {
    parts: [RwLock<HashMap<u64, V>>; PARTS],
}

impl<V: Clone> Sharded<V> {
    pub(super) fn new() -> Self {
        Self { parts: std::array::from_fn(|_| RwLock::default()) }
    }

    fn part(&self, key: u64) -> &RwLock<HashMap<u64, V>> {
        // Inode numbers of one directory follow each other, so the low bits spread well.
        &self.parts[usize::try_from(key % PARTS as u64).unwrap_or(0)]
    }

    pub(super) fn get(&self, key: u64) -> Option<V> {
        self.read(key).get(&key).cloned()
    }

    /// The part that a key is in, as it is while this is held.
    pub(super) fn read(&self, key: u64) -> RwLockReadGuard<'_, HashMap<u64, V>> {
        self.part(key).read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part that a key is in, for changes that must not be torn.
    pub(super) fn lock(&self, key: u64) -> RwLockWriteGuard<'_, HashMap<u64, V>> {
        self.part(key).write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Every value.
    pub(super) fn values(&self) -> Vec<V> {
        let read = |part: &RwLock<HashMap<u64, V>>| {
            part.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(read).collect()
    }
}
