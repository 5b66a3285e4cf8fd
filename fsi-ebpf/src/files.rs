//! Open files from open to last close: who they are, what was done through them, when they end.
//!
//! A file is known by the address of its `struct file`. dup and fork share it, so nothing has to be followed there. It ends
//! when its last reference goes: seen at the exit of close and dup2, at the exit of a process, or found later by the sweep.
#![expect(unsafe_code, reason = "totals are added in map memory that several CPUs share")]

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::{addr_of_mut, null_mut};

use aya_ebpf::helpers::generated::{bpf_for_each_map_elem, bpf_get_smp_processor_id, bpf_loop};
use fsi_common::aggregate::{READ, WRITTEN};
use fsi_common::loss::Counter;
use fsi_common::probe_config::FOLLOW_ALL;
use fsi_common::record::{CloseKind, CloseRecord, FileRecord, OpenFile, RecordHeader, RecordKind};

use crate::emit;
use crate::exit;
use crate::kernel::{self, FileAddress, Task, config};
use crate::maps::{FILES, SCRATCH, count};
use crate::path;
use crate::state::{Done, Object, copy_totals};

/// Adds in memory that other CPUs add to as well.
#[inline(always)]
fn add(cell: *mut u64, by: u64) {
    // SAFETY: the cell is a u64 in a map value.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(cell, by) };
}

/// The followed file behind an object; begun now if it was open before we looked.
#[inline(always)]
fn follow(object: &Object, opened_ns: u64) -> Option<*mut OpenFile> {
    let dentry = FileAddress(object.file).dentry();
    if let Some(file) = FILES.get_ptr_mut(object.file) {
        // SAFETY: a map value; if it is removed meanwhile the memory stays until the program ends.
        let file = unsafe { &mut *file };
        let is_same = file.inode == object.inode && file.dentry == dentry;
        // Another thread may have used the descriptor before our open returned.
        let is_ours = opened_ns == 0 || file.totals.last_ns > opened_ns;
        if is_same && is_ours {
            if opened_ns != 0 && file.announced == 0 {
                file.opened_ns = opened_ns;
            }
            return Some(file);
        }
        // The kernel used the memory for another file: the old one ended unseen.
        fsi_end(object.file, CloseKind::Unseen as u32);
    }
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: scratch of this CPU.
    unsafe {
        (*scratch).file_sequence += 1;
        let id = (*scratch).file_sequence << 12 | u64::from(bpf_get_smp_processor_id()) | 1 << 63;
        (*scratch).open_file.id = id;
        (*scratch).open_file.inode = object.inode;
        (*scratch).open_file.dentry = dentry;
        (*scratch).open_file.opened_ns = opened_ns;
        // The rest is 0 as from the start: nobody writes it here.
        if FILES.insert(object.file, &(*scratch).open_file, 0).is_err() {
            count(Counter::FilesFull, 1);
            return None;
        }
    }
    FILES.get_ptr_mut(object.file)
}

/// The operation under report, in the book of its file. Bit 0 of `what`: it opened the file; bit 1: it is one of the chosen
/// operations. 0: the path globs refuse the file.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_account(what: u64) -> u64 {
    let Some(done) = exit::done() else { return 1 };
    let opened_ns = if what & 1 != 0 { done.start_ns } else { 0 };
    let object = done.object;
    let Some(file) = follow(&object, opened_ns) else {
        // Not followed, but the globs hold all the same.
        return u64::from(config!(path_filter) == 0 || path::known(FileAddress(object.file).place()).selected);
    };
    if !selected(file, &object) {
        return 0;
    }
    if what & 2 != 0 {
        add_to_totals(file, done, done.flags & direction_of_first(done));
        if config!(follow_files) == FOLLOW_ALL {
            announce(file, &object);
        }
    }
    1
}

