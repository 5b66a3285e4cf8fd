//! Which span is under which: a file under the process that opened it, operations under their file or their process.
//!
//! Times become Unix time here, and ids are given.

use std::sync::Arc;
use std::time::Duration;

use fsi_common::aggregate::{READ, WRITTEN};
use fsi_common::op::OpKind;
use fsi_common::record::{NO_OFFSET, OpRecord, ProcessEvent};

use super::PipelineOptions;
use super::attribute::AttributedOp;
use super::decode::{Change, Closed, Opened};
use super::ids::Ids;
use super::loss::{PipelineLoss, PipelineLosses};
use super::open_files::{FileFacts, OpenFile, OpenFiles, Place};
use super::processes::{Process, Processes};
use super::table::Displaced;
use crate::clock::Clock;
use crate::span::{Above, Actor, OpSpan, Path, Span, SpanBody, SpanId, SpanSink};

/// What is open and who lives.
#[derive(Debug)]
pub(super) struct Correlator {
    clock: Clock,
    ids: Ids,
    pub(super) files: OpenFiles,
    processes: Processes,
    max_open_ns: u64,
    /// The latest time that was told, by a record or a tick: when something happened that has no time of its own.
    latest_ns: u64,
}

fn emit(span: Span, sink: &mut dyn SpanSink) {
    sink.span(&Arc::new(span));
}

impl Correlator {
    pub(super) fn new(options: &PipelineOptions, clock: Clock) -> Self {
        Self {
            clock,
            ids: Ids::new(),
            files: OpenFiles::new(options.max_open_files),
            processes: Processes::new(options.max_processes, options.trace),
            max_open_ns: nanoseconds(options.max_open),
            latest_ns: clock.measured_ns(),
        }
    }

    /// An operation becomes a span.
    pub(super) fn operation(&mut self, op: AttributedOp, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) -> Span {
        let raw = &op.raw;
        let end_ns = raw.start_ns.saturating_add(raw.duration_ns);
        self.latest_ns = self.latest_ns.max(end_ns);
        let actor = Actor { tgid: raw.tgid, tid: raw.tid, uid: raw.uid, comm: raw.comm, cgroup: raw.cgroup };
        let process = self.see(&actor, raw.start_ns, losses, sink);
        self.files.note(raw);
        let facts = if raw.file_id == 0 { None } else { self.files.facts(raw.file_id) };
        let parent = facts.map_or(process, |facts| facts.place);
        let start_unix_ns = self.clock.unix_ns(parent.start_ns);
        let above = if facts.is_some() { Above::File { start_unix_ns } } else { Above::Process { start_unix_ns } };
        Span {
            trace: parent.trace,
            id: self.ids.span(),
            parent: Some(parent.span),
            above,
            start_unix_ns: self.clock.unix_ns(raw.start_ns),
            end_unix_ns: self.clock.unix_ns(end_ns),
            actor,
            body: SpanBody::Operation(op_span(raw, op.op, facts, op.path, op.target)),
        }
    }

    /// Unix time is told by this clock from here on: the two clocks drift apart.
    pub(super) fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// A file is open from here on.
    pub(super) fn opened(
        &mut self,
        file: &Opened,
        path: Option<Path>,
        losses: &mut PipelineLosses,
        sink: &mut dyn SpanSink,
    ) {
        let raw = &file.raw;
        if let Some(known) = self.files.get_mut(raw.file_id)
            && known.is_same(raw.dev, raw.ino, raw.opened_ns)
        {
            // Told again: its path could be had now.
            known.facts.path = path;
            return;
        }
        self.latest_ns = self.latest_ns.max(raw.opened_ns);
        let start_ns = if raw.opened_ns == 0 { self.latest_ns } else { raw.opened_ns };
        // The record does not tell the user; the process, or the first operation, will.
        let actor = Actor { tgid: raw.tgid, tid: raw.tid, uid: u32::MAX, comm: raw.comm, cgroup: raw.cgroup };
        let process = self.see(&actor, start_ns, losses, sink);
        let place = Place { trace: process.trace, span: self.ids.span(), start_ns };
        let opened = OpenFile {
            facts: FileFacts { place, path, dev: raw.dev, ino: raw.ino, mode: raw.mode },
            parent: process,
            actor,
            open_flags: raw.open_flags,
            opened_ns: raw.opened_ns,
            totals: fsi_common::record::FileTotals::default(),
            segment: 0,
            active: false,
        };
        self.processes.file_opened(raw.tgid, process.span);
        let (gone, loss) = match self.files.insert(raw.file_id, opened) {
            Displaced::Nothing => return,
            Displaced::Same(gone) => (gone, PipelineLoss::UnseenClose),
            Displaced::Oldest(gone) => (gone, PipelineLoss::EvictedFile),
        };
        losses.count(loss);
        emit(gone.span(self.latest_ns, None, &self.clock), sink);
        self.file_ended(gone.actor.tgid, gone.parent.span, self.latest_ns, sink);
    }

