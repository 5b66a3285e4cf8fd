//! Spans for tests.

use std::sync::Arc;

use fsi_common::op::OpKind;
use fsi_common::record::{CloseKind, FileTotals, PathState};

use crate::span::{Above, Actor, FileSpan, OpSpan, Path, ProcessSpan, Span, SpanBody, SpanId, TraceId};

pub(super) const START_NS: u64 = 1_700_000_000_000_000_001;

pub(super) fn path(bytes: &[u8], state: PathState) -> Path {
    Path { bytes: Arc::from(bytes), state }
}

fn span(id: u8, parent: Option<u8>, above: Above, body: SpanBody) -> Span {
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(b"cat");
    Span {
        trace: TraceId([0xab; 16]),
        id: SpanId([id; 8]),
        parent: parent.map(|parent| SpanId([parent; 8])),
        above,
        start_unix_ns: START_NS,
        end_unix_ns: 1_700_000_000_000_001_235,
        actor: Actor { tgid: 42, tid: 43, uid: 1000, comm, cgroup: 77 },
        body,
    }
}

pub(super) fn process(exit_code: Option<u32>) -> Span {
    span(1, None, Above::Nothing, SpanBody::Process(ProcessSpan { parent_tgid: 41, exit_code }))
}

pub(super) fn file(file_path: Path) -> Span {
    let totals = FileTotals { operations: 3, reads: 1, bytes_read: 60, errors: 1, ..FileTotals::default() };
    let body = SpanBody::File(FileSpan {
        path: Some(file_path),
        dev: 8 << 20 | 1,
        ino: 99,
        mode: 0o100_644,
        open_flags: 0o2,
        open_before: false,
        close: Some(CloseKind::Closed),
        totals,
        segment: 0,
    });
    span(2, Some(1), Above::Process { start_unix_ns: START_NS - 5 }, body)
}

pub(super) fn op(kind: OpKind, errno: u16, op_path: Path) -> Span {
    let body = SpanBody::Operation(OpSpan {
        op: kind,
        duration_ns: 1234,
        errno,
        ret: if errno == 0 { 60 } else { -i64::from(errno) },
        dev: 8 << 20 | 1,
        ino: 99,
        mode: 0o100_644,
        offset: Some(4096),
        asked: Some(100),
        bytes: Some(60),
        open_flags: None,
        syscall: 0,
        path: Some(op_path),
        target: None,
        interposed: None,
    });
    span(3, Some(2), Above::File { start_unix_ns: START_NS - 2 }, body)
}

pub(super) fn read(file_path: &str) -> Arc<Span> {
    Arc::new(op(OpKind::Read, 0, path(file_path.as_bytes(), PathState::Resolved)))
}
