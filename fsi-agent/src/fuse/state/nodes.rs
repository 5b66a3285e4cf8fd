//! A node's record: how to find the object again, how often the kernel looked it up, and what it is called.
//!
//! | word | holds |
//! |---|---|
//! | 0 | node number (0: free) |
//! | 1 | lookups the kernel has not forgotten |
//! | 2 | backing id (0: none) |
//! | 3 | generation, upper half: `st_mode` |
//! | 4 | node number of the directory it was last seen in |
//! | 5 | type of the handle; upper half: 1 when the object has no name any more, or is losing it |
//! | 6..23 | handle: length, bytes |
//! | 23..56 | name: length, bytes |

use std::sync::atomic::{AtomicU64, Ordering};

use super::State;
use super::table::{Slot, is_bytes, read_bytes, write_bytes};

/// As long as a handle may be (`MAX_HANDLE_SZ`).
pub const MAX_HANDLE_BYTES: usize = 128;

const HANDLE: std::ops::Range<usize> = 6..23;
const NAME: std::ops::Range<usize> = 23..56;
pub(super) const NAME_WORDS: usize = NAME.end - NAME.start;

/// One node's words, by name.
#[derive(Clone, Copy, Debug)]
pub struct NodeRecord<'a>(pub &'a [AtomicU64]);

impl NodeRecord<'_> {
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0[0].load(Ordering::Acquire)
    }

    #[must_use]
    pub fn lookups(&self) -> &AtomicU64 {
        &self.0[1]
    }

    /// The number under which the kernel reads and writes it.
    #[must_use]
    pub fn backing(&self) -> Option<u32> {
        u32::try_from(self.0[2].load(Ordering::Acquire)).ok().filter(|id| *id != 0)
    }

    pub fn set_backing(&self, id: Option<u32>) {
        self.0[2].store(u64::from(id.unwrap_or(0)), Ordering::Release);
    }

    /// `(generation, st_mode)`
    #[must_use]
    pub fn generation_mode(&self) -> (u32, u32) {
        halves(self.0[3].load(Ordering::Acquire))
    }

    pub fn set_generation_mode(&self, generation: u32, mode: u32) {
        self.0[3].store(whole(generation, mode), Ordering::Release);
    }

    #[must_use]
    pub fn parent(&self) -> u64 {
        self.0[4].load(Ordering::Acquire)
    }

    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        read_bytes(&self.0[NAME])
    }

    /// Whether that is where it was last seen.
    #[must_use]
    pub fn is_at(&self, parent: u64, name: &[u8]) -> bool {
        self.parent() == parent && is_bytes(&self.0[NAME], name)
    }

    /// For a record that nobody reads yet; others are moved by [`State::move_node`].
    pub fn set_place(&self, parent: u64, name: &[u8]) {
        self.0[4].store(parent, Ordering::Release);
        write_bytes(&self.0[NAME], name);
    }

    #[must_use]
    pub fn is_nameless(&self) -> bool {
        halves(self.0[5].load(Ordering::Acquire)).1 != 0
    }

    pub fn set_nameless(&self, nameless: bool) {
        let (kind, _) = halves(self.0[5].load(Ordering::Acquire));
        self.0[5].store(whole(kind, u32::from(nameless)), Ordering::Release);
    }

    /// `(type, bytes)`; no bytes where the file system has no handles.
    #[must_use]
    pub fn handle(&self) -> (u32, Vec<u8>) {
        (halves(self.0[5].load(Ordering::Acquire)).0, read_bytes(&self.0[HANDLE]))
    }

    /// Sets the handle of an object that has a name.
    pub fn set_handle(&self, kind: u32, bytes: &[u8]) {
        write_bytes(&self.0[HANDLE], bytes);
        self.0[5].store(whole(kind, 0), Ordering::Release);
    }
}

impl State {
    /// Moves a node to another place. It is written down first, so that whoever takes over from a killed server finds the old place or
    /// the new one. One such change at a time, and no reader of the record meanwhile.
    pub fn move_node(&self, slot: Slot, parent: u64, name: &[u8]) {
        let place = self.place();
        place[1].store(parent, Ordering::Release);
        write_bytes(&place[2..], name);
        place[0].store(u64::from(slot.0) + 1, Ordering::Release);
        self.finish_move();
    }

    /// Makes the change that was written down, if there is one.
    pub fn finish_move(&self) {
        let place = self.place();
        let slot = place[0].load(Ordering::Acquire).checked_sub(1).and_then(|slot| u32::try_from(slot).ok());
        if let Some(slot) = slot.filter(|slot| (*slot as usize) < self.nodes().len()) {
            let record = NodeRecord(self.nodes().slot(Slot(slot)));
            record.set_place(place[1].load(Ordering::Acquire), &read_bytes(&place[2..]));
        }
        place[0].store(0, Ordering::Release);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "taking the halves of a word is what this is for")]
const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

const fn whole(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}
