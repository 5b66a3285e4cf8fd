//! FSI's kernel side: one thin function per hook. The hooks feed [`enter`], [`exit`] and [`task`]; another set of hooks (functions of
//! the VFS, io_uring) would feed the same records.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic additions have no stable form on this target")]
#![expect(unreachable_pub, reason = "the loader finds the hooks by their names")]
#![expect(unsafe_code, reason = "the arguments of a hook are read by position")]

mod cgroup;
mod emit;
mod enter;
mod event;
mod exit;
mod files;
mod filter;
mod kernel;
mod maps;
mod path;
mod request;
mod state;
mod task;
mod waiting;

use aya_ebpf::bindings::task_struct;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use aya_log_ebpf::info;

use crate::kernel::{Cgroup, Registers, Task, config};

/// `sys_enter(struct pt_regs *regs, long id)`
#[btf_tracepoint(function = "sys_enter")]
pub fn fsi_enter(context: BtfTracePointContext) -> i32 {
    enter::on_enter(Registers(context.arg(0)), context.arg(1));
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn fsi_exit(context: BtfTracePointContext) -> i32 {
    let Some(told) = exit::on_exit(Registers(context.arg(0)), context.arg(1)) else { return 0 };
    if config!(debug) != 0 {
        // The log is for finding out why something is (not) seen: one line per operation under report.
        info!(
            &context,
            "operation {} errno {} file {:x} device {:x} inode {} told {}",
            told.op,
            told.errno,
            told.object.file,
            told.object.dev,
            told.object.ino,
            told.was_sent
        );
    }
    0
}

/// `task_newtask(struct task_struct *task, u64 clone_flags)`
#[btf_tracepoint(function = "task_newtask")]
pub fn fsi_new_task(context: BtfTracePointContext) -> i32 {
    let child: *mut task_struct = context.arg(0);
    task::on_new_task(Task::from_argument(child), context.arg(1));
    0
}

/// `sched_process_exec(struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn fsi_exec(_context: BtfTracePointContext) -> i32 {
    task::on_exec();
    0
}

/// `sched_process_exit(struct task_struct *task)`
#[btf_tracepoint(function = "sched_process_exit")]
pub fn fsi_process_exit(_context: BtfTracePointContext) -> i32 {
    task::on_exit();
    0
}

/// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn fsi_new_cgroup(context: BtfTracePointContext) -> i32 {
    cgroup::on_new(Cgroup(context.arg(0)));
    0
}

/// `fuse_request_send(struct fuse_req *req)`. By its bare name, because FUSE may be a module, whose types the loader cannot name.
#[raw_tracepoint(tracepoint = "fuse_request_send")]
pub fn fsi_request(context: RawTracePointContext) -> i32 {
    request::on_send(context.arg(0));
    0
}

/// Visits every task.
///
/// # Safety
///
/// Called by the kernel with the context of an `iter/task` program.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub unsafe extern "C" fn fsi_tasks(context: *const core::ffi::c_void) -> i32 {
    // SAFETY: by the contract above.
    unsafe { task::visit(context.cast()) };
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers used here are for GPL-compatible programs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
