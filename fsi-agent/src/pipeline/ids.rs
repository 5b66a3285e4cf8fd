//! Ids of traces and spans: random to others, unique among ours, and cheap (a few instructions, no system call each).

use std::hash::{BuildHasher as _, RandomState};

use crate::span::{SpanId, TraceId};

/// The step of `SplitMix64`.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// `SplitMix64`: its output is a bijection of a counter with a random start, so that no span id comes twice.
#[derive(Debug)]
pub(crate) struct Ids {
    state: u64,
    /// The upper half of trace ids has a start of its own.
    trace_state: u64,
}

impl Ids {
    /// Starts where the operating system's randomness says (`RandomState` is seeded from it).
    pub(crate) fn new() -> Self {
        Self { state: RandomState::new().hash_one(0), trace_state: RandomState::new().hash_one(1) }
    }

    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(STEP);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn span(&mut self) -> SpanId {
        loop {
            let id = Self::next(&mut self.state);
            // Zero means "no span" on the wire; it comes once in the whole period.
            if id != 0 {
                return SpanId(id.to_be_bytes());
            }
        }
    }

    pub(crate) fn trace(&mut self) -> TraceId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&Self::next(&mut self.trace_state).to_be_bytes());
        bytes[8..].copy_from_slice(&self.span().0);
        TraceId(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_never_zero() {
        let mut ids = Ids::new();
        let spans: HashSet<_> = (0..100_000).map(|_| ids.span()).collect();
        assert_eq!(spans.len(), 100_000);
        assert!(!spans.contains(&SpanId([0; 8])));
        assert_ne!(ids.trace(), ids.trace());
        assert_ne!(Ids::new().span(), Ids::new().span());
    }
}
