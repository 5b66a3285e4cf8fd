//! The kernel side, from here: what it can do on this kernel, loading it, selecting, reading what it saw.
//!
//! ```text
//! ProbeOptions --load--> Probe: hooks attached, nothing selected (a command) or everything chosen selected
//!    Probe --spawn--> a command whose every descendant is selected from fork on
//!    Probe --drain--> records, in the order of the ring      --aggregates, counters--> numbers
//!    drop: everything is detached and freed by the kernel; nothing is pinned
//! ```

mod aggregates;
pub mod btf;
pub mod cgroup;
mod error;
pub mod features;
mod loader;
pub mod offsets;
pub mod options;
mod policies;
pub mod syscalls;

use std::collections::HashMap;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Child, Command};

use aya::Ebpf;
use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::Iter;
use fsi_common::loss::Counter;
use fsi_common::record::{FileTotals, OpenFile};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use rustix::thread::gettid;

pub use error::ProbeError;
use options::{ProbeOptions, Selection};

use crate::sys::task_storage;

/// The loaded and attached kernel side.
pub struct Probe {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    log: Option<loader::KernelLog>,
    joins: bool,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("programs", &self.ebpf.programs().count()).finish_non_exhaustive()
    }
}

/// Most records that one [`Probe::drain`] hands on.
pub const DRAIN_RECORDS: usize = 65_536;

/// Size of the kernel side's `TaskState`; the kernel refuses another.
const TASK_STATE_BYTES: usize = 152;
const SELECTED: u32 = 1;
const SELECTS_CHILDREN: u32 = 2;

/// Passes of the task iterator: each finds at least one more generation of children.
const MARKING_PASSES: usize = 64;

impl Probe {
    /// Loads and attaches. Running processes, cgroups or everything are selected when this returns; a command is by
    /// [`Probe::spawn`].
    pub fn load(options: &ProbeOptions) -> Result<Self, ProbeError> {
        let loaded = loader::load(options)?;
        let mut probe = Self { ebpf: loaded.ebpf, ring: loaded.ring, log: loaded.log, joins: loaded.joins };
        match &options.selection {
            Selection::Pid(pid) => probe.select_process(*pid)?,
            Selection::Cgroups(_) => probe.select_cgroups(&loaded.cgroups)?,
            Selection::Command | Selection::All | Selection::Policies => {}
        }
        // Also tells the kernel side who we are, before anything can be seen.
        probe.visit_tasks()?;
        loader::attach_calls(&mut probe.ebpf)?;
        probe.mark_until_stable(options)?;
        Ok(probe)
    }

    /// Whether the kernel tells which operation sent a request to a mount of ours.
    #[must_use]
    pub const fn joins(&self) -> bool {
        self.joins
    }

