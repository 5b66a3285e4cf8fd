//! Tasks that are selected but have no storage yet.
//!
//! The kernel refuses to make a task's storage while the CPU has interrupted someone who is busy with such storage (a task that
//! ends, for example), and that one goes on only after us: trying again at once is no use. Such a child waits here by its
//! thread id and gets its storage with its own first call, or ends.
#![expect(unsafe_code, reason = "a counter that several CPUs share is added to by address")]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use fsi_common::loss::Counter;

use crate::kernel::{self, Task};
use crate::maps::{TASKS, WAITING, WAITING_COUNT, count};
use crate::state::{SELECTED, TaskState};

/// Notes a child that could not be given its storage.
#[inline(always)]
pub(crate) fn add(child: Task) {
    if WAITING.insert(child.tid(), 1, 0).is_ok() {
        change(1);
    } else {
        count(Counter::TaskStorage, 1);
    }
}

/// The state of the current task, which may have waited for it until now.
#[inline(always)]
pub(crate) fn state_of_current(task: Task) -> Option<&'static mut TaskState> {
    match TASKS.get(task) {
        Some(state) => Some(state),
        None if any() => adopt(task),
        None => None,
    }
}

/// Forgets the current task, which ends: its id will be another's.
#[inline(always)]
pub(crate) fn forget_current() {
    if any() && WAITING.remove(kernel::current_ids().1).is_ok() {
        change(-1);
    }
}

/// Whether anyone waits: nearly never, so that others pay no more than this.
#[inline(always)]
fn any() -> bool {
    WAITING_COUNT.get(0).copied().unwrap_or(0) > 0
}

#[inline(always)]
fn adopt(task: Task) -> Option<&'static mut TaskState> {
    let tid = kernel::current_ids().1;
    WAITING.get_ptr(tid)?;
    let Some(state) = TASKS.get_or_create(task) else {
        // Still no luck: the call is not seen, and the task goes on waiting.
        count(Counter::TaskStorage, 1);
        return None;
    };
    state.marks = SELECTED;
    if WAITING.remove(tid).is_ok() {
        change(-1);
    }
    Some(state)
}

#[inline(always)]
fn change(by: i64) {
    if let Some(cell) = WAITING_COUNT.get_ptr_mut(0) {
        // SAFETY: one i64 cell that all CPUs add to.
        unsafe { atomic_xadd::<i64, i64, { AtomicOrdering::Relaxed }>(cell, by) };
    }
}
