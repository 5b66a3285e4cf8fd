//! The kernel's aggregates as tables: by operation, and by operation and errno.

use std::collections::BTreeMap;

use fsi_common::aggregate::{AggregateKey, AggregateValue, READ, WRITTEN};
use fsi_common::op::OpKind;
use serde::Serialize;

use super::Totals;
use super::errno;
use crate::telemetry::metrics::quantile;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperationRow {
    pub op: &'static str,
    pub count: u64,
    pub failed: u64,
    /// Moved, not asked for.
    pub bytes: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    /// Sum of the durations.
    pub time_ns: u64,
}

/// One way an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureRow {
    pub op: &'static str,
    pub errno: u16,
    pub errno_name: String,
    pub message: String,
    pub count: u64,
    /// A path it happened to, when operations were reported one by one.
    pub example_path: Option<String>,
}

/// Those that took most time, and those that failed most, first.
pub(super) fn tables(aggregates: &[(AggregateKey, AggregateValue)]) -> (Vec<OperationRow>, Vec<FailureRow>) {
    let mut by_op: BTreeMap<u16, Vec<&(AggregateKey, AggregateValue)>> = BTreeMap::new();
    let mut by_errno: BTreeMap<(u16, u16), u64> = BTreeMap::new();
    for entry in aggregates {
        by_op.entry(entry.0.op).or_default().push(entry);
        if entry.0.errno != 0 {
            *by_errno.entry((entry.0.op, entry.0.errno)).or_default() += entry.1.count;
        }
    }
    let mut operations: Vec<_> = by_op.into_iter().map(|(op, entries)| operation(op, &entries)).collect();
    operations.sort_by(|a, b| b.time_ns.cmp(&a.time_ns).then(a.op.cmp(b.op)));
    let mut failures: Vec<_> = by_errno.into_iter().map(|((op, errno), count)| failure(op, errno, count)).collect();
    failures.sort_by(|a, b| b.count.cmp(&a.count).then(a.op.cmp(b.op)));
    (operations, failures)
}

/// A kernel side of this ABI version sends no other codes.
pub(super) fn name(op: u16) -> &'static str {
    OpKind::try_from(op).map_or("unknown", OpKind::name)
}

fn operation(op: u16, entries: &[&(AggregateKey, AggregateValue)]) -> OperationRow {
    let buckets: Vec<_> = entries.iter().map(|(key, value)| (key.bucket, value.count)).collect();
    let sum = |field: fn(&AggregateValue) -> u64| entries.iter().map(|(_, value)| field(value)).sum();
    let max_ns = entries.iter().map(|(_, value)| value.max_ns).max().unwrap_or(0);
    OperationRow {
        op: name(op),
        count: sum(|value| value.count),
        failed: entries.iter().filter(|(key, _)| key.errno != 0).map(|(_, value)| value.count).sum(),
        bytes: sum(|value| value.bytes),
        // The middle of the last bucket may lie above the longest duration in it.
        p50_ns: quantile(&buckets, 0.50).min(max_ns),
        p99_ns: quantile(&buckets, 0.99).min(max_ns),
        max_ns,
        time_ns: sum(|value| value.duration_ns),
    }
}

fn failure(op: u16, errno: u16, count: u64) -> FailureRow {
    FailureRow {
        op: name(op),
        errno,
        errno_name: errno::name(errno).into_owned(),
        message: errno::message(errno),
        count,
        example_path: None,
    }
}

/// Sums over everything; files and processes are not known here.
pub(super) fn totals(aggregates: &[(AggregateKey, AggregateValue)]) -> Totals {
    let mut totals = Totals::default();
    for (key, value) in aggregates {
        totals.operations += value.count;
        totals.time_ns += value.duration_ns;
        if key.errno != 0 {
            totals.failed += value.count;
        }
        if key.flags & READ != 0 {
            totals.read_bytes += value.bytes;
        }
        if key.flags & WRITTEN != 0 {
            totals.written_bytes += value.bytes;
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use fsi_common::aggregate::bucket_of;

    use super::*;

    fn entry(op: OpKind, errno: u16, flags: u16, count: u64, ns: u64, bytes: u64) -> (AggregateKey, AggregateValue) {
        let key = AggregateKey { op: op.code(), errno, flags, bucket: bucket_of(ns), ..AggregateKey::default() };
        (key, AggregateValue { count, bytes, duration_ns: count * ns, max_ns: ns })
    }

    #[test]
    fn sums_by_operation_and_by_errno() {
        let aggregates = [
            entry(OpKind::Read, 0, READ, 10, 1_000, 4096),
            entry(OpKind::Read, 0, READ, 1, 50_000, 100),
            entry(OpKind::Read, 5, 0, 2, 100, 0),
            entry(OpKind::Stat, 2, 0, 7, 500, 0),
            entry(OpKind::CopyFileRange, 0, READ | WRITTEN, 1, 10, 64),
        ];
        let (operations, failures) = tables(&aggregates);
        let read = &operations[0];
        assert_eq!((read.op, read.count, read.failed, read.bytes), ("read", 13, 2, 4196));
        assert_eq!((read.max_ns, read.time_ns), (50_000, 60_200));
        assert_eq!(failures.len(), 2);
        assert_eq!((failures[0].op, failures[0].errno, failures[0].count), ("stat", 2, 7));
        assert_eq!(failures[0].message, "No such file or directory");
        let totals = totals(&aggregates);
        assert_eq!((totals.operations, totals.failed), (21, 9));
        assert_eq!((totals.read_bytes, totals.written_bytes), (4260, 64));
    }
}
