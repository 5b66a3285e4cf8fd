//! Rounds: every mode once, in an order that turns, the first round thrown away. All ratios are taken within a round.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::kit::Peer;
use super::statistics::{median_of, rotated};

/// A way to run a load.
pub(super) trait Mode: Copy + Ord {
    /// Alone: what the others are compared with.
    const BARE: Self;
    /// The same again, for the A/A ratio.
    const BARE_AGAIN: Self;

    fn name(self) -> &'static str;
    /// Who must be on the machine for it.
    fn peer(self) -> Option<Peer>;
}

/// One mode's run of one round.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Nanoseconds of an iteration by loop.
    pub(super) ns: BTreeMap<String, f64>,
    /// How many reads a peer says it saw.
    pub(super) seen: Option<u64>,
}

/// What is run one after the other, so that it meets the same machine.
#[derive(Debug)]
pub(super) struct Group<L, M> {
    pub(super) load: L,
    pub(super) modes: Vec<M>,
}

/// One round.
type Round<M> = BTreeMap<M, Sample>;

/// What all rounds gave, and which modes could not be had here.
#[derive(Debug)]
pub(super) struct Rounds<M> {
    pub(super) rounds: Vec<Round<M>>,
    pub(super) missing: Vec<(M, String)>,
}

impl<M: Mode> Rounds<M> {
    /// Runs them. A peer that is not here, or fails, is left out and named; what fails of ours ends the run.
    pub(super) fn run<L: Copy>(
        groups: &[Group<L, M>],
        count: usize,
        say: impl Fn(&str),
        mut measure: impl FnMut(L, M) -> Result<Sample>,
    ) -> Result<Self> {
        let mut all = Self { rounds: Vec::new(), missing: Vec::new() };
        for mode in groups.iter().flat_map(|group| &group.modes).copied() {
            if let Some(peer) = mode.peer()
                && !peer.is_here()
                && all.why_missing(mode).is_none()
            {
                all.missing.push((mode, format!("{} is not on this machine", peer.program())));
            }
        }
        if groups.iter().all(|group| group.modes.is_empty()) {
            return Ok(all);
        }
        for number in 0..count {
            let counted = if number == 0 { " (warms up, not counted)" } else { "" };
            say(&format!("round {} of {count}{counted}", number + 1));
            let mut round = Round::new();
            for Group { load, modes } in groups {
                for mode in rotated(modes, number) {
                    if all.why_missing(mode).is_some() {
                        continue;
                    }
                    match measure(*load, mode) {
                        Ok(sample) => round.entry(mode).or_default().add(sample),
                        Err(error) if mode.peer().is_some() => {
                            say(&format!("without {} from here on: {error:#}", mode.name()));
                            all.missing.push((mode, format!("it failed: {error}")));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            if number > 0 {
                all.rounds.push(round);
            }
        }
        Ok(all)
    }

    /// Why a mode was not measured, when it was not.
    pub(super) fn why_missing(&self, mode: M) -> Option<&str> {
        self.missing.iter().find(|(missing, _)| *missing == mode).map(|(_, why)| why.as_str())
    }

    /// Speed under `mode` as a share of the speed alone: 1 means that it costs nothing.
    pub(super) fn speed(&self, mode: M, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| Some(ns(round, M::BARE, name)? / ns(round, mode, name)?))
    }

    /// Nanoseconds that `mode` adds to an iteration.
    pub(super) fn added(&self, mode: M, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| added(round, mode, name))
    }

    /// What `mode` adds, as a share of what `other` adds.
    pub(super) fn added_share(&self, mode: M, other: M, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| Some(added(round, mode, name)? / added(round, other, name)?))
    }

    /// Time under `mode` as a multiple of that under `other`.
    pub(super) fn times(&self, mode: M, other: M, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| Some(ns(round, mode, name)? / ns(round, other, name)?))
    }

    /// The same load against itself.
    pub(super) fn a_a(&self, name: &'static str) -> Option<(&'static str, f64)> {
        self.speed(M::BARE_AGAIN, name).map(|(ratio, _)| (name, ratio))
    }

