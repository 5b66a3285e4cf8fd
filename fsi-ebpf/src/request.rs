//! Requests to mounts of ours, told with the operation that sent them: sent by the same thread, inside its system call.

use fsi_common::loss::Counter;
use fsi_common::probe_config::Select;
use fsi_common::record::{RecordHeader, RecordKind, RequestRecord, UNWANTED_REQUEST, is_reported};

use crate::emit;
use crate::filter::{OFF, cgroup_policy};
use crate::kernel::{self, FuseRequest, Task, config};
use crate::maps::{INTERPOSED, POLICIES, TASKS, count};

/// Thread group of `kthreadd`, the parent of every kernel thread.
const KTHREADD: u32 = 2;

/// A request is about to go to a FUSE server.
#[inline(always)]
pub(crate) fn on_send(address: u64) {
    let request = FuseRequest(address);
    let dev = request.dev();
    if INTERPOSED.get_ptr(dev).is_none() {
        return;
    }
    let task = Task::current();
    let state = TASKS.get(task).filter(|state| state.call != 0);
    count(if state.is_none() { Counter::RequestsOfNone } else { Counter::RequestsOfOperations }, 1);
    if !is_reported(request.opcode()) {
        return;
    }
    let mut start_ns = 0;
    let mut is_unwanted = false;
    if let Some(state) = state {
        is_unwanted = wants_nothing(state.policy);
        if !is_unwanted {
            state.requests += 1;
            start_ns = state.start_ns;
        }
    } else if config!(select) == Select::Policy as u32 {
        is_unwanted = wants_nothing(cgroup_policy(task)) && task.parent().tgid() != KTHREADD;
    }
    let (_tgid, tid) = kernel::current_ids();
    emit::request(&RequestRecord {
        header: RecordHeader {
            kind: RecordKind::Request as u16,
            detail: if is_unwanted { UNWANTED_REQUEST } else { 0 },
            len: size_of::<RequestRecord>() as u32,
        },
        start_ns,
        unique: request.unique(),
        tid,
        dev,
    });
}

/// Whether a policy says that there are to be no events; where none is in force, none does.
#[inline(always)]
fn wants_nothing(policy: u32) -> bool {
    match policy {
        0 => false,
        OFF => true,
        number => POLICIES.get(number).is_some_and(|policy| policy.events == 0),
    }
}
