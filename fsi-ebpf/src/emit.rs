//! Records into the ring: sent or counted as lost, never waking the agent (it reads on its own beat).
#![expect(unsafe_code, reason = "the ring takes memory by address")]

use core::ptr::addr_of;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use fsi_common::loss::Counter;
use fsi_common::record::{CgroupRecord, CloseRecord, FileRecord, OpRecord, PATH_MAX, ProcessRecord, RequestRecord};

use crate::maps::{RING, SCRATCH, count};

/// Copies memory into the ring.
#[inline(always)]
pub(crate) unsafe fn output(record: *const u8, size: u64) -> bool {
    let ring = addr_of!(RING).cast_mut().cast();
    // SAFETY: the caller has `size` readable bytes at `record`.
    unsafe { bpf_ringbuf_output(ring, record.cast_mut().cast(), size, u64::from(BPF_RB_NO_WAKEUP)) == 0 }
}

/// Sends the operation that stands in the scratch, with so many bytes of names behind it.
#[inline(always)]
pub(crate) fn operation(names: u64) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return false };
    let size = size_of::<OpRecord>() as u64 + (names & 0x3fff).min(2 * PATH_MAX as u64);
    // SAFETY: the names stand right behind the record, and both are inside the scratch.
    let sent = unsafe {
        (*scratch).record.header.len = size as u32;
        output(addr_of!((*scratch).record).cast(), size)
    };
    count(if sent { Counter::Sent } else { Counter::RingOperation }, 1);
    sent
}

/// Sends a file's announcement.
#[inline(always)]
pub(crate) fn file(record: &FileRecord) -> bool {
    // SAFETY: a whole record.
    let sent = unsafe { output(addr_of!(*record).cast(), size_of::<FileRecord>() as u64) };
    if !sent {
        count(Counter::RingFile, 1);
    }
    sent
}

/// Sends a file's end.
#[inline(always)]
pub(crate) fn close(record: &CloseRecord) {
    // SAFETY: a whole record.
    if !unsafe { output(addr_of!(*record).cast(), size_of::<CloseRecord>() as u64) } {
        count(Counter::RingFile, 1);
    }
}

/// Sends a process event.
#[inline(always)]
pub(crate) fn process(record: &ProcessRecord) {
    // SAFETY: a whole record.
    if !unsafe { output(addr_of!(*record).cast(), size_of::<ProcessRecord>() as u64) } {
        count(Counter::RingProcess, 1);
    }
}

/// Sends a request to a mount of ours.
#[inline(always)]
pub(crate) fn request(record: &RequestRecord) {
    // SAFETY: a whole record.
    if !unsafe { output(addr_of!(*record).cast(), size_of::<RequestRecord>() as u64) } {
        count(Counter::RingRequest, 1);
    }
}

/// Sends the making of a cgroup.
#[inline(always)]
pub(crate) fn cgroup(record: &CgroupRecord) {
    // SAFETY: a whole record.
    if !unsafe { output(addr_of!(*record).cast(), size_of::<CgroupRecord>() as u64) } {
        count(Counter::RingCgroup, 1);
    }
}
