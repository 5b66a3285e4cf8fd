//! Bytes changed: the same corruption of the same bytes at the same offset gives the same result.

use super::decision::{Corrupt, Corruption};
use super::hash::{Draws, Hash};

/// Changes the bytes; `offset` is where in the file they stand. A buffer that is not empty is never left as it was by bit flips.
pub fn apply(corruption: &Corruption, offset: u64, bytes: &mut [u8]) {
    if bytes.is_empty() {
        return;
    }
    let mut draws = Draws::new(Hash::new("corrupt").number(corruption.seed).number(offset).finish());
    match &corruption.how {
        Corrupt::BitFlip { bits } => flip(&mut draws, *bits, bytes),
        Corrupt::Zero { bytes: most } => run(&mut draws, *most, bytes).fill(0),
        Corrupt::Random { bytes: most } => {
            for chunk in run(&mut draws, *most, bytes).chunks_mut(8) {
                let random = draws.number().to_le_bytes();
                chunk.copy_from_slice(&random[..chunk.len()]);
            }
        }
        Corrupt::Pattern { bytes: most, pattern } => {
            let target = run(&mut draws, *most, bytes);
            for (byte, wanted) in target.iter_mut().zip(pattern.iter().cycle()) {
                *byte = *wanted;
            }
        }
    }
}

/// Flips that many different bits, or all there are.
fn flip(draws: &mut Draws, bits: u32, bytes: &mut [u8]) {
    let all = bytes.len() as u64 * 8;
    let mut flipped = std::collections::BTreeSet::new();
    // Floyd's way: each step adds one bit that was not there, and every set is equally likely.
    for last in all.saturating_sub(u64::from(bits))..all {
        let drawn = draws.below(last + 1);
        let bit = if flipped.insert(drawn) { drawn } else { last };
        flipped.insert(bit);
        let index = usize::try_from(bit / 8).expect("a bit of a slice lies in it");
        bytes[index] ^= 1 << (bit % 8);
    }
}

/// A run of at most that many bytes, anywhere.
fn run<'a>(draws: &mut Draws, most: u64, bytes: &'a mut [u8]) -> &'a mut [u8] {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    let places = (bytes.len() - length) as u64 + 1;
    let start = usize::try_from(draws.below(places)).expect("a place of a slice lies in it");
    &mut bytes[start..start + length]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn differing_bits(left: &[u8], right: &[u8]) -> u32 {
        left.iter().zip(right).map(|(left, right)| (left ^ right).count_ones()).sum()
    }

    proptest! {
        #[test]
        fn flips_exactly_so_many_bits(seed: u64, offset: u64, bits in 1_u32..64, before: [u8; 16]) {
            let corruption = Corruption { how: Corrupt::BitFlip { bits }, seed };
            let (mut once, mut again) = (before, before);
            apply(&corruption, offset, &mut once);
            apply(&corruption, offset, &mut again);
            prop_assert_eq!(differing_bits(&before, &once), bits);
            prop_assert_eq!(once, again);
        }

        #[test]
        fn a_run_stays_a_run(seed: u64, most in 1_u64..40, length in 0_usize..40) {
            let mut bytes = vec![0xff; length];
            apply(&Corruption { how: Corrupt::Zero { bytes: most }, seed }, 0, &mut bytes);
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            prop_assert_eq!(zeros, length.min(usize::try_from(most).unwrap()));
            let first = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
            prop_assert!(bytes[first..first + zeros].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn patterns_repeat_and_more_bits_than_there_are_is_all() {
        let mut bytes = [0; 5];
        let how = Corrupt::Pattern { bytes: u64::MAX, pattern: b"ab".to_vec() };
        apply(&Corruption { how, seed: 1 }, 0, &mut bytes);
        assert_eq!(&bytes, b"ababa");
        let mut bytes = [0x0f; 2];
        apply(&Corruption { how: Corrupt::BitFlip { bits: 99 }, seed: 1 }, 0, &mut bytes);
        assert_eq!(bytes, [0xf0; 2]);
    }
}
