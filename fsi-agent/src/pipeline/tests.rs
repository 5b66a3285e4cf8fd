//! Records made by hand in, the tree of spans out.

mod lifetimes;

use std::sync::Arc;

use fsi_common::aggregate::{READ, WRITTEN};
use fsi_common::op::OpKind;
use fsi_common::record::{
    CloseKind, CloseRecord, FileRecord, FileTotals, NO_OFFSET, OpRecord, PathRecord, PathState, ProcessEvent,
    ProcessRecord, RecordHeader, RecordKind,
};
use proptest::prelude::*;
use zerocopy::{Immutable, IntoBytes};

use super::*;
use crate::span::{Above, FileSpan, OpSpan, ProcessSpan, Span, SpanBody};

#[derive(Default)]
struct Collected(Vec<Arc<Span>>);

impl SpanSink for Collected {
    fn span(&mut self, span: &Arc<Span>) {
        self.0.push(Arc::clone(span));
    }
}

/// A pipeline, what came out of it, and the records' grammar.
struct Harness {
    pipeline: Pipeline,
    clock: Clock,
    out: Collected,
}

fn header(kind: RecordKind, detail: u16, len: usize) -> RecordHeader {
    RecordHeader { kind: kind as u16, detail, len: u32::try_from(len).unwrap() }
}

impl Harness {
    fn new(options: PipelineOptions) -> Self {
        let clock = Clock::measure();
        Self { pipeline: Pipeline::new(options, clock), clock, out: Collected::default() }
    }

    fn send(&mut self, fixed: &(impl IntoBytes + Immutable), names: &[&[u8]]) {
        let mut bytes = fixed.as_bytes().to_vec();
        names.iter().for_each(|name| bytes.extend_from_slice(name));
        self.pipeline.record(&bytes, &mut self.out);
    }

    fn path(&mut self, id: u64, state: PathState, path: &[u8]) {
        let header = header(RecordKind::Path, 0, size_of::<PathRecord>() + path.len());
        let path_len = u32::try_from(path.len()).unwrap();
        self.send(&PathRecord { header, id, state: state as u32, path_len }, &[path]);
    }

    fn file(&mut self, file_id: u64, path_id: u64, tgid: u32, opened_ns: u64) {
        let header = header(RecordKind::File, 0, size_of::<FileRecord>());
        let path = PathState::Resolved as u16;
        let record = FileRecord {
            header,
            file_id,
            path_id,
            opened_ns,
            ino: file_id * 10,
            dev: 8 << 20,
            tgid,
            path,
            ..FileRecord::default()
        };
        self.send(&FileRecord { mode: 0o100_644, comm: comm("opener"), ..record }, &[]);
    }

    fn close(&mut self, file_id: u64, closed_ns: u64, totals: FileTotals) {
        self.close_as(CloseKind::Closed, file_id, closed_ns, totals);
    }

    fn close_as(&mut self, kind: CloseKind, file_id: u64, closed_ns: u64, totals: FileTotals) {
        let header = header(RecordKind::Close, kind as u16, size_of::<CloseRecord>());
        self.send(&CloseRecord { header, file_id, closed_ns, totals }, &[]);
    }

    fn process(&mut self, event: ProcessEvent, tgid: u32, parent_tgid: u32, time_ns: u64) {
        let header = header(RecordKind::Process, event as u16, size_of::<ProcessRecord>());
        let record = ProcessRecord {
            header,
            time_ns,
            tgid,
            parent_tgid,
            uid: 1000,
            comm: comm("sh"),
            ..ProcessRecord::default()
        };
        self.send(&record, &[]);
    }

    /// `raw` as an operation with these names; kind, lengths and offset are filled in.
    fn op(&mut self, op: OpKind, raw: OpRecord, names: [&[u8]; 2]) -> Arc<Span> {
        let len = size_of::<OpRecord>() + names[0].len() + names[1].len();
        let raw = OpRecord {
            header: header(RecordKind::Operation, 0, len),
            op: op.code(),
            offset: if raw.offset == 0 { NO_OFFSET } else { raw.offset },
            name1_len: u16::try_from(names[0].len()).unwrap(),
            name2_len: u16::try_from(names[1].len()).unwrap(),
            uid: 1000,
            ..raw
        };
        self.send(&raw, &names);
        self.last()
    }

    fn last(&self) -> Arc<Span> {
        Arc::clone(self.out.0.last().unwrap())
    }