    /// What a peer saw of what was done, in the last round.
    pub(super) fn seen(&self, mode: M) -> Option<u64> {
        self.rounds.last()?.get(&mode)?.seen
    }

    /// Every number that was measured.
    pub(super) fn raw(&self) -> Value {
        let round = |round: &Round<M>| -> Value {
            round
                .iter()
                .map(|(mode, sample)| (mode.name().to_owned(), json!(sample.ns)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        self.rounds.iter().map(round).collect::<Vec<_>>().into()
    }
}

impl Sample {
    /// What another load of the same round gave.
    fn add(&mut self, other: Self) {
        self.ns.extend(other.ns);
        self.seen = other.seen.or(self.seen);
    }
}

fn ns<M: Mode>(round: &Round<M>, mode: M, name: &str) -> Option<f64> {
    round.get(&mode)?.ns.get(name).copied()
}

fn added<M: Mode>(round: &Round<M>, mode: M, name: &str) -> Option<f64> {
    Some(ns(round, mode, name)? - ns(round, M::BARE, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Ours {
        Bare,
        BareAgain,
        Sums,
        Strace,
        PerfTrace,
    }

    impl Mode for Ours {
        const BARE: Self = Self::Bare;
        const BARE_AGAIN: Self = Self::BareAgain;

        fn name(self) -> &'static str {
            "ours"
        }

        fn peer(self) -> Option<Peer> {
            None
        }
    }

    fn round(samples: &[(Ours, f64)]) -> Round<Ours> {
        let sample = |ns: f64| Sample { ns: BTreeMap::from([("pread".to_owned(), ns)]), seen: None };
        samples.iter().map(|(mode, ns)| (*mode, sample(*ns))).collect()
    }

    fn rounds() -> Rounds<Ours> {
        let one =
            round(&[(Ours::Bare, 300.0), (Ours::BareAgain, 330.0), (Ours::Sums, 600.0), (Ours::Strace, 60_300.0)]);
        let slow =
            round(&[(Ours::Bare, 600.0), (Ours::BareAgain, 660.0), (Ours::Sums, 1200.0), (Ours::Strace, 120_600.0)]);
        Rounds { rounds: vec![one.clone(), slow, one], missing: Vec::new() }
    }

    #[test]
    fn everything_is_compared_within_a_round() {
        let rounds = rounds();
        assert_eq!(rounds.speed(Ours::Sums, "pread"), Some((0.5, 3)));
        assert_eq!(rounds.added(Ours::Sums, "pread"), Some((300.0, 3)));
        assert_eq!(rounds.added_share(Ours::Sums, Ours::Strace, "pread"), Some((0.005, 3)));
        assert_eq!(rounds.times(Ours::Strace, Ours::Sums, "pread"), Some((100.5, 3)));
        assert!((rounds.a_a("pread").unwrap().1 - 0.909).abs() < 0.001);
        assert_eq!(rounds.speed(Ours::PerfTrace, "pread"), None);
    }

    #[test]
    fn loads_of_a_round_are_kept_together_and_the_order_turns() {
        let mut ran = Vec::new();
        let group = |load| Group { load, modes: vec![Ours::Bare, Ours::Sums] };
        let rounds = Rounds::run(
            &[group("a"), group("b")],
            2,
            |_| (),
            |load, mode| {
                ran.push((load, mode));
                Ok(Sample { ns: BTreeMap::from([(load.to_owned(), 1.0)]), seen: None })
            },
        )
        .unwrap();
        assert_eq!(ran[..4], [("a", Ours::Bare), ("a", Ours::Sums), ("b", Ours::Bare), ("b", Ours::Sums)]);
        assert_eq!(ran[4..6], [("a", Ours::Sums), ("a", Ours::Bare)]);
        assert_eq!(rounds.rounds.len(), 1, "the first is not counted");
        assert_eq!(rounds.speed(Ours::Sums, "b"), Some((1.0, 1)));
    }
}
