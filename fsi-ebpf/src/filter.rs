//! Who and what is looked at, the cheapest test first.
#![expect(unsafe_code, reason = "globs and state live in map memory, reached by pointer")]

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use aya_ebpf::helpers::generated::bpf_loop;
use fsi_common::glob::{Automaton, Positions};
use fsi_common::probe_config::Select;
use fsi_common::record::PATH_MAX;

use crate::kernel::{self, Task, config};
use crate::maps::{AGENT, CGROUP_VERDICTS, CGROUPS, GLOBS, SCRATCH, TASKS, count};
use crate::state::{HEADROOM, SELECTED, TaskState};
use fsi_common::loss::Counter;

const PATH_GLOBS: u32 = 0;
const NAME_GLOBS: u32 = 1;
/// A cgroup this deep has never been seen.
const CGROUP_LEVELS: u32 = 32;

/// The state of a task that is looked at.
#[inline(always)]
pub(crate) fn selected(task: Task) -> Option<&'static mut TaskState> {
    let select = config!(select);
    let state = if select == Select::Marked as u32 {
        let state = TASKS.get(task)?;
        if state.marks & SELECTED == 0 {
            return None;
        }
        state
    } else {
        if select == Select::Cgroup as u32 && !cgroup_selected(task) {
            return None;
        }
        if task.tgid() == AGENT.get(0).copied().unwrap_or(0) {
            return None;
        }
        let Some(state) = TASKS.get_or_create(task) else {
            count(Counter::TaskStorage, 1);
            return None;
        };
        state
    };
    if config!(comm_filter) != 0 && !comm_selected(task, state) {
        return None;
    }
    Some(state)
}

/// Whether the task's cgroup is a chosen one or below; remembered per cgroup.
#[inline(always)]
fn cgroup_selected(task: Task) -> bool {
    let mut node = task.cgroup_node() as u64;
    let id = task.cgroup();
    // SAFETY: read once; a concurrent write of the same verdict does no harm.
    if let Some(verdict) = unsafe { CGROUP_VERDICTS.get(id) } {
        return *verdict == 1;
    }
    let mut verdict = 2;
    for _ in 0..CGROUP_LEVELS {
        if node == 0 {
            break;
        }
        if CGROUPS.get_ptr(kernel::cgroup_id(node)).is_some() {
            verdict = 1;
            break;
        }
        node = kernel::cgroup_parent(node);
    }
    // A verdict that cannot be kept is found again.
    if CGROUP_VERDICTS.insert(id, verdict, 0).is_err() {
        return verdict == 1;
    }
    verdict == 1
}

/// Whether the command name is selected; worked out once per name of a task.
#[inline(always)]
fn comm_selected(task: Task, state: &mut TaskState) -> bool {
    let comm = task.comm();
    if state.comm_verdict == 0 || state.comm != comm {
        state.comm = comm;
        state.comm_verdict = if name_matches(comm[0], comm[1]) { 1 } else { 2 };
    }
    state.comm_verdict == 1
}

#[inline(never)]
fn name_matches(low: u64, high: u64) -> bool {
    let Some(globs) = GLOBS.get(NAME_GLOBS) else { return true };
    let mut run =
        Run { positions: globs.begin(), words: [low, high], at: 0, length: 16, glob: NAME_GLOBS, ..Run::START };
    // SAFETY: the callback takes what is passed here, and the loop is over before `run` goes out of scope.
    unsafe { bpf_loop(16, name_byte as *mut c_void, addr_of_mut!(run).cast(), 0) };
    globs.selected(run.positions)
}

/// Globs running over bytes.
#[repr(C)]
struct Run {
    positions: Positions,
    /// A command name.
    words: [u64; 2],
    /// Index of the first byte in its buffer.
    at: u64,
    length: u64,
    glob: u32,
    /// A slash waits for what follows: the last one of a path says nothing.
    pending_slash: u32,
    /// A dot after a slash waits: `/./` says nothing.
    pending_dot: u32,
    /// Something was there.
    any: u32,
    /// The bytes are a name given by the process, not a walked path.
    in_names: u32,
}

