//! Limits that all volumes of a pod share: each is one bucket of the [`Table`] for each pod.
//!
//! The bucket is that of (pod, what is counted, rate): volumes that state the same limit share it, and limits that differ are apart, each
//! over the volumes that state it. How much may be saved up is asked of the limit, not of the bucket.

use std::collections::HashMap;
use std::sync::Arc;

use super::spec::{Direction, Scope, ThrottleSpec};
use super::table::{Slot, Table, Taken, Terms};
use crate::rules::hash::Hash;

const NS: u128 = 1_000_000_000;
/// Pods of which one remembers where their buckets are.
const MAX_PODS: usize = 4096;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    /// Operations; one of more bytes than these counts as several.
    Operations {
        bytes_each: u64,
    },
}

/// One limit; it holds for each pod on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    reads: bool,
    writes: bool,
    unit: Unit,
    /// Tokens a second, at least one.
    rate: u64,
    burst_ns: u64,
    /// What is owed in parts of a nanosecond, times the rate.
    owed: u128,
}

impl Limit {
    fn all_of(spec: &ThrottleSpec) -> impl Iterator<Item = Self> {
        let burst_ns = u64::try_from(spec.burst.as_nanos()).unwrap_or(u64::MAX);
        let operations = Unit::Operations { bytes_each: spec.bytes_per_operation.unwrap_or(u64::MAX).max(1) };
        let limits = [
            (true, false, Unit::Bytes, spec.read_bytes_per_s),
            (true, false, operations, spec.read_iops),
            (false, true, Unit::Bytes, spec.write_bytes_per_s),
            (false, true, operations, spec.write_iops),
            (true, true, Unit::Bytes, spec.total_bytes_per_s),
            (true, true, operations, spec.total_iops),
        ];
        limits.into_iter().filter_map(move |(reads, writes, unit, rate)| {
            Some(Self { reads, writes, unit, rate: rate?.max(1), burst_ns, owed: 0 })
        })
    }

    fn is_same_but_for_burst(&self, other: &Self) -> bool {
        (self.reads, self.writes, self.unit, self.rate) == (other.reads, other.writes, other.unit, other.rate)
    }

    fn terms(&self, pod: u64) -> Terms {
        let (unit, bytes_each) = match self.unit {
            Unit::Bytes => (0, 0),
            Unit::Operations { bytes_each } => (1, bytes_each),
        };
        let counted = u64::from(self.reads) | u64::from(self.writes) << 1 | unit << 2;
        let key = Hash::new("pod limit").number(pod).number(counted).number(bytes_each).number(self.rate).finish();
        // One more passes while a token is left, or as much as can be saved up.
        let one_ns = (NS.div_ceil(u128::from(self.rate))).min(u128::from(self.burst_ns));
        let tolerance_ns = self.burst_ns - u64::try_from(one_ns).unwrap_or(self.burst_ns);
        Terms { key: key.max(1), tolerance_ns }
    }

    const fn tokens(&self, bytes: u64) -> u64 {
        match self.unit {
            Unit::Bytes => bytes,
            Unit::Operations { bytes_each } => {
                let operations = bytes.div_ceil(bytes_each);
                if operations == 0 { 1 } else { operations }
            }
        }
    }

    /// How long the rate needs for so many bytes, and what of it is owed then: whole nanoseconds are taken.
    fn cost(&self, bytes: u64) -> (u64, u128) {
        let rate = u128::from(self.rate);
        let time = u128::from(self.tokens(bytes)) * NS + self.owed;
        (u64::try_from(time / rate).unwrap_or(u64::MAX), time % rate)
    }
}

/// The limits of a mount whose scope is the pod.
#[derive(Debug)]
pub struct Pods {
    limits: Vec<Limit>,
    /// Which of them concern reads, and writes.
    reads: Arc<[usize]>,
    writes: Arc<[usize]>,
    table: Arc<Table>,
    /// The buckets of pods, in the order of the limits.
    known: HashMap<u64, Box<[Known]>>,
    missed: u64,
}

/// What one remembers of a bucket.
#[derive(Clone, Copy, Debug)]
struct Known {
    terms: Terms,
    /// Where it was found last.
    slot: Option<Slot>,
}

impl Pods {
    /// Those of the limits that have this scope; none where none has it.
    #[must_use]
    pub fn of(specs: &[ThrottleSpec], table: &Arc<Table>) -> Option<Self> {
        let mut limits: Vec<Limit> = Vec::new();
        for limit in specs.iter().filter(|spec| spec.scope == Scope::Pod).flat_map(Limit::all_of) {
            // Stated twice it is one bucket, and the stricter burst holds.
            match limits.iter_mut().find(|known| known.is_same_but_for_burst(&limit)) {
                Some(known) => known.burst_ns = known.burst_ns.min(limit.burst_ns),
                None => limits.push(limit),
            }
        }
        if limits.is_empty() {
            return None;
        }
        let concerned = |is_concerned: fn(&Limit) -> bool| {
            (0..).zip(&limits).filter(|(_, limit)| is_concerned(limit)).map(|(index, _)| index).collect()
        };
        let (reads, writes) = (concerned(|limit| limit.reads), concerned(|limit| limit.writes));
        Some(Self { limits, reads, writes, table: Arc::clone(table), known: HashMap::new(), missed: 0 })
    }

