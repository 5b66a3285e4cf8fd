//! File operations as numbers: how many of each, how many failed with which errno, how many bytes each way.

use std::collections::{BTreeMap, BTreeSet};

/// The numbers, by operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub operations: BTreeMap<String, u64>,
    /// By (operation, errno).
    pub errors: BTreeMap<(String, String), u64>,
    /// By (operation, direction): `read`, `write`.
    pub bytes: BTreeMap<(String, String), u64>,
}

impl Counts {
    /// One more call with its result.
    pub fn add_call(&mut self, operation: &str, errno: Option<&str>, read: u64, written: u64) {
        *self.operations.entry(operation.to_owned()).or_default() += 1;
        if let Some(errno) = errno {
            *self.errors.entry((operation.to_owned(), errno.to_owned())).or_default() += 1;
        }
        self.add_bytes(operation, "read", read);
        self.add_bytes(operation, "write", written);
    }

    /// Bytes that went that way; none leaves no entry.
    pub fn add_bytes(&mut self, operation: &str, direction: &str, bytes: u64) {
        if bytes > 0 {
            *self.bytes.entry((operation.to_owned(), direction.to_owned())).or_default() += bytes;
        }
    }

    /// All operations.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.operations.values().sum()
    }

    /// Where two counts differ, as lines; `ours` and `theirs` name them.
    #[must_use]
    pub fn differences(&self, other: &Self, ours: &str, theirs: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut compare = |what: &str, left: &BTreeMap<Vec<&str>, u64>, right: &BTreeMap<Vec<&str>, u64>| {
            let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let (left, right) = (left.get(key).unwrap_or(&0), right.get(key).unwrap_or(&0));
                if left != right {
                    lines.push(format!("{what} {}: {ours} {left}, {theirs} {right}", key.join(" ")));
                }
            }
        };
        compare("operations", &single(&self.operations), &single(&other.operations));
        compare("errors", &pairs(&self.errors), &pairs(&other.errors));
        compare("bytes", &pairs(&self.bytes), &pairs(&other.bytes));
        lines
    }
}

fn single(map: &BTreeMap<String, u64>) -> BTreeMap<Vec<&str>, u64> {
    map.iter().map(|(key, count)| (vec![key.as_str()], *count)).collect()
}

fn pairs(map: &BTreeMap<(String, String), u64>) -> BTreeMap<Vec<&str>, u64> {
    map.iter().map(|((first, second), count)| (vec![first.as_str(), second.as_str()], *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_both_numbers() {
        let (mut one, mut other) = (Counts::default(), Counts::default());
        one.add_call("read", None, 5, 0);
        other.add_call("read", Some("EIO"), 0, 0);
        let lines = one.differences(&other, "fsi", "strace");
        assert_eq!(lines, ["errors read EIO: fsi 0, strace 1", "bytes read read: fsi 5, strace 0"]);
        assert!(one.differences(&one.clone(), "fsi", "strace").is_empty());
    }
}
