//! The files that are open now, and those that were a moment ago.

use fsi_common::aggregate::{READ, WRITTEN};
use fsi_common::record::{CloseKind, FileTotals, OpRecord};

use super::table::{Displaced, Table};
use crate::clock::Clock;
use crate::span::{Above, Actor, FileSpan, Path, Span, SpanBody, SpanId, TraceId};

/// How many ended files are remembered for an operation whose record comes after that of the close.
const REMEMBERED: usize = 1024;

/// Where a span stands, and so where its children hang.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    /// Start of that span.
    pub(super) start_ns: u64,
}

/// What operations inherit from their file.
#[derive(Debug)]
pub(super) struct FileFacts {
    pub(super) place: Place,
    pub(super) path: Option<Path>,
    pub(super) dev: u32,
    pub(super) ino: u64,
    pub(super) mode: u16,
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) facts: FileFacts,
    /// The process that opened it.
    pub(super) parent: Place,
    pub(super) actor: Actor,
    pub(super) open_flags: u32,
    /// Start of the open call; 0: open before we looked.
    pub(super) opened_ns: u64,
    /// From the operations that were told, until the close tells the exact ones.
    pub(super) totals: FileTotals,
    pub(super) segment: u32,
    /// Something was done since the segment began.
    pub(super) active: bool,
}

impl OpenFile {
    /// Whether an announcement under the same id means the same file, not another that got its number.
    pub(super) fn is_same(&self, dev: u32, ino: u64, opened_ns: u64) -> bool {
        (self.facts.dev, self.facts.ino, self.opened_ns) == (dev, ino, opened_ns)
    }

    /// Takes an operation into account.
    fn note(&mut self, raw: &OpRecord) {
        self.active = true;
        if self.opened_ns == 0 && self.segment == 0 {
            // Announced with its first operation: that is our first sight of it.
            let is_first = self.totals.operations == 0;
            let start_ns = &mut self.facts.place.start_ns;
            *start_ns = if is_first { raw.start_ns } else { raw.start_ns.min(*start_ns) };
        }
        if self.actor.uid == u32::MAX && self.actor.tgid == raw.tgid {
            self.actor.uid = raw.uid;
        }
        let totals = &mut self.totals;
        let bytes = u64::try_from(raw.ret).unwrap_or(0);
        totals.operations += 1;
        if raw.flags & READ != 0 {
            totals.reads += 1;
            totals.bytes_read = totals.bytes_read.saturating_add(bytes);
        }
        if raw.flags & WRITTEN != 0 {
            totals.writes += 1;
            totals.bytes_written = totals.bytes_written.saturating_add(bytes);
        }
        totals.errors += u64::from(raw.errno != 0);
        totals.duration_ns = totals.duration_ns.saturating_add(raw.duration_ns);
        totals.max_ns = totals.max_ns.max(raw.duration_ns);
        totals.last_ns = totals.last_ns.max(raw.start_ns.saturating_add(raw.duration_ns));
    }

    /// When it ended, as far as a close tells: one that was found ended later did so with its last operation, for all we know.
    pub(super) fn end_ns(&self, closed_ns: u64, kind: CloseKind) -> u64 {
        match kind {
            CloseKind::Closed | CloseKind::Exit => closed_ns.max(self.totals.last_ns),
            CloseKind::Unseen => self.totals.last_ns.max(self.facts.place.start_ns),
        }
    }

    /// The span of the current segment, ended at `end_ns` or with the last operation, whichever is later.
    pub(super) fn span(&self, end_ns: u64, close: Option<CloseKind>, clock: &Clock) -> Span {
        let end_ns = end_ns.max(self.totals.last_ns);
        Span {
            trace: self.facts.place.trace,
            id: self.facts.place.span,
            parent: Some(self.parent.span),
            above: Above::Process { start_unix_ns: clock.unix_ns(self.parent.start_ns) },
            start_unix_ns: clock.unix_ns(self.facts.place.start_ns.min(end_ns)),
            end_unix_ns: clock.unix_ns(end_ns),
            actor: self.actor.clone(),
            body: SpanBody::File(FileSpan {
                path: self.facts.path.clone(),
                dev: self.facts.dev,
                ino: self.facts.ino,
                mode: self.facts.mode,
                open_flags: self.open_flags,
                open_before: self.opened_ns == 0,
                close,
                totals: self.totals,
                segment: self.segment,
            }),
        }
    }
}

/// Both, by file id, bounded.
#[derive(Debug)]
pub(super) struct OpenFiles {
    open: Table<OpenFile>,
    ended: Table<FileFacts>,
}

impl OpenFiles {
    pub(super) fn new(capacity: usize) -> Self {
        Self { open: Table::new(capacity), ended: Table::new(REMEMBERED) }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// What is known of a file, open or just ended.
    pub(super) fn facts(&self, id: u64) -> Option<&FileFacts> {
        self.open.get(id).map(|file| &file.facts).or_else(|| self.ended.get(id))
    }

    /// Adds an operation to its file's totals.
    pub(super) fn note(&mut self, raw: &OpRecord) {
        if let Some(file) = self.open.get_mut(raw.file_id) {
            file.note(raw);
        }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut OpenFile> {
        self.open.get_mut(id)
    }

    pub(super) fn insert(&mut self, id: u64, file: OpenFile) -> Displaced<OpenFile> {
        self.ended.remove(id);
        self.open.insert(id, file)
    }

    /// Takes an open file out; `end` makes its last span.
    pub(super) fn end<T>(&mut self, id: u64, end: impl FnOnce(&mut OpenFile) -> T) -> Option<T> {
        let mut file = self.open.remove(id)?;
        let ended = end(&mut file);
        self.ended.insert(id, file.facts);
        Some(ended)
    }

    pub(super) fn pop_oldest(&mut self) -> Option<OpenFile> {
        self.open.pop_oldest()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut OpenFile> {
        self.open.values_mut()
    }
}
