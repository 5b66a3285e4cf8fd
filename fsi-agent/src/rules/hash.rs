//! SipHash-2-4, written down here because what it gives is part of the format: the same seed must give the same faults in every
//! version and on every machine. std promises that of none of its hashers.

/// Both halves of a hash begin from keys of their own.
const FIRST_KEY: (u64, u64) = (0x6673_695f_7275_6c65, 0x735f_6472_6177_5f31);
const SECOND_KEY: (u64, u64) = (0x6673_695f_7275_6c65, 0x735f_6472_6177_5f32);

/// What is hashed, piece by piece; every piece of bytes carries its length, so that no two lists of pieces look the same.
#[derive(Clone, Debug)]
pub(crate) struct Hash {
    first: SipHash,
    second: SipHash,
}

impl Hash {
    /// `purpose` keeps hashes for different things apart.
    pub(crate) fn new(purpose: &str) -> Self {
        let new = Self { first: SipHash::new(FIRST_KEY), second: SipHash::new(SECOND_KEY) };
        new.bytes(purpose.as_bytes())
    }

    pub(crate) fn number(mut self, number: u64) -> Self {
        self.first.word(number);
        self.second.word(number);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self = self.number(u64::from_le_bytes(word));
        }
        self
    }

    pub(crate) fn finish(self) -> u64 {
        self.first.finish()
    }

    pub(crate) fn finish_wide(self) -> u128 {
        u128::from(self.first.finish()) << 64 | u128::from(self.second.finish())
    }
}

/// A stream of numbers, each evenly spread over all `u64`; as many as are asked for.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    from: SipHash,
    next: u64,
}

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        let mut from = SipHash::new(FIRST_KEY);
        from.word(seed);
        Self { from, next: 0 }
    }

    pub(super) fn number(&mut self) -> u64 {
        let mut hash = self.from.clone();
        hash.word(self.next);
        self.next += 1;
        hash.finish()
    }

    /// In `0..1`, 0 included.
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.number())
    }

    /// In `0..bound`; 0 when the bound is.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product of two u64 is a u64")
    }
}

/// The upper 53 bits, as many as an `f64` holds, as a number in `0..1`.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
fn unit(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

#[derive(Clone, Debug)]
struct SipHash {
    v: [u64; 4],
    words: u64,
}

impl SipHash {
    fn new((k0, k1): (u64, u64)) -> Self {
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, words: 0 }
    }

    fn word(&mut self, word: u64) {
        self.words += 1;
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.v;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        self.v = [v0, v1, v2, v3];
    }

    /// The input is whole words, so the last block holds nothing but the length.
    fn finish(mut self) -> u64 {
        let length = self.words.wrapping_mul(8) << 56;
        self.word(length);
        self.v[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.v.iter().fold(0, |all, v| all ^ v)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::*;

    #[test]
    #[expect(deprecated, reason = "it is SipHash-2-4, which the hasher that replaced it is not")]
    fn is_sip_hash_2_4() {
        let mut ours = SipHash::new(FIRST_KEY);
        let mut theirs = std::hash::SipHasher::new_with_keys(FIRST_KEY.0, FIRST_KEY.1);
        for word in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(ours.clone().finish(), theirs.finish());
            ours.word(word);
            theirs.write(&word.to_le_bytes());
        }
        assert_eq!(ours.finish(), theirs.finish());
    }

    #[test]
    fn pieces_do_not_run_into_each_other() {
        let hash =
            |pieces: &[&[u8]]| pieces.iter().fold(Hash::new("test"), |hash, piece| hash.bytes(piece)).finish_wide();
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a\0"]), hash(&[b"a"]));
        assert_ne!(Hash::new("a").finish(), Hash::new("b").finish());
    }

    #[test]
    fn draws_are_in_their_bounds() {
        let mut draws = Draws::new(7);
        for _ in 0..1000 {
            assert!((0.0..1.0).contains(&draws.unit()));
            assert!(draws.below(10) < 10);
        }
        assert_eq!(draws.below(0), 0);
    }
}
