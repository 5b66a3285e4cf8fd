//! Rounds: every mode once, in an order that turns, the first round thrown away. All ratios are taken within a round.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Value, json};

use super::Line;
use super::kit::Kit;
use super::modes::{Mode, Sample};
use super::statistics::{median_of, rotated};

/// One round.
pub(super) type Round = BTreeMap<Mode, Sample>;

/// What all rounds gave, and which modes could not be had here.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) rounds: Vec<Round>,
    pub(super) missing: Vec<(Mode, String)>,
}

/// Which modes the lines compare.
fn modes(lines: &BTreeSet<Line>) -> Vec<Mode> {
    let of = |line: Line| -> &[Mode] {
        match line {
            Line::O1 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Observe],
            Line::O2 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Observe, Mode::Spans, Mode::Beside],
            Line::O3 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Bpftrace, Mode::PerfTrace, Mode::Strace],
            Line::O5 => &[Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Events],
            Line::O4 | Line::S1 => &[],
        }
    };
    lines.iter().flat_map(|line| of(*line)).copied().collect::<BTreeSet<_>>().into_iter().collect()
}

impl Rounds {
    /// Runs them. A peer that is not here, or fails, is left out and named; what fails of ours ends the run.
    pub(super) fn run(kit: &Kit, lines: &BTreeSet<Line>, count: usize, say: impl Fn(&str)) -> Result<Self> {
        let mut all = Self::default();
        let mut present = Vec::new();
        for mode in modes(lines) {
            match mode.peer() {
                Some(peer) if !peer.is_here() => {
                    all.missing.push((mode, format!("{} is not on this machine", peer.program())));
                }
                Some(_) | None => present.push(mode),
            }
        }
        if present.is_empty() {
            return Ok(all);
        }
        for number in 0..count {
            let counted = if number == 0 { " (warms up, not counted)" } else { "" };
            say(&format!("round {} of {count}{counted}", number + 1));
            let mut round = Round::new();
            for mode in rotated(&present, number) {
                match mode.run(kit, lines) {
                    Ok(sample) => drop(round.insert(mode, sample)),
                    Err(error) if mode.peer().is_some() => {
                        say(&format!("without {} from here on: {error:#}", mode.name()));
                        all.missing.push((mode, format!("it failed: {error}")));
                        present.retain(|other| *other != mode);
                    }
                    Err(error) => return Err(error),
                }
            }
            if number > 0 {
                all.rounds.push(round);
            }
        }
        Ok(all)
    }

    /// Why a mode was not measured, when it was not.
    pub(super) fn why_missing(&self, mode: Mode) -> Option<&str> {
        self.missing.iter().find(|(missing, _)| *missing == mode).map(|(_, why)| why.as_str())
    }

    /// Speed under `mode` as a share of the speed alone: 1 means that it costs nothing.
    pub(super) fn speed(&self, mode: Mode, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| Some(ns(round, Mode::Bare, name)? / ns(round, mode, name)?))
    }

    /// Nanoseconds that `mode` adds to an iteration.
    pub(super) fn added(&self, mode: Mode, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| added(round, mode, name))
    }

    /// What `mode` adds, as a share of what `other` adds.
    pub(super) fn added_share(&self, mode: Mode, other: Mode, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| Some(added(round, mode, name)? / added(round, other, name)?))
    }

    /// Time under `mode` as a multiple of that under `other`.
    pub(super) fn times(&self, mode: Mode, other: Mode, name: &str) -> Option<(f64, usize)> {
        median_of(&self.rounds, |round| Some(ns(round, mode, name)? / ns(round, other, name)?))
    }

    /// The same load against itself.
    pub(super) fn a_a(&self, name: &'static str) -> Option<(&'static str, f64)> {
        self.speed(Mode::BareAgain, name).map(|(ratio, _)| (name, ratio))
    }

    /// What a peer saw of what was done, in the last round.
    pub(super) fn seen(&self, mode: Mode) -> Option<u64> {
        self.rounds.last()?.get(&mode)?.seen
    }

    /// Every number that was measured.
    pub(super) fn raw(&self) -> Value {
        let round = |round: &Round| -> Value {
            round
                .iter()
                .map(|(mode, sample)| (mode.name().to_owned(), json!(sample.ns)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        self.rounds.iter().map(round).collect::<Vec<_>>().into()
    }
}

fn ns(round: &Round, mode: Mode, name: &str) -> Option<f64> {
    round.get(&mode)?.ns.get(name).copied()
}

fn added(round: &Round, mode: Mode, name: &str) -> Option<f64> {
    Some(ns(round, mode, name)? - ns(round, Mode::Bare, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(samples: &[(Mode, f64)]) -> Round {
        let sample = |ns: f64| Sample { ns: BTreeMap::from([("pread".to_owned(), ns)]), seen: None };
        samples.iter().map(|(mode, ns)| (*mode, sample(*ns))).collect()
    }

    fn rounds() -> Rounds {
        let one =
            round(&[(Mode::Bare, 300.0), (Mode::BareAgain, 330.0), (Mode::Sums, 600.0), (Mode::Strace, 60_300.0)]);
        let slow =
            round(&[(Mode::Bare, 600.0), (Mode::BareAgain, 660.0), (Mode::Sums, 1200.0), (Mode::Strace, 120_600.0)]);
        Rounds { rounds: vec![one.clone(), slow, one], missing: Vec::new() }
    }

    #[test]
    fn everything_is_compared_within_a_round() {
        let rounds = rounds();
        assert_eq!(rounds.speed(Mode::Sums, "pread"), Some((0.5, 3)));
        assert_eq!(rounds.added(Mode::Sums, "pread"), Some((300.0, 3)));
        assert_eq!(rounds.added_share(Mode::Sums, Mode::Strace, "pread"), Some((0.005, 3)));
        assert_eq!(rounds.times(Mode::Strace, Mode::Sums, "pread"), Some((100.5, 3)));
        assert!((rounds.a_a("pread").unwrap().1 - 0.909).abs() < 0.001);
        assert_eq!(rounds.speed(Mode::PerfTrace, "pread"), None);
    }

    #[test]
    fn only_what_is_compared_is_run() {
        assert_eq!(modes(&BTreeSet::from([Line::O4, Line::S1])), []);
        assert_eq!(modes(&BTreeSet::from([Line::O5])), [Mode::Bare, Mode::BareAgain, Mode::Sums, Mode::Events]);
    }
}