    fn finish(&mut self, now_ns: u64) -> Vec<Arc<Span>> {
        let before = self.out.0.len();
        self.pipeline.finish(now_ns, &mut self.out);
        self.out.0.split_off(before)
    }

    fn loss(&self, loss: PipelineLoss) -> u64 {
        self.pipeline.losses().get(loss)
    }
}

fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

fn at(tgid: u32, start_ns: u64) -> OpRecord {
    OpRecord { tgid, tid: tgid, start_ns, duration_ns: 10, ..OpRecord::default() }
}

fn op_of(span: &Span) -> &OpSpan {
    match &span.body {
        SpanBody::Operation(op) => op,
        other => panic!("no operation: {other:?}"),
    }
}

fn file_of(span: &Span) -> &FileSpan {
    match &span.body {
        SpanBody::File(file) => file,
        other => panic!("no file: {other:?}"),
    }
}

fn process_of(span: &Span) -> &ProcessSpan {
    match &span.body {
        SpanBody::Process(process) => process,
        other => panic!("no process: {other:?}"),
    }
}

fn path_of(span: &Span) -> (&[u8], PathState) {
    let path = op_of(span).path.as_ref().unwrap();
    (&path.bytes, path.state)
}

#[test]
fn a_file_is_under_its_process_and_operations_are_under_the_file() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.process(ProcessEvent::Fork, 10, 1, 100);
    harness.path(1, PathState::Resolved, b"/data/f");
    harness.file(7, 1, 10, 200);
    let open = harness.op(OpKind::Open, OpRecord { file_id: 7, ret: 3, open_flags: 0o102, ..at(10, 200) }, [b"", b""]);
    let read =
        OpRecord { file_id: 7, asked: 100, ret: 60, offset: 5, flags: READ, ino: 70, dev: 8 << 20, ..at(10, 300) };
    let read = harness.op(OpKind::Read, read, [b"", b""]);
    let close = harness.op(OpKind::Close, OpRecord { file_id: 7, ..at(10, 400) }, [b"", b""]);
    let totals = FileTotals { operations: 3, reads: 1, bytes_read: 60, last_ns: 410, ..FileTotals::default() };
    harness.close(7, 405, totals);
    let file = harness.last();
    harness.process(ProcessEvent::Exit, 10, 1, 500);
    let process = harness.last();

    assert_eq!(process.parent, None);
    assert_eq!(process_of(&process).exit_code, Some(0));
    assert_eq!((file.trace, file.parent), (process.trace, Some(process.id)));
    assert_eq!(process.above, Above::Nothing);
    assert_eq!(file.above, Above::Process { start_unix_ns: process.start_unix_ns });
    for op in [&open, &read, &close] {
        assert_eq!(op.above, Above::File { start_unix_ns: file.start_unix_ns });
        assert_eq!((op.trace, op.parent), (process.trace, Some(file.id)));
        assert_eq!(path_of(op), (&b"/data/f"[..], PathState::Resolved));
        assert_eq!((op_of(op).ino, op_of(op).dev), (70, 8 << 20));
    }
    assert_eq!(file_of(&file).totals, totals);
    assert_eq!(file_of(&file).close, Some(CloseKind::Closed));
    assert_eq!((file.start_unix_ns, file.end_unix_ns), (harness.clock.unix_ns(200), harness.clock.unix_ns(410)));
    assert_eq!(file.actor.uid, 1000, "the first operation told the user");
    assert_eq!((op_of(&read).asked, op_of(&read).bytes, op_of(&read).offset), (Some(100), Some(60), Some(5)));
    assert_eq!((op_of(&open).open_flags, op_of(&open).bytes, op_of(&open).offset), (Some(0o102), None, None));
    assert_eq!(harness.pipeline.operations(), 3);
    assert!(harness.pipeline.losses().iter().all(|(_, _, count)| count == 0));
    assert!(harness.finish(600).is_empty());
}

#[test]
fn children_are_under_their_parents_and_strangers_are_roots() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.process(ProcessEvent::Fork, 10, 1, 100);
    harness.process(ProcessEvent::Fork, 11, 10, 110);
    harness.process(ProcessEvent::Exec, 11, 10, 120);
    harness.process(ProcessEvent::Fork, 12, 99, 130);
    let spans = harness.finish(200);
    let [parent, child, stranger] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((child.trace, child.parent), (parent.trace, Some(parent.id)));
    assert_eq!(child.above, Above::Process { start_unix_ns: parent.start_unix_ns });
    assert_ne!(stranger.trace, parent.trace);
    assert_eq!(stranger.parent, None);
}

