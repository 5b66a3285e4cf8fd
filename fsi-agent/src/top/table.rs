//! The rows of one interval as rates, sorted, and as text.

use std::cmp::Reverse;

use super::meter::Meter;
use crate::summary::format::{bytes, count, nanoseconds};
use crate::summary::table::Table as TextTable;

/// What the table is sorted by, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    Operations,
    Read,
    Written,
    Time,
    Failed,
    Latency,
}

impl SortBy {
    /// In the order of the columns.
    pub const ALL: [Self; 6] = [Self::Operations, Self::Read, Self::Written, Self::Failed, Self::Time, Self::Latency];

    /// The key that chooses it.
    #[must_use]
    pub fn key(self) -> char {
        match self {
            Self::Operations => 'o',
            Self::Read => 'r',
            Self::Written => 'w',
            Self::Time => 't',
            Self::Failed => 'e',
            Self::Latency => 'l',
        }
    }

    /// The head of its column.
    #[must_use]
    pub fn head(self) -> &'static str {
        match self {
            Self::Operations => "ops/s",
            Self::Read => "read/s",
            Self::Written => "written/s",
            Self::Time => "time",
            Self::Failed => "errors/s",
            Self::Latency => "p99",
        }
    }
}

/// One row, per second.
#[derive(Clone, Debug)]
pub(super) struct Row {
    name: String,
    operations: u64,
    read_bytes: u64,
    written_bytes: u64,
    failed: u64,
    /// Time in operations per second of time: 1 s/s is one thread all the time.
    time_ns: u64,
    p99_ns: u64,
}

/// All rows of an interval.
#[derive(Debug)]
pub(super) struct Table {
    head: &'static str,
    rows: Vec<Row>,
    pub(super) lost: u64,
}

impl Row {
    pub(super) fn new(name: String, meter: &Meter, elapsed_ns: u64) -> Self {
        let per_second = |value: u64| {
            let rate = (u128::from(value) * 1_000_000_000).div_ceil(u128::from(elapsed_ns));
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        Self {
            name,
            operations: per_second(meter.operations),
            read_bytes: per_second(meter.read_bytes),
            written_bytes: per_second(meter.written_bytes),
            failed: per_second(meter.failed),
            time_ns: per_second(meter.time_ns),
            p99_ns: meter.p99_ns(),
        }
    }

    fn weight(&self, sort: SortBy) -> u64 {
        match sort {
            SortBy::Operations => self.operations,
            SortBy::Read => self.read_bytes,
            SortBy::Written => self.written_bytes,
            SortBy::Time => self.time_ns,
            SortBy::Failed => self.failed,
            SortBy::Latency => self.p99_ns,
        }
    }

    pub(super) fn cells(&self) -> [String; 7] {
        let dash = |value, show: fn(u64) -> String| if value == 0 { "-".to_owned() } else { show(value) };
        [
            self.name.clone(),
            count(self.operations),
            dash(self.read_bytes, bytes),
            dash(self.written_bytes, bytes),
            dash(self.failed, count),
            nanoseconds(self.time_ns),
            nanoseconds(self.p99_ns),
        ]
    }
}

impl Table {
    pub(super) fn new(head: &'static str, rows: Vec<Row>, sort: SortBy, lost: u64) -> Self {
        let mut table = Self { head, rows, lost };
        table.sort(sort);
        table
    }

    /// Nothing yet.
    pub(super) fn empty(head: &'static str) -> Self {
        Self { head, rows: Vec::new(), lost: 0 }
    }

    pub(super) fn sort(&mut self, sort: SortBy) {
        self.rows.sort_by(|a, b| {
            let weights = |row: &Row| Reverse((row.weight(sort), row.time_ns));
            weights(a).cmp(&weights(b)).then_with(|| a.name.cmp(&b.name))
        });
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn heads(&self) -> [&'static str; 7] {
        let [operations, read, written, failed, time, latency] = SortBy::ALL.map(SortBy::head);
        [self.head, operations, read, written, failed, time, latency]
    }

    /// Lines, and what was lost when something was.
    pub(super) fn text(&self) -> Vec<String> {
        let [name, operations, read, written, failed, time, latency] = self.heads();
        let right = |head: &str| format!(">{head}");
        let rights = [operations, read, written, failed, time, latency].map(right);
        let [operations, read, written, failed, time, latency] = rights.each_ref().map(String::as_str);
        let mut table = TextTable::new([name, operations, read, written, failed, time, latency]);
        for row in &self.rows {
            table.row(row.cells());
        }
        let mut lines = table.lines();
        if self.lost > 0 {
            lines.push(format!("lost: {} (see `fsi observe` for what)", count(self.lost)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use fsi_common::aggregate::{AggregateKey, AggregateValue, READ};

    use super::*;

    fn row(name: &str, operations: u64, bytes: u64) -> Row {
        let mut meter = Meter::default();
        let key = AggregateKey { flags: READ, ..AggregateKey::default() };
        meter.add_aggregate(&key, &AggregateValue { count: operations, bytes, duration_ns: 10, max_ns: 1 });
        Row::new(name.to_owned(), &meter, 500_000_000)
    }

    #[test]
    fn shows_rates_and_sorts_by_what_is_asked() {
        let rows = vec![row("a", 10, 5_000), row("b", 20, 100)];
        let mut table = Table::new("file", rows, SortBy::Operations, 3);
        let text = table.text();
        assert_eq!(text[0], "file  ops/s    read/s  written/s  errors/s   time   p99");
        assert!(text[1].starts_with("b        40     200 B          -         -  20 ns"), "{}", text[1]);
        assert!(text[3].starts_with("lost: 3"));
        table.sort(SortBy::Read);
        assert!(table.text()[1].starts_with("a        20  9.77 KiB"), "{}", table.text()[1]);
    }

    #[test]
    fn keys_are_unique() {
        let keys: std::collections::BTreeSet<_> = SortBy::ALL.iter().map(|sort| sort.key()).collect();
        assert_eq!(keys.len(), SortBy::ALL.len());
        assert!(!keys.contains(&'q'));
    }
}
