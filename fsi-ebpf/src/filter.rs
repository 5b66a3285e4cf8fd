//! Who and what is looked at, the cheapest test first.
#![expect(unsafe_code, reason = "globs and state live in map memory, reached by pointer")]

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use aya_ebpf::helpers::generated::bpf_loop;
use fsi_common::glob::Positions;
use fsi_common::probe_config::Select;
use fsi_common::record::PATH_MAX;

use crate::kernel::{self, Task, config};
use crate::maps::{AGENT, CGROUP_VERDICTS, CGROUPS, GLOBS, SCRATCH, TASKS, count};
use crate::state::{GlobRun, HEADROOM, SELECTED, TaskState};
use crate::waiting;
use fsi_common::loss::Counter;

const PATH_GLOBS: u32 = 0;
const NAME_GLOBS: u32 = 1;
/// The policy of a cgroup that is said not to be looked at; 0: nothing is said of it.
pub(crate) const OFF: u32 = u32::MAX;
/// A cgroup this deep has never been seen.
const CGROUP_LEVELS: u32 = 32;

/// The state of the current task, if it is looked at.
#[inline(always)]
pub(crate) fn selected(task: Task) -> Option<&'static mut TaskState> {
    let select = config!(select);
    let state = if select == Select::Marked as u32 {
        let state = waiting::state_of_current(task)?;
        if state.marks & SELECTED == 0 {
            return None;
        }
        state
    } else {
        let by_cgroup = select == Select::Cgroup as u32 || select == Select::Policy as u32;
        let policy = if by_cgroup { cgroup_policy(task) } else { 0 };
        if by_cgroup && matches!(policy, 0 | OFF) {
            return None;
        }
        if task.tgid() == AGENT.get(0).copied().unwrap_or(0) {
            return None;
        }
        let Some(state) = TASKS.get_or_create(task) else {
            count(Counter::TaskStorage, 1);
            return None;
        };
        state.policy = policy;
        state
    };
    if config!(comm_filter) != 0 && !comm_selected(task, state) {
        return None;
    }
    Some(state)
}

/// The policy of the nearest chosen cgroup, the task's own or one above, or [`OFF`]; 0 where there is none. Remembered per cgroup.
#[inline(always)]
pub(crate) fn cgroup_policy(task: Task) -> u32 {
    let mut node = task.cgroup_node() as u64;
    let id = task.cgroup();
    // SAFETY: read once; a concurrent write of the same verdict does no harm.
    if let Some(verdict) = unsafe { CGROUP_VERDICTS.get(id) } {
        return verdict.wrapping_sub(1);
    }
    let mut policy = 0;
    for _ in 0..CGROUP_LEVELS {
        if node == 0 {
            break;
        }
        // SAFETY: read once.
        if let Some(chosen) = unsafe { CGROUPS.get(kernel::cgroup_id(node)) } {
            policy = if *chosen == 0 { OFF } else { *chosen };
            break;
        }
        node = kernel::cgroup_parent(node);
    }
    // A verdict that cannot be kept is found again.
    let _kept_or_not = CGROUP_VERDICTS.insert(id, policy.wrapping_add(1), 0);
    policy
}

/// Whether the command name is selected; worked out once per name of a task.
#[inline(always)]
fn comm_selected(task: Task, state: &mut TaskState) -> bool {
    let comm = task.comm();
    if state.comm_verdict == 0 || state.comm != comm {
        state.comm = comm;
        state.comm_verdict = if fsi_name_selected(comm[0], comm[1]) != 0 { 1 } else { 2 };
    }
    state.comm_verdict == 1
}

/// What the globs say to a command name, given as two words.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_name_selected(low: u64, high: u64) -> u64 {
    let Some(globs) = GLOBS.get(NAME_GLOBS) else { return 1 };
    let mut run = NameRun { positions: [0; 4], words: [low, high] };
    globs.begin(&mut run.positions);
    // SAFETY: the callback takes what is passed here, and the loop is over before `run` goes out of scope.
    unsafe { bpf_loop(16, name_byte as *mut c_void, addr_of_mut!(run).cast(), 0) };
    u64::from(globs.selected(&run.positions))
}

