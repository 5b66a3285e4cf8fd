//! A fault log injected again: exactly those faults, at the same ordinals of the same operations on the same paths.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::decision::{Counters, Decision, Effect, Facts, Fault, FaultEntry, FaultKind, Request};
use super::engine::{Decider, key};
use super::op::{Op, OpSet};

pub mod line;

/// What happens to one operation.
#[derive(Debug, Default)]
struct Planned {
    delay: Duration,
    effect: Effect,
    volatile: bool,
    faults: Vec<Fault>,
}

/// What happens on one path.
type ByOrdinal = HashMap<(Op, u64), Planned>;

/// A log, by path, operation and ordinal.
pub struct Replay {
    planned: HashMap<Arc<[u8]>, ByOrdinal>,
    concern: HashMap<Arc<[u8]>, OpSet>,
    /// A failed or untrue fsync comes for these, and loses what it lost then.
    losing: HashSet<Arc<[u8]>>,
    counters: Arc<dyn Counters>,
    left_out: usize,
}

impl Replay {
    /// Every entry but power cuts, which no operation brings about.
    #[must_use]
    pub fn arm(entries: &[FaultEntry], counters: Arc<dyn Counters>) -> Self {
        let (planned, concern, losing) = (HashMap::new(), HashMap::new(), HashSet::new());
        let mut replay = Self { planned, concern, losing, counters, left_out: 0 };
        for entry in entries {
            if entry.fault.kind == FaultKind::PowerCut {
                replay.left_out += 1;
                continue;
            }
            replay.add(entry);
        }
        replay
    }

    /// How many entries of the log no operation brings about.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    fn add(&mut self, entry: &FaultEntry) {
        let FaultEntry { fault, op, path, ordinal, effect, .. } = entry;
        let concern = self.concern.entry(Arc::clone(path)).or_default();
        *concern = concern.with(*op);
        if loses(effect) {
            *concern = concern.union(OpSet::CHANGES_DATA);
            self.losing.insert(Arc::clone(path));
        }
        let planned = self.planned.entry(Arc::clone(path)).or_default().entry((*op, *ordinal)).or_default();
        planned.faults.push(fault.clone());
        planned.delay = planned.delay.saturating_add(fault.delay);
        planned.volatile |= fault.kind == FaultKind::LoseUntilFsync;
        if planned.effect == Effect::Done {
            planned.effect = match (effect, fault.errno) {
                (Effect::Done, Some(errno)) => Effect::Fail(errno),
                (effect, _) => effect.clone(),
            };
        }
    }

    fn planned(&self, request: &Request<'_>, ordinal: u64) -> Decision {
        let volatile = OpSet::CHANGES_DATA.contains(request.op) && self.losing.contains(request.path);
        let mut decision = Decision { ordinal, volatile, ..Decision::default() };
        let found = self.planned.get(request.path).and_then(|plans| plans.get(&(request.op, ordinal)));
        if let Some(Planned { delay, effect, volatile, faults }) = found {
            decision.fired = 1;
            decision.delay = *delay;
            decision.effect = effect.clone();
            decision.volatile |= volatile;
            decision.faults.clone_from(faults);
        }
        decision
    }
}

fn loses(effect: &Effect) -> bool {
    match effect {
        Effect::FailFsync(_) | Effect::LieFsync => true,
        Effect::Done | Effect::Fail(_) | Effect::Abort | Effect::Short(_) | Effect::Torn(_) | Effect::Corrupt(_) => {
            false
        }
    }
}

impl Decider for Replay {
    fn concern(&self, path: &[u8]) -> OpSet {
        self.concern.get(path).copied().unwrap_or_default()
    }

    fn concern_any(&self) -> OpSet {
        self.concern.values().fold(OpSet::EMPTY, |all, ops| all.union(*ops))
    }

    fn decide(&self, request: &Request<'_>, _facts: &dyn Facts, _since_armed: Duration) -> Decision {
        let ordinal = self.counters.next(key("operation", None, request));
        self.planned(request, ordinal)
    }

    fn again(&self, request: &Request<'_>, _facts: &dyn Facts, ordinal: u64, _fired: u64) -> Decision {
        self.planned(request, ordinal)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("planned", &self.planned).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