/// The operation under report, in the book of the file at that address, to which its bytes were written.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_account_target(address: u64) -> u64 {
    let (Some(done), Some(object)) = (exit::done(), FileAddress(address).object()) else { return 0 };
    let Some(file) = follow(&object, 0) else { return 0 };
    add_to_totals(file, done, u32::from(WRITTEN));
    1
}

const BOTH: u32 = READ as u32 | WRITTEN as u32;

/// Of two files the first is read and the other written.
#[inline(always)]
fn direction_of_first(done: &Done) -> u32 {
    if done.flags & BOTH == BOTH { u32::from(READ) } else { BOTH }
}

/// Announces the file at that address, following it if need be; `is_checked`: [`fsi_account`] has just seen that it is the one we
/// follow. Its id; 0: it cannot be followed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_announce(address: u64, is_checked: u64) -> u64 {
    if address == 0 || config!(follow_files) == 0 {
        return 0;
    }
    if is_checked != 0
        && let Some(file) = FILES.get_ptr(address)
    {
        // SAFETY: a map value.
        let (announced, id) = unsafe { ((*file).announced, (*file).id) };
        if announced != 0 {
            return id;
        }
    }
    let Some(object) = FileAddress(address).object() else { return 0 };
    let Some(file) = follow(&object, 0) else { return 0 };
    announce(file, &object);
    // SAFETY: a map value.
    unsafe { (*file).id }
}

/// The verdict of the path globs on a file, worked out once.
#[inline(always)]
fn selected(file: *mut OpenFile, object: &Object) -> bool {
    if config!(path_filter) == 0 {
        return true;
    }
    // SAFETY: a map value; two CPUs that work it out come to the same verdict.
    unsafe {
        if (*file).verdict == 0 {
            let known = path::known(FileAddress(object.file).place());
            (*file).verdict = if known.selected { 1 } else { 2 };
        }
        (*file).verdict == 1
    }
}

/// Tells the agent of a file it does not know yet.
#[inline(always)]
fn announce(file: *mut OpenFile, object: &Object) {
    // SAFETY: a map value; should two CPUs announce at once, the agent takes the second as the same.
    if unsafe { (*file).announced } != 0 {
        return;
    }
    let address = FileAddress(object.file);
    let known = path::known(address.place());
    let task = Task::current();
    let (tgid, tid) = kernel::current_ids();
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: scratch of this CPU and a map value.
    unsafe {
        (*scratch).file_record.header =
            RecordHeader { kind: RecordKind::File as u16, detail: 0, len: size_of::<FileRecord>() as u32 };
        (*scratch).file_record.file_id = (*file).id;
        (*scratch).file_record.path_id = known.id;
        (*scratch).file_record.opened_ns = (*file).opened_ns;
        (*scratch).file_record.ino = object.ino;
        (*scratch).file_record.cgroup = task.cgroup();
        (*scratch).file_record.tgid = tgid;
        (*scratch).file_record.tid = tid;
        (*scratch).file_record.dev = object.dev;
        (*scratch).file_record.open_flags = address.flags();
        (*scratch).file_record.mode = object.mode as u16;
        (*scratch).file_record.path = known.state as u16;
        (*scratch).file_record.reserved = 0;
        (*scratch).file_record.comm = kernel::comm_bytes(task.comm());
        if emit::file(&(*scratch).file_record) {
            (*file).announced = 1;
        }
    }
}

/// One more operation on a file.
#[inline(always)]
fn add_to_totals(file: *mut OpenFile, done: &Done, flags: u32) {
    // SAFETY: a map value; sums are atomic, the two marks below may lose a race between two calls that end together.
    let totals = unsafe { &mut (*file).totals };
    add(&raw mut totals.operations, 1);
    add(&raw mut totals.duration_ns, done.duration_ns);
    if done.errno != 0 {
        add(&raw mut totals.errors, 1);
    }
    if flags & u32::from(READ) != 0 {
        add(&raw mut totals.reads, 1);
        add(&raw mut totals.bytes_read, done.bytes);
    }
    if flags & u32::from(WRITTEN) != 0 {
        add(&raw mut totals.writes, 1);
        add(&raw mut totals.bytes_written, done.bytes);
    }
    if totals.max_ns < done.duration_ns {
        totals.max_ns = done.duration_ns;
    }
    totals.last_ns = done.start_ns + done.duration_ns;
}