/// Globs running over a command name.
#[repr(C)]
struct NameRun {
    positions: Positions,
    words: [u64; 2],
}

unsafe extern "C" fn name_byte(index: u32, run: *mut NameRun) -> i64 {
    // SAFETY: bpf_loop hands through the pointer to the caller's NameRun.
    let run = unsafe { &mut *run };
    let Some(globs) = GLOBS.get(NAME_GLOBS) else { return 1 };
    let word = if index < 8 { run.words[0] } else { run.words[1] };
    let byte = (word >> ((index & 7) * 8)) as u8;
    if byte == 0 {
        return 1;
    }
    globs.advance(&mut run.positions, byte);
    0
}

/// One byte more for the run over a path.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_glob_step(byte: u32) -> u64 {
    let Some(globs) = GLOBS.get(PATH_GLOBS) else { return 0 };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: scratch of this CPU.
    let run = unsafe { &mut (*scratch).globs };
    globs.advance(&mut run.positions, byte as u8);
    0
}

/// One byte of a path; doubled slashes, `/./` and a slash at the end say nothing.
#[inline(always)]
fn take_path_byte(run: &mut GlobRun, byte: u8) {
    if byte == b'/' {
        run.pending_slash = 1;
        run.pending_dot = 0;
        return;
    }
    if run.pending_slash != 0 {
        if byte == b'.' && run.pending_dot == 0 {
            run.pending_dot = 1;
            return;
        }
        fsi_glob_step(u32::from(b'/'));
        if run.pending_dot != 0 {
            fsi_glob_step(u32::from(b'.'));
        }
        run.pending_slash = 0;
        run.pending_dot = 0;
    }
    fsi_glob_step(u32::from(byte));
    run.any = 1;
}

unsafe extern "C" fn path_byte(index: u32, _context: *mut c_void) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 1 };
    // SAFETY: scratch of this CPU; the masks keep both indices inside their buffers.
    unsafe {
        let run = &mut (*scratch).globs;
        if u64::from(index) >= run.length {
            return 1;
        }
        let byte = if run.in_names == 0 {
            let at = HEADROOM as u64 + ((run.at + u64::from(index)) & (PATH_MAX as u64 - 1));
            *core::ptr::addr_of!((*scratch).path).cast::<u8>().add(at as usize)
        } else {
            let at = (run.at + u64::from(index)) & (2 * PATH_MAX as u64 - 1);
            *core::ptr::addr_of!((*scratch).names).cast::<u8>().add(at as usize)
        };
        take_path_byte(run, byte);
    }
    0
}

/// The verdict on the walked path at the end of `scratch.path`.
#[inline(always)]
pub(crate) fn path_selected(length: u64) -> bool {
    fsi_globs_select(length, 0, 0) != 0
}

/// The verdict on a walked path of that length, a slash, and a name of that place in `scratch.names`. No name: the path alone;
/// no walked path: the name alone.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_globs_select(walked: u64, name_at: u64, name_length: u64) -> u64 {
    let Some(globs) = GLOBS.get(PATH_GLOBS) else { return 1 };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 1 };
    // SAFETY: scratch of this CPU; the callbacks find their run there.
    unsafe {
        let run = &mut (*scratch).globs;
        globs.begin(&mut run.positions);
        run.at = (PATH_MAX as u64 - walked) & (PATH_MAX as u64 - 1);
        run.length = walked;
        run.pending_slash = 0;
        run.pending_dot = 0;
        run.any = 0;
        run.in_names = 0;
        bpf_loop(PATH_MAX as u32, path_byte as *mut c_void, core::ptr::null_mut(), 0);
        if name_length != 0 {
            let run = &mut (*scratch).globs;
            take_path_byte(run, b'/');
            run.in_names = 1;
            run.at = name_at;
            run.length = name_length;
            bpf_loop(PATH_MAX as u32, path_byte as *mut c_void, core::ptr::null_mut(), 0);
        }
        if (*scratch).globs.any == 0 {
            fsi_glob_step(u32::from(b'/'));
        }
        u64::from(globs.selected(&(*scratch).globs.positions))
    }
}
