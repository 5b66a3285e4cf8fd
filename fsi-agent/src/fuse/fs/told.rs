//! What is told about a request once it is answered.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::{Ask, Call, Interposer};
use crate::clock;
use crate::fuse::node::Node;
use crate::fuse::open_files::{Kind, Open};
use crate::fuse::report::{FileReport, OpReport, Throttled};
use crate::rules::decision::FaultEntry;
use crate::rules::op::Op;

/// Paths from the mount's root.
pub(super) struct Paths {
    pub(super) path: Arc<[u8]>,
    pub(super) target: Option<Arc<[u8]>>,
}

/// What a report keeps of an [`Ask`].
pub(super) struct About {
    op: Op,
    ino: u64,
    handle: Option<u64>,
    offset: u64,
    len: u64,
}

impl Ask<'_> {
    pub(super) fn owned(&self) -> About {
        About { op: self.op, ino: self.node(), handle: self.handle, offset: self.offset, len: self.len }
    }
}

/// All but the end.
pub(super) struct Told {
    pub(super) call: Call,
    pub(super) about: About,
    pub(super) paths: Paths,
    pub(super) faults: Vec<FaultEntry>,
    pub(super) started_ns: u64,
    pub(super) backing_ns: u64,
}

impl Told {
    pub(super) fn into_report(
        self,
        dev: u32,
        outcome: Result<u64, Errno>,
        delay: Duration,
        throttle: Throttled,
        throttle_ns: u64,
        answered_ns: u64,
    ) -> OpReport {
        let Self { call, about, paths, faults, started_ns, backing_ns } = self;
        let About { op, ino, handle, offset, len } = about;
        let moves_bytes = matches!(op, Op::Read | Op::Write | Op::CopyFileRange);
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        OpReport {
            unique: call.unique,
            dev,
            op,
            ino,
            mode: 0,
            path: paths.path,
            target: paths.target,
            tid: call.tid,
            uid: call.uid,
            open_file: handle.map_or(0, |handle| handle + 1),
            open_flags: None,
            offset: (moves_bytes || op == Op::Fallocate || op == Op::Lseek).then_some(offset),
            asked: moves_bytes.then_some(len),
            done: outcome.ok().filter(|_| moves_bytes),
            errno: outcome.err().map_or(0, Errno::raw_os_error),
            started_ns,
            answered_ns,
            backing_ns,
            // What was waited beyond our own work.
            delay_ns: delay_ns.saturating_sub(backing_ns),
            throttle_ns,
            throttle,
            faults,
        }
    }
}

impl Interposer {
    /// Tells that a file is open.
    pub(super) fn tell_opened(&self, call: Call, node: &Node, open: &Open) {
        if !self.reports.wants_files() {
            return;
        }
        self.reports.file(FileReport::Opened {
            open_file: open.handle + 1,
            dev: self.device.number(),
            ino: node.number,
            mode: self.nodes.record(node).generation_mode().1,
            path: self.nodes.path(node.number).into(),
            tid: call.tid,
            uid: call.uid,
            flags: open.flags.bits(),
            at_ns: clock::monotonic_ns(),
            passthrough: open.kind == Kind::Passthrough,
        });
    }

    /// Tells that it is not any more.
    pub(super) fn tell_released(&self, handle: u64) {
        if self.reports.wants_files() {
            self.reports.file(FileReport::Released { open_file: handle + 1, at_ns: clock::monotonic_ns() });
        }
    }
}
