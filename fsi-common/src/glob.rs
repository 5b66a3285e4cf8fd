//! Path globs as an automaton that the kernel can run: one table look-up per byte, no backtracking.
//!
//! All globs of one list share 256 positions. Position p holds when everything before p in its glob has matched; the bit
//! after a glob's last position accepts. The agent compiles (`fsi_agent::selection::glob`), both sides run [`advance`].

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

/// Every position moved by one.
#[inline(always)]
const fn shifted(set: Positions) -> Positions {
    [set[0] << 1, set[1] << 1 | set[0] >> 63, set[2] << 1 | set[1] >> 63, set[3] << 1 | set[2] >> 63]
}

/// The set with what can be reached from it without a byte. Two rounds: the compiler lets at most two such positions
/// stand side by side.
#[inline(always)]
const fn closed(set: Positions, skip: &Positions) -> Positions {
    let mut all = set;
    let mut round = 0;
    while round < 2 {
        let more = shifted([all[0] & skip[0], all[1] & skip[1], all[2] & skip[2], all[3] & skip[3]]);
        all = [all[0] | more[0], all[1] | more[1], all[2] | more[2], all[3] | more[3]];
        round += 1;
    }
    all
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

    /// The state before the first byte.
    #[inline(always)]
    #[must_use]
    pub const fn begin(&self) -> Positions {
        closed(self.start, &self.skip_on_entry)
    }

    /// The state after one more byte.
    #[inline(always)]
    #[must_use]
    pub const fn advance(&self, state: Positions, byte: u8) -> Positions {
        let take = &self.step[byte as usize];
        let moved = shifted([state[0] & take[0], state[1] & take[1], state[2] & take[2], state[3] & take[3]]);
        let keep = if byte == b'/' { &self.stay_slash } else { &self.stay };
        let kept = [state[0] & keep[0], state[1] & keep[1], state[2] & keep[2], state[3] & keep[3]];
        let moved = closed(moved, &self.skip_on_entry);
        let kept = closed(kept, &self.skip_on_stay);
        [moved[0] | kept[0], moved[1] | kept[1], moved[2] | kept[2], moved[3] | kept[3]]
    }

    /// What the state after the last byte says. Without a selecting glob everything is selected that none refuses.
    #[inline(always)]
    #[must_use]
    pub const fn selected(&self, state: Positions) -> bool {
        if intersects(&state, &self.exclude) {
            return false;
        }
        let any = self.include[0] | self.include[1] | self.include[2] | self.include[3];
        any == 0 || intersects(&state, &self.include)
    }
}

#[inline(always)]
const fn intersects(a: &Positions, b: &Positions) -> bool {
    (a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3]) != 0
}