impl Run {
    const START: Self = Self {
        positions: [0; 4],
        words: [0; 2],
        at: 0,
        length: 0,
        glob: PATH_GLOBS,
        pending_slash: 0,
        pending_dot: 0,
        any: 0,
        in_names: 0,
    };

    /// One byte of a path; doubled slashes, `/./` and a slash at the end say nothing.
    #[inline(always)]
    fn path_byte(&mut self, globs: &Automaton, byte: u8) {
        if byte == b'/' {
            self.pending_slash = 1;
            self.pending_dot = 0;
            return;
        }
        if self.pending_slash != 0 {
            if byte == b'.' && self.pending_dot == 0 {
                self.pending_dot = 1;
                return;
            }
            self.positions = globs.advance(self.positions, b'/');
            if self.pending_dot != 0 {
                self.positions = globs.advance(self.positions, b'.');
            }
            self.pending_slash = 0;
            self.pending_dot = 0;
        }
        self.positions = globs.advance(self.positions, byte);
        self.any = 1;
    }
}

unsafe extern "C" fn name_byte(index: u32, run: *mut Run) -> i64 {
    // SAFETY: bpf_loop hands through the pointer to the caller's Run.
    let run = unsafe { &mut *run };
    let Some(globs) = GLOBS.get(NAME_GLOBS) else { return 1 };
    let word = if index < 8 { run.words[0] } else { run.words[1] };
    let byte = (word >> ((index & 7) * 8)) as u8;
    if byte == 0 {
        return 1;
    }
    run.positions = globs.advance(run.positions, byte);
    0
}

unsafe extern "C" fn path_byte(index: u32, run: *mut Run) -> i64 {
    // SAFETY: bpf_loop hands through the pointer to the caller's Run.
    let run = unsafe { &mut *run };
    if u64::from(index) >= run.length {
        return 1;
    }
    let (Some(globs), Some(scratch)) = (GLOBS.get(PATH_GLOBS), SCRATCH.get_ptr(0)) else { return 1 };
    // SAFETY: the masks keep both indices inside their buffers.
    let byte = unsafe {
        if run.in_names == 0 {
            let at = HEADROOM as u64 + ((run.at + u64::from(index)) & (PATH_MAX as u64 - 1));
            *core::ptr::addr_of!((*scratch).path).cast::<u8>().add(at as usize)
        } else {
            let at = (run.at + u64::from(index)) & (2 * PATH_MAX as u64 - 1);
            *core::ptr::addr_of!((*scratch).names).cast::<u8>().add(at as usize)
        }
    };
    run.path_byte(globs, byte);
    0
}

/// The verdict on the walked path at the end of `scratch.path`.
#[inline(always)]
pub(crate) fn path_selected(length: u64) -> bool {
    names_selected(length, 0, 0)
}

/// The verdict on a walked path of that length, a slash, and a name of that place in `scratch.names`. No name: the path alone;
/// no walked path: the name alone.
#[inline(never)]
pub(crate) fn names_selected(walked: u64, name_at: u64, name_length: u64) -> bool {
    let Some(globs) = GLOBS.get(PATH_GLOBS) else { return true };
    let mut run = Run { positions: globs.begin(), ..Run::START };
    let pointer = addr_of_mut!(run).cast::<c_void>();
    run.at = (PATH_MAX as u64 - walked) & (PATH_MAX as u64 - 1);
    run.length = walked;
    // SAFETY: the callback takes what is passed here, and the loops are over before `run` goes out of scope.
    unsafe { bpf_loop(PATH_MAX as u32, path_byte as *mut c_void, pointer, 0) };
    if name_length != 0 {
        run.path_byte(globs, b'/');
        run.in_names = 1;
        run.at = name_at;
        run.length = name_length;
        // SAFETY: as above.
        unsafe { bpf_loop(PATH_MAX as u32, path_byte as *mut c_void, pointer, 0) };
    }
    if run.any == 0 {
        run.positions = globs.advance(run.positions, b'/');
    }
    globs.selected(run.positions)
}
