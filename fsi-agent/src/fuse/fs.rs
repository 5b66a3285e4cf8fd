//! The file system itself, apart from FUSE's wire: every operation on descriptors of the backing file system.
//!
//! ```text
//! adapter -> run: recall -> decide -> work (backing call) -> hold until the delay is over -> answer
//! ```
//! A request that no rule concerns goes from `run` straight to its work. Each request that changes names or counts lookups is
//! written down before its work and crossed out after its answer, so that a successor knows what it meets (see `under_way`).

mod controlled;
mod data;
mod dirs;
mod meta;
mod names;
mod open;
mod told;
mod xattr;

pub use self::data::{Count, SetId};
pub use self::dirs::DirectoryEntry;
pub use self::meta::{Attributes, Change};
pub use self::names::Entry;
pub use self::open::{Created, Opened};

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustix::io::Errno;

use self::told::{Paths, Told};
use super::device::Device;
use super::fault_log::FaultLog;
use super::hold::{Hold, Waited};
use super::keeper_link::Keeper;
use super::node::{Node, Nodes};
use super::open_files::OpenFiles;
use super::report::Reports;
use super::state::{State, Word};
use super::under_way::{Guard, Past, UnderWay};
use crate::clock::{self, Clock};
use crate::rules::decision::{Decision, Effect, Facts, Fault, FaultEntry, Request};
use crate::rules::engine::Decider;
use crate::rules::op::{Op, OpSet};

/// Who asks, and under which number.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub unique: u64,
    pub tid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a mount says about itself.
#[derive(Clone, Debug)]
pub struct About {
    pub source: std::path::PathBuf,
    pub target: std::path::PathBuf,
    /// `major:minor`
    pub device: String,
    pub keeper_pid: u32,
}

/// What a mount is built from.
#[derive(Debug)]
pub struct Parts {
    /// The directory whose files are served (`O_PATH`).
    pub source: OwnedFd,
    pub state: Arc<State>,
    pub device: Device,
    pub keeper: Arc<dyn Keeper>,
    pub reports: Arc<dyn Reports>,
    /// Descriptors the keeper held: objects without a name, by node.
    pub held: Vec<(u64, OwnedFd)>,
    /// How long the kernel may believe names and attributes.
    pub ttl: Duration,
    pub about: About,
}

/// A mount.
pub struct Interposer {
    state: Arc<State>,
    nodes: Nodes,
    open_files: OpenFiles,
    device: Device,
    keeper: Arc<dyn Keeper>,
    reports: Arc<dyn Reports>,
    hold: Hold,
    rules: RwLock<Arc<Armed>>,
    log: Mutex<FaultLog>,
    under_way: UnderWay,
    clock: Clock,
    ttl: Duration,
    about: About,
    /// Answers that were to wait and could not: too many waited.
    hold_full: AtomicU64,
}

/// The rules in force.
pub(super) struct Armed {
    pub(super) decider: Option<Arc<dyn Decider>>,
    any: OpSet,
}

/// What an operation is about, for the rules.
pub(super) struct Ask<'a> {
    op: Op,
    on: On<'a>,
    target: Option<(u64, &'a [u8])>,
    /// The open file it is done on.
    handle: Option<u64>,
    offset: u64,
    len: u64,
}

/// The object or the name it is about.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    Node(u64),
    Name(u64, &'a [u8]),
}

impl<'a> Ask<'a> {
    const fn new(op: Op, on: On<'a>) -> Self {
        Self { op, on, target: None, handle: None, offset: 0, len: 0 }
    }

    const fn of(self, handle: u64) -> Self {
        Self { handle: Some(handle), ..self }
    }

    const fn at(self, offset: u64, len: u64) -> Self {
        Self { offset, len, ..self }
    }
}

/// What the work of an operation is told.
pub(super) struct Way<'a> {
    pub(super) decision: &'a Decision,
    pub(super) under: &'a Guard,
}

impl Way<'_> {
    /// The request came to an earlier server, which may have done it.
    fn past(&self) -> Option<Past> {
        self.under.past()
    }
}

