//! The file system itself, apart from FUSE's wire: every operation on descriptors of the backing file system.
//!
//! ```text
//! adapter -> run: recall -> decide -> work (backing call) -> wait for tokens -> hold until the delay is over -> answer
//! ```
//! A request that nothing concerns goes from `run` straight to its work. Each request that changes names or counts lookups is
//! written down before its work and crossed out after its answer, so that a successor knows what it meets (see `under_way`).

mod ask;
mod bytes;
mod controlled;
mod data;
mod dirs;
mod gone;
mod ioctl;
mod meta;
mod names;
mod open;
mod run;
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
use std::thread;
use std::time::Duration;

use self::ask::{Ask, On, Way};
use super::device::Device;
use super::fault_log::FaultLog;
use super::hold::Hold;
use super::keeper_link::Keeper;
use super::node::{Node, Nodes};
use super::open_files::OpenFiles;
use super::report::Reports;
use super::state::State;
use super::under_way::UnderWay;
use super::volume::{Stores, Volume};
use crate::clock::{self, Clock};
use crate::rules::engine::Decider;
use crate::rules::op::{Op, OpSet};

/// Requests that come again are read before all others. Whoever has read one has begun it this soon.
const BEGUN_WITHIN: Duration = Duration::from_secs(30);

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
    /// What a power cut takes back.
    pub undo: OwnedFd,
    /// The bytes of fakes.
    pub memory: OwnedFd,
    /// The last faults.
    pub faults: OwnedFd,
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
    stores: Stores,
    rules: RwLock<Arc<Armed>>,
    /// One change of rules at a time.
    setting: Mutex<()>,
    log: Mutex<FaultLog>,
    under_way: UnderWay,
    clock: Clock,
    ttl: Duration,
    about: About,
    /// Answers that were to wait and could not: too many waited.
    hold_full: AtomicU64,
}

/// The rules in force.
#[derive(Default)]
struct Armed {
    decider: Option<Arc<dyn Decider>>,
    /// What `decider` may touch, on any path.
    any: OpSet,
    volume: Volume,
}

/// How the data of a file is read or changed: what the kernel would do by itself, were a file open in passthrough.
const DATA: OpSet = OpSet::EMPTY.with(Op::Read).with(Op::Write);

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
        let Parts { source, state, undo, memory, faults, device, keeper, reports, held, ttl, about } = parts;
        let hold = Hold::start()?;
        let stores =
            Stores { state: Arc::clone(&state), hold: hold.clone(), source: source.try_clone()?, undo, memory };
        let nodes = Nodes::restore(Arc::clone(&state), source)?;
        let open_files = OpenFiles::restore(Arc::clone(&state));
        open_files.count(&nodes);
        // What a server was killed over is finished here.
        nodes.drop_idle_backings(|id| device.unregister(id));
        for (number, file) in held {
            if !nodes.take_held(number, file)
                && let Err(error) = Keeper::drop(&*keeper, number)
            {
                tracing::debug!(%error, "the keeper holds a file longer than it must");
            }
        }
        Ok(Arc::new(Self {
            nodes,
            open_files,
            device,
            keeper,
            reports,
            hold,
            stores,
            rules: RwLock::default(),
            setting: Mutex::default(),
            log: Mutex::new(FaultLog::open(faults)?),
            under_way: UnderWay::new(Arc::clone(&state)),
            clock: Clock::measure(),
            ttl,
            about,
            hold_full: AtomicU64::new(0),
            state,
        }))
    }

    /// Forgets what an earlier server left and what does not come again, once that is sure.
    #[cold]
    fn forget_left_later(self: &Arc<Self>) {
        let left = Arc::downgrade(self);
        let patience = u64::try_from(BEGUN_WITHIN.as_nanos()).unwrap_or(u64::MAX);
        self.hold.wake_at(clock::monotonic_ns().saturating_add(patience), move || {
            // Files are closed and looked at: a disk that hangs must not hold up the thread that answers.
            let forget = move || {
                if let Some(fs) = left.upgrade() {
                    fs.forget_left();
                }
            };
            if let Err(error) = thread::Builder::new().name("fsi-forget".into()).spawn(forget) {
                tracing::warn!(%error, "what an earlier server had opened for nobody stays open");
            }
        });
    }

    /// What was opened and counted for answers that were never given, and never will be.
    fn forget_left(&self) {
        self.under_way.forget_left(|past| {
            if let Some(handle) = past.opened {
                self.release(handle);
            }
            if past.counted != 0 {
                self.forget(past.counted, 1);
            }
        });
    }

    /// Puts rules in force, in the place of those that were.
    fn arm(&self, decider: Option<Arc<dyn Decider>>, volume: Volume) {
        let any = decider.as_ref().map_or(OpSet::EMPTY, |decider| decider.concern_any());
        let armed = Arc::new(Armed { decider, any, volume });
        let before = {
            let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *rules, Arc::clone(&armed))
        };
        before.volume.replaced_by(&armed.volume, &self.stores);
        self.hold_full.fetch_add(before.volume.overflowed(), Ordering::Relaxed);
    }

    /// Operations that were to wait and did not, because as many waited as can.
    #[must_use]
    pub fn undelayed(&self) -> u64 {
        self.hold_full.load(Ordering::Relaxed) + self.armed().volume.overflowed()
    }

    /// Faults that could not be written to the log file.
    #[must_use]
    pub fn unlogged(&self) -> u64 {
        self.log().unwritten()
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

    /// Whether reads and writes of a file must come here.
    fn is_watched(&self, number: u64) -> bool {
        self.armed().volume.sees_data() || self.concern(|| self.nodes.path(number)).intersects(DATA)
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

#[cfg(test)]
mod tests;
