//! What the interposer did with one request, for spans, metrics and the join with what the kernel saw.

use std::sync::Arc;

use crate::rules::decision::FaultEntry;
use crate::rules::op::Op;

/// One request that went through the server. Times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct OpReport {
    /// The request's number within its connection, and the connection's device: what the join goes by.
    pub unique: u64,
    pub dev: u32,
    pub op: Op,
    pub ino: u64,
    /// `st_mode`, or 0 where it is not known.
    pub mode: u32,
    /// From the mount's root.
    pub path: Arc<[u8]>,
    /// The other path (rename, link).
    pub target: Option<Arc<[u8]>>,
    /// Thread that asked, 0 for the kernel itself.
    pub tid: u32,
    pub uid: u32,
    /// Which open file: the same number for its open, its operations and its release; 0 for operations on paths.
    pub open_file: u64,
    pub open_flags: Option<u32>,
    pub offset: Option<u64>,
    /// Bytes asked for, of operations that move bytes.
    pub asked: Option<u64>,
    /// Bytes done.
    pub done: Option<u64>,
    /// 0, or the errno of the answer.
    pub errno: i32,
    pub started_ns: u64,
    pub answered_ns: u64,
    /// Time in the backing file system's calls.
    pub backing_ns: u64,
    /// Time waited on purpose: delays.
    pub delay_ns: u64,
    /// Time waited for tokens.
    pub throttle_ns: u64,
    /// The bucket was empty: the operation waited, or got EAGAIN.
    pub throttle: Throttled,
    pub faults: Vec<FaultEntry>,
}

/// What the throttle said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Throttled {
    /// Nothing: there is none, or there were tokens.
    #[default]
    No,
    Waited,
    Again,
}

/// An open file came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileReport {
    /// Also for files that are open in passthrough, whose reads and writes are not seen.
    Opened {
        open_file: u64,
        dev: u32,
        ino: u64,
        mode: u32,
        path: Arc<[u8]>,
        tid: u32,
        uid: u32,
        flags: u32,
        at_ns: u64,
        passthrough: bool,
    },
    Released {
        open_file: u64,
        at_ns: u64,
    },
}

/// Takes reports. Called on the threads that answer requests: it must not block.
pub trait Reports: Send + Sync + std::fmt::Debug {
    /// Whether anybody wants each operation; when not, only `fault` and the counts are called for.
    fn wants_operations(&self) -> bool;
    /// Whether anybody wants to know of open files.
    fn wants_files(&self) -> bool;
    fn operation(&self, report: OpReport);
    fn file(&self, report: FileReport);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReports;

impl Reports for NoReports {
    fn wants_operations(&self) -> bool {
        false
    }
    fn wants_files(&self) -> bool {
        false
    }
    fn operation(&self, _report: OpReport) {}
    fn file(&self, _report: FileReport) {}
}

/// Several listen. Who does not want what is told does not get it.
#[derive(Debug)]
pub struct FanOut(pub Vec<Arc<dyn Reports>>);

impl FanOut {
    fn tell<T: Clone>(&self, report: T, wants: impl Fn(&dyn Reports) -> bool, tell: impl Fn(&dyn Reports, T)) {
        let mut wanting = self.0.iter().filter(|listener| wants(&***listener)).peekable();
        while let Some(listener) = wanting.next() {
            if wanting.peek().is_none() {
                tell(&**listener, report);
                return;
            }
            tell(&**listener, report.clone());
        }
    }
}

impl Reports for FanOut {
    fn wants_operations(&self) -> bool {
        self.0.iter().any(|listener| listener.wants_operations())
    }

    fn wants_files(&self) -> bool {
        self.0.iter().any(|listener| listener.wants_files())
    }

    fn operation(&self, report: OpReport) {
        self.tell(report, |listener| listener.wants_operations(), |listener, report| listener.operation(report));
    }

    fn file(&self, report: FileReport) {
        self.tell(report, |listener| listener.wants_files(), |listener, report| listener.file(report));
    }
}