    /// Starts a command whose operations, and those of all its descendants, are seen from the fork on. On the main thread only:
    /// it is marked meanwhile, so that what it starts is selected before it runs.
    pub fn spawn(&mut self, command: &mut Command) -> Result<Child, ProbeError> {
        if gettid() != getpid() {
            return Err(ProbeError::NotTheMainThread);
        }
        let ourselves = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|errno| ProbeError::Mark(errno.into()))?;
        self.set_marks(ourselves.as_fd(), SELECTS_CHILDREN)?;
        let child = command.spawn();
        self.set_marks(ourselves.as_fd(), 0)?;
        child.map_err(ProbeError::Spawn)
    }

    /// Hands on records that are in the ring now, at most [`DRAIN_RECORDS`], so that writers that keep up with us cannot hold us
    /// here; their number, 0 when the ring is empty.
    pub fn drain(&mut self, on_record: &mut dyn FnMut(&[u8])) -> usize {
        let mut records = 0;
        while records < DRAIN_RECORDS
            && let Some(record) = self.ring.next()
        {
            on_record(&record);
            records += 1;
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        records
    }

    /// The kernel side's counters, summed over the CPUs, by [`Counter`].
    pub fn counters(&self) -> Result<[u64; Counter::COUNT as usize], ProbeError> {
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(self.map("COUNTERS")?)?;
        let mut sums = [0; Counter::COUNT as usize];
        for (counter, sum) in Counter::ALL.iter().zip(&mut sums) {
            *sum = map.get(&(*counter as u32), 0)?.iter().sum();
        }
        Ok(sums)
    }

    /// Finds open files that ended unseen; their records come through [`Probe::drain`].
    pub fn sweep(&mut self) -> Result<(), ProbeError> {
        self.visit_tasks()
    }

    /// Detaches from the system calls: from here on nothing more is counted or told, and the numbers add up.
    pub fn stop(&mut self) -> Result<(), ProbeError> {
        loader::detach_calls(&mut self.ebpf)
    }

    /// The followed files that are open now: their ids and what was done through them so far.
    pub fn open_files(&self) -> Result<Vec<(u64, FileTotals)>, ProbeError> {
        let map: BpfHashMap<_, u64, OpenFile> = BpfHashMap::try_from(self.map("FILES")?)?;
        let mut files = HashMap::new();
        for address in map.keys() {
            // A file that is closed meanwhile has sent its record.
            if let Ok(file) = map.get(&address?, 0) {
                files.insert(file.id, file.totals);
            }
        }
        Ok(files.into_iter().collect())
    }

    fn map(&self, name: &'static str) -> Result<&Map, ProbeError> {
        self.ebpf.map(name).ok_or(ProbeError::NoMap(name))
    }

    fn select_process(&mut self, pid: u32) -> Result<(), ProbeError> {
        let no_such = || ProbeError::NoProcess(pid);
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(no_such)?;
        let process = pidfd_open(process, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => ProbeError::NoProcess(pid),
            rustix::io::Errno::INVAL => ProbeError::AThread(pid),
            other => ProbeError::Mark(other.into()),
        })?;
        self.set_marks(process.as_fd(), SELECTED)
    }

    fn select_cgroups(&mut self, ids: &[u64]) -> Result<(), ProbeError> {
        let map = self.ebpf.map_mut("CGROUPS").ok_or(ProbeError::NoMap("CGROUPS"))?;
        let mut map: BpfHashMap<_, u64, u32> = BpfHashMap::try_from(map)?;
        for id in ids {
            map.insert(id, 1, 0)?;
        }
        Ok(())
    }

    fn set_marks(&self, task: BorrowedFd<'_>, marks: u32) -> Result<(), ProbeError> {
        let Map::Unsupported(map) = self.map("TASKS")? else { return Err(ProbeError::NoMap("TASKS")) };
        let mut state = [0; TASK_STATE_BYTES];
        state[..4].copy_from_slice(&marks.to_ne_bytes());
        task_storage::set(map.fd().as_fd(), task, &state).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => ProbeError::Gone,
            _ => ProbeError::Mark(error),
        })
    }

    /// Runs the task iterator once over all tasks.
    fn visit_tasks(&mut self) -> Result<(), ProbeError> {
        let program: &mut Iter =
            self.ebpf.program_mut("fsi_tasks").ok_or(ProbeError::NoProgram("fsi_tasks"))?.try_into()?;
        let link = program.attach()?;
        let mut file = program.take_link(link)?.into_file()?;
        // The program prints nothing; reading is what runs it.
        file.read_to_end(&mut Vec::new()).map_err(ProbeError::Iterate)?;
        Ok(())
    }

    /// Marks the threads and descendants that a chosen process already has, until no pass finds more.
    fn mark_until_stable(&mut self, options: &ProbeOptions) -> Result<(), ProbeError> {
        if !matches!(options.selection, Selection::Pid(_)) {
            return Ok(());
        }
        let mut marked = None;
        for _ in 0..MARKING_PASSES {
            self.visit_tasks()?;
            let map: Array<_, u32> = Array::try_from(self.map("AGENT")?)?;
            let now = map.get(&1, 0)?;
            if marked == Some(now) {
                break;
            }
            marked = Some(now);
        }
        Ok(())
    }
}
