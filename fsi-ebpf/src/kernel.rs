//! The only reads of kernel and process memory, as typed steps from object to object.
//!
//! Two ways: a plain load through a pointer whose type the verifier knows (`task`, `pt_regs`, what hangs on them), which costs
//! nothing, and `bpf_probe_read_kernel` for the rest (array elements, `struct file` and what hangs under it).
#![expect(unsafe_code, reason = "kernel memory is read by address; offsets come from the running kernel's BTF")]

mod cgroup;
pub(crate) mod config;
mod file;
mod fuse;
mod registers;
mod task;
mod tree;

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns,
    bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str,
};

pub(crate) use cgroup::{Cgroup, cgroup_id, cgroup_parent, read_name};
pub(crate) use config::{call_of, config, is_chosen, slower_ns};
pub(crate) use file::{FileAddress, mapped_file};
pub(crate) use fuse::FuseRequest;
pub(crate) use registers::Registers;
pub(crate) use task::Task;
pub(crate) use tree::{Dentry, Mount, Place};

/// `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// (thread group, thread) of the current task.
#[inline(always)]
pub(crate) fn current_ids() -> (u32, u32) {
    // SAFETY: no preconditions.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    ((ids >> 32) as u32, ids as u32)
}

/// User id of the current task.
#[inline(always)]
pub(crate) fn current_uid() -> u32 {
    // SAFETY: no preconditions.
    (unsafe { bpf_get_current_uid_gid() }) as u32
}

/// A plain load through a pointer whose type the verifier knows: it refuses the program for any other pointer or offset.
#[inline(always)]
fn load<T: Copy>(object: *const u8, offset: usize) -> T {
    // SAFETY: the callers, all in this file, have the pointer from a hook's arguments or a helper and the offset from BTF.
    unsafe { read_volatile(object.add(offset).cast::<T>()) }
}

/// A read at an address that may be anything.
#[inline(always)]
pub(crate) fn read<T: Copy>(address: u64, offset: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    let source = address.wrapping_add(offset as u64) as *const c_void;
    // SAFETY: the destination is as long as T; the helper answers an unreadable source with an error and zeros. T is made of
    // integers at all callers, for which any bytes are valid.
    unsafe {
        (bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, source) == 0)
            .then(|| value.assume_init())
    }
}

/// The same, with 0 for what cannot be read.
#[inline(always)]
fn read_u64(address: u64, offset: usize) -> u64 {
    read(address, offset).unwrap_or(0)
}

/// A read of process memory.
#[inline(always)]
pub(crate) fn read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as in `read`.
    unsafe {
        (bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) == 0)
            .then(|| value.assume_init())
    }
}

/// Copies a string of the process to `to`, which has room for `room` bytes; its length without the end, or none.
#[inline(always)]
pub(crate) unsafe fn read_user_string(to: *mut u8, room: u32, address: u64) -> Option<u64> {
    // SAFETY: the caller has that room.
    let length = unsafe { bpf_probe_read_user_str(to.cast(), room, address as *const c_void) };
    (length > 0).then(|| length as u64 - 1)
}

/// Copies `length` bytes of kernel memory.
#[inline(always)]
pub(crate) unsafe fn read_bytes(to: *mut u8, length: u32, from: u64) -> bool {
    // SAFETY: the caller has that room.
    unsafe { bpf_probe_read_kernel(to.cast(), length, from as *const c_void) == 0 }
}

/// The CPU that we stay on.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

/// A random number.
#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// A command name as bytes.
#[inline(always)]
pub(crate) fn comm_bytes(comm: [u64; 2]) -> [u8; 16] {
    // SAFETY: the same sixteen bytes.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(comm) }
}
