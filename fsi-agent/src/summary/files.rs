//! Totals by path, over all opens of it, in bounded memory.

use std::collections::HashMap;
use std::sync::Arc;

use fsi_common::record::{FileTotals, PathState};
use serde::Serialize;

use super::format;
use crate::span::{FileSpan, Path};

/// Different paths that are remembered; what comes later is summed up without its name.
const MAX_PATHS: usize = 65_536;
/// Rows that a summary holds.
const MAX_ROWS: usize = 1_000;

/// One path, or one file whose path is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Path(Arc<[u8]>),
    Unknown { dev: u32, ino: u64 },
}

/// What was done to one path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileRow {
    /// As the process sees it; bytes that are no printable UTF-8 as `\xNN`.
    pub path: String,
    pub opens: u64,
    pub operations: u64,
    pub reads: u64,
    pub writes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub failed: u64,
    pub time_ns: u64,
    pub max_ns: u64,
    /// Opens that had not ended with the observation; what was done through them until then is here.
    pub still_open: u64,
}

/// What was done to the paths that have no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OtherFiles {
    /// Different paths; opens instead, where there were too many to tell them apart.
    pub files: u64,
    pub operations: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub failed: u64,
    pub time_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    opens: u64,
    still_open: u64,
    totals: FileTotals,
}

/// Totals by path.
#[derive(Debug, Default)]
pub struct FileTable {
    paths: HashMap<Key, Sums>,
    over: Sums,
}

impl FileTable {
    /// Takes the totals of a file whose last span this is.
    pub fn add(&mut self, file: &FileSpan) {
        let key = match &file.path {
            Some(Path { bytes, state: PathState::Resolved | PathState::TooLong | PathState::Unreachable })
                if !bytes.is_empty() =>
            {
                Key::Path(Arc::clone(bytes))
            }
            Some(_) | None => Key::Unknown { dev: file.dev, ino: file.ino },
        };
        let full = self.paths.len() >= MAX_PATHS;
        match self.paths.get_mut(&key) {
            Some(sums) => sums.add(file),
            None if full => self.over.add(file),
            None => self.paths.entry(key).or_default().add(file),
        }
    }

    /// The paths that took most time, and the rest in one.
    pub(super) fn into_rows(self) -> (Vec<FileRow>, OtherFiles) {
        let mut rows: Vec<_> = self.paths.into_iter().collect();
        let weight = |sums: &Sums| (sums.totals.duration_ns, sums.totals.bytes_read + sums.totals.bytes_written);
        rows.sort_by_key(|(_, sums)| std::cmp::Reverse(weight(sums)));
        let rest = rows.split_off(rows.len().min(MAX_ROWS));
        let mut other = OtherFiles::default();
        other.add(&self.over, self.over.opens);
        for (_, sums) in &rest {
            other.add(sums, 1);
        }
        (rows.into_iter().map(|(key, sums)| row(&key, &sums)).collect(), other)
    }
}

impl Sums {
    fn add(&mut self, file: &FileSpan) {
        let FileTotals { operations, reads, writes, bytes_read, bytes_written, errors, duration_ns, max_ns, last_ns } =
            &file.totals;
        let sum = &mut self.totals;
        self.opens += 1;
        self.still_open += u64::from(file.close.is_none());
        sum.operations += operations;
        sum.reads += reads;
        sum.writes += writes;
        sum.bytes_read += bytes_read;
        sum.bytes_written += bytes_written;
        sum.errors += errors;
        sum.duration_ns += duration_ns;
        sum.max_ns = sum.max_ns.max(*max_ns);
        sum.last_ns = sum.last_ns.max(*last_ns);
    }
}

impl OtherFiles {
    fn add(&mut self, sums: &Sums, files: u64) {
        self.files += files;
        self.operations += sums.totals.operations;
        self.read_bytes += sums.totals.bytes_read;
        self.written_bytes += sums.totals.bytes_written;
        self.failed += sums.totals.errors;
        self.time_ns += sums.totals.duration_ns;
    }
}

fn row(key: &Key, sums: &Sums) -> FileRow {
    let path = match key {
        Key::Path(bytes) => format::escaped(bytes),
        Key::Unknown { dev, ino } => format!("(path not known, device {}:{}, inode {ino})", dev >> 20, dev & 0xf_ffff),
    };
    FileRow {
        path,
        opens: sums.opens,
        operations: sums.totals.operations,
        reads: sums.totals.reads,
        writes: sums.totals.writes,
        read_bytes: sums.totals.bytes_read,
        written_bytes: sums.totals.bytes_written,
        failed: sums.totals.errors,
        time_ns: sums.totals.duration_ns,
        max_ns: sums.totals.max_ns,
        still_open: sums.still_open,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::summary) fn file(path: &[u8], totals: FileTotals) -> FileSpan {
        FileSpan {
            path: Some(Path { bytes: path.into(), state: PathState::Resolved }),
            dev: (8 << 20) | 1,
            ino: 7,
            mode: 0,
            open_flags: 0,
            open_before: false,
            close: None,
            totals,
            segment: 0,
        }
    }

    #[test]
    fn sums_opens_of_a_path_and_sorts_by_time() {
        let mut table = FileTable::default();
        let totals =
            |ns| FileTotals { operations: 3, bytes_read: 10, duration_ns: ns, max_ns: ns, ..FileTotals::default() };
        table.add(&file(b"/a", totals(5)));
        table.add(&file(b"/b\xff", totals(100)));
        table.add(&file(b"/a", totals(7)));
        table.add(&FileSpan { path: None, ..file(b"", totals(1)) });
        let (rows, other) = table.into_rows();
        let seen: Vec<_> = rows.iter().map(|row| (row.path.as_str(), row.opens, row.time_ns, row.max_ns)).collect();
        let unknown = "(path not known, device 8:1, inode 7)";
        assert_eq!(seen, [("/b\\xff", 1, 100, 100), ("/a", 2, 12, 7), (unknown, 1, 1, 1)]);
        assert_eq!(other, OtherFiles::default());
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_forgotten() {
        let mut table = FileTable::default();
        let opens = u64::try_from(MAX_PATHS).unwrap() + 10;
        for at in 0..opens {
            table.add(&file(format!("/{at}").as_bytes(), FileTotals { operations: 1, ..FileTotals::default() }));
        }
        let (rows, other) = table.into_rows();
        assert_eq!(rows.len(), MAX_ROWS);
        assert_eq!(other.operations + u64::try_from(rows.len()).unwrap(), opens);
        assert_eq!(other.files, other.operations);
    }
}
