//! Exit of a system call: the result, the metrics, and the event if somebody asked for it.

use fsi_common::aggregate::{AggregateKey, AggregateValue, CREATED, bucket_of};
use fsi_common::loss::Counter;
use fsi_common::op::OpKind;
use fsi_common::probe_config::{EVENTS_EVERY, EVENTS_FAILED, EVENTS_SAMPLED, EVENTS_SLOW, FOLLOW_ALL};
use fsi_common::record::CloseKind;
use fsi_common::syscall::{Call, NO_ARGUMENT, Shape};

use crate::enter::argument;
use crate::event;
use crate::files;
use crate::kernel::{self, FileAddress, Registers, Task, config};
use crate::maps::{self, TASKS, count};
use crate::state::{Object, OpenFile, TaskState};

const AT_REMOVEDIR: u64 = 0x200;
const O_CREAT: u64 = 0o100;
/// Results between this and 0 are errnos.
const MAX_ERRNO: i64 = 4095;

/// An operation that is over.
pub(crate) struct Done {
    pub(crate) op: u16,
    pub(crate) call: Call,
    pub(crate) number: u64,
    pub(crate) ret: i64,
    pub(crate) errno: u16,
    pub(crate) flags: u16,
    pub(crate) bytes: u64,
    pub(crate) duration_ns: u64,
    pub(crate) cgroup: u64,
    pub(crate) object: Object,
}

/// Ends the call in flight.
#[inline(always)]
pub(crate) fn on_exit(registers: Registers, ret: i64) {
    let number = registers.number();
    let call = kernel::call_of(number);
    let shape = call.shape();
    if matches!(shape, Shape::None) {
        return;
    }
    if call.does_move_paths() && ret >= 0 && moves_paths(call, registers) {
        maps::paths_moved();
    }
    if matches!(shape, Shape::Watch) {
        return;
    }
    let task = Task::current();
    let Some(state) = TASKS.get(task) else { return };
    if state.call != number as u32 + 1 {
        return;
    }
    state.call = 0;
    let duration_ns = kernel::now_ns() - state.start_ns;
    if matches!(shape, Shape::Replace) {
        files::end_if_dead(state.object.file, CloseKind::Closed);
        return;
    }
    let Some(done) = finish(task, state, call, number, ret, duration_ns) else { return };
    report(state, &done);
    if done.op == OpKind::Close.code() && follows_files() {
        files::end_if_dead(done.object.file, CloseKind::Closed);
    }
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

/// What the call turned out to be; nothing where it is no operation on a file.
#[inline(always)]
fn finish(task: Task, state: &TaskState, call: Call, number: u64, ret: i64, duration_ns: u64) -> Option<Done> {
    let failed = (-MAX_ERRNO..0).contains(&ret);
    let errno = if failed { (-ret) as u16 } else { 0 };
    let mut op = call.op();
    let mut object = state.object;
    let mut flags = state.direction as u16;
    match call.shape() {
        Shape::Open => {
            object = Object::NONE;
            if !failed {
                let address = FileAddress(task.file(ret as u64));
                object = address.object().unwrap_or(Object::NONE);
                if event::open_flags(state, call) & O_CREAT != 0 && address.was_created() {
                    flags |= CREATED;
                }
            }
        }
        Shape::Path => {
            if object.file != 0 {
                if event::path_is_empty(state, call) {
                    if object.inode == 0 {
                        return None;
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
    let bytes = if failed || flags & (fsi_common::aggregate::READ | fsi_common::aggregate::WRITTEN) == 0 {
        0
    } else {
        ret as u64
    };
    Some(Done { op, call, number, ret, errno, flags, bytes, duration_ns, cgroup: task.cgroup(), object })
}

/// Metrics, totals, event: in this order, so that what is counted does not depend on what is told.
#[inline(always)]
fn report(state: &TaskState, done: &Done) {
    let file = followed(state, done);
    if !kernel::is_chosen(done.op) {
        return;
    }
    let Some(names) = event::names(state, done, file) else { return };
    count(Counter::Seen, 1);
    aggregate(done);
    if let Some(file) = file {
        files::add_to_totals(file, done.flags, done.bytes, done.errno != 0, state.start_ns, done.duration_ns);
        if config!(follow_files) == FOLLOW_ALL {
            files::announce(file, &done.object);
        }
    }
    if config!(events) == 0 {
        return;
    }
    if wanted(done) {
        event::send(state, done, file, names);
    } else {
        count(Counter::SampledOut, 1);
    }
}

/// The open file, where files are followed.
#[inline(always)]
fn followed(state: &TaskState, done: &Done) -> Option<*mut OpenFile> {
    if !follows_files() || done.object.file == 0 {
        return None;
    }
    let opened_ns = if matches!(done.call.shape(), Shape::Open) { state.start_ns } else { 0 };
    files::follow(&done.object, opened_ns)
}

/// Whether somebody asked for this event.
#[inline(always)]
fn wanted(done: &Done) -> bool {
    let events = config!(events);
    if events & EVENTS_EVERY != 0 {
        return true;
    }
    if events & EVENTS_FAILED != 0 && done.errno != 0 {
        return true;
    }
    if events & EVENTS_SLOW != 0 && done.duration_ns >= kernel::slower_ns() {
        return true;
    }
    events & EVENTS_SAMPLED != 0 && kernel::random() % config!(sample_every).max(1) == 0
}

#[inline(always)]
fn aggregate(done: &Done) {
    let key = AggregateKey {
        cgroup: done.cgroup,
        dev: done.object.dev,
        op: done.op,
        errno: done.errno,
        bucket: bucket_of(done.duration_ns),
        flags: done.flags,
        reserved: 0,
    };
    let value = AggregateValue { count: 1, bytes: done.bytes, duration_ns: done.duration_ns, max_ns: done.duration_ns };
    if !maps::add_aggregate(&key, &value) {
        count(Counter::AggregateFull, 1);
    }
}
