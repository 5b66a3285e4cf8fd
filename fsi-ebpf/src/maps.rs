//! Every map: what it holds, who writes it, who reads it, its bound, and what happens when it is full.
#![expect(unsafe_code, reason = "task storage is defined by hand: aya-ebpf has no type for it")]

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::{null, null_mut};

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::bpf_task_storage_get;
use aya_ebpf::macros::btf_map;
use fsi_common::aggregate::{AggregateKey, AggregateValue, ROOM};
use fsi_common::glob::Automaton;
use fsi_common::loss::Counter;
use fsi_common::probe_config::{MAX_POLICIES, Policy};
use fsi_common::record::OpenFile;

use crate::kernel::Task;
use crate::state::{PathSlot, Scratch, TaskState};

/// Slots of the path cache of one CPU.
pub(crate) const PATH_SLOTS: u32 = 1024;

/// The call in flight and the marks of a task. Written by the programs (and by the agent, which marks tasks); lives and dies
/// with the task. No entry can be had: [`Counter::TaskStorage`].
#[btf_map]
pub(crate) static TASKS: TaskStorage<TaskState> = TaskStorage::new();

/// Metrics, each CPU its own entries: an entry of all CPUs would need per-CPU memory, of which the kernel gives programs only a little
/// at a time. Written here, read by the agent at scrape. Full, or no memory: [`Counter::AggregateFull`].
#[btf_map]
pub(crate) static AGGREGATES: HashMap<AggregateKey, AggregateValue, ROOM, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Followed open files by the address of their `struct file`. Full: [`Counter::FilesFull`].
#[btf_map]
pub(crate) static FILES: HashMap<u64, OpenFile, 65536> = HashMap::new();

/// Resolved paths, a direct-mapped cache per CPU: a new path takes the slot of an older one.
#[btf_map]
pub(crate) static PATHS: PerCpuArray<PathSlot, { PATH_SLOTS as usize }> = PerCpuArray::new();

/// The records. Read by the agent. Full: the counter of the record's kind. The agent sets the size.
#[btf_map]
pub(crate) static RING: RingBuf<(), 8_388_608> = RingBuf::new();

/// [`Counter`]s. Read by the agent.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

/// Where records are put together.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Counts what makes paths stale: renames, removed directories, mounts; of any process. One cell, written here.
#[btf_map]
pub(crate) static GENERATION: Array<u64, 1> = Array::new();

/// [0]: thread group of the agent, in the kernel's own numbers; [1]: tasks that were marked by visiting. Written by the task
/// iterator, which runs in the agent; read by the agent.
#[btf_map]
pub(crate) static AGENT: Array<u32, 2> = Array::new();

/// Selected tasks without storage, by thread id (`waiting`). Full: [`Counter::TaskStorage`].
#[btf_map]
pub(crate) static WAITING: HashMap<u32, u32, 1024> = HashMap::new();

/// How many wait. One cell, written here.
#[btf_map]
pub(crate) static WAITING_COUNT: Array<i64, 1> = Array::new();

/// Chosen cgroups by id, and the number of their policy; 0: it is said not to be looked at. Written by the agent, which refuses more
/// than fit.
#[btf_map]
pub(crate) static CGROUPS: HashMap<u64, u32, 4096> = HashMap::new();

/// The policy of a cgroup plus one; 1: there is none; 0: it is said not to be looked at (`filter::OFF`). Least recently used goes first.
/// The agent empties it when CGROUPS changes.
#[btf_map]
pub(crate) static CGROUP_VERDICTS: LruHashMap<u64, u32, 4096> = LruHashMap::new();

/// Policies by number. Written by the agent.
#[btf_map]
pub(crate) static POLICIES: Array<Policy, { MAX_POLICIES as usize }> = Array::new();

/// Devices of the mounts of ours. Written by the agent.
#[btf_map]
pub(crate) static INTERPOSED: HashMap<u32, u32, 4096> = HashMap::new();

/// Compiled globs: on paths, on command names. Written by the agent before the programs are attached.
#[btf_map]
pub(crate) static GLOBS: Array<Automaton, 2> = Array::new();

/// Task storage, in the form that loaders expect of a BTF map.
#[repr(C)]
pub(crate) struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the fields are null pointers that only describe the map; nothing reads through them.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    #[inline(always)]
    fn lookup(&self, task: Task, flags: u64) -> Option<&'static mut T> {
        let map = core::ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: the map is a task storage map and the task a kernel pointer. The entry lives as long as the task, which is
        // the current one or a child that cannot run yet, so nobody else writes it meanwhile.
        unsafe { bpf_task_storage_get(map, task.as_ptr(), null_mut(), flags).cast::<T>().as_mut() }
    }

    /// The entry of a task, if it has one.
    #[inline(always)]
    pub(crate) fn get(&self, task: Task) -> Option<&'static mut T> {
        self.lookup(task, 0)
    }

    /// The entry of a task, made of zeros if it had none.
    #[inline(always)]
    pub(crate) fn get_or_create(&self, task: Task) -> Option<&'static mut T> {
        self.lookup(task, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
    }
}

/// Adds to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter, by: u64) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a per-CPU cell, and programs do not preempt each other on a CPU.
        unsafe { *cell += by };
    }
}

/// Some object may have another path now.
#[inline(always)]
pub(crate) fn paths_moved() {
    if let Some(cell) = GENERATION.get_ptr_mut(0) {
        // SAFETY: one u64 cell that all CPUs add to.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(cell, 1) };
    }
}

/// Adds an operation to this CPU's aggregate of a key; false where there is no room for a new key.
#[inline(always)]
pub(crate) fn add_aggregate(key: &AggregateKey, bytes: u64, duration_ns: u64) -> bool {
    if let Some(cell) = AGGREGATES.get_ptr_mut(key) {
        // SAFETY: this CPU's value, and programs do not preempt each other on a CPU.
        let cell = unsafe { &mut *cell };
        cell.count += 1;
        cell.bytes += bytes;
        cell.duration_ns += duration_ns;
        if cell.max_ns < duration_ns {
            cell.max_ns = duration_ns;
        }
        return true;
    }
    let first = AggregateValue { count: 1, bytes, duration_ns, max_ns: duration_ns };
    AGGREGATES.insert(key, &first, 0).is_ok()
}
