//! Exit of a system call: the result, the metrics, and the event if somebody asked for it.
#![expect(unsafe_code, reason = "the operation is handed on in the scratch of this CPU, reached by pointer")]

use fsi_common::aggregate::{AggregateKey, CREATED, READ, WRITTEN, bucket_of};
use fsi_common::loss::Counter;
use fsi_common::op::OpKind;
use fsi_common::probe_config::{EVENTS_BY_POLICY, EVENTS_EVERY, EVENTS_FAILED, EVENTS_SAMPLED, EVENTS_SLOW};
use fsi_common::syscall::{Call, NO_ARGUMENT, Shape};

use crate::enter::argument;
use crate::event;
use crate::files;
use crate::kernel::{self, FileAddress, Registers, Task, config};
use crate::maps::{self, POLICIES, SCRATCH, TASKS, count};
use crate::state::{Done, Object, TaskState, zero};

const AT_REMOVEDIR: u64 = 0x200;
const O_CREAT: u64 = 0o100;
/// Results between this and 0 are errnos.
const MAX_ERRNO: i64 = 4095;

/// Ends the call in flight; the operation that it turned out to be, if it is told of.
///
/// The work is cut into global functions, in the sense of the verifier, that hand the operation on in the scratch of this CPU:
/// each is verified once, and the stack of each is small.
#[inline(always)]
pub(crate) fn on_exit(registers: Registers, ret: i64) -> Option<&'static Done> {
    let number = registers.number();
    let call = kernel::call_of(number);
    let shape = call.shape();
    if matches!(shape, Shape::None) {
        return None;
    }
    if call.does_move_paths() && ret >= 0 && moves_paths(call, registers) {
        maps::paths_moved();
    }
    if matches!(shape, Shape::Watch) {
        return None;
    }
    let task = Task::current();
    let Some(state) = TASKS.get(task) else { return None };
    if state.call != number as u32 + 1 {
        return None;
    }
    state.call = 0;
    let (file, inode, file2) = (state.object.file, state.object.inode, state.file2);
    let mut told = None;
    if !matches!(shape, Shape::Replace) {
        if !finish(task, state, call, number, ret) {
            return None;
        }
        told = report(call, file2);
    }
    let may_end_a_file = matches!(shape, Shape::Replace) || call.op() == OpKind::Close.code();
    if may_end_a_file && follows_files() && file != 0 {
        files::fsi_end_if_dead(file, inode);
    }
    told
}

/// unlinkat moves no path unless it removes a directory, whose address may then be another's.
#[inline(always)]
fn moves_paths(call: Call, registers: Registers) -> bool {
    call.op() != OpKind::Unlink.code() || registers.third() & AT_REMOVEDIR != 0
}

#[inline(always)]
fn follows_files() -> bool {
    config!(follow_files) != 0
}

/// Notes what the call turned out to be; false where it is no operation on a file.
#[inline(always)]
fn finish(task: Task, state: &TaskState, call: Call, number: u64, ret: i64) -> bool {
    let failed = (-MAX_ERRNO..0).contains(&ret);
    let errno = if failed { (-ret) as u32 } else { 0 };
    let mut op = call.op();
    let mut object = if state.object.file == 0 { Object::NONE } else { state.object };
    let mut flags = state.direction;
    match call.shape() {
        Shape::Open => {
            object = Object::NONE;
            if !failed {
                let address = FileAddress(task.file(ret as u64));
                object = address.object().unwrap_or(Object::NONE);
                if event::open_flags(state, call) & O_CREAT != 0 && address.was_created() {
                    flags |= u32::from(CREATED);
                }
            }
        }
        Shape::Path => {
            if object.file != 0 {
                if event::path_is_empty(state, call) {
                    if object.inode == 0 {
                        return false;
                    }
                } else {
                    object = Object::NONE;
                }
            }
            if op == OpKind::Unlink.code()
                && call.at_flags_argument() != NO_ARGUMENT
                && argument(state, call.at_flags_argument()) & AT_REMOVEDIR != 0
            {
                op = OpKind::Rmdir.code();
            }
        }
        Shape::Count => {
            if !failed {
                let counter = if op == OpKind::IoUringEnter.code() { Counter::IoUring } else { Counter::Aio };
                count(counter, ret as u64);
            }
        }
        Shape::Descriptor | Shape::Mapping | Shape::Replace | Shape::Watch | Shape::None => {}
    }
    let moves_bytes = flags & u32::from(READ | WRITTEN) != 0;
    let Some(done) = done() else { return false };
    // Field by field, here and elsewhere: a whole structure would be put together on the stack first, of which there is little.
    done.number = number;
    done.call = call.0;
    done.ret = ret;
    done.start_ns = state.start_ns;
    done.bytes = if moves_bytes && !failed { ret as u64 } else { 0 };
    done.cgroup = task.cgroup();
    done.object = object;
    done.op = u32::from(op);
    done.errno = errno;
    done.flags = flags;
    done.policy = state.policy;
    done.requests = state.requests;
    zero(&mut done.has_names);
    zero(&mut done.name1);
    zero(&mut done.name2);
    zero(&mut done.state1);
    zero(&mut done.state2);
    zero(&mut done.was_sent);
    zero(&mut done.is_wanted);
    true
}