    /// Requests that passed a limit because there was no bucket for it.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// When the pod's buckets allow one more of that direction.
    pub fn ready_at(&mut self, pod: u64, direction: Direction, now_ns: u64) -> u64 {
        let mut ready = now_ns;
        for index in self.concerned(direction) {
            let (terms, slot) = self.bucket(pod, index, now_ns);
            match slot.map(|slot| self.table.ready_at(slot, terms, now_ns)) {
                Some(Some(at)) => ready = ready.max(at),
                // Who takes looks for it anew.
                Some(None) => self.remember(pod, index, None),
                None => {}
            }
        }
        ready
    }

    /// Takes what the request costs of all of them, or nothing.
    ///
    /// # Errors
    /// When one of them has no tokens, with the time before which it has none. That may be although all had some a moment ago: another
    /// server may have taken them.
    pub fn take(&mut self, pod: u64, direction: Direction, bytes: u64, now_ns: u64) -> Result<(), u64> {
        for index in self.concerned(direction) {
            if let Err(not_before) = self.take_one(pod, index, bytes, now_ns) {
                for earlier in self.concerned(direction).take_while(|earlier| *earlier < index) {
                    self.give_back_one(pod, earlier, bytes, now_ns);
                }
                return Err(not_before);
            }
        }
        Ok(())
    }

    /// Gives back what bytes cost that were not moved after all; the operation was one all the same.
    pub fn give_back(&mut self, pod: u64, direction: Direction, bytes: u64, now_ns: u64) {
        for index in self.concerned(direction) {
            if self.limits[index].unit == Unit::Bytes {
                self.give_back_one(pod, index, bytes, now_ns);
            }
        }
    }

    /// How much of the time of the scarcest bucket the request uses up.
    #[must_use]
    pub fn cost_ns(&self, direction: Direction, bytes: u64) -> u64 {
        self.concerned(direction).map(|index| self.limits[index].cost(bytes).0).max().unwrap_or(0)
    }

    fn concerned(&self, direction: Direction) -> impl Iterator<Item = usize> + use<> {
        let concerned = Arc::clone(match direction {
            Direction::Read => &self.reads,
            Direction::Write => &self.writes,
        });
        (0..concerned.len()).map(move |at| concerned[at])
    }

    fn take_one(&mut self, pod: u64, index: usize, bytes: u64, now_ns: u64) -> Result<(), u64> {
        let (cost_ns, owed) = self.limits[index].cost(bytes);
        // A slot that was given away is looked for again, once.
        for _ in 0..2 {
            let (terms, Some(slot)) = self.bucket(pod, index, now_ns) else { break };
            match self.table.take(slot, terms, cost_ns, now_ns) {
                Taken::Yes => {
                    self.limits[index].owed = owed;
                    return Ok(());
                }
                Taken::NotBefore(at) => return Err(at),
                Taken::Gone => self.remember(pod, index, None),
            }
        }
        self.missed += 1;
        Ok(())
    }

    fn give_back_one(&mut self, pod: u64, index: usize, bytes: u64, now_ns: u64) {
        let limit = &self.limits[index];
        let time = u128::from(limit.tokens(bytes)) * NS / u128::from(limit.rate);
        if let (terms, Some(slot)) = self.bucket(pod, index, now_ns) {
            self.table.give_back(slot, terms.key, u64::try_from(time).unwrap_or(u64::MAX), now_ns);
        }
    }

    fn bucket(&mut self, pod: u64, index: usize, now_ns: u64) -> (Terms, Option<Slot>) {
        if !self.known.contains_key(&pod) {
            if self.known.len() >= MAX_PODS {
                self.known.clear();
            }
            let known = self.limits.iter().map(|limit| Known { terms: limit.terms(pod), slot: None });
            self.known.insert(pod, known.collect());
        }
        let Known { terms, slot } = self.known[&pod][index];
        if slot.is_some() {
            return (terms, slot);
        }
        let slot = self.table.find(terms.key, now_ns);
        self.remember(pod, index, slot);
        (terms, slot)
    }

    fn remember(&mut self, pod: u64, index: usize, slot: Option<Slot>) {
        if let Some(known) = self.known.get_mut(&pod) {
            known[index].slot = slot;
        }
    }
}

#[cfg(test)]
mod tests;
