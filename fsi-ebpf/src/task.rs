//! Tasks: what is selected from its first instruction on, and when processes start, execute and end.
#![expect(unsafe_code, reason = "the task iterator gets its context by pointer")]

use aya_ebpf::bindings::task_struct;
use fsi_common::probe_config::Select;
use fsi_common::record::{ProcessEvent, ProcessRecord, RecordHeader, RecordKind};

use crate::emit;
use crate::files;
use crate::filter;
use crate::kernel::{self, Task, config};
use crate::maps::{AGENT, TASKS, count};
use crate::state::{SELECTED, SELECTS_CHILDREN};
use crate::waiting;
use fsi_common::loss::Counter;

const CLONE_THREAD: u64 = 0x1_0000;

/// A task that is about to be: the child of a marked task is selected before it runs.
#[inline(always)]
pub(crate) fn on_new_task(child: Task, clone_flags: u64) {
    let parent = Task::current();
    if config!(select) == Select::Marked as u32 {
        let Some(marks) = waiting::state_of_current(parent).map(|state| state.marks) else { return };
        let child_is_thread = clone_flags & CLONE_THREAD != 0;
        let inherits = marks & SELECTED != 0 || (marks & SELECTS_CHILDREN != 0 && !child_is_thread);
        if !inherits {
            return;
        }
        if let Some(state) = TASKS.get_or_create(child) {
            state.marks = SELECTED;
            state.call = 0;
        } else {
            waiting::add(child);
        }
    } else if filter::selected(parent).is_none() {
        return;
    }
    if clone_flags & CLONE_THREAD == 0 {
        tell(child, parent.tgid(), ProcessEvent::Fork, 0);
    }
}

/// Another program in the current process.
#[inline(always)]
pub(crate) fn on_exec() {
    let task = Task::current();
    // Who was only forked has done nothing by which it would be known: its new name is what it is called from here on.
    if is_followed(task) || config!(select) != Select::Marked as u32 && filter::selected(task).is_some() {
        tell(task, task.parent().tgid(), ProcessEvent::Exec, 0);
    }
}

/// The current task ends.
#[inline(always)]
pub(crate) fn on_exit() {
    let task = Task::current();
    let is_followed = is_followed(task);
    waiting::forget_current();
    if !is_followed {
        return;
    }
    if config!(follow_files) != 0 {
        files::end_all_of(task);
    }
    if task.group_is_dead() {
        tell(task, task.parent().tgid(), ProcessEvent::Exit, task.exit_code());
    }
}

/// Whether the current task is looked at; a command name that is refused does not matter here, for it may change.
#[inline(always)]
fn is_followed(task: Task) -> bool {
    waiting::state_of_current(task)
        .is_some_and(|state| config!(select) != Select::Marked as u32 || state.marks & SELECTED != 0)
}

#[inline(always)]
fn tell(task: Task, parent_tgid: u32, event: ProcessEvent, exit_code: u32) {
    if config!(follow_processes) == 0 {
        return;
    }
    emit::process(&ProcessRecord {
        header: RecordHeader {
            kind: RecordKind::Process as u16,
            detail: event as u16,
            len: size_of::<ProcessRecord>() as u32,
        },
        time_ns: kernel::now_ns(),
        cgroup: task.cgroup(),
        tgid: task.tgid(),
        parent_tgid,
        uid: kernel::current_uid(),
        exit_code,
        comm: kernel::comm_bytes(task.comm()),
    });
}

/// What the kernel hands an `iter/task` program.
#[repr(C)]
pub(crate) struct TaskIteration {
    meta: *const IterationMeta,
    task: *mut task_struct,
}

#[repr(C)]
struct IterationMeta {
    seq: u64,
    session: u64,
    number: u64,
}

/// One task of all: marks the threads of marked processes and the children of marked tasks; run until nothing new is marked. The
/// first visit also notes who the agent is, in the kernel's own numbers, and sweeps the table of open files.
///
/// # Safety
///
/// The pointer is the context of an `iter/task` program.
#[inline(always)]
pub(crate) unsafe fn visit(context: *const TaskIteration) {
    // SAFETY: by the contract above.
    let (number, task) = unsafe { ((*(*context).meta).number, Task::from_argument((*context).task)) };
    if number == 0 {
        if let Some(agent) = AGENT.get_ptr_mut(0) {
            // SAFETY: one u32 cell.
            unsafe { *agent = kernel::current_ids().0 };
        }
        files::sweep();
    }
    if task.is_null() || config!(select) != Select::Marked as u32 || is_marked(task) {
        return;
    }
    let is_agent = task.tgid() == kernel::current_ids().0;
    if !is_agent && (is_marked(task.leader()) || is_marked(task.parent())) {
        if let Some(state) = TASKS.get_or_create(task) {
            state.marks = SELECTED;
            if let Some(marked) = AGENT.get_ptr_mut(1) {
                // SAFETY: one u32 cell, and one visit runs at a time.
                unsafe { *marked += 1 };
            }
        } else {
            count(Counter::TaskStorage, 1);
        }
    }
}

#[inline(always)]
fn is_marked(task: Task) -> bool {
    !task.is_null() && TASKS.get(task).is_some_and(|state| state.marks & SELECTED != 0)
}
