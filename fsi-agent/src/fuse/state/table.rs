//! Slots of a fixed number of words. The first word says whether a slot is in use: it is written last and cleared first.
//!
//! Stores of one thread that are all releases are seen in their order, by other threads and by the successor of a killed server.

use std::sync::atomic::{AtomicU64, Ordering};

/// A view on the slots of one table.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a, const WORDS: usize> {
    words: &'a [AtomicU64],
}

/// Number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl<'a, const WORDS: usize> Table<'a, WORDS> {
    pub(super) const fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// How many slots there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.words.len() / WORDS
    }

    /// Whether there are no slots at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The words of a slot; word 0 is its tag, 0 when free.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> &'a [AtomicU64] {
        let at = slot.0 as usize * WORDS;
        &self.words[at..at + WORDS]
    }

    /// Takes a free slot for `tag`, looking from `from` on and around; its other words are as the last user left them.
    #[must_use]
    pub fn claim(&self, from: u32, tag: u64) -> Option<Slot> {
        let count = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let from = from % count.max(1);
        (from..count).chain(0..from).map(Slot).find(|slot| {
            let word = &self.slot(*slot)[0];
            word.load(Ordering::Relaxed) == 0
                && word.compare_exchange(0, tag, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Puts a slot to use: its other words are written.
    pub fn publish(&self, slot: Slot, tag: u64) {
        self.slot(slot)[0].store(tag, Ordering::Release);
    }

    /// Gives a slot back.
    pub fn release(&self, slot: Slot) {
        self.slot(slot)[0].store(0, Ordering::Release);
    }

    /// The slots below `end`. Slots that were never used are better not looked at: each costs memory then.
    pub fn below(&self, end: u64) -> impl Iterator<Item = (Slot, &'a [AtomicU64])> + use<'a, WORDS> {
        let table = *self;
        let end = u32::try_from(end.min(self.len() as u64)).unwrap_or(u32::MAX);
        (0..end).map(move |slot| (Slot(slot), table.slot(Slot(slot))))
    }

    /// Those of them that are in use.
    pub fn used(&self, end: u64) -> impl Iterator<Item = (Slot, &'a [AtomicU64])> + use<'a, WORDS> {
        self.below(end).filter(|(_, words)| words[0].load(Ordering::Acquire) != 0)
    }
}

/// Bytes as words: the length, then the bytes. The length is 0 while the bytes change.
pub(super) fn write_bytes(words: &[AtomicU64], bytes: &[u8]) {
    words[0].store(0, Ordering::Release);
    for (word, chunk) in words[1..].iter().zip(bytes.chunks(8)) {
        let mut packed = [0; 8];
        packed[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_le_bytes(packed), Ordering::Release);
    }
    words[0].store(bytes.len() as u64, Ordering::Release);
}

/// The bytes that [`write_bytes`] wrote.
pub(super) fn read_bytes(words: &[AtomicU64]) -> Vec<u8> {
    let most = (words.len() - 1) * 8;
    let length = usize::try_from(words[0].load(Ordering::Acquire)).unwrap_or(0).min(most);
    let mut bytes: Vec<u8> =
        words[1..=length.div_ceil(8)].iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// Whether they are these bytes.
pub(super) fn is_bytes(words: &[AtomicU64], bytes: &[u8]) -> bool {
    let chunk_is = |(word, chunk): (&AtomicU64, &[u8])| {
        let mut packed = [0; 8];
        packed[..chunk.len()].copy_from_slice(chunk);
        word.load(Ordering::Relaxed) == u64::from_le_bytes(packed)
    };
    words[0].load(Ordering::Acquire) == bytes.len() as u64 && words[1..].iter().zip(bytes.chunks(8)).all(chunk_is)
}
