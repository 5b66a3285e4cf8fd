//! The last faults, for `fsi ctl`, and all of them in a file where one was asked for.
//!
//! ```text
//! | lines ... | lines ... |
//! ```
//! The last ones outlive the server as lines in a memfd of two halves: one is filled, then the other is emptied and filled. A line
//! that was not written to its end is no entry, and is passed over.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom};

use super::control::FaultPage;
use super::extent::seek;
use crate::rules::decision::FaultEntry;
use crate::rules::replay::line;

/// Entries that are kept at most.
const MAX_KEPT: usize = 65_536;
/// Bytes of lines in each half.
const HALF: u64 = 8 << 20;

/// The log of a mount.
#[derive(Debug)]
pub(super) struct FaultLog {
    kept: VecDeque<FaultEntry>,
    /// What servers before this one left in `lines` is in `kept`, too.
    is_read: bool,
    lines: File,
    /// Where the next line goes.
    at: u64,
    file: Option<File>,
    /// Entries that could not be written to the file.
    unwritten: u64,
}

/// No lines, for the keeper to hold.
///
/// # Errors
/// When the kernel has no memory for it.
pub fn create() -> io::Result<OwnedFd> {
    let lines = rustix::fs::memfd_create("fsi-faults", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&lines, 2 * HALF)?;
    Ok(lines)
}

impl FaultLog {
    /// Takes over the lines.
    pub(super) fn open(lines: OwnedFd) -> io::Result<Self> {
        let lines = File::from(lines);
        let halves = [half(&lines, 0)?, half(&lines, HALF)?];
        let newest = |text: &[u8]| entries(text).next().map_or(0, |entry| entry.sequence);
        let (start, text) = if newest(&halves[1]) > newest(&halves[0]) { (HALF, &halves[1]) } else { (0, &halves[0]) };
        let mut at = start + text.len() as u64;
        if text.last().is_some_and(|byte| *byte != b'\n') && at < start + HALF {
            // The next line must not go on with one that was torn.
            lines.write_all_at(b"\n", at)?;
            at += 1;
        }
        Ok(Self { kept: VecDeque::new(), is_read: false, lines, at, file: None, unwritten: 0 })
    }

    pub(super) fn keep_in(&mut self, file: File) {
        self.file = Some(file);
    }

    pub(super) fn push(&mut self, entry: FaultEntry) {
        let mut line = line::write(&entry);
        line.push('\n');
        // In one write, so that lines stay whole.
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(line.as_bytes())
        {
            if self.unwritten == 0 {
                tracing::warn!(%error, "faults are missing from the log file");
            }
            self.unwritten += 1;
        }
        if let Err(error) = self.leave(line.as_bytes()) {
            tracing::debug!(%error, "a fault is unknown to the servers to come");
        }
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(entry);
    }

    /// Entries that could not be written to the file.
    pub(super) const fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Leaves a line to the servers to come.
    fn leave(&mut self, line: &[u8]) -> io::Result<()> {
        let len = line.len() as u64;
        if len > HALF {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // At the border it is the end of the first half.
        let start = self.at.saturating_sub(1) / HALF * HALF;
        if self.at + len > start + HALF {
            let other = HALF - start;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.lines, flags, other, HALF)?;
            self.at = other;
        }
        self.lines.write_all_at(line, self.at)?;
        self.at += len;
        Ok(())
    }

    /// Whether it has the entry of that number.
    pub(super) fn has(&mut self, sequence: u64) -> bool {
        self.read();
        self.kept.iter().rev().any(|entry| entry.sequence == sequence)
    }

    /// Entries after a sequence number.
    pub(super) fn page(&mut self, after: u64, limit: usize) -> FaultPage {
        self.read();
        let first = self.kept.front().map_or(after + 1, |entry| entry.sequence);
        let entries = self.kept.iter().filter(|entry| entry.sequence > after).take(limit).cloned().collect();
        FaultPage { entries, forgotten: first.saturating_sub(after + 1) }
    }

    /// Reads what servers before this one left. Only when somebody asks: a successor has no time for it.
    fn read(&mut self) {
        if std::mem::replace(&mut self.is_read, true) {
            return;
        }
        let mut all: Vec<_> = std::mem::take(&mut self.kept).into();
        for start in [0, HALF] {
            match half(&self.lines, start) {
                Ok(text) => all.extend(entries(&text)),
                Err(error) => tracing::warn!(%error, "the fault log of the server before cannot be read"),
            }
        }
        all.sort_by_key(|entry| entry.sequence);
        all.dedup_by_key(|entry| entry.sequence);
        self.kept = all.split_off(all.len().saturating_sub(MAX_KEPT)).into();
    }
}

/// What was written to the half that begins there.
fn half(lines: &File, start: u64) -> io::Result<Vec<u8>> {
    let end = start + HALF;
    let is_empty = seek(lines, SeekFrom::Data(start))? != Some(start);
    let end = if is_empty { start } else { seek(lines, SeekFrom::Hole(start))?.unwrap_or(end).min(end) };
    let mut text = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
    lines.read_exact_at(&mut text, start)?;
    text.truncate(text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(text)
}

/// The whole lines of a text.
fn entries(text: &[u8]) -> impl Iterator<Item = FaultEntry> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    lines.filter_map(|text| line::read(1, text).ok())
}

#[cfg(test)]
mod tests;