#[test]
fn a_given_trace_is_continued() {
    let trace = (TraceId([1; 16]), Some(SpanId([2; 8])));
    let mut harness = Harness::new(PipelineOptions { trace: Some(trace), ..PipelineOptions::default() });
    harness.process(ProcessEvent::Fork, 10, 1, 100);
    harness.op(OpKind::Mkdir, OpRecord { path1: 1, ..at(55, 110) }, [b"/x", b""]);
    for span in harness.finish(200) {
        assert_eq!((span.trace, span.parent), trace);
    }
}

#[test]
fn a_forked_process_uses_the_file_of_its_parent() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.process(ProcessEvent::Fork, 10, 1, 100);
    harness.path(1, PathState::Resolved, b"/f");
    harness.file(7, 1, 10, 110);
    harness.process(ProcessEvent::Fork, 11, 10, 120);
    let write = harness.op(OpKind::Write, OpRecord { file_id: 7, ret: 4, flags: WRITTEN, ..at(11, 130) }, [b"", b""]);
    let spans = harness.finish(200);
    let file = spans.iter().find(|span| matches!(span.body, SpanBody::File(_))).unwrap();
    assert_eq!((write.parent, write.actor.tgid, file.actor.tgid), (Some(file.id), 11, 10));
    // Its end was not seen: the totals are those of the operations that were told.
    assert_eq!(
        (file_of(file).close, file_of(file).totals.bytes_written, file_of(file).totals.operations),
        (None, 4, 1)
    );
}

#[test]
fn paths_of_path_operations() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.path(1 << 32, PathState::Resolved, b"/base");
    harness.path(1 << 32 | 1, PathState::Unreachable, b"");
    let (resolved, fault) = (PathState::Resolved as u8, PathState::Fault as u8);
    /// Directory, state and name as the kernel side tells them; the path and its state as the span has them.
    type Case = (u64, u8, &'static [u8], &'static [u8], PathState);
    let cases: [Case; 7] = [
        (0, resolved, b"/abs//x", b"/abs/x", PathState::Resolved),
        (1 << 32, resolved, b"./a/../b", b"/base/a/../b", PathState::Resolved),
        (1 << 32, resolved, b"", b"/base", PathState::Resolved),
        (1 << 32, resolved, b"\xff\xfe", b"/base/\xff\xfe", PathState::Resolved),
        (1 << 32 | 1, resolved, b"x", b"x", PathState::Unreachable),
        (1 << 32, fault, b"", b"/base", PathState::Fault),
        (9 << 32, resolved, b"x", b"x", PathState::Lost),
    ];
    for (dir1, path1, name, path, state) in cases {
        let span = harness.op(OpKind::Unlink, OpRecord { dir1, path1, ..at(10, 100) }, [name, b""]);
        assert_eq!(path_of(&span), (path, state));
    }
    assert_eq!(harness.loss(PipelineLoss::UnknownPath), 1);
    let raw = OpRecord { dir1: 1 << 32, dir2: 1 << 32, path1: resolved, path2: resolved, ..at(10, 100) };
    let rename = harness.op(OpKind::Rename, raw, [b"from", b"to"]);
    assert_eq!(&*op_of(&rename).target.as_ref().unwrap().bytes, b"/base/to");
    // Without a file they hang under the process.
    let process = harness.finish(200).pop().unwrap();
    assert_eq!(rename.parent, Some(process.id));
    let none = harness.op(OpKind::Open, OpRecord { ret: -2, errno: 2, ..at(10, 100) }, [b"", b""]);
    assert!(op_of(&none).path.is_none() && op_of(&none).target.is_none());
}

#[test]
fn a_file_that_is_still_open_has_the_totals_of_the_kernel_side() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.file(7, 0, 10, 100);
    harness.op(OpKind::Read, OpRecord { file_id: 7, ret: 1, flags: READ, ..at(10, 120) }, [b"", b""]);
    let totals = FileTotals { operations: 50, bytes_read: 4000, last_ns: 150, ..FileTotals::default() };
    harness.pipeline.update_totals(7, totals);
    harness.pipeline.update_totals(8, totals);
    let spans = harness.finish(200);
    assert_eq!((file_of(&spans[0]).totals, file_of(&spans[0]).close), (totals, None));
}

