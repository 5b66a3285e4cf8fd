//! The last faults, in memory for `fsi ctl`, and all of them in a file where one was asked for.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;

use super::control::FaultPage;
use crate::rules::decision::FaultEntry;
use crate::rules::replay::line;

/// Entries that are kept in memory.
const MAX_KEPT: usize = 65_536;

/// The log of a mount, as far as this server knows it.
#[derive(Debug)]
pub(super) struct FaultLog {
    kept: VecDeque<FaultEntry>,
    file: Option<File>,
    /// Entries that could not be written to the file.
    unwritten: u64,
}

impl FaultLog {
    pub(super) const fn new() -> Self {
        Self { kept: VecDeque::new(), file: None, unwritten: 0 }
    }

    pub(super) fn keep_in(&mut self, file: File) {
        self.file = Some(file);
    }

    pub(super) fn push(&mut self, entry: FaultEntry) {
        if let Some(file) = &mut self.file {
            let mut line = line::write(&entry);
            line.push('\n');
            // In one write, so that lines stay whole.
            if let Err(error) = file.write_all(line.as_bytes()) {
                if self.unwritten == 0 {
                    tracing::warn!(%error, "faults are missing from the log file");
                }
                self.unwritten += 1;
            }
        }
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(entry);
    }

    /// Entries after a sequence number.
    pub(super) fn page(&self, after: u64, limit: usize) -> FaultPage {
        let first = self.kept.front().map_or(after + 1, |entry| entry.sequence);
        let entries = self.kept.iter().filter(|entry| entry.sequence > after).take(limit).cloned().collect();
        FaultPage { entries, forgotten: first.saturating_sub(after + 1) }
    }
}
