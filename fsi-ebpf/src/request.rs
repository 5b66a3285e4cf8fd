//! Requests to mounts of ours, told with the operation that sent them: sent by the same thread, inside its system call.

use fsi_common::loss::Counter;
use fsi_common::record::{RecordHeader, RecordKind, RequestRecord, is_reported};

use crate::emit;
use crate::kernel::{self, FuseRequest, Task};
use crate::maps::{INTERPOSED, TASKS, count};

/// A request is about to go to a FUSE server.
#[inline(always)]
pub(crate) fn on_send(address: u64) {
    let request = FuseRequest(address);
    let dev = request.dev();
    if INTERPOSED.get_ptr(dev).is_none() {
        return;
    }
    let state = TASKS.get(Task::current()).filter(|state| state.call != 0);
    count(if state.is_none() { Counter::RequestsOfNone } else { Counter::RequestsOfOperations }, 1);
    if !is_reported(request.opcode()) {
        return;
    }
    let mut start_ns = 0;
    if let Some(state) = state {
        state.requests += 1;
        start_ns = state.start_ns;
    }
    let (_tgid, tid) = kernel::current_ids();
    emit::request(&RequestRecord {
        header: RecordHeader { kind: RecordKind::Request as u16, detail: 0, len: size_of::<RequestRecord>() as u32 },
        start_ns,
        unique: request.unique(),
        tid,
        dev,
    });
}