    /// A file is open no more.
    pub(super) fn closed(&mut self, close: &Closed, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) {
        let Closed { raw, kind } = close;
        self.latest_ns = self.latest_ns.max(raw.closed_ns);
        let clock = &self.clock;
        let ended = self.files.end(raw.file_id, |file| {
            file.totals = raw.totals;
            let end_ns = file.end_ns(raw.closed_ns, *kind);
            (file.span(end_ns, Some(*kind), clock), file.actor.tgid, file.parent.span, end_ns)
        });
        let Some((span, tgid, parent, end_ns)) = ended else {
            losses.count(PipelineLoss::UnknownClose);
            return;
        };
        emit(span, sink);
        self.file_ended(tgid, parent, end_ns, sink);
    }

    /// A process that has ended may have waited for this file.
    fn file_ended(&mut self, tgid: u32, parent: SpanId, end_ns: u64, sink: &mut dyn SpanSink) {
        if let Some(process) = self.processes.file_ended(tgid, parent, end_ns) {
            emit(process.span(end_ns, &self.clock), sink);
        }
    }

    /// A process starts, executes or ends.
    pub(super) fn process(&mut self, change: &Change, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) {
        let Change { raw, event } = change;
        self.latest_ns = self.latest_ns.max(raw.time_ns);
        match event {
            ProcessEvent::Fork => {
                let displaced = self.processes.fork(raw, &mut self.ids);
                self.displaced_process(displaced, losses, sink);
            }
            ProcessEvent::Exec => {
                let displaced = self.processes.exec(raw, &mut self.ids);
                self.displaced_process(displaced, losses, sink);
            }
            ProcessEvent::Exit => {
                if let Some(process) = self.processes.exit(raw) {
                    emit(process.span(raw.time_ns, &self.clock), sink);
                }
            }
        }
    }

    /// Ends the segments that are long enough and in which something was done, and the processes that waited long enough.
    pub(super) fn tick(&mut self, now_ns: u64, sink: &mut dyn SpanSink) {
        let Self { clock, ids, files, processes, max_open_ns, latest_ns } = self;
        *latest_ns = now_ns.max(*latest_ns);
        while let Some(process) = processes.pop_overdue(now_ns) {
            emit(process.span(now_ns, clock), sink);
        }
        for file in files.iter_mut() {
            if !file.active || now_ns.saturating_sub(file.facts.place.start_ns) < *max_open_ns {
                continue;
            }
            emit(file.span(now_ns, None, clock), sink);
            file.facts.place = Place { span: ids.span(), start_ns: now_ns, ..file.facts.place };
            file.segment += 1;
            file.active = false;
        }
    }

    /// Ends all files, then all processes, the oldest first.
    pub(super) fn finish(&mut self, now_ns: u64, sink: &mut dyn SpanSink) {
        while let Some(file) = self.files.pop_oldest() {
            emit(file.span(now_ns, None, &self.clock), sink);
        }
        while let Some(process) = self.processes.pop_oldest() {
            emit(process.span(now_ns, &self.clock), sink);
        }
    }

    fn see(&mut self, actor: &Actor, start_ns: u64, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) -> Place {
        let (place, displaced) = self.processes.seen(actor, start_ns, &mut self.ids);
        self.displaced_process(displaced, losses, sink);
        place
    }

    fn displaced_process(
        &mut self,
        displaced: Displaced<Process>,
        losses: &mut PipelineLosses,
        sink: &mut dyn SpanSink,
    ) {
        let (process, loss) = match displaced {
            Displaced::Nothing => return,
            Displaced::Same(process) => (process, PipelineLoss::UnseenExit),
            Displaced::Oldest(process) => (process, PipelineLoss::EvictedProcess),
        };
        losses.count(loss);
        emit(process.span(self.latest_ns, &self.clock), sink);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn op_span(raw: &OpRecord, op: OpKind, file: Option<&FileFacts>, path: Option<Path>, target: Option<Path>) -> OpSpan {
    // open tells device and inode through its file only.
    let (dev, ino, mode) = match file {
        Some(file) if raw.ino == 0 => (file.dev, file.ino, file.mode),
        Some(_) | None => (raw.dev, raw.ino, raw.mode),
    };
    let moves_bytes = raw.flags & (READ | WRITTEN) != 0;
    OpSpan {
        op,
        duration_ns: raw.duration_ns,
        errno: raw.errno,
        ret: raw.ret,
        dev,
        ino,
        mode,
        offset: (raw.offset != NO_OFFSET).then_some(raw.offset),
        asked: (moves_bytes || raw.asked != 0).then_some(raw.asked),
        bytes: moves_bytes.then_some(u64::try_from(raw.ret).unwrap_or(0)),
        open_flags: (op == OpKind::Open).then_some(raw.open_flags),
        syscall: raw.syscall,
        path,
        target,
        interposed: None,
    }
}
