//! What an observation through the agent makes of its numbers: what they grew by, and what cgroups are called.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use fsi_common::aggregate::{AggregateKey, AggregateValue, READ, WRITTEN, bucket_of};

use crate::attach::client::Cgroup;
use crate::span::{OpSpan, Span};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::defs::attribute;
use crate::top::meter::{Moves, moves};

pub(super) type Aggregates = HashMap<AggregateKey, AggregateValue>;

/// What cgroups are called, as the agent says.
#[derive(Debug, Default)]
pub(super) struct TheirNames(RwLock<HashMap<u64, Cgroup>>);

impl TheirNames {
    pub(super) fn learn(&self, cgroups: Vec<Cgroup>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(cgroups.into_iter().map(|cgroup| (cgroup.id, cgroup)));
    }

    fn get(&self, cgroup: u64) -> Option<Cgroup> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&cgroup).cloned()
    }
}

impl ContainerNames for TheirNames {
    fn container(&self, cgroup: u64) -> Option<Arc<str>> {
        self.get(cgroup)?.container_id.map(Arc::from)
    }

    fn describe(&self, cgroup: u64, _dev: u32, add: &mut dyn FnMut(&'static str, Arc<str>)) {
        let Some(Cgroup { id: _, path: _, container_id: _, pod_uid, pod, namespace, container }) = self.get(cgroup)
        else {
            return;
        };
        let pairs = [
            (attribute::K8S_POD_UID, pod_uid),
            (attribute::K8S_POD_NAME, pod),
            (attribute::K8S_NAMESPACE_NAME, namespace),
            (attribute::K8S_CONTAINER_NAME, container),
        ];
        for (key, value) in pairs.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            add(key, value.into());
        }
    }
}

/// What the agent's numbers grew by since the beginning, also where they are not to be had any more.
#[derive(Debug, Default)]
pub(super) struct Growth {
    last: Aggregates,
    pub(super) sum: Aggregates,
}

impl Growth {
    pub(super) fn since(numbers: Vec<(AggregateKey, AggregateValue)>) -> Self {
        Self { last: numbers.into_iter().collect(), sum: Aggregates::new() }
    }

    pub(super) fn add(&mut self, numbers: Vec<(AggregateKey, AggregateValue)>) {
        for (key, value) in numbers {
            let before = self.last.insert(key, value).unwrap_or_default();
            let change = AggregateValue {
                count: value.count.saturating_sub(before.count),
                bytes: value.bytes.saturating_sub(before.bytes),
                duration_ns: value.duration_ns.saturating_sub(before.duration_ns),
                max_ns: value.max_ns,
            };
            if change.count > 0 {
                grow(&mut self.sum, key, change);
            }
        }
    }
}

pub(super) fn grow(sums: &mut Aggregates, key: AggregateKey, change: AggregateValue) {
    let sum = sums.entry(key).or_default();
    sum.count += change.count;
    sum.bytes += change.bytes;
    sum.duration_ns += change.duration_ns;
    sum.max_ns = sum.max_ns.max(change.max_ns);
}

/// An operation that was told, as the kernel would have counted it.
pub(super) fn counted(span: &Span, op: &OpSpan) -> (AggregateKey, AggregateValue) {
    let Moves { reads, writes } = moves(op.op);
    let has_moved = op.bytes.is_some();
    let flag = |condition: bool, bit: u16| if condition { bit } else { 0 };
    let key = AggregateKey {
        cgroup: span.actor.cgroup,
        dev: op.dev,
        op: op.op.code(),
        errno: op.errno,
        bucket: bucket_of(op.duration_ns),
        flags: flag(has_moved && reads, READ) | flag(has_moved && writes, WRITTEN),
        cpu: 0,
    };
    let bytes = op.bytes.unwrap_or(0);
    (key, AggregateValue { count: 1, bytes, duration_ns: op.duration_ns, max_ns: op.duration_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_from_the_beginning_and_stay_when_a_cgroup_is_gone() {
        let key = |cgroup| AggregateKey { cgroup, ..AggregateKey::default() };
        let value = |count| AggregateValue { count, bytes: 10 * count, duration_ns: count, max_ns: 3 };
        let mut growth = Growth::since(vec![(key(1), value(5))]);
        growth.add(vec![(key(1), value(7)), (key(2), value(1))]);
        growth.add(vec![(key(2), value(4))]);
        growth.add(vec![(key(2), value(4))]);
        assert_eq!((growth.sum[&key(1)].count, growth.sum[&key(1)].bytes), (2, 20));
        assert_eq!(growth.sum[&key(2)].count, 4);
        assert_eq!(growth.sum.len(), 2);
    }
}
