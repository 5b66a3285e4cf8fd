//! Drawings of small made-up trees.

use fsi_common::op::OpKind;
use fsi_common::record::{CloseKind, FileTotals, PathState};

use super::*;
use crate::span::{Above, Actor, FileSpan, ProcessSpan, TraceId};
use crate::summary::Look;

const LOOK: Look = Look { width: None, color: false };

fn path(text: &str) -> Option<Path> {
    Some(Path { bytes: text.as_bytes().into(), state: PathState::Resolved })
}

fn span(id: u8, parent: u8, start_ns: u64, end_ns: u64, body: SpanBody) -> Arc<Span> {
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(b"cat");
    Arc::new(Span {
        trace: TraceId([1; 16]),
        id: SpanId([id; 8]),
        parent: (parent != 0).then_some(SpanId([parent; 8])),
        above: Above::Nothing,
        start_unix_ns: start_ns,
        end_unix_ns: end_ns,
        actor: Actor { tgid: 7, tid: 7, uid: 0, comm, cgroup: 1 },
        body,
    })
}

fn operation(op: OpKind, errno: u16, bytes: Option<u64>, at: Option<&str>) -> SpanBody {
    SpanBody::Operation(OpSpan {
        op,
        duration_ns: 100,
        errno,
        ret: 0,
        dev: u32::from(at.is_none()),
        ino: 0,
        mode: 0,
        offset: bytes.map(|_| 4096),
        asked: bytes,
        bytes,
        open_flags: None,
        syscall: 0,
        path: at.and_then(path),
        target: None,
        interposed: None,
    })
}

fn file(name: &str, close: Option<CloseKind>) -> SpanBody {
    let totals = FileTotals { operations: 5, bytes_read: 24, ..FileTotals::default() };
    let (dev, ino, mode, open_flags) = (1, 2, 0, 0);
    SpanBody::File(FileSpan {
        path: path(name),
        dev,
        ino,
        mode,
        open_flags,
        open_before: false,
        close,
        totals,
        segment: 0,
    })
}

#[test]
fn nests_and_folds() {
    let mut builder = TreeBuilder::default();
    builder.span(&span(20, 1, 5, 105, operation(OpKind::Stat, 2, None, Some("/missing"))));
    for id in 10..13 {
        builder.span(&span(id, 2, u64::from(id), u64::from(id) + 100, operation(OpKind::Read, 0, Some(8), None)));
    }
    builder.span(&span(13, 2, 13, 113, operation(OpKind::Read, 5, None, None)));
    builder.span(&span(2, 1, 9, 1_009, file("/a", Some(CloseKind::Closed))));
    builder.span(&span(1, 0, 0, 5_000, SpanBody::Process(ProcessSpan { parent_tgid: 1, exit_code: Some(256) })));
    let expected = "\
process cat 7  5.00 us, exit code 1
|- stat /missing  100 ns  ENOENT
`- file /a  1.00 us, 5 operations, read 24 B
   |- read x3  24 B  300 ns, slowest 100 ns
   `- read  100 ns  EIO";
    assert_eq!(builder.finish().render(&LOOK), expected);
}

#[test]
fn memory_is_bounded_and_what_is_left_out_is_said() {
    let mut builder = TreeBuilder::default();
    for at in 0..1_000_u64 {
        let op = if at % 2 == 0 { OpKind::Read } else { OpKind::Write };
        builder.span(&span(10, 2, at, at, operation(op, 0, Some(1), None)));
    }
    builder.span(&span(2, 0, 0, 1_000, file("/a", None)));
    let text = builder.finish().render(&LOOK);
    assert_eq!(text.lines().count(), 1 + MAX_UNDER_ONE + 1);
    assert!(text.starts_with("file /a  1.00 us, 5 operations, read 24 B, still open"), "{text}");
    assert!(text.ends_with("`- ... 800 more"), "{text}");
}

#[test]
fn orphans_are_drawn() {
    let mut builder = TreeBuilder::default();
    builder.span(&span(10, 2, 1, 101, operation(OpKind::Mkdir, 0, None, Some("/d"))));
    assert_eq!(builder.finish().render(&LOOK), "mkdir /d  100 ns");
    assert_eq!(TreeBuilder::default().finish().render(&LOOK), "no spans");
}

#[test]
fn what_outlives_its_parent_is_drawn_under_it() {
    let process = |parent_tgid| SpanBody::Process(ProcessSpan { parent_tgid, exit_code: Some(0) });
    let mut builder = TreeBuilder::default();
    builder.span(&span(1, 0, 0, 1_000, process(1)));
    builder.span(&span(20, 3, 5, 105, operation(OpKind::Mkdir, 0, None, Some("/d"))));
    // Its own child comes later still.
    builder.span(&span(2, 1, 2, 2_000, process(7)));
    builder.span(&span(3, 2, 3, 3_000, process(7)));
    let expected = "\
process cat 7  1.00 us
`- process cat 7  2.00 us
   `- process cat 7  3.00 us
      `- mkdir /d  100 ns";
    assert_eq!(builder.finish().render(&LOOK), expected);
}
