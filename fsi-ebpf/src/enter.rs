//! Entry of a system call: who, what, on which file, when. Everything here is paid by every call of a selected task.
#![expect(unsafe_code, reason = "a callback gets its context by pointer")]

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::bpf_find_vma;
use fsi_common::aggregate::{READ, WRITTEN};
use fsi_common::loss::Counter;
use fsi_common::op::OpKind;
use fsi_common::syscall::{Call, NO_ARGUMENT, Shape};

use crate::filter;
use crate::kernel::{self, FileAddress, Registers, Task};
use crate::maps::count;
use crate::state::{TaskState, zero};

const MAP_ANONYMOUS: u64 = 0x20;
const AT_EMPTY_PATH: u64 = 0x1000;
pub(crate) const AT_FDCWD: i32 = -100;
/// What looking for a mapping gives while the address space is locked by someone who changes it.
const EBUSY: i64 = -16;

/// Looks at the call and, if it is an operation on a file of a selected task, notes it as in flight.
#[inline(always)]
pub(crate) fn on_enter(registers: Registers, number: u64) {
    let call = kernel::call_of(number);
    let shape = call.shape();
    if matches!(shape, Shape::None | Shape::Watch) {
        return;
    }
    let task = Task::current();
    let Some(state) = filter::selected(task) else { return };
    state.call = 0;
    // As soon as it is known that somebody looks, because what is done here is part of what the caller waits for.
    state.start_ns = kernel::now_ns();
    if task.is_compat() {
        count(Counter::Compat32, 1);
        return;
    }
    registers.arguments(&mut state.args);
    // No file; what stands in the other fields then means nothing.
    zero(&mut state.object.file);
    zero(&mut state.file2);
    state.direction = u32::from(call.direction());
    let is_ours = match shape {
        Shape::Descriptor => descriptor(task, call, state),
        Shape::Mapping => mapping(task, state),
        Shape::Replace => {
            // Only a file of ours: what is closed may stand at an address where one of ours ended unseen.
            let replaced = FileAddress(task.file(argument(state, call.dir1()))).object();
            if let Some(object) = replaced {
                state.object = object;
            }
            replaced.is_some()
        }
        Shape::Path => {
            path(task, call, state);
            true
        }
        Shape::Open | Shape::Count => true,
        Shape::None | Shape::Watch => false,
    };
    if is_ours {
        state.requests = 0;
        state.call = number as u32 + 1;
    }
}

/// An argument by its index.
#[inline(always)]
pub(crate) fn argument(state: &TaskState, index: u8) -> u64 {
    state.args[(index & 7) as usize]
}

/// Finds the file of a call on a descriptor; false where it is none of ours.
#[inline(always)]
fn descriptor(task: Task, call: Call, state: &mut TaskState) -> bool {
    let op = call.op();
    if op == OpKind::Lock.code() && !matches!(state.args[1] as u32, 5..=7 | 36..=38) {
        return false;
    }
    if op == OpKind::Mmap.code() && state.args[3] & MAP_ANONYMOUS != 0 {
        return false;
    }
    let first = FileAddress(task.file(argument(state, call.dir1()))).object();
    if call.dir2() == NO_ARGUMENT {
        let Some(object) = first else { return false };
        state.object = object;
        return true;
    }
    // Two descriptors: bytes go from the first to the second, and one of them may be a pipe or a socket.
    let second = FileAddress(task.file(argument(state, call.dir2()))).object();
    match (first, second) {
        (Some(from), to) => {
            state.object = from;
            state.direction = u32::from(READ);
            if let Some(to) = to {
                state.file2 = to.file;
                state.direction |= u32::from(WRITTEN);
            }
            true
        }
        (None, Some(to)) => {
            state.object = to;
            state.direction = u32::from(WRITTEN);
            true
        }
        (None, None) => false,
    }
}

/// A call on a path that may turn out to be one on a descriptor: notes that file.
#[inline(always)]
fn path(task: Task, call: Call, state: &mut TaskState) {
    let flags = call.at_flags_argument();
    let may_be_empty = flags != NO_ARGUMENT && argument(state, flags) & AT_EMPTY_PATH != 0;
    let is_null = call.is_null_descriptor() && argument(state, call.path1()) == 0;
    if (may_be_empty || is_null) && call.dir1() != NO_ARGUMENT {
        let file = FileAddress(task.file(argument(state, call.dir1())));
        // Something stays there even when it is no file of ours, or no descriptor at all: the exit then knows that the call is
        // none of ours. The working directory is no descriptor but a path.
        let is_descriptor = argument(state, call.dir1()) as i32 != AT_FDCWD;
        if let Some(object) = file.object() {
            state.object = object;
        } else {
            state.object.file = file.0 | u64::from(is_descriptor);
            zero(&mut state.object.inode);
        }
    }
}

#[repr(C)]
struct Found {
    file: u64,
}

unsafe extern "C" fn note_file(_task: *mut task_struct, vma: *mut u8, found: *mut Found) -> i64 {
    let file = kernel::mapped_file(vma);
    // SAFETY: the helper hands through the pointer to the caller's Found.
    unsafe { (*found).file = file };
    0
}

/// Finds the file that is mapped at the first argument.
#[inline(always)]
fn mapping(task: Task, state: &mut TaskState) -> bool {
    let mut found = Found { file: 0 };
    // SAFETY: the callback takes what is passed here; the helper is over before `found` goes out of scope.
    let result =
        unsafe { bpf_find_vma(task.as_ptr(), state.args[0], note_file as *mut c_void, addr_of_mut!(found).cast(), 0) };
    if result == EBUSY {
        count(Counter::MappingBusy, 1);
    }
    let Some(object) = FileAddress(found.file).object() else { return false };
    state.object = object;
    true
}
