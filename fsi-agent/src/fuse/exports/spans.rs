//! Reports become spans: one for each open file, its operations under it; an operation without an open file stands alone.
//!
//! Reports of one file may come in any order near its ends (they are made on several threads): whichever comes first makes the file, and a
//! released one waits for its last operations before it is told.

use std::collections::{HashMap, VecDeque};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path as FilePath;
use std::sync::Arc;

use fsi_common::op::OpKind;
use fsi_common::record::{CloseKind, FileTotals, PathState};

use crate::clock::Clock;
use crate::fuse::report::{FileReport, OpReport};
use crate::pipeline::ids::Ids;
use crate::rules::op::Op;
use crate::span::{
    Above, Actor, FileSpan, Interposed, MountedVolume, NO_SYSCALL, OpSpan, Path, Span, SpanBody, SpanId, TraceId,
};
use crate::telemetry::metrics::mount::overhead_ns;

/// Open files that are followed.
const MAX_FILES: usize = 262_144;
/// How long a released file waits for operations that are still on their way.
const LINGER_NS: u64 = 1_000_000_000;
/// A file that stays open and is used is told in pieces of this length.
const SEGMENT_NS: u64 = 60_000_000_000;

/// An open file.
#[derive(Debug)]
struct OpenFile {
    trace: TraceId,
    id: SpanId,
    actor: Actor,
    path: Path,
    dev: u32,
    ino: u64,
    mode: u16,
    flags: u32,
    open_before: bool,
    totals: FileTotals,
    segment: u32,
    segment_start_ns: u64,
    /// Operations when this segment began.
    told: u64,
    released_ns: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct SpanMaker {
    /// Without a slash at its end.
    target: Vec<u8>,
    volume: MountedVolume,
    clock: Clock,
    ids: Ids,
    files: HashMap<u64, OpenFile>,
    /// When they may be told, and which.
    released: VecDeque<(u64, u64)>,
    files_full: u64,
}

impl SpanMaker {
    pub(crate) fn new(target: &FilePath, volume: MountedVolume) -> Self {
        let mut target = target.as_os_str().as_bytes().to_vec();
        while target.last() == Some(&b'/') {
            target.pop();
        }
        Self {
            target,
            volume,
            clock: Clock::measure(),
            ids: Ids::new(),
            files: HashMap::new(),
            released: VecDeque::new(),
            files_full: 0,
        }
    }

    /// Files that could not be followed.
    pub(super) fn files_full(&self) -> u64 {
        self.files_full
    }

    /// Files that are open now.
    pub(super) fn open_files(&self) -> u64 {
        (self.files.len() - self.released.len()) as u64
    }

    fn path(&self, below: &[u8]) -> Path {
        let separator: &[u8] = if below.is_empty() && !self.target.is_empty() { b"" } else { b"/" };
        Path { bytes: Arc::from([&self.target, separator, below].concat()), state: PathState::Resolved }
    }

    /// The file of that number; nothing when there are too many already.
    fn open_file(&mut self, number: u64, new: impl FnOnce(&mut Ids) -> OpenFile) -> Option<&mut OpenFile> {
        let room = self.files.len() < MAX_FILES;
        let Self { files, ids, files_full, .. } = self;
        match files.entry(number) {
            std::collections::hash_map::Entry::Occupied(entry) => Some(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) if room => Some(entry.insert(new(ids))),
            std::collections::hash_map::Entry::Vacant(_) => {
                *files_full += 1;
                None
            }
        }
    }

    pub(super) fn file(&mut self, report: FileReport) {
        match report {
            FileReport::Opened { open_file: number, dev, ino, mode, path, tid, uid, flags, at_ns, passthrough: _ } => {
                let path = self.path(&path);
                let new = |ids: &mut Ids| OpenFile {
                    trace: ids.trace(),
                    id: ids.span(),
                    actor: actor(tid, uid),
                    path,
                    dev,
                    ino,
                    mode: short_mode(mode),
                    flags,
                    open_before: false,
                    totals: FileTotals::ZERO,
                    segment: 0,
                    segment_start_ns: at_ns,
                    told: 0,
                    released_ns: None,
                };
                if let Some(file) = self.open_file(number, new) {
                    // An operation may have been here first; it did not know all.
                    file.open_before = false;
                    (file.flags, file.ino, file.mode) = (flags, ino, short_mode(mode));
                    file.segment_start_ns = file.segment_start_ns.min(at_ns);
                }
            }
            FileReport::Released { open_file: number, at_ns } => {
                if let Some(file) = self.files.get_mut(&number)
                    && file.released_ns.is_none()
                {
                    file.released_ns = Some(at_ns);
                    self.released.push_back((at_ns + LINGER_NS, number));
                }
            }
        }
    }

