//! Path globs as an automaton that the kernel can run: one table look-up per byte, no backtracking.
//!
//! All globs of one list share 256 positions. Position p holds when everything before p in its glob has matched; the bit
//! after a glob's last position accepts. The agent compiles (`fsi_agent::selection::glob`), both sides run [`Automaton::advance`].

/// Words of a state set.
pub const WORDS: usize = 4;
/// Positions that all globs of a list share.
pub const POSITIONS: usize = WORDS * 64;

/// A set of positions.
pub type Positions = [u64; WORDS];

/// A compiled list of globs.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Automaton {
    /// By byte: the positions that take it and hand over to the next.
    pub step: [Positions; 256],
    /// Positions that take any byte but `/` and stay.
    pub stay: Positions,
    /// Positions that take `/` too and stay.
    pub stay_slash: Positions,
    /// Positions whose next one holds as soon as they are reached.
    pub skip_on_entry: Positions,
    /// Positions whose next one holds as long as they stay.
    pub skip_on_stay: Positions,
    /// Where it starts.
    pub start: Positions,
    /// Ends of the globs that select.
    pub include: Positions,
    /// Ends of the globs that refuse.
    pub exclude: Positions,
}

/// A set moved up by one, word by word: each step takes a word and hands its highest bit on to the next.
struct Shift {
    carry: u64,
}

impl Shift {
    const NEW: Self = Self { carry: 0 };

    #[inline(always)]
    const fn word(&mut self, word: u64) -> u64 {
        let moved = word << 1 | self.carry;
        self.carry = word >> 63;
        moved
    }
}

/// A set with what can be reached from it without a byte, word by word. Two rounds: the compiler of globs lets at most two such
/// positions stand side by side.
struct Closure {
    first: Shift,
    second: Shift,
}

impl Closure {
    const NEW: Self = Self { first: Shift::NEW, second: Shift::NEW };

    #[inline(always)]
    const fn word(&mut self, word: u64, skip: u64) -> u64 {
        let once = word | self.first.word(word & skip);
        once | self.second.word(once & skip)
    }
}

impl Automaton {
    /// Matches nothing, refuses nothing.
    pub const EMPTY: Self = Self {
        step: [[0; WORDS]; 256],
        stay: [0; WORDS],
        stay_slash: [0; WORDS],
        skip_on_entry: [0; WORDS],
        skip_on_stay: [0; WORDS],
        start: [0; WORDS],
        include: [0; WORDS],
        exclude: [0; WORDS],
    };

    /// Sets the state before the first byte.
    #[inline(always)]
    pub const fn begin(&self, state: &mut Positions) {
        let mut closure = Closure::NEW;
        let mut word = 0;
        while word < WORDS {
            state[word] = closure.word(self.start[word], self.skip_on_entry[word]);
            word += 1;
        }
    }

    /// One more byte. Word by word, in place: the kernel's stack is short.
    #[inline(always)]
    pub const fn advance(&self, state: &mut Positions, byte: u8) {
        let take = &self.step[byte as usize];
        let keep = if byte == b'/' { &self.stay_slash } else { &self.stay };
        let mut shift = Shift::NEW;
        let mut moved = Closure::NEW;
        let mut kept = Closure::NEW;
        let mut word = 0;
        while word < WORDS {
            let now = state[word];
            let arrived = moved.word(shift.word(now & take[word]), self.skip_on_entry[word]);
            state[word] = arrived | kept.word(now & keep[word], self.skip_on_stay[word]);
            word += 1;
        }
    }

    /// What the state after the last byte says. Without a selecting glob everything is selected that none refuses.
    #[inline(always)]
    #[must_use]
    pub const fn selected(&self, state: &Positions) -> bool {
        if intersects(state, &self.exclude) {
            return false;
        }
        let any = self.include[0] | self.include[1] | self.include[2] | self.include[3];
        any == 0 || intersects(state, &self.include)
    }
}

#[inline(always)]
const fn intersects(a: &Positions, b: &Positions) -> bool {
    (a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3]) != 0
}
