//! Slow or failed operations one by one: the slowest, in bounded memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use super::format;
use crate::span::{OpSpan, Span};

/// Operations that are listed.
const MAX_LISTED: usize = 20;
/// Different failures for which an example is kept.
const MAX_EXAMPLES: usize = 1_024;

/// The slowest of the operations that were reported.
#[derive(Debug, Default)]
pub struct ListedOperations {
    slowest: BinaryHeap<Reverse<(u64, u64, ListedRow)>>,
    count: u64,
    examples: BTreeMap<(&'static str, u16), String>,
}

/// What the summary lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListedRows {
    /// All that fit the condition.
    pub count: u64,
    /// The slowest of them, slowest first.
    pub slowest: Vec<ListedRow>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ListedRow {
    pub duration_ns: u64,
    pub op: &'static str,
    pub errno: u16,
    pub path: Option<String>,
    pub bytes: Option<u64>,
    pub offset: Option<i64>,
    pub process: String,
    pub pid: u32,
    pub tid: u32,
    pub start_unix_ns: u64,
}

impl ListedOperations {
    /// Takes one operation.
    pub fn add(&mut self, span: &Span, operation: &OpSpan) {
        self.count += 1;
        let key = (operation.op.name(), operation.errno);
        if operation.errno != 0
            && self.examples.len() < MAX_EXAMPLES
            && !self.examples.contains_key(&key)
            && let Some(path) = &operation.path
        {
            self.examples.insert(key, format::escaped(&path.bytes));
        }
        let is_full = self.slowest.len() == MAX_LISTED;
        if is_full && self.slowest.peek().is_some_and(|Reverse((least, ..))| *least >= operation.duration_ns) {
            return;
        }
        self.slowest.push(Reverse((operation.duration_ns, self.count, row(span, operation))));
        if is_full {
            self.slowest.pop();
        }
    }

    /// A path to which this happened.
    pub(super) fn example(&self, op: &'static str, errno: u16) -> Option<&str> {
        self.examples.get(&(op, errno)).map(String::as_str)
    }

    pub(super) fn into_rows(self) -> ListedRows {
        let slowest = self.slowest.into_sorted_vec().into_iter().map(|Reverse((_, _, row))| row).collect();
        ListedRows { count: self.count, slowest }
    }
}

fn row(span: &Span, operation: &OpSpan) -> ListedRow {
    ListedRow {
        duration_ns: operation.duration_ns,
        op: operation.op.name(),
        errno: operation.errno,
        path: operation.path.as_ref().map(|path| format::escaped(&path.bytes)),
        bytes: operation.bytes,
        offset: operation.offset,
        process: format::command(&span.actor.comm),
        pid: span.actor.tgid,
        tid: span.actor.tid,
        start_unix_ns: span.start_unix_ns,
    }
}