/// What costs something to know.
struct CallFacts<'a> {
    fs: &'a Interposer,
    on: On<'a>,
    tid: u32,
}

impl Facts for CallFacts<'_> {
    fn size(&self) -> Option<u64> {
        let On::Node(number) = self.on else { return None };
        let node = self.fs.nodes.get(number).ok()?;
        self.fs.stat(&node).ok().map(|stat| stat.stx_size)
    }

    fn process(&self) -> Option<Vec<u8>> {
        let mut name = std::fs::read(format!("/proc/{}/comm", self.tid)).ok()?;
        name.truncate(name.trim_ascii_end().len());
        Some(name)
    }
}

/// Bytes of an operation's answer, for the log.
pub(super) trait Outcome {
    fn bytes(&self) -> u64 {
        0
    }
}

impl Interposer {
    /// Builds a mount from what the keeper holds.
    ///
    /// # Errors
    /// When the source cannot be looked at, or a thread cannot be had.
    pub fn build(parts: Parts) -> std::io::Result<Arc<Self>> {
        let Parts { source, state, device, keeper, reports, held, ttl, about } = parts;
        let nodes = Nodes::new(Arc::clone(&state), source, held)?;
        let open_files = OpenFiles::restore(Arc::clone(&state));
        Ok(Arc::new(Self {
            nodes,
            open_files,
            device,
            keeper,
            reports,
            hold: Hold::start()?,
            rules: RwLock::new(Arc::new(Armed { decider: None, any: OpSet::EMPTY })),
            log: Mutex::new(FaultLog::new()),
            under_way: UnderWay::new(Arc::clone(&state)),
            clock: Clock::measure(),
            ttl,
            about,
            hold_full: AtomicU64::new(0),
            state,
        }))
    }