/// The operation under report.
#[inline(always)]
pub(crate) fn done() -> Option<&'static mut Done> {
    // SAFETY: scratch of this CPU, and each function is through with it before it calls another that writes it.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut (*scratch).done })
}

/// Totals, metrics, event. What is counted does not depend on what is told.
#[inline(always)]
fn report(call: Call, file2: u64) -> Option<&'static Done> {
    let done = done()?;
    // Not earlier, because what is done here is part of what the caller waits for.
    done.duration_ns = kernel::now_ns() - done.start_ns;
    let is_chosen = kernel::is_chosen(done.op as u16);
    let is_followed = follows_files() && done.object.file != 0;
    if is_followed {
        let is_open = u64::from(matches!(call.shape(), Shape::Open));
        if files::fsi_account(is_open | u64::from(is_chosen) << 1) == 0 {
            return None;
        }
    } else if config!(path_filter) != 0 && event::fsi_names_selected() == 0 {
        return None;
    }
    if !is_chosen {
        return None;
    }
    if is_followed && file2 != 0 {
        files::fsi_account_target(file2);
    }
    count(Counter::Seen, 1);
    fsi_aggregate();
    if config!(events) == 0 {
        return Some(done);
    }
    if crosses(done) {
        done.file_id = files::fsi_announce(done.object.file, 1);
        done.file2_id = files::fsi_announce(file2, 0);
        done.was_sent = event::fsi_send();
    } else {
        count(Counter::SampledOut, 1);
    }
    Some(done)
}

/// Whether this operation becomes an event: its policy asks for it, or a mount of ours was asked and events are wanted at all.
#[inline(always)]
fn crosses(done: &mut Done) -> bool {
    let mut events = config!(events);
    let (mut slower_ns, mut sample_every) = (kernel::slower_ns(), config!(sample_every));
    if events & EVENTS_BY_POLICY != 0 {
        let Some(policy) = POLICIES.get(done.policy) else { return false };
        (events, slower_ns, sample_every) = (policy.events, policy.slower_ns, policy.sample_every);
    }
    done.is_wanted = u64::from(is_wanted(done, events, slower_ns, sample_every));
    done.is_wanted != 0 || done.requests != 0 && events != 0
}

#[inline(always)]
fn is_wanted(done: &Done, events: u32, slower_ns: u64, sample_every: u32) -> bool {
    if events & EVENTS_EVERY != 0 {
        return true;
    }
    if events & EVENTS_FAILED != 0 && done.errno != 0 {
        return true;
    }
    if events & EVENTS_SLOW != 0 && done.duration_ns >= slower_ns {
        return true;
    }
    events & EVENTS_SAMPLED != 0 && kernel::random() % sample_every.max(1) == 0
}

/// Adds the operation under report to the metrics.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fsi_aggregate() -> u64 {
    let Some(done) = done() else { return 0 };
    let key = AggregateKey {
        cgroup: done.cgroup,
        dev: done.object.dev,
        op: done.op as u16,
        errno: done.errno as u16,
        bucket: bucket_of(done.duration_ns),
        flags: done.flags as u16,
        cpu: kernel::cpu(),
    };
    if !maps::add_aggregate(&key, done.bytes, done.duration_ns) {
        count(Counter::AggregateFull, 1);
    }
    0
}
