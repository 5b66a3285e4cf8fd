//! The metrics that the kernel side keeps: each CPU has entries of its own, which are summed here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::maps::HashMap as BpfHashMap;
use fsi_common::aggregate::{AggregateKey, AggregateValue};

use super::policies::unless_gone;
use super::{Probe, ProbeError};

impl Probe {
    /// What was counted so far, summed over the CPUs.
    pub fn aggregates(&self) -> Result<Vec<(AggregateKey, AggregateValue)>, ProbeError> {
        Ok(sum_over_cpus(&self.entries_of(|_all| true)?))
    }

    /// The cgroups that have numbers.
    pub fn counted_cgroups(&self) -> Result<BTreeSet<u64>, ProbeError> {
        let map: BpfHashMap<_, AggregateKey, AggregateValue> = BpfHashMap::try_from(self.map("AGGREGATES")?)?;
        let cgroups: Result<_, _> = map.keys().map(|key| Ok(key?.cgroup)).collect();
        cgroups
    }

    /// Takes the numbers of cgroups that are gone out of the kernel: nothing can be added to them any more, and there is room for others.
    /// They are the caller's from here on, summed over the CPUs.
    pub fn take_aggregates(&mut self, gone: &BTreeSet<u64>) -> Result<Vec<(AggregateKey, AggregateValue)>, ProbeError> {
        let taken = self.entries_of(|key| gone.contains(&key.cgroup))?;
        let map = self.ebpf.map_mut("AGGREGATES").ok_or(ProbeError::NoMap("AGGREGATES"))?;
        let mut map: BpfHashMap<_, AggregateKey, AggregateValue> = BpfHashMap::try_from(map)?;
        for key in taken.keys() {
            unless_gone(map.remove(key))?;
        }
        Ok(sum_over_cpus(&taken))
    }

    /// The entries of the CPUs. Those that the kernel side adds meanwhile may move others, so that some keys come twice.
    fn entries_of(
        &self,
        wanted: impl Fn(&AggregateKey) -> bool,
    ) -> Result<HashMap<AggregateKey, AggregateValue>, ProbeError> {
        let map: BpfHashMap<_, AggregateKey, AggregateValue> = BpfHashMap::try_from(self.map("AGGREGATES")?)?;
        let mut entries = HashMap::new();
        for key in map.keys() {
            let key = key?;
            if wanted(&key) {
                entries.insert(key, map.get(&key, 0)?);
            }
        }
        Ok(entries)
    }
}

fn sum_over_cpus(entries: &HashMap<AggregateKey, AggregateValue>) -> Vec<(AggregateKey, AggregateValue)> {
    let mut sums = BTreeMap::<AggregateKey, AggregateValue>::new();
    for (key, value) in entries {
        let sum = sums.entry(key.of_all_cpus()).or_default();
        sum.count += value.count;
        sum.bytes += value.bytes;
        sum.duration_ns += value.duration_ns;
        sum.max_ns = sum.max_ns.max(value.max_ns);
    }
    sums.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_cpus_counted_is_one_number() {
        let entry = |cpu, cgroup, count| {
            let key = AggregateKey { cgroup, cpu, ..AggregateKey::default() };
            (key, AggregateValue { count, bytes: 2 * count, duration_ns: 3 * count, max_ns: 4 * count })
        };
        let entries = [entry(0, 1, 10), entry(3, 1, 7), entry(3, 2, 1)].into_iter().collect();
        let sums: Vec<_> = sum_over_cpus(&entries).into_iter().map(|(key, sum)| (key.cgroup, key.cpu, sum)).collect();
        let sum = |count, max_ns| AggregateValue { count, bytes: 2 * count, duration_ns: 3 * count, max_ns };
        assert_eq!(sums, [(1, 0, sum(17, 40)), (2, 0, sum(1, 4))]);
    }
}