    /// Puts rules in force; `None`: none.
    pub fn arm(&self, decider: Option<Arc<dyn Decider>>) {
        let any = decider.as_ref().map_or(OpSet::EMPTY, |decider| decider.concern_any());
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Armed { decider, any });
    }

    /// Writes every fault to this file too, one JSON object on a line.
    pub fn log_to(&self, file: std::fs::File) {
        self.log().keep_in(file);
    }

    pub(super) fn log(&self) -> std::sync::MutexGuard<'_, FaultLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    fn armed(&self) -> Arc<Armed> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Operations on that path that a rule may touch.
    fn concern(&self, path: impl FnOnce() -> Vec<u8>) -> OpSet {
        let armed = self.armed();
        match &armed.decider {
            Some(decider) if !armed.any.is_empty() => decider.concern(&path()),
            Some(_) | None => OpSet::EMPTY,
        }
    }

    /// Does one operation: decides, works, waits, answers. The answer is given exactly once.
    fn run<T, W, A>(self: &Arc<Self>, call: Call, ask: &Ask<'_>, work: W, answer: A)
    where
        T: Outcome + Send + 'static,
        W: FnOnce(&Way<'_>) -> Result<T, Errno>,
        A: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        self.state.word(Word::Progress).fetch_add(1, Ordering::Relaxed);
        let under = self.under_way.begin(call.unique, self.clock);
        let armed = self.armed();
        let paused = self.state.word(Word::Paused).load(Ordering::Relaxed) != 0;
        let decider = armed.decider.as_deref().filter(|_| !paused && armed.any.contains(ask.op));
        let told = self.reports.wants_operations();
        if decider.is_none() && !told {
            let decision = Decision::default();
            answer(work(&Way { decision: &decision, under: &under }));
            return;
        }
        let started_ns = clock::monotonic_ns();
        let paths = self.paths_of(ask);
        let decision =
            decider.map_or_else(Decision::default, |decider| self.decide(decider, call, ask, &paths, &under));
        under.decided(decision.ordinal, decision.fired);
        let work_ns = clock::monotonic_ns();
        let result = match decision.effect {
            Effect::Fail(errno) => Err(Errno::from_raw_os_error(errno)),
            Effect::Abort => Err(Errno::NOTCONN),
            _ => work(&Way { decision: &decision, under: &under }),
        };
        let backing_ns = clock::monotonic_ns().saturating_sub(work_ns);
        let faults = self.record(call, ask, &decision, &paths, result.as_ref().map_or(0, Outcome::bytes));
        if decision.effect == Effect::Abort {
            self.device.abort();
        }
        let report = told.then(|| Told { call, about: ask.owned(), paths, faults, started_ns, backing_ns });
        let fs = Arc::clone(self);
        let finish = move |waited: Waited, result: Result<T, Errno>, delay: Duration| {
            let result = match waited {
                Waited::Through => result,
                Waited::Killed => Err(Errno::INTR),
            };
            let outcome = result.as_ref().map(Outcome::bytes).map_err(|errno| *errno);
            answer(result);
            if let Some(report) = report {
                fs.reports.operation(report.into_report(fs.device.number(), outcome, delay));
            }
            drop(under);
        };
        if decision.delay.is_zero() {
            finish(Waited::Through, result, Duration::ZERO);
            return;
        }
        // What the work took counts towards the delay: the delay is what the application sees.
        let delay = decision.delay;
        let due = started_ns.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
        let then = Box::new(move |waited| finish(waited, result, delay));
        if let Err(then) = self.hold.until(due, call.tid, then) {
            self.hold_full.fetch_add(1, Ordering::Relaxed);
            then(Waited::Through);
        }
    }

    fn decide(&self, decider: &dyn Decider, call: Call, ask: &Ask<'_>, paths: &Paths, under: &Guard) -> Decision {
        // What no rule concerns is not counted, so that a replay counts alike.
        let either = [Some(&paths.path), paths.target.as_ref()].into_iter().flatten();
        if !either.into_iter().any(|path| decider.concern(path).contains(ask.op)) {
            return Decision::default();
        }
        let request = Request {
            op: ask.op,
            path: &paths.path,
            target: paths.target.as_deref(),
            offset: ask.offset,
            len: ask.len,
            uid: call.uid,
            gid: call.gid,
            pid: call.tid,
        };
        let facts = CallFacts { fs: self, on: ask.on, tid: call.tid };
        match under.past().and_then(|past| past.decision) {
            Some((ordinal, fired)) => decider.again(&request, &facts, ordinal, fired),
            None => {
                let armed_at = self.state.word(Word::ArmedAt).load(Ordering::Acquire);
                decider.decide(&request, &facts, Clock::since(armed_at))
            }
        }
    }

    fn paths_of(&self, ask: &Ask<'_>) -> Paths {
        let path = match ask.on {
            On::Node(number) => self.nodes.path(number),
            On::Name(parent, name) => self.nodes.child_path(parent, name),
        };
        let target = ask.target.map(|(parent, name)| self.nodes.child_path(parent, name).into());
        Paths { path: path.into(), target }
    }

    /// Writes down what was injected.
    fn record(&self, call: Call, ask: &Ask<'_>, decision: &Decision, paths: &Paths, done: u64) -> Vec<FaultEntry> {
        let ino = match ask.on {
            On::Node(number) => number,
            On::Name(..) => 0,
        };
        let entry = |fault: &Fault| FaultEntry {
            sequence: self.state.word(Word::Faults).fetch_add(1, Ordering::AcqRel) + 1,
            unix_ns: self.clock.unix_ns(clock::monotonic_ns()),
            fault: fault.clone(),
            op: ask.op,
            path: Arc::clone(&paths.path),
            ordinal: decision.ordinal,
            ino,
            pid: call.tid,
            uid: call.uid,
            offset: ask.offset,
            asked: ask.len,
            done,
            effect: decision.effect.clone(),
        };
        let entries: Vec<FaultEntry> = decision.faults.iter().map(entry).collect();
        for entry in &entries {
            self.log().push(entry.clone());
        }
        entries
    }

    /// The kernel forgets lookups.
    pub fn forget(&self, number: u64, count: u64) {
        self.nodes.forget(number, count);
    }

    fn generation(&self, node: &Node) -> u64 {
        u64::from(self.nodes.record(node).generation_mode().0)
    }
}

impl fmt::Debug for Interposer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interposer").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}