#[test]
fn an_unknown_file_still_gives_a_span() {
    let mut harness = Harness::new(PipelineOptions::default());
    let read = harness.op(OpKind::Read, OpRecord { file_id: 5, ino: 3, ..at(10, 100) }, [b"", b""]);
    assert_eq!(path_of(&read), (&b""[..], PathState::Lost));
    assert_eq!(op_of(&read).ino, 3);
    harness.close(5, 200, FileTotals::default());
    assert_eq!((harness.loss(PipelineLoss::UnknownFile), harness.loss(PipelineLoss::UnknownClose)), (1, 1));
    assert_eq!(harness.pipeline.operations(), 1);
}

#[test]
fn an_operation_told_after_the_close_keeps_its_file() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.path(1, PathState::Resolved, b"/f");
    harness.file(7, 1, 10, 100);
    harness.close(7, 200, FileTotals::default());
    let file = harness.last();
    let close = harness.op(OpKind::Close, OpRecord { file_id: 7, ..at(10, 190) }, [b"", b""]);
    assert_eq!((close.parent, path_of(&close).0), (Some(file.id), &b"/f"[..]));
}

#[test]
fn a_file_whose_path_is_not_known_says_why() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.file(7, 3, 10, 100);
    let read = harness.op(OpKind::Read, OpRecord { file_id: 7, ..at(10, 110) }, [b"", b""]);
    assert_eq!(path_of(&read).1, PathState::Lost);
    // The path could be had on a later use: the file is told again.
    harness.path(3, PathState::Resolved, b"/late");
    harness.file(7, 3, 10, 100);
    let read = harness.op(OpKind::Read, OpRecord { file_id: 7, ..at(10, 120) }, [b"", b""]);
    assert_eq!(path_of(&read), (&b"/late"[..], PathState::Resolved));
    let spans = harness.finish(200);
    assert_eq!(spans.len(), 2, "one file, one process: {spans:?}");
}

#[test]
fn what_does_not_fit_is_ended_and_counted() {
    let options = PipelineOptions { max_open_files: 2, max_processes: 2, ..PipelineOptions::default() };
    let mut harness = Harness::new(options);
    for id in 1..=5 {
        harness.file(id, 0, 10, 100);
    }
    for tgid in 11..=13 {
        harness.process(ProcessEvent::Fork, tgid, 1, 200);
    }
    assert_eq!((harness.loss(PipelineLoss::EvictedFile), harness.loss(PipelineLoss::EvictedProcess)), (3, 2));
    assert_eq!(harness.pipeline.open_files(), 2);
    assert_eq!(harness.out.0.len(), 5);
    assert_eq!(harness.finish(300).len(), 4);
}

#[test]
fn what_cannot_be_decoded_is_counted() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.pipeline.record(&[1, 2, 3], &mut harness.out);
    assert_eq!((harness.pipeline.losses().undecoded(), harness.pipeline.operations()), (1, 0));
}

proptest! {
    /// Whatever order records come in: every operation is a span, ids are unique, and a parent is of the same trace.
    #[test]
    fn any_order_of_records_gives_a_sound_tree(script in proptest::collection::vec((0u8..6, 1u64..6, 1u32..5), 0..200)) {
        let options = PipelineOptions { max_open_files: 3, max_processes: 3, ..PipelineOptions::default() };
        let mut harness = Harness::new(options);
        let mut operations = 0;
        for (time, (what, id, tgid)) in (1000u64..).zip(script) {
            match what {
                0 => harness.path(id, PathState::Resolved, b"/p"),
                1 => harness.file(id, id, tgid, time),
                2 => harness.close(id, time, FileTotals::default()),
                3 => harness.process(ProcessEvent::Fork, tgid, tgid + 1, time),
                4 => harness.process(ProcessEvent::Exit, tgid, 1, time),
                _ => {
                    operations += 1;
                    harness.op(OpKind::Read, OpRecord { file_id: id - 1, ..at(tgid, time) }, [b"", b""]);
                }
            }
        }
        harness.pipeline.finish(10_000, &mut harness.out);
        let spans = &harness.out.0;
        prop_assert_eq!(harness.pipeline.operations(), operations);
        let by_id: std::collections::HashMap<_, _> = spans.iter().map(|span| (span.id, span)).collect();
        prop_assert_eq!(by_id.len(), spans.len());
        for span in spans {
            prop_assert!(span.start_unix_ns <= span.end_unix_ns);
            if let Some(parent) = span.parent {
                prop_assert!(by_id.get(&parent).is_some_and(|parent| parent.trace == span.trace));
            }
        }
        let ops = spans.iter().filter(|span| matches!(span.body, SpanBody::Operation(_))).count();
        prop_assert_eq!(ops as u64, operations);
    }
}