/// Ends a followed file: only the one whose removal succeeds tells the agent.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_end(address: u64, kind: u32) -> u64 {
    let (Some(file), Some(scratch)) = (FILES.get_ptr(address), SCRATCH.get_ptr_mut(0)) else { return 0 };
    // SAFETY: a map value, copied before the removal, and scratch of this CPU.
    unsafe {
        let announced = (*file).announced != 0;
        (*scratch).close_record.header =
            RecordHeader { kind: RecordKind::Close as u16, detail: kind as u16, len: size_of::<CloseRecord>() as u32 };
        (*scratch).close_record.file_id = (*file).id;
        (*scratch).close_record.closed_ns = kernel::now_ns();
        copy_totals(&raw const (*file).totals, &raw mut (*scratch).close_record.totals);
        if FILES.remove(address).is_ok() && announced {
            emit::close(&(*scratch).close_record);
        }
    }
    1
}

/// Ends the file at an address if its last reference is gone. The inode tells whether it is the one that the call closed, or one that
/// stood there before and ended unseen.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fsi_end_if_dead(address: u64, inode: u64) -> u64 {
    if !FileAddress(address).is_dead() {
        return 0;
    }
    let Some(file) = FILES.get_ptr(address) else { return 0 };
    // SAFETY: a map value.
    let kind = if unsafe { (*file).inode } == inode { CloseKind::Closed } else { CloseKind::Unseen };
    fsi_end(address, kind as u32)
}

/// A walk over a descriptor table.
#[repr(C)]
struct Table {
    array: u64,
    length: u64,
}

unsafe extern "C" fn at_exit(descriptor: u32, table: *mut Table) -> i64 {
    // SAFETY: bpf_loop hands through the pointer to the caller's Table.
    let table = unsafe { &*table };
    if u64::from(descriptor) >= table.length {
        return 1;
    }
    let address = kernel::read::<u64>(table.array, descriptor as usize * 8).unwrap_or(0);
    if address != 0 && FileAddress(address).has_one_reference() {
        fsi_end(address, CloseKind::Exit as u32);
    }
    0
}

/// Most descriptors that are looked at when a process ends; what is over is found by the sweep.
const DESCRIPTORS_AT_EXIT: u32 = 1 << 16;

/// Ends the files that only this task holds, which is about to give up its descriptor table.
#[inline(always)]
pub(crate) fn end_all_of(task: Task) {
    if task.descriptor_table_users() != 1 {
        return;
    }
    let Some((array, length)) = task.descriptors() else { return };
    let mut table = Table { array, length: u64::from(length) };
    // SAFETY: the callback takes what is passed here, and the loop is over before `table` goes out of scope.
    unsafe { bpf_loop(DESCRIPTORS_AT_EXIT, at_exit as *mut c_void, addr_of_mut!(table).cast(), 0) };
}

unsafe extern "C" fn sweep_one(
    _map: *mut c_void,
    address: *mut u64,
    file: *mut OpenFile,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: the helper hands the key and value of an element.
    let (address, inode, dentry) = unsafe { (*address, (*file).inode, (*file).dentry) };
    let now = FileAddress(address);
    if now.is_dead() || now.inode() != inode || now.dentry() != dentry {
        fsi_end(address, CloseKind::Unseen as u32);
    }
    0
}

/// Ends the files that died unseen.
#[inline(always)]
pub(crate) fn sweep() {
    let map = core::ptr::addr_of!(FILES).cast_mut().cast();
    // SAFETY: the callback has the form that the helper calls.
    unsafe { bpf_for_each_map_elem(map, sweep_one as *mut c_void, null_mut(), 0) };
}