    /// The span of an operation.
    pub(crate) fn operation(&mut self, report: OpReport) -> Span {
        let path = self.path(&report.path);
        let (trace, parent, above) = self.parent(&report, &path);
        let interposed = Interposed {
            op: Some(report.op),
            requests: 1,
            kernel_ns: None,
            overhead_ns: overhead_ns(&report),
            injected_ns: report.delay_ns,
            throttle_ns: report.throttle_ns,
            backing_ns: report.backing_ns,
            volume: self.volume.clone(),
            faults: report.faults,
        };
        let errno = u16::try_from(report.errno).unwrap_or(0);
        let done = i64::try_from(report.done.unwrap_or(0)).unwrap_or(i64::MAX);
        let body = OpSpan {
            // A look-up is the beginning of a stat, or of an open.
            op: report.op.kind().unwrap_or(OpKind::Stat),
            duration_ns: report.answered_ns.saturating_sub(report.started_ns),
            errno,
            ret: if errno == 0 { done } else { -i64::from(errno) },
            dev: report.dev,
            ino: report.ino,
            mode: short_mode(report.mode),
            offset: report.offset.and_then(|offset| i64::try_from(offset).ok()),
            asked: report.asked,
            bytes: report.done,
            open_flags: report.open_flags,
            syscall: NO_SYSCALL,
            path: Some(path),
            target: report.target.as_ref().map(|target| self.path(target)),
            interposed: Some(Box::new(interposed)),
        };
        Span {
            trace,
            id: self.ids.span(),
            parent,
            above,
            start_unix_ns: self.clock.unix_ns(report.started_ns),
            end_unix_ns: self.clock.unix_ns(report.answered_ns.max(report.started_ns)),
            actor: actor(report.tid, report.uid),
            body: SpanBody::Operation(body),
        }
    }

    /// Under which span an operation is; its file counts it.
    fn parent(&mut self, report: &OpReport, path: &Path) -> (TraceId, Option<SpanId>, Above) {
        if report.open_file == 0 {
            return (self.ids.trace(), None, Above::Nothing);
        }
        let opens = matches!(report.op, Op::Open | Op::Create | Op::Opendir);
        let new = |ids: &mut Ids| OpenFile {
            trace: ids.trace(),
            id: ids.span(),
            actor: actor(report.tid, report.uid),
            path: path.clone(),
            dev: report.dev,
            ino: report.ino,
            mode: short_mode(report.mode),
            flags: report.open_flags.unwrap_or(0),
            open_before: !opens,
            totals: FileTotals::ZERO,
            segment: 0,
            segment_start_ns: report.started_ns,
            told: 0,
            released_ns: None,
        };
        let clock = self.clock;
        let Some(file) = self.open_file(report.open_file, new) else {
            return (self.ids.trace(), None, Above::Nothing);
        };
        if opens {
            file.open_before = false;
            file.segment_start_ns = file.segment_start_ns.min(report.started_ns);
        }
        add(&mut file.totals, report);
        let above = Above::File { start_unix_ns: clock.unix_ns(file.segment_start_ns) };
        (file.trace, Some(file.id), above)
    }

    /// Tells files that were released a while ago, and segments of those that are used for long.
    pub(super) fn tick(&mut self, now_ns: u64, told: &mut dyn FnMut(Span)) {
        while let Some((due_ns, number)) = self.released.front().copied()
            && due_ns <= now_ns
        {
            self.released.pop_front();
            if let Some(file) = self.files.remove(&number) {
                told(file_span(&file, &self.clock, file.released_ns.unwrap_or(now_ns), Some(CloseKind::Closed)));
            }
        }
        for file in self.files.values_mut() {
            let is_used = file.totals.operations > file.told && file.released_ns.is_none();
            if is_used && now_ns.saturating_sub(file.segment_start_ns) >= SEGMENT_NS {
                told(file_span(file, &self.clock, now_ns, None));
                file.id = self.ids.span();
                file.segment += 1;
                file.segment_start_ns = now_ns;
                file.told = file.totals.operations;
            }
        }
    }

    /// Tells all.
    pub(super) fn finish(&mut self, now_ns: u64, told: &mut dyn FnMut(Span)) {
        self.released.clear();
        for (_number, file) in self.files.drain() {
            let close = file.released_ns.map(|_| CloseKind::Closed);
            told(file_span(&file, &self.clock, file.released_ns.unwrap_or(now_ns), close));
        }
    }
}

fn actor(tid: u32, uid: u32) -> Actor {
    Actor { tgid: 0, tid, uid, comm: [0; 16], cgroup: 0 }
}

/// All of `st_mode` that is defined has 16 bits.
fn short_mode(mode: u32) -> u16 {
    u16::try_from(mode & 0xffff).unwrap_or(0)
}

fn add(totals: &mut FileTotals, report: &OpReport) {
    let duration_ns = report.answered_ns.saturating_sub(report.started_ns);
    totals.operations += 1;
    totals.duration_ns += duration_ns;
    totals.max_ns = totals.max_ns.max(duration_ns);
    totals.last_ns = totals.last_ns.max(report.answered_ns);
    totals.errors += u64::from(report.errno != 0);
    let done = report.done.unwrap_or(0);
    match report.op.kind() {
        Some(OpKind::Read) => {
            totals.reads += 1;
            totals.bytes_read += done;
        }
        Some(OpKind::Write) => {
            totals.writes += 1;
            totals.bytes_written += done;
        }
        // All others neither read nor write.
        Some(_) | None => {}
    }
}

fn file_span(file: &OpenFile, clock: &Clock, end_ns: u64, close: Option<CloseKind>) -> Span {
    let OpenFile {
        trace,
        id,
        actor,
        path,
        dev,
        ino,
        mode,
        flags,
        open_before,
        totals,
        segment,
        segment_start_ns,
        told: _,
        released_ns: _, // The end, as given.
    } = file;
    let end_ns = end_ns.max(totals.last_ns).max(*segment_start_ns);
    Span {
        trace: *trace,
        id: *id,
        parent: None,
        above: Above::Nothing,
        start_unix_ns: clock.unix_ns(*segment_start_ns),
        end_unix_ns: clock.unix_ns(end_ns),
        actor: actor.clone(),
        body: SpanBody::File(FileSpan {
            path: Some(path.clone()),
            dev: *dev,
            ino: *ino,
            mode: *mode,
            open_flags: *flags,
            open_before: *open_before,
            close,
            totals: *totals,
            segment: *segment,
        }),
    }
}
