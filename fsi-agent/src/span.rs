//! A span as the pipeline makes it: what happened, when, under what. Exporters turn it into OTLP, the tree draws it.

use std::sync::Arc;

use fsi_common::op::OpKind;
use fsi_common::record::{CgroupRecord, CloseKind, FileTotals, PathState};

use crate::rules::decision::FaultEntry;
use crate::rules::op::Op;

/// Sixteen bytes that all spans of one trace share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Eight bytes that name a span within its trace; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A path as bytes (it need not be UTF-8), or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub bytes: Arc<[u8]>,
    pub state: PathState,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub tgid: u32,
    pub tid: u32,
    pub uid: u32,
    pub comm: [u8; 16],
    pub cgroup: u64,
}

/// A finished span.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub above: Above,
    pub start_unix_ns: u64,
    pub end_unix_ns: u64,
    pub actor: Actor,
    pub body: SpanBody,
}

/// What the parent is and when it began: with this the trace of a span follows from the span alone, however traces are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// Nothing of ours.
    Nothing,
    Process {
        start_unix_ns: u64,
    },
    File {
        start_unix_ns: u64,
    },
}

/// What a span is about.
#[derive(Clone, Debug)]
pub enum SpanBody {
    Process(ProcessSpan),
    File(FileSpan),
    Operation(OpSpan),
}

/// A process under observation, from its start (or our first sight of it) to its end (or ours).
#[derive(Clone, Debug)]
pub struct ProcessSpan {
    pub parent_tgid: u32,
    /// The wait status, when its end was seen.
    pub exit_code: Option<u32>,
}

/// One open file, from open to last close.
#[derive(Clone, Debug)]
pub struct FileSpan {
    pub path: Option<Path>,
    pub dev: u32,
    pub ino: u64,
    /// `i_mode`
    pub mode: u16,
    pub open_flags: u32,
    /// It was open before we looked.
    pub open_before: bool,
    /// How it ended; `None`: still open when the observation (or the segment) ended.
    pub close: Option<CloseKind>,
    pub totals: FileTotals,
    /// 0 for the first segment of a file that stays open for long, then counting up; the totals are those of the whole life so far.
    pub segment: u32,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct OpSpan {
    pub op: OpKind,
    pub duration_ns: u64,
    /// 0, or the errno.
    pub errno: u16,
    pub ret: i64,
    pub dev: u32,
    pub ino: u64,
    pub mode: u16,
    pub offset: Option<i64>,
    pub asked: Option<u64>,
    /// Bytes read or written, for operations that move bytes.
    pub bytes: Option<u64>,
    pub open_flags: Option<u32>,
    /// [`NO_SYSCALL`] where only the mount saw it.
    pub syscall: u32,
    /// The path the operation names, or the path of its open file.
    pub path: Option<Path>,
    /// The other path (rename, link, symlink, copy_file_range).
    pub target: Option<Path>,
    /// What a mount of ours did to it.
    pub interposed: Option<Box<Interposed>>,
}

/// No system call has this number.
pub const NO_SYSCALL: u32 = u32::MAX;

/// What the interposer did to an operation, and what that cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Interposed {
    /// What the mount calls it, where only the mount saw it.
    pub op: Option<Op>,
    /// Requests that it was.
    pub requests: u32,
    /// The rest of the operation's time: in the kernel and on the way. Nothing where only the mount saw it.
    pub kernel_ns: Option<u64>,
    /// Our own time.
    pub overhead_ns: u64,
    /// Delays on purpose.
    pub injected_ns: u64,
    /// Waiting for tokens.
    pub throttle_ns: u64,
    /// Time in the backing file system.
    pub backing_ns: u64,
    pub volume: MountedVolume,
    pub faults: Vec<FaultEntry>,
}

/// The volume that a mount shows, as far as its server was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountedVolume {
    pub name: Option<Arc<str>>,
    pub namespace: Option<Arc<str>>,
}

/// Takes finished spans. Called on the pipeline's thread: it must not block.
pub trait SpanSink {
    fn span(&mut self, span: &Arc<Span>);

    /// A cgroup was made, in which what comes next may happen. Who asks nobody about cgroups has no use for it.
    fn cgroup(&mut self, _made: &CgroupRecord) {}
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A span of which only that it is one matters.
    pub(crate) fn process() -> Arc<Span> {
        Arc::new(Span {
            trace: TraceId([1; 16]),
            id: SpanId([2; 8]),
            parent: None,
            above: Above::Nothing,
            start_unix_ns: 1,
            end_unix_ns: 2,
            actor: Actor { tgid: 3, tid: 4, uid: 5, comm: *b"command\0\0\0\0\0\0\0\0\0", cgroup: 6 },
            body: SpanBody::Process(ProcessSpan { parent_tgid: 7, exit_code: Some(8) }),
        })
    }
}
